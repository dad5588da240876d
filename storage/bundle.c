#include "storage/bundle.h"
#include "storage/bundle_head.h"
#include "storage/delta.h"
#include "storage/fields.h"
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define MAGIC "KBBUNDL1"
#define HEAD_BYTES 16u                                       // magic, u32 roots, u32 encoding of the payload
#define PAIR_BYTES 8u                                        // u32 length, u32 length of the signatures over it
#define UNIT_MAX (KB_MANIFEST_MAX + KB_SIGNATURES_BYTES_MAX) // the largest: KB_DELTA_RUNS_MAX runs are less
_Static_assert(KB_DELTA_RUNS_MAX *KB_DELTA_RUN <= UNIT_MAX, "a delta's runs are read as one unit");

enum state { HEAD, ROOT_HEAD, ROOT, MANIFEST_HEAD, MANIFEST, DELTA_HEAD, DELTA_RUNS, BLOCKS, END };

struct kb_bundle {
	struct kb_bundle_events events;
	enum kb_role role;
	bool allow_test;
	uint64_t firmware;
	uint8_t *trusted; // bytes of `root`
	size_t trusted_len;
	struct kb_root root;
	uint64_t last_version; // of the roots in the bundle
	enum state state;
	uint32_t roots_left;
	size_t thing_len; // of the pair that is being read
	uint64_t offset;  // bytes fed and used
	size_t have, need;
	uint8_t *unit;    // UNIT_MAX
	uint8_t *signed_; // the manifest's bytes, and the signatures over them
	size_t signed_len, signatures_len;
	struct kb_manifest manifest;
	uint8_t digest[KB_VERITY_HASH];
	uint32_t encoding;
	struct kb_delta delta;
	uint8_t *copied; // of a delta: data of one block of level 1
	struct kb_verity_reader verity;
	struct kb_err failed;
};

static void expect(struct kb_bundle *b, enum state state, size_t need)
{
	b->state = state;
	b->need = need;
	b->have = 0;
}

static int trust(struct kb_bundle *b, const uint8_t *bytes, size_t len, struct kb_err *err)
{
	uint8_t *copy = malloc(len);
	if (!copy)
		return kb_fail(err, KB_ENOMEM, "out of memory");
	memcpy(copy, bytes, len);
	int rc = kb_root_parse(copy, len, err, &b->root);
	if (rc != KB_OK) {
		free(copy);
		return rc;
	}
	free(b->trusted);
	b->trusted = copy;
	b->trusted_len = len;
	return KB_OK;
}

/* see bundle.h */
int kb_bundle_create(const struct kb_bundle_policy *policy, const struct kb_bundle_events *events, struct kb_err *err,
	struct kb_bundle **ret)
{
	struct kb_bundle *b = calloc(1, sizeof *b);
	if (!b)
		return kb_fail(err, KB_ENOMEM, "out of memory");
	b->events = *events;
	b->role = policy->role;
	b->allow_test = policy->allow_test;
	b->firmware = policy->firmware;
	b->unit = malloc(UNIT_MAX);
	int rc = b->unit ? trust(b, policy->root, policy->root_len, err) : kb_fail(err, KB_ENOMEM, "out of memory");
	if (rc != KB_OK) {
		kb_bundle_destroy(b);
		return rc;
	}
	expect(b, HEAD, HEAD_BYTES);
	*ret = b;
	return KB_OK;
}

/* see bundle.h */
void kb_bundle_destroy(struct kb_bundle *b)
{
	if (!b)
		return;
	free(b->trusted);
	free(b->unit);
	free(b->signed_);
	free((void *)(uintptr_t)b->delta.runs);
	free(b->copied);
	free(b);
}

/* see bundle.h */
void kb_bundle_signed(const struct kb_bundle *b, struct kb_signed *ret)
{
	*ret = (struct kb_signed){
		.bytes = b->signed_,
		.len = b->signed_len,
		.signatures = b->signed_ + b->signed_len,
		.signatures_len = b->signatures_len,
	};
}

static int take_head(struct kb_bundle *b, struct kb_err *err)
{
	uint64_t roots = kb_field_get(b->unit + 8, 4), encoding = kb_field_get(b->unit + 12, 4);
	if (memcmp(b->unit, MAGIC, 8) != 0)
		return kb_fail(err, KB_EBAD, "this is no signed model image");
	if (encoding >= KB_BUNDLE_ENCODINGS)
		return kb_fail(
			err, KB_EUNSUPPORTED, "its payload is encoded as %" PRIu64 ", which needs a newer firmware", encoding);
	if (roots == 0 || roots > KB_BUNDLE_ROOTS_MAX)
		return kb_fail(err, KB_EBAD, "%" PRIu64 " roots, 1 to %u are possible", roots, KB_BUNDLE_ROOTS_MAX);
	if (encoding == KB_BUNDLE_DELTA && !b->events.base)
		return kb_fail(err, KB_EUNSUPPORTED, "it is a delta: only a box that has its base can read it");
	b->encoding = (uint32_t)encoding;
	b->roots_left = (uint32_t)roots;
	expect(b, ROOT_HEAD, PAIR_BYTES);
	return KB_OK;
}

static int take_pair_head(struct kb_bundle *b, enum state next, size_t most, struct kb_err *err)
{
	uint64_t len = kb_field_get(b->unit, 4), signatures = kb_field_get(b->unit + 4, 4);
	if (len == 0 || len > most || signatures > KB_SIGNATURES_BYTES_MAX)
		return kb_fail(err, KB_ELIMIT, "%" PRIu64 " bytes with %" PRIu64 " of signatures; at most %zu and %u", len,
			signatures, most, KB_SIGNATURES_BYTES_MAX);
	b->thing_len = len;
	expect(b, next, (size_t)(len + signatures));
	return KB_OK;
}

// A root of the chain: older ones are known, the trusted one must be the same, the next one must follow.
static int take_root(struct kb_bundle *b, struct kb_err *err)
{
	struct kb_root r;
	struct kb_signatures s;
	int rc = kb_root_parse(b->unit, b->thing_len, err, &r);
	if (rc != KB_OK)
		return rc;
	if (b->last_version && r.version != b->last_version + 1)
		return kb_fail(err, KB_EBAD, "root %" PRIu64 " comes behind root %" PRIu64, r.version, b->last_version);
	b->last_version = r.version;
	if (memcmp(r.fleet, b->root.fleet, KB_ROOT_FLEET) != 0)
		return kb_fail(err, KB_EDENIED, "it is for another fleet of boxes");
	if (r.version == b->root.version &&
		(b->thing_len != b->trusted_len || memcmp(b->unit, b->trusted, b->trusted_len) != 0))
		return kb_fail(err, KB_EDENIED, "root %" PRIu64 " is not the one that this box trusts", r.version);
	if (r.version > b->root.version) {
		rc = kb_signatures_parse(b->unit + b->thing_len, b->need - b->thing_len, err, &s);
		if (rc == KB_OK)
			rc = kb_root_follows(&b->root, &r, b->unit, b->thing_len, &s, b->allow_test, err);
		if (rc == KB_OK)
			rc = trust(b, b->unit, b->thing_len, err);
		const struct kb_signed signed_ = {b->trusted, b->unit + b->thing_len, b->trusted_len, b->need - b->thing_len};
		if (rc == KB_OK && b->events.root)
			rc = b->events.root(b->events.ctx, &b->root, &signed_, err);
		if (rc != KB_OK)
			return rc;
	}
	b->roots_left--;
	expect(b, b->roots_left ? ROOT_HEAD : MANIFEST_HEAD, PAIR_BYTES);
	return KB_OK;
}

static int take_block(struct kb_bundle *b, const uint8_t *block, struct kb_err *err)
{
	uint64_t at;
	size_t len = kb_verity_next(&b->verity, &at);
	int rc = kb_verity_take(&b->verity, block, err);
	if (rc == KB_OK && at != KB_VERITY_TREE && b->events.data)
		rc = b->events.data(b->events.ctx, at, block, len, err);
	return rc;
}

// Data blocks [first, first + n) of the new file, out of the base.
static int copy_blocks(struct kb_bundle *b, uint64_t first, uint64_t n, uint8_t *ret, struct kb_err *err)
{
	for (uint64_t i = 0; i < n; i++) {
		uint64_t source = 0;
		if (!kb_delta_find(&b->delta, first + i, &source))
			return kb_fail(err, KB_EARG, "a block that is not copied");
		int rc =
			b->events.copy(b->events.ctx, source * KB_VERITY_BLOCK, ret + i * KB_VERITY_BLOCK, KB_VERITY_BLOCK, err);
		if (rc != KB_OK)
			return rc;
	}
	return KB_OK;
}

// What does not come because the base has it: copied data, and blocks of level 1 that have only such under them.
static int take_copied(struct kb_bundle *b, bool *ret_is_copied, struct kb_err *err)
{
	struct kb_verity_reader *v = &b->verity;
	const uint64_t first = v->level ? v->index * KB_VERITY_FANOUT : v->index;
	const uint64_t left = v->shape.blocks[0] - first;
	const uint64_t n = !v->level ? 1 : left < KB_VERITY_FANOUT ? left : KB_VERITY_FANOUT;
	uint8_t tree[KB_VERITY_BLOCK] = {0};
	*ret_is_copied = !v->is_over && v->level <= 1 && kb_delta_has_all(&b->delta, first, n);
	if (!*ret_is_copied)
		return KB_OK;
	int rc = copy_blocks(b, first, n, b->copied, err);
	if (rc == KB_OK && v->level)
		kb_verity_hashes(b->copied, n * KB_VERITY_BLOCK, tree);
	if (rc == KB_OK && take_block(b, v->level ? tree : b->copied, err))
		rc = kb_fail(err, KB_ECORRUPT,
			"block %" PRIu64 " of the model, copied from its base, is not the signed one: the base is damaged, or the "
			"delta is",
			first);
	return rc;
}

// Takes what the base has, up to the next block that comes in the stream.
static int next_block(struct kb_bundle *b, struct kb_err *err)
{
	bool is_copied = b->encoding == KB_BUNDLE_DELTA;
	uint64_t data;
	while (is_copied) {
		int rc = take_copied(b, &is_copied, err);
		if (rc != KB_OK)
			return rc;
	}
	size_t need = kb_verity_next(&b->verity, &data);
	expect(b, need ? BLOCKS : END, need);
	return KB_OK;
}

// The box's turn: versions, floors, room. From then on blocks are expected.
static int begin_blocks(struct kb_bundle *b, struct kb_err *err)
{
	int rc = b->events.manifest ? b->events.manifest(b->events.ctx, &b->manifest, b->digest, err) : KB_OK;
	if (rc != KB_OK)
		return rc;
	kb_verity_read(&b->verity, b->manifest.payload_bytes, b->manifest.payload_root);
	return next_block(b, err);
}

static int take_manifest(struct kb_bundle *b, struct kb_err *err)
{
	struct kb_signatures s;
	int rc = kb_signatures_parse(b->unit + b->thing_len, b->need - b->thing_len, err, &s);
	if (rc == KB_OK) // before a byte of it is looked at
		rc = kb_root_signed(
			&b->root, b->role, kb_manifest_domain(b->role), b->unit, b->thing_len, &s, b->allow_test, err);
	if (rc != KB_OK)
		return rc;
	if (!(b->signed_ = malloc(b->need)))
		return kb_fail(err, KB_ENOMEM, "out of memory");
	memcpy(b->signed_, b->unit, b->need);
	b->signed_len = b->thing_len;
	b->signatures_len = b->need - b->thing_len;
	rc = kb_manifest_parse(b->signed_, b->thing_len, err, &b->manifest);
	if (rc != KB_OK)
		return rc;
	if (kb_manifest_role(&b->manifest) != b->role)
		return kb_fail(err, KB_EDENIED, "it was signed as another kind of thing than it says it is");
	if (b->manifest.min_firmware > b->firmware)
		return kb_fail(err, KB_EUNSUPPORTED, "it needs firmware %" PRIu64 ", this is %" PRIu64,
			b->manifest.min_firmware, b->firmware);
	kb_verity_digest(b->manifest.payload_bytes, b->manifest.payload_root, b->digest);
	if (kb_root_is_revoked(&b->root, b->digest))
		return kb_fail(err, KB_EDENIED, "this image was revoked by root %" PRIu64, b->root.version);
	if (b->encoding == KB_BUNDLE_WHOLE)
		return begin_blocks(b, err);
	expect(b, DELTA_HEAD, KB_DELTA_HEAD);
	return KB_OK;
}

static int take_runs(struct kb_bundle *b, const uint8_t *runs, struct kb_err *err)
{
	const size_t len = (size_t)b->delta.n * KB_DELTA_RUN;
	uint8_t *copy = malloc(len + 1);
	b->copied = malloc(KB_VERITY_FANOUT * (size_t)KB_VERITY_BLOCK);
	if (!copy || !b->copied) {
		free(copy);
		return kb_fail(err, KB_ENOMEM, "out of memory");
	}
	if (len)
		memcpy(copy, runs, len);
	b->delta.runs = copy;
	int rc = kb_delta_check(&b->delta, b->manifest.payload_bytes / KB_VERITY_BLOCK, err);
	rc = rc ? rc : b->events.base(b->events.ctx, b->delta.base, err);
	return rc ? rc : begin_blocks(b, err);
}

static int take_delta_head(struct kb_bundle *b, struct kb_err *err)
{
	int rc = kb_delta_head(b->unit, err, &b->delta);
	if (rc != KB_OK || b->delta.n == 0)
		return rc ? rc : take_runs(b, NULL, err);
	expect(b, DELTA_RUNS, (size_t)b->delta.n * KB_DELTA_RUN);
	return KB_OK;
}

static int take(struct kb_bundle *b, const uint8_t *unit, struct kb_err *err)
{
	int rc;
	switch (b->state) {
	case HEAD:
		return take_head(b, err);
	case ROOT_HEAD:
		return take_pair_head(b, ROOT, KB_ROOT_MAX, err);
	case ROOT:
		return take_root(b, err);
	case MANIFEST_HEAD:
		return take_pair_head(b, MANIFEST, KB_MANIFEST_MAX, err);
	case MANIFEST:
		return take_manifest(b, err);
	case DELTA_HEAD:
		return take_delta_head(b, err);
	case DELTA_RUNS:
		return take_runs(b, unit, err);
	case BLOCKS:
		rc = take_block(b, unit, err);
		return rc ? rc : next_block(b, err);
	case END:
		break;
	}
	return kb_fail(err, KB_EBAD, "there is something behind the end");
}

/* see bundle.h */
int kb_bundle_feed(struct kb_bundle *b, const void *bytes, size_t len, struct kb_err *err)
{
	const uint8_t *p = bytes;
	while (len && !b->failed.code) {
		size_t n = b->need - b->have < len ? b->need - b->have : len;
		const uint8_t *unit = b->unit;
		if (b->state == BLOCKS && b->have == 0 && n == b->need)
			unit = p; // whole blocks are proven where they lie
		else
			memcpy(b->unit + b->have, p, n);
		b->have += n;
		int rc = b->have == b->need ? take(b, unit, &b->failed) : KB_OK;
		if (rc != KB_OK) {
			b->failed.code = rc; // an event may have left it out
			kb_err_wrap(&b->failed, "image, at byte %" PRIu64 ": ", b->offset);
		}
		b->offset += n;
		p += n;
		len -= n;
	}
	if (b->failed.code && err)
		*err = b->failed;
	return b->failed.code;
}

/* see bundle.h */
int kb_bundle_end(const struct kb_bundle *b, struct kb_err *err)
{
	if (b->failed.code) {
		if (err)
			*err = b->failed;
		return b->failed.code;
	}
	if (b->state != END)
		return kb_fail(err, KB_EBAD, "image: it ends at byte %" PRIu64 ", before all of it is there", b->offset);
	return KB_OK;
}
