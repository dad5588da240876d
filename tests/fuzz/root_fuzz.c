// kb_root_parse must accept or refuse anything; what it accepts has roles whose thresholds can be reached by its keys.
#include "storage/root.h"
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const uint8_t hash[KB_KEY_ID];
	struct kb_root r;
	if (kb_root_parse(data, size, NULL, &r) != KB_OK)
		return 0;
	for (int role = 0; role < KB_ROLES; role++) {
		if (r.roles[role].threshold > r.roles[role].n || r.roles[role].n > r.n_keys)
			abort();
		for (uint32_t i = 0; i < r.roles[role].n; i++)
			if (r.roles[role].key[i] >= r.n_keys)
				abort();
	}
	(void)kb_root_is_revoked(&r, hash); // reads all of the list
	return 0;
}
