// kb_site_network_parse must accept or refuse anything; what it accepts is written as a text that means the same.
#include "site/network.h"
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct kb_site_network n, again;
	struct kb_buf b = {0};
	if (kb_site_network_parse((const char *)data, size, NULL, &n) != KB_OK)
		return 0;
	if (kb_site_network_format(&n, &b) || kb_site_network_parse((const char *)b.data, b.len, NULL, &again) != KB_OK)
		abort();
	if (n.is_fixed != again.is_fixed || n.address != again.address || n.prefix != again.prefix ||
		n.gateway != again.gateway || n.n_times != again.n_times || strcmp(n.name, again.name) != 0)
		abort();
	kb_buf_finish(&b);
	return 0;
}
