// Signatures that openssl made (tests/data/make_signature_golden.py): k of n, each key once, nothing for another thing.
#include "storage/signature.h"
#include "unit/storage/expect.h"

#define GOLDEN 3u

static const struct {
	enum kb_curve curve;
	const char *point, *signature;
} golden[GOLDEN] = {
#include "data/signature.golden"
};

// Keys 0 and 1 are of P-256, key 2 of P-384; each has signed `message`.
struct fixture {
	uint8_t message[200];
	struct kb_public_key keys[GOLDEN];
	uint8_t id[GOLDEN][KB_KEY_ID], signature[GOLDEN][KB_SIGNATURE_MAX];
	uint32_t signature_len[GOLDEN];
};

static size_t unhex(const char *text, uint8_t *ret)
{
	size_t n = strlen(text) / 2;
	for (size_t i = 0; i < n; i++) {
		char two[3] = {text[2 * i], text[2 * i + 1], 0};
		ret[i] = (uint8_t)strtoul(two, NULL, 16);
	}
	return n;
}

static void make(struct fixture *f)
{
	memset(f, 0, sizeof *f);
	for (size_t i = 0; i < sizeof f->message; i++)
		f->message[i] = (uint8_t)i;
	for (uint32_t i = 0; i < GOLDEN; i++) {
		f->keys[i].curve = golden[i].curve;
		assert_int_equal(unhex(golden[i].point, f->keys[i].point), kb_key_point_bytes(golden[i].curve));
		f->signature_len[i] = (uint32_t)unhex(golden[i].signature, f->signature[i]);
		kb_key_id(&f->keys[i], f->id[i]);
	}
}

// A block with the signatures of these keys of the fixture.
static size_t block(const struct fixture *f, const uint32_t *which, uint32_t n, uint8_t *bytes)
{
	size_t at = 8;
	memcpy(bytes, "KBSIGS01", 8);
	for (uint32_t i = 0; i < n; i++) {
		uint32_t k = which[i];
		memcpy(bytes + at, f->id[k], KB_KEY_ID);
		at += KB_KEY_ID;
		bytes[at] = (uint8_t)f->signature_len[k];
		memset(bytes + at + 1, 0, 3);
		memcpy(bytes + at + 4, f->signature[k], f->signature_len[k]);
		at += 4 + f->signature_len[k];
	}
	return at;
}

static int check(const struct fixture *f, const uint32_t *which, uint32_t n, const struct kb_public_key *keys,
	uint32_t n_keys, uint32_t threshold, struct kb_err *err)
{
	uint8_t bytes[KB_SIGNATURES_BYTES_MAX];
	struct kb_signatures s;
	assert_int_equal(kb_signatures_parse(bytes, block(f, which, n, bytes), err, &s), KB_OK);
	assert_int_equal(s.n, n);
	return kb_signatures_check(KB_DOMAIN_MODEL, f->message, sizeof f->message, &s, keys, n_keys, threshold, err);
}

static void openssl_s_are_good(void **state)
{
	struct fixture f;
	struct kb_err err = {0};
	(void)state;
	make(&f);
	for (uint32_t i = 0; i < GOLDEN; i++)
		assert_int_equal(check(&f, &i, 1, &f.keys[i], 1, 1, &err), KB_OK);
	assert_int_equal(check(&f, (uint32_t[]){2, 0, 1}, 3, f.keys, 3, 3, &err), KB_OK);
	assert_int_equal(check(&f, (uint32_t[]){1, 2}, 2, f.keys, 3, 2, &err), KB_OK);
}

static void below_the_threshold_is_denied(void **state)
{
	struct fixture f;
	struct kb_err err = {0};
	(void)state;
	make(&f);
	assert_int_equal(check(&f, (uint32_t[]){1}, 1, f.keys, 3, 2, &err), KB_EDENIED);
	assert_non_null(strstr(err.text, "1 of keys that may sign this, 2 are needed"));
	assert_int_equal(check(&f, NULL, 0, f.keys, 3, 1, &err), KB_EDENIED);
	// One key twice, in the block or in the list of keys, counts once.
	assert_int_equal(check(&f, (uint32_t[]){1, 1, 1}, 3, f.keys, 3, 2, &err), KB_EDENIED);
	struct kb_public_key twice[2] = {f.keys[0], f.keys[0]};
	assert_int_equal(check(&f, (uint32_t[]){0, 0}, 2, twice, 2, 2, &err), KB_EDENIED);
	// Signatures of keys that may not sign do not count, and do no harm.
	assert_int_equal(check(&f, (uint32_t[]){0, 1}, 2, &f.keys[2], 1, 1, &err), KB_EDENIED);
	assert_int_equal(check(&f, (uint32_t[]){0, 1, 2}, 3, &f.keys[2], 1, 1, &err), KB_OK);
	assert_int_equal(check(&f, (uint32_t[]){0}, 1, f.keys, 3, 0, &err), KB_EARG);
	assert_int_equal(check(&f, (uint32_t[]){0}, 1, f.keys, 3, 4, &err), KB_EARG);
}

static void nothing_else_was_signed(void **state)
{
	uint8_t bytes[KB_SIGNATURES_BYTES_MAX];
	struct fixture f;
	struct kb_err err = {0};
	struct kb_signatures s;
	(void)state;
	make(&f);
	for (uint32_t k = 0; k < GOLDEN; k++) {
		size_t len = block(&f, &k, 1, bytes), size = sizeof f.message;
		assert_int_equal(kb_signatures_parse(bytes, len, &err, &s), KB_OK);
		assert_int_equal(kb_signatures_check(KB_DOMAIN_MODEL, f.message, size, &s, &f.keys[k], 1, 1, &err), KB_OK);
		// Another kind of thing, less of it, and every bit of a byte here and there.
		assert_int_equal(kb_signatures_check(KB_DOMAIN_ROOT, f.message, size, &s, &f.keys[k], 1, 1, &err), KB_EBAD);
		assert_int_equal(
			kb_signatures_check(KB_DOMAIN_MODEL, f.message, size - 1, &s, &f.keys[k], 1, 1, &err), KB_EBAD);
		for (size_t bit = 0; bit < 8 * size; bit += 37) {
			f.message[bit / 8] ^= (uint8_t)(1u << bit % 8);
			assert_int_equal(
				kb_signatures_check(KB_DOMAIN_MODEL, f.message, size, &s, &f.keys[k], 1, 1, &err), KB_EBAD);
			f.message[bit / 8] ^= (uint8_t)(1u << bit % 8);
		}
		// Every byte of the signature, and of the key: then it is a key that did not sign, or none at all.
		for (size_t at = 8 + KB_KEY_ID + 4; at < len; at += 5) {
			bytes[at] ^= 0x40;
			assert_int_equal(
				kb_signatures_check(KB_DOMAIN_MODEL, f.message, size, &s, &f.keys[k], 1, 1, &err), KB_EBAD);
			bytes[at] ^= 0x40;
		}
		for (size_t at = 0; at < kb_key_point_bytes(f.keys[k].curve); at += 7) {
			struct kb_public_key other = f.keys[k];
			other.point[at] ^= 1;
			assert_int_equal(kb_signatures_check(KB_DOMAIN_MODEL, f.message, size, &s, &other, 1, 1, &err), KB_EDENIED);
			kb_key_id(&other, bytes + 8); // it claims to be of that key
			assert_int_equal(kb_signatures_check(KB_DOMAIN_MODEL, f.message, size, &s, &other, 1, 1, &err), KB_EBAD);
			memcpy(bytes + 8, f.id[k], KB_KEY_ID);
		}
		memset(bytes + 8 + KB_KEY_ID + 4, 0, f.signature_len[k]); // r = s = 0
		assert_int_equal(kb_signatures_check(KB_DOMAIN_MODEL, f.message, size, &s, &f.keys[k], 1, 1, &err), KB_EBAD);
	}
}

static void hostile_blocks_are_refused(void **state)
{
	static uint8_t many[KB_SIGNATURES_BYTES_MAX + 200];
	uint8_t bytes[KB_SIGNATURES_BYTES_MAX];
	struct fixture f;
	struct kb_err err = {0};
	struct kb_signatures s;
	(void)state;
	make(&f);
	const uint32_t which[] = {0, 2};
	size_t len = block(&f, which, 2, bytes), first = 8 + KB_KEY_ID + 4 + 64;
	for (size_t n = 0; n < len; n++)
		assert_int_equal(kb_signatures_parse(bytes, n, &err, &s), n == 8 || n == first ? KB_OK : KB_EBAD);
	for (unsigned bit = 0; bit < 32; bit++) { // the length and what must be zero
		bytes[8 + KB_KEY_ID + bit / 8] ^= (uint8_t)(1u << bit % 8);
		assert_int_equal(kb_signatures_parse(bytes, len, &err, &s), KB_EBAD);
		bytes[8 + KB_KEY_ID + bit / 8] ^= (uint8_t)(1u << bit % 8);
	}
	memcpy(many, bytes, 8);
	for (unsigned i = 0; i <= KB_SIGNATURES_MAX; i++)
		memcpy(many + 8 + i * (first - 8), bytes + 8, first - 8);
	assert_int_equal(kb_signatures_parse(many, 8 + KB_SIGNATURES_MAX * (first - 8), &err, &s), KB_OK);
	assert_int_equal(kb_signatures_parse(many, 8 + (KB_SIGNATURES_MAX + 1) * (first - 8), &err, &s), KB_ELIMIT);
	assert_int_equal(kb_signatures_parse(many, KB_SIGNATURES_BYTES_MAX + 1, &err, &s), KB_ELIMIT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(openssl_s_are_good),
		cmocka_unit_test(below_the_threshold_is_denied),
		cmocka_unit_test(nothing_else_was_signed),
		cmocka_unit_test(hostile_blocks_are_refused),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
