// kb_bundle_feed must accept or refuse anything, alike in any pieces, and give out nothing that is not proven: the
// corpus has images that are signed, and a change to one must not reach its manifest.
#include "storage/bundle.h"
#include <stdlib.h>
#include <string.h>

#include "data/bundle.golden"

static int on_manifest(
	void *ctx, const struct kb_manifest *m, const uint8_t digest[static KB_VERITY_HASH], struct kb_err *err)
{
	(void)digest;
	(void)err;
	*(uint64_t *)ctx = m->version;
	return KB_OK;
}

static int on_base(void *ctx, const uint8_t digest[static KB_VERITY_HASH], struct kb_err *err)
{
	(void)ctx;
	return digest[0] == 0xba ? KB_OK : kb_fail(err, KB_ENOTFOUND, "another base");
}

static int on_copy(void *ctx, uint64_t offset, uint8_t *ret, size_t len, struct kb_err *err)
{
	(void)ctx;
	memset(ret, (int)(offset >> 12), len);
	return offset >> 40 ? kb_fail(err, KB_EIO, "beyond the base") : KB_OK;
}

static int run(const uint8_t *data, size_t size, size_t piece, uint64_t *ret_version)
{
	uint8_t root[sizeof FIRST / 2];
	const struct kb_bundle_events events = {
		.ctx = ret_version, .manifest = on_manifest, .base = on_base, .copy = on_copy};
	struct kb_bundle *b;
	struct kb_err err;
	for (size_t i = 0; i < sizeof root; i++) {
		char two[3] = {FIRST[2 * i], FIRST[2 * i + 1], 0};
		root[i] = (uint8_t)strtoul(two, NULL, 16);
	}
	if (kb_bundle_create(
			&(struct kb_bundle_policy){.role = KB_ROLE_MODEL, .root = root, .root_len = sizeof root, .firmware = 7},
			&events, &err, &b))
		abort();
	int rc = KB_OK;
	for (size_t at = 0; at < size && rc == KB_OK; at += piece)
		rc = kb_bundle_feed(b, data + at, size - at < piece ? size - at : piece, &err);
	if (rc == KB_OK)
		rc = kb_bundle_end(b, &err);
	kb_bundle_destroy(b);
	return rc;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint64_t whole = 0, pieces = 0;
	int a = run(data, size, size ? size : 1, &whole), b = run(data, size, 61, &pieces);
	if (a != b || whole != pieces || (whole != 0 && whole != 3)) // 3: the only version that was ever signed
		abort();
	return 0;
}
