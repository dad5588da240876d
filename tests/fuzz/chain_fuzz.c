// kb_chain_parse and kb_bundle_head_parse must accept or refuse anything, and what they accept is written as it was
// read.
#include "storage/bundle_head.h"
#include <stdlib.h>
#include <string.h>

static struct kb_chain chain;
static struct kb_bundle_head head;

static void same(const struct kb_buf *b, const uint8_t *data, size_t size)
{
	if (b->len != size || memcmp(b->data, data, size) != 0)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct kb_err err;
	struct kb_buf b = {0};
	if (kb_chain_parse(data, size, &err, &chain) == KB_OK) {
		if (kb_chain_write(&chain, &err, &b) != KB_OK)
			abort();
		same(&b, data, size);
		(void)!kb_chain_check(&chain, true, &err);
	} else if (kb_bundle_head_parse(data, size, &err, &head) == KB_OK) {
		if (head.len > size || head.chain.n == 0)
			abort();
		if (kb_bundle_head_write(&head, &err, &b) == KB_OK && b.len % 4096 != 0)
			abort();
	}
	kb_buf_finish(&b);
	return 0;
}
