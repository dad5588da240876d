// Signed images that a Python program made after docs/images.md and openssl signed (tests/data/make_bundle_golden.py):
// the good ones come out whole, in pieces of any size; each attack has its error, and no byte of the model before its
// proof.
#include "storage/bundle.h"
#include "unit/storage/expect.h"

#include "data/bundle.golden"

enum payload { NONE, GOOD, OTHER, MIXED, REST };
#define ROWS
static const struct {
	const char *name;
	int trusts;
	const char *head;
	enum payload payload;
	int extra; // bytes behind the end; -1: the last one is missing
	int code;
} golden[] = {
#include "data/bundle.golden"
};
#define GOLDEN (sizeof golden / sizeof *golden)
#define DATA_BYTES (4096u + 5u)
#define FIRMWARE 7u

static size_t unhex(const char *text, uint8_t *ret)
{
	size_t n = strlen(text) / 2;
	for (size_t i = 0; i < n; i++) {
		char two[3] = {text[2 * i], text[2 * i + 1], 0};
		ret[i] = (uint8_t)strtoul(two, NULL, 16);
	}
	return n;
}

static uint8_t byte_at(uint64_t i)
{
	return (uint8_t)(i * 2654435761u >> 13 ^ i >> 7);
}

static int keep_block(void *ctx, uint32_t level, uint64_t index, const uint8_t block[static KB_VERITY_BLOCK])
{
	assert_int_equal(level, 1); // two blocks of data have one block of hashes
	assert_int_equal(index, 0);
	memcpy(ctx, block, KB_VERITY_BLOCK);
	return KB_OK;
}

// The stream of data that begins with byte_at(first). Returns its length.
static size_t stream_of(uint64_t first, uint8_t *ret)
{
	struct kb_err err = {0};
	struct kb_verity_builder *b = malloc(sizeof *b);
	assert_non_null(b);
	for (uint64_t i = 0; i < DATA_BYTES; i++)
		ret[KB_VERITY_BLOCK + i] = byte_at(first + i);
	kb_verity_build(b, DATA_BYTES);
	b->emit = keep_block;
	b->ctx = ret;
	assert_int_equal(kb_verity_add(b, ret + KB_VERITY_BLOCK, DATA_BYTES, &err), KB_OK);
	free(b);
	return KB_VERITY_BLOCK + DATA_BYTES;
}

static uint8_t *image_of(size_t row, size_t *ret_len)
{
	static uint8_t other[KB_VERITY_BLOCK + DATA_BYTES];
	uint8_t *image = malloc(64u << 10);
	assert_non_null(image);
	size_t at = unhex(golden[row].head, image), payload = at;
	if (golden[row].payload != NONE)
		at += stream_of(golden[row].payload == OTHER, image + at);
	if (golden[row].payload == REST) { // the first block of the data lies in the base
		memmove(image + payload + KB_VERITY_BLOCK, image + payload + 2 * KB_VERITY_BLOCK, DATA_BYTES - KB_VERITY_BLOCK);
		at -= KB_VERITY_BLOCK;
	}
	if (golden[row].payload == MIXED) {
		stream_of(1, other);
		memcpy(image + payload, other, KB_VERITY_BLOCK);
	}
	image[at] = 0;
	*ret_len = at + (size_t)golden[row].extra;
	return image;
}

struct seen {
	uint32_t roots, manifests;
	uint64_t root_version, version, data;
	uint8_t bytes[DATA_BYTES];
	int refuse; // what the manifest event says
};

static int on_root(void *ctx, const struct kb_root *root, const struct kb_signed *signed_, struct kb_err *err)
{
	struct seen *s = ctx;
	struct kb_root again;
	struct kb_signatures signatures;
	assert_int_equal(kb_root_parse(signed_->bytes, signed_->len, err, &again), KB_OK);
	assert_int_equal(kb_signatures_parse(signed_->signatures, signed_->signatures_len, err, &signatures), KB_OK);
	assert_true(signatures.n > 0);
	assert_int_equal(again.version, root->version);
	s->roots++;
	s->root_version = root->version;
	return KB_OK;
}

static int on_manifest(
	void *ctx, const struct kb_manifest *m, const uint8_t digest[static KB_VERITY_HASH], struct kb_err *err)
{
	struct seen *s = ctx;
	(void)digest;
	s->manifests++;
	s->version = m->version;
	assert_int_equal(m->payload_bytes, DATA_BYTES);
	return s->refuse ? kb_fail(err, s->refuse, "refused by the test") : KB_OK;
}

// The base of the golden deltas: its fourth block is the first of the good payload.
static int on_base(void *ctx, const uint8_t digest[static KB_VERITY_HASH], struct kb_err *err)
{
	(void)ctx;
	for (size_t i = 0; i < KB_VERITY_HASH; i++)
		if (digest[i] != 0xba)
			return kb_fail(err, KB_ENOTFOUND, "another base");
	return KB_OK;
}

static int on_copy(void *ctx, uint64_t offset, uint8_t *ret, size_t len, struct kb_err *err)
{
	(void)ctx, (void)err;
	for (size_t i = 0; i < len; i++)
		ret[i] = offset == 3 * KB_VERITY_BLOCK ? byte_at(i) : 0;
	return KB_OK;
}

static int on_data(void *ctx, uint64_t offset, const uint8_t *bytes, size_t len, struct kb_err *err)
{
	struct seen *s = ctx;
	(void)err;
	assert_int_equal(s->manifests, 1);
	assert_int_equal(offset, s->data);
	assert_true(len <= sizeof s->bytes - s->data);
	memcpy(s->bytes + s->data, bytes, len);
	s->data += len;
	return KB_OK;
}

// Reads an image in pieces of that many bytes.
static int read_image(const uint8_t *image, size_t len, size_t piece, int trusts, struct seen *s, struct kb_err *err)
{
	uint8_t root[4096];
	const struct kb_bundle_events events = {
		.ctx = s, .root = on_root, .manifest = on_manifest, .base = on_base, .copy = on_copy, .data = on_data};
	struct kb_bundle_policy policy = {.role = KB_ROLE_MODEL, .root = root, .firmware = FIRMWARE};
	struct kb_bundle *b;
	policy.root_len = unhex(trusts == 1 ? FIRST : SECOND, root);
	assert_int_equal(kb_bundle_create(&policy, &events, err, &b), KB_OK);
	int rc = KB_OK;
	for (size_t at = 0; at < len && rc == KB_OK; at += piece)
		rc = kb_bundle_feed(b, image + at, len - at < piece ? len - at : piece, err);
	if (rc == KB_OK)
		rc = kb_bundle_end(b, err);
	else
		assert_int_equal(kb_bundle_end(b, err), rc); // once failed it stays so
	kb_bundle_destroy(b);
	return rc;
}

static void rows_as_expected(void **state)
{
	static const size_t pieces[] = {1u << 20, 4096, 1000, 1};
	uint8_t data[DATA_BYTES];
	(void)state;
	for (uint64_t i = 0; i < DATA_BYTES; i++)
		data[i] = byte_at(i);
	for (size_t row = 0; row < GOLDEN; row++) {
		size_t len;
		uint8_t *image = image_of(row, &len);
		for (size_t p = 0; p < sizeof pieces / sizeof *pieces; p++) {
			struct seen s = {0};
			struct kb_err err = {0};
			int rc = read_image(image, len, pieces[p], golden[row].trusts, &s, &err);
			if (rc != golden[row].code)
				fail_msg("%s: %d, expected %d (%s)", golden[row].name, rc, golden[row].code, err.text);
			assert_memory_equal(s.bytes, data, s.data); // what came was right, whatever came of the rest
			if (rc == KB_OK) {
				assert_int_equal(s.data, DATA_BYTES);
				assert_int_equal(s.version, 3);
			}
			if (rc == KB_EDENIED || golden[row].payload == OTHER)
				assert_int_equal(s.data, 0);
		}
		free(image);
	}
}

static void new_roots_are_told(void **state)
{
	struct kb_err err = {0};
	size_t len;
	(void)state;
	uint8_t *image = image_of(1, &len);
	struct seen s = {0}, known = {0};
	assert_int_equal(read_image(image, len, len, 1, &s, &err), KB_OK);
	assert_int_equal(s.roots, 1);
	assert_int_equal(s.root_version, 2);
	assert_int_equal(read_image(image, len, len, 2, &known, &err), KB_OK);
	assert_int_equal(known.roots, 0);
	free(image);
}

static void the_caller_may_refuse(void **state)
{
	struct kb_err err = {0};
	struct seen s = {.refuse = KB_ENOSPACE};
	size_t len;
	(void)state;
	uint8_t *image = image_of(0, &len);
	assert_int_equal(read_image(image, len, 100, 1, &s, &err), KB_ENOSPACE);
	assert_non_null(strstr(err.text, "refused by the test"));
	assert_int_equal(s.data, 0);
	free(image);
}

// Every bit of everything before the payload, and bits of every byte of it. Only what is not read may be turned: the
// signatures over roots that are known (their keys and numbers, not their heads).
static void no_bit_may_be_turned(void **state)
{
	struct kb_err err = {0};
	size_t len, unread = 0;
	(void)state;
	uint8_t *image = image_of(0, &len);
	size_t head = strlen(golden[0].head) / 2, root = strlen(FIRST) / 2;
	size_t signatures = image[20] | (size_t)image[21] << 8;
	for (size_t bit = 0; bit < 8 * len; bit += bit / 8 < head ? 1 : 11) {
		struct seen s = {0};
		image[bit / 8] ^= (uint8_t)(1u << bit % 8);
		int rc = read_image(image, len, len, 1, &s, &err);
		bool is_unread = bit / 8 >= 24 + root && bit / 8 < 24 + root + signatures;
		assert_true(is_unread ? rc == KB_OK : rc != KB_OK);
		unread += is_unread;
		image[bit / 8] ^= (uint8_t)(1u << bit % 8);
	}
	assert_int_equal(unread, 8 * signatures);
	for (size_t n = 0; n < len; n += n < head ? 1 : 97) {
		struct seen s = {0};
		assert_int_not_equal(read_image(image, n, n ? n : 1, 1, &s, &err), KB_OK);
	}
	free(image);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(rows_as_expected),
		cmocka_unit_test(new_roots_are_told),
		cmocka_unit_test(the_caller_may_refuse),
		cmocka_unit_test(no_bit_may_be_turned),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
