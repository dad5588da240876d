// Where the groups of a chain wait for each other. This asks more than Vulkan promises, that all groups make progress side
// by side; so the host tries it first (resident.comp), and a wait ends after `patience` rounds, with a word set.
// False: they did not all come.
bool chain_meet(uint64_t meet, uint i, uint patience)
{
	uint here = 0, rounds = 0;
	memoryBarrierBuffer();
	if (gl_SubgroupInvocationID == 0)
		atomicAdd(Words(meet).v[KB_CHAIN_MEET + i], 1);
	do {
		if (gl_SubgroupInvocationID == 0)
			here = atomicAdd(Words(meet).v[KB_CHAIN_MEET + i], 0);
		here = subgroupBroadcast(here, 0);
		rounds++;
	} while (here < gl_NumWorkGroups.x && rounds < patience);
	bool met = here >= gl_NumWorkGroups.x;
	if (!met)
		Words(meet).v[KB_CHAIN_GAVE_UP] = 1;
	memoryBarrierBuffer();
	return met;
}
