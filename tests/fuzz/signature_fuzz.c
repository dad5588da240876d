// kb_signatures_parse must accept or refuse anything, and point only into what it was given.
#include "storage/signature.h"
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct kb_signatures s;
	if (kb_signatures_parse(data, size, NULL, &s) != KB_OK)
		return 0;
	for (uint32_t i = 0; i < s.n; i++)
		if (s.list[i].key_id < data || s.list[i].bytes + s.list[i].len > data + size)
			abort();
	return 0;
}
