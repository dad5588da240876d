// kb_unseal_feed must open or refuse anything, alike in any pieces, and give out only what was sealed: the corpus has
// two files for this key, which is the number 1 and no secret, made by `kotobako image seal`, with the same content.
#include "storage/seal.h"
#include <stdlib.h>
#include <string.h>

static const char pem[] = "-----BEGIN EC PRIVATE KEY-----\n"
						  "MHcCAQEEIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAABoAoGCCqGSM49\n"
						  "AwEHoUQDQgAEaxfR8uEsQkf4vOblY6RA8ncDfYEt6zOg9KE5RdiYwpZP40Li/hp/\n"
						  "m47n60p8D54WK84zV2sxXs7LtkBoN79R9Q==\n"
						  "-----END EC PRIVATE KEY-----\n";
static const char content[] = "forty bytes or so of something to be kept";

static int take(void *ctx, const uint8_t *bytes, size_t len, struct kb_err *err)
{
	size_t *have = ctx;
	(void)err;
	if (len > sizeof content - 1 - *have || memcmp(bytes, content + *have, len) != 0)
		abort();
	*have += len;
	return KB_OK;
}

static int run(const uint8_t *data, size_t size, size_t piece)
{
	struct kb_unseal *u;
	struct kb_err err;
	size_t have = 0;
	if (kb_unseal_begin(pem, take, &have, &err, &u))
		abort();
	int rc = KB_OK;
	for (size_t at = 0; at < size && rc == KB_OK; at += piece)
		rc = kb_unseal_feed(u, data + at, size - at < piece ? size - at : piece, &err);
	if (rc == KB_OK)
		rc = kb_unseal_end(u, &err);
	kb_unseal_destroy(u);
	if (rc == KB_OK && have != sizeof content - 1)
		abort();
	return rc;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (run(data, size, size ? size : 1) != run(data, size, 29))
		abort();
	return 0;
}
