// Sealed files: each receiver opens them, nobody else does, and whatever is changed, cut, moved or appended is found
// before a byte of it is handed on. That others read and write the same format: tests/e2e/seal_test.py.
#include "storage/seal.h"
#include "storage/seal_key.h"
#include "storage/signing.h"
#include "unit/storage/expect.h"

#define KEYS 3u

static struct kb_buf secret[KEYS];
static struct kb_public_key public[KEYS];

static void make_keys(void)
{
	for (uint32_t i = 0; i < KEYS; i++) {
		struct kb_buf text = {0};
		struct kb_err err;
		assert_int_equal(kb_key_new(i == 1 ? KB_CURVE_P384 : KB_CURVE_P256, &err, &secret[i], &text), KB_OK);
		assert_int_equal(kb_public_key_read((const char *)text.data, &err, &public[i]), KB_OK);
		kb_buf_finish(&text);
	}
}

static int into(void *ctx, const uint8_t *bytes, size_t len, struct kb_err *err)
{
	(void)err;
	return kb_buf_append(ctx, bytes, len);
}

static uint8_t *make_plain(size_t len)
{
	uint8_t *p = malloc(len + 1);
	assert_non_null(p);
	for (size_t i = 0; i < len; i++)
		p[i] = (uint8_t)(i * 2654435761u >> 11);
	return p;
}

static struct kb_buf seal(const uint8_t *plain, size_t len, size_t piece, uint32_t receivers)
{
	struct kb_seal *s = NULL;
	struct kb_buf out = {0};
	struct kb_err err = {0};
	assert_int_equal(kb_seal_begin(public, receivers, into, &out, &err, &s), KB_OK);
	for (size_t at = 0; at < len; at += piece)
		assert_int_equal(kb_seal_feed(s, plain + at, len - at < piece ? len - at : piece, &err), KB_OK);
	assert_int_equal(kb_seal_end(s, &err), KB_OK);
	kb_seal_destroy(s);
	return out;
}

static int unseal(const uint8_t *bytes, size_t len, size_t piece, uint32_t key, struct kb_buf *out, struct kb_err *err)
{
	struct kb_unseal *u = NULL;
	out->len = 0;
	assert_int_equal(kb_unseal_begin((const char *)secret[key].data, into, out, err, &u), KB_OK);
	int rc = KB_OK;
	for (size_t at = 0; at < len && rc == KB_OK; at += piece)
		rc = kb_unseal_feed(u, bytes + at, len - at < piece ? len - at : piece, err);
	if (rc == KB_OK)
		rc = kb_unseal_end(u, err);
	else
		assert_int_equal(kb_unseal_end(u, err), rc); // once failed it stays so
	kb_unseal_destroy(u);
	return rc;
}

static void each_receiver_reads_it(void **state)
{
	static const size_t sizes[] = {0, 1, 65535, 65536, 65537, 131072, 200001}, pieces[] = {1u << 20, 65536, 1001};
	struct kb_buf out = {0};
	struct kb_err err = {0};
	(void)state;
	for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
		uint8_t *plain = make_plain(sizes[i]);
		for (size_t p = 0; p < sizeof pieces / sizeof *pieces; p++) {
			struct kb_buf sealed = seal(plain, sizes[i], pieces[p], 2);
			assert_true(kb_seal_is(sealed.data, sealed.len));
			for (uint32_t key = 0; key < 2; key++) {
				assert_int_equal(unseal(sealed.data, sealed.len, pieces[2 - p], key, &out, &err), KB_OK);
				assert_int_equal(out.len, sizes[i]);
				assert_memory_equal(out.data ? out.data : plain, plain, sizes[i]);
			}
			assert_int_equal(unseal(sealed.data, sealed.len, 4096, 2, &out, &err), KB_EDENIED);
			assert_int_equal(out.len, 0);
			kb_buf_finish(&sealed);
		}
		free(plain);
	}
	kb_buf_finish(&out);
}

// Every bit of the header and of a short content: what is for others may be anything only as far as their row goes, and
// even that the first chunk notices.
static void no_bit_may_be_turned(void **state)
{
	struct kb_buf out = {0};
	struct kb_err err = {0};
	uint8_t *plain = make_plain(40);
	(void)state;
	struct kb_buf sealed = seal(plain, 40, 40, 2);
	for (size_t bit = 0; bit < 8 * sealed.len; bit++) {
		sealed.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
		if (unseal(sealed.data, sealed.len, 1u << 20, 1, &out, &err) == KB_OK || out.len)
			fail_msg("bit %zu was turned, and nobody noticed", bit);
		sealed.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
	}
	assert_int_equal(unseal(sealed.data, sealed.len, 7, 1, &out, &err), KB_OK);
	kb_buf_finish(&sealed);
	kb_buf_finish(&out);
	free(plain);
}

static void chunks_stay_where_they_are(void **state)
{
	const size_t chunk = KB_SEAL_CHUNK + KB_SEAL_TAG, head = KB_SEAL_HEAD + KB_SEAL_ROW, size = 3 * KB_SEAL_CHUNK + 5;
	struct kb_buf out = {0}, other = {0};
	struct kb_err err = {0};
	uint8_t *plain = make_plain(size);
	(void)state;
	struct kb_buf sealed = seal(plain, size, size, 1);
	assert_int_equal(sealed.len, head + 3 * chunk + 5 + KB_SEAL_TAG);
	for (size_t cut = 0; cut < sealed.len; cut += cut < head ? 1 : chunk / 4) { // borders of chunks among them
		assert_true(unseal(sealed.data, cut, 1u << 20, 0, &out, &err) != KB_OK);
		assert_true(out.len % KB_SEAL_CHUNK == 0 && out.len <= cut);
		assert_memory_equal(out.data ? out.data : plain, plain, out.len);
	}
	for (size_t n = 1; n <= 3; n++) { // at their very ends
		assert_int_equal(unseal(sealed.data, head + n * chunk, 1u << 20, 0, &out, &err), KB_ECORRUPT);
		assert_non_null(strstr(err.text, "cut"));
		assert_int_equal(out.len, (n - 1) * KB_SEAL_CHUNK);
	}
	// Two change places.
	assert_int_equal(kb_buf_append(&other, sealed.data, sealed.len), 0);
	memcpy(other.data + head, sealed.data + head + chunk, chunk);
	memcpy(other.data + head + chunk, sealed.data + head, chunk);
	assert_int_equal(unseal(other.data, other.len, 1u << 20, 0, &out, &err), KB_ECORRUPT);
	assert_int_equal(out.len, 0);
	// One comes twice; something comes behind; chunks of another file for the same receiver.
	other.len = 0;
	assert_int_equal(kb_buf_append(&other, sealed.data, head + chunk), 0);
	assert_int_equal(kb_buf_append(&other, sealed.data + head, sealed.len - head), 0);
	assert_int_equal(unseal(other.data, other.len, 1u << 20, 0, &out, &err), KB_ECORRUPT);
	assert_int_equal(out.len, KB_SEAL_CHUNK);
	other.len = 0;
	assert_int_equal(kb_buf_append(&other, sealed.data, sealed.len), 0);
	assert_int_equal(kb_buf_append(&other, "x", 1), 0);
	assert_int_equal(unseal(other.data, other.len, 1u << 20, 0, &out, &err), KB_ECORRUPT);
	struct kb_buf second = seal(plain, size, size, 1);
	memcpy(second.data + head, sealed.data + head, sealed.len - head);
	assert_int_equal(unseal(second.data, second.len, 1u << 20, 0, &out, &err), KB_ECORRUPT);
	kb_buf_finish(&second);
	kb_buf_finish(&sealed);
	kb_buf_finish(&other);
	kb_buf_finish(&out);
	free(plain);
}

static void limits(void **state)
{
	struct kb_seal *s = NULL;
	struct kb_unseal *u = NULL;
	struct kb_buf out = {0};
	struct kb_err err = {0};
	uint8_t head[16] = KB_SEAL_MAGIC;
	(void)state;
	assert_int_equal(kb_seal_begin(public, 0, into, &out, &err, &s), KB_EARG);
	assert_int_equal(kb_seal_begin(public, KB_SEAL_RECEIVERS_MAX + 1, into, &out, &err, &s), KB_EARG);
	assert_int_equal(kb_unseal_begin("nonsense", into, &out, &err, &u), KB_EBAD);
	assert_int_equal(unseal(head, sizeof head, 16, 0, &out, &err), KB_EBAD); // nobody
	head[8] = KB_SEAL_RECEIVERS_MAX + 1;
	assert_int_equal(unseal(head, sizeof head, 16, 0, &out, &err), KB_EBAD);
	assert_int_equal(unseal((const uint8_t *)"KBBUNDL1\1\0\0\0\0\0\0\0", 16, 16, 0, &out, &err), KB_EBAD);
	kb_buf_finish(&out);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_receiver_reads_it),
		cmocka_unit_test(no_bit_may_be_turned),
		cmocka_unit_test(chunks_stay_where_they_are),
		cmocka_unit_test(limits),
	};
	make_keys();
	int failed = cmocka_run_group_tests_name("storage/seal", tests, NULL, NULL);
	for (uint32_t i = 0; i < KEYS; i++)
		kb_buf_finish(&secret[i]);
	return failed;
}
