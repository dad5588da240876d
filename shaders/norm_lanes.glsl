// RMS norm by one subgroup a vector, two elements a lane at a time. Groups: (vectors of a row, rows). The width is a
// multiple of 2 * SG, so that no lane is ever idle; see matmul_lanes.glsl about loops.
vec2 norm_get(uint64_t at, uint i)
{
	return uintBitsToFloat(unpackUint2x32(Long(at).v[i]));
}

void norm_put(uint64_t at, uint i, vec2 v)
{
	Long(at).v[i] = packUint2x32(floatBitsToUint(v));
}

// adds: whether p.add is added to p.x before.
void norm_lanes(kb_push_norm p, uvec2 group, bool adds)
{
	uint lane = gl_SubgroupInvocationID, n = p.width / 2;
	uint64_t base = uint64_t(group.y * p.groups + group.x) * (4 * p.width);
	precise float sum = 0.0;
	uint i = lane;
	do {
		precise vec2 x = norm_get(p.x + base, i);
		if (adds) {
			x = x + norm_get(p.add + base, i);
			norm_put(p.x + base, i, x);
		}
		sum = sum + x.x * x.x;
		sum = sum + x.y * x.y;
		i += SG;
	} while (i < n);
	precise float total = subgroupBroadcast(sum, 0);
	[[unroll]] for (uint l = 1; l < SG; l++) total = total + subgroupBroadcast(sum, l);
	precise float scale = 1.0 / sqrt(total / float(p.width) + p.eps);
	i = lane;
	do {
		precise vec2 x = norm_get(p.x + base, i) * scale;
		x = x * norm_get(p.weight, i);
		norm_put(p.outp + base, i, x);
		i += SG;
	} while (i < n);
}
