// Roots that another program made after docs/images.md and openssl signed (tests/data/make_root_golden.py).
#include "storage/root.h"
#include "unit/storage/expect.h"

static const struct {
	const char *name, *root, *signatures;
	int code;
} golden[] = {
#include "data/root.golden"
};
#define GOLDEN (sizeof golden / sizeof *golden)

struct made {
	uint8_t bytes[4096], block[4096];
	size_t len, block_len;
	struct kb_root root;
	struct kb_signatures signatures;
};

static size_t unhex(const char *text, uint8_t ret[static 4096])
{
	size_t n = strlen(text) / 2;
	assert_true(n <= 4096);
	for (size_t i = 0; i < n; i++) {
		char two[3] = {text[2 * i], text[2 * i + 1], 0};
		ret[i] = (uint8_t)strtoul(two, NULL, 16);
	}
	return n;
}

static int make(size_t i, struct made *ret, struct kb_err *err)
{
	ret->len = unhex(golden[i].root, ret->bytes);
	ret->block_len = unhex(golden[i].signatures, ret->block);
	assert_int_equal(kb_signatures_parse(ret->block, ret->block_len, err, &ret->signatures), KB_OK);
	return kb_root_parse(ret->bytes, ret->len, err, &ret->root);
}

static void chains(void **state)
{
	static struct made first, next;
	struct kb_err err = {0};
	(void)state;
	assert_int_equal(make(0, &first, &err), KB_OK);
	assert_int_equal(kb_root_signed(&first.root, KB_ROLE_ROOT, KB_DOMAIN_ROOT, first.bytes, first.len,
						 &first.signatures, false, &err),
		KB_OK);
	assert_int_equal(first.root.n_keys, 3);
	assert_int_equal(first.root.keys[2].curve, KB_CURVE_P384);
	assert_int_equal(first.root.roles[KB_ROLE_MODEL].threshold, 1);
	assert_int_equal(first.root.roles[KB_ROLE_OS].n, 0);
	for (size_t i = 1; i < GOLDEN; i++) {
		int rc = make(i, &next, &err);
		if (rc == KB_OK)
			rc = kb_root_follows(&first.root, &next.root, next.bytes, next.len, &next.signatures, false, &err);
		if (rc != golden[i].code)
			fail_msg("%s: %d, expected %d (%s)", golden[i].name, rc, golden[i].code, err.text);
	}
}

// What needs a test key is for development alone.
static void test_keys(void **state)
{
	static struct made first, next;
	struct kb_err err = {0};
	size_t i = 0;
	(void)state;
	while (strcmp(golden[i].name, "a test key would be needed") != 0)
		i++;
	assert_int_equal(make(0, &first, &err), KB_OK);
	assert_int_equal(make(i, &next, &err), KB_OK);
	assert_int_equal(
		kb_root_follows(&first.root, &next.root, next.bytes, next.len, &next.signatures, true, &err), KB_OK);
	assert_int_equal(
		kb_root_follows(&first.root, &next.root, next.bytes, next.len, &next.signatures, false, &err), KB_EDENIED);
	assert_non_null(strstr(err.text, "1 usable keys for the role root, 2 are needed"));
}

// Nobody may sign systems by the first root, and its model key may not sign roots.
static void roles_are_kept_apart(void **state)
{
	static struct made first;
	struct kb_err err = {0};
	(void)state;
	assert_int_equal(make(0, &first, &err), KB_OK);
	assert_int_equal(
		kb_root_signed(&first.root, KB_ROLE_OS, KB_DOMAIN_ROOT, first.bytes, first.len, &first.signatures, false, &err),
		KB_EDENIED);
	assert_int_equal(kb_root_signed(&first.root, KB_ROLE_MODEL, KB_DOMAIN_MODEL, first.bytes, first.len,
						 &first.signatures, false, &err),
		KB_EBAD); // key a has signed these bytes as a root, not as a manifest
}

// Cut at every byte, and every bit turned: refused as a root, or no longer what was signed.
static void damage(void **state)
{
	static struct made first, next;
	struct kb_err err = {0};
	struct kb_root r;
	(void)state;
	assert_int_equal(make(0, &first, &err), KB_OK);
	assert_int_equal(make(1, &next, &err), KB_OK);
	for (size_t n = 0; n < next.len; n++)
		assert_int_not_equal(kb_root_parse(next.bytes, n, &err, &r), KB_OK);
	for (size_t bit = 0; bit < 8 * next.len; bit++) {
		next.bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
		int rc = kb_root_parse(next.bytes, next.len, &err, &r);
		if (rc == KB_OK && bit % 7 == 0) // verifying takes a while
			rc = kb_root_follows(&first.root, &r, next.bytes, next.len, &next.signatures, false, &err);
		else if (rc == KB_OK)
			rc = KB_EBAD;
		assert_int_not_equal(rc, KB_OK);
		next.bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
	}
}

// What a Python program wrote, written again from what was read: the same bytes.
static void written_again(void **state)
{
	static struct made m;
	struct kb_err err = {0};
	unsigned n = 0;
	(void)state;
	for (size_t i = 0; i < GOLDEN; i++) {
		struct kb_buf again = {0};
		if (make(i, &m, &err) != KB_OK || strstr(golden[i].name, "passed over"))
			continue;
		assert_int_equal(kb_root_write(&m.root, &err, &again), KB_OK);
		if (again.len != m.len || memcmp(again.data, m.bytes, m.len) != 0)
			fail_msg("%s: not the same bytes", golden[i].name);
		kb_buf_finish(&again);
		n++;
	}
	assert_true(n >= 5);
	struct kb_buf none = {0};
	assert_int_equal(make(0, &m, &err), KB_OK);
	m.root.version = 0;
	assert_int_equal(kb_root_write(&m.root, &err, &none), KB_EARG);
	m.root.version = 1;
	m.root.roles[KB_ROLE_MODEL].threshold = 9;
	assert_int_equal(kb_root_write(&m.root, &err, &none), KB_EARG);
	m.root.fleet = NULL;
	assert_int_equal(kb_root_write(&m.root, &err, &none), KB_EARG);
	assert_int_equal(none.len, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(chains),
		cmocka_unit_test(test_keys),
		cmocka_unit_test(roles_are_kept_apart),
		cmocka_unit_test(damage),
		cmocka_unit_test(written_again),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
