// kb_manifest_parse must accept or refuse anything; what it accepts must, written again, parse to the same fields, and
// be the same bytes where nothing from the future was passed over.
#include "storage/manifest.h"
#include <stdlib.h>
#include <string.h>

static int differ(struct kb_str a, struct kb_str b)
{
	return a.len != b.len || (a.len && memcmp(a.data, b.data, a.len) != 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static uint8_t again[KB_MANIFEST_MAX], third[KB_MANIFEST_MAX];
	struct kb_manifest m, n;
	size_t len, len3;
	if (kb_manifest_parse(data, size, NULL, &m) != KB_OK)
		return 0;
	if (kb_manifest_write(&m, sizeof again, NULL, again, &len) != KB_OK || len > size)
		abort();
	if (kb_manifest_parse(again, len, NULL, &n) != KB_OK || differ(m.model, n.model) || differ(m.quality, n.quality) ||
		m.version != n.version || m.payload_bytes != n.payload_bytes ||
		memcmp(m.payload_root, n.payload_root, KB_MANIFEST_HASH) != 0)
		abort();
	if (kb_manifest_write(&n, sizeof third, NULL, third, &len3) != KB_OK || len3 != len ||
		memcmp(again, third, len) != 0)
		abort();
	if (len == size && memcmp(again, data, size) != 0)
		abort();
	return 0;
}
