// Whom a box trusts: the first root is the administrator's word, every later one must follow.
#include "storage/trust.h"
#include "unit/storage/keys.h"
#include "unit/storage/state_dir.h"

#define ROOM 512u

static struct kb_signer *key[3];
static struct kb_buf root[4];
static uint8_t block[4][ROOM];
static struct kb_chain chain; // of three roots: of key 0, of key 1, of key 1

static void prepare(void)
{
	for (int i = 0; i < 3; i++)
		key[i] = new_signer(i == 1 ? KB_CURVE_P384 : KB_CURVE_P256);
	for (int i = 0; i < 3; i++) {
		memcpy(block[i], KB_SIGNATURES_NONE, 8);
		one_key_root(key[i > 0], (uint64_t)i + 1, false, &root[i]);
		put_signature(key[i > 0], KB_DOMAIN_ROOT, &root[i], block[i], ROOM);
		if (i == 1)
			put_signature(key[0], KB_DOMAIN_ROOT, &root[i], block[i], ROOM);
		chain.roots[i] = signed_of(&root[i], block[i], ROOM);
	}
	chain.n = 3;
}

static uint64_t trusted(struct kb_state *s)
{
	struct kb_buf b = {0};
	struct kb_root r = {0};
	struct kb_err err = {0};
	if (kb_trust_root(s, &err, &b) == KB_OK)
		assert_int_equal(kb_root_parse(b.data, b.len, &err, &r), KB_OK);
	kb_buf_finish(&b);
	return r.version;
}

static struct kb_chain part(uint32_t from, uint32_t n)
{
	struct kb_chain c = {.n = n};
	for (uint32_t i = 0; i < n; i++)
		c.roots[i] = chain.roots[from + i];
	return c;
}

static void a_box_goes_forward_only(void **state)
{
	struct kb_err err = {0};
	struct kb_buf none = {0};
	struct kb_chain one = part(0, 1), two = part(0, 2), last = part(2, 1), late = part(1, 2);
	(void)state;
	struct kb_state *s = fresh_state();
	assert_int_equal(kb_trust_root(s, &err, &none), KB_ENOTFOUND);
	assert_non_null(strstr(err.text, "root trust"));
	assert_int_equal(kb_trust_set(s, &one, false, 5, &err), KB_OK);
	assert_int_equal(trusted(s), 1);
	assert_int_equal(kb_trust_set(s, &last, false, 5, &err), KB_EDENIED); // root 2 was left out
	assert_int_equal(trusted(s), 1);
	assert_int_equal(kb_trust_set(s, &late, false, 5, &err), KB_OK); // roots before its own need not be there
	assert_int_equal(trusted(s), 3);
	kb_state_close(s);
	s = open_state();
	assert_int_equal(trusted(s), 3);
	assert_int_equal(kb_trust_set(s, &two, false, 5, &err), KB_OK); // older: stays where it is
	assert_int_equal(trusted(s), 3);
	assert_int_equal(kb_trust_advance(s, &two.roots[1], 5, &err), KB_OK);
	assert_int_equal(trusted(s), 3);
	kb_state_close(s);
}

// The roots that the box shows to others: versions [from, to], each with its signatures.
static void shows(struct kb_state *s, uint64_t from, uint64_t to)
{
	struct kb_buf bytes = {0};
	struct kb_err err = {0};
	struct kb_chain *c = calloc(1, sizeof *c);
	struct kb_root r;
	assert_non_null(c);
	if (kb_trust_chain(s, &err, &bytes, c))
		fail_msg("%s", err.text);
	assert_int_equal(c->n, to - from + 1);
	assert_int_equal(kb_root_parse(c->roots[0].bytes, c->roots[0].len, &err, &r), KB_OK);
	assert_int_equal(r.version, from);
	for (uint64_t i = 0; i < c->n; i++) {
		const struct kb_signed *expected = &chain.roots[from - 1 + i];
		assert_int_equal(c->roots[i].len, expected->len);
		assert_memory_equal(c->roots[i].bytes, expected->bytes, expected->len);
		assert_int_equal(c->roots[i].signatures_len, expected->signatures_len);
		assert_memory_equal(c->roots[i].signatures, expected->signatures, expected->signatures_len);
	}
	kb_buf_finish(&bytes);
	free(c);
}

static void a_box_shows_the_roots_that_it_has_seen(void **state)
{
	struct kb_err err = {0};
	struct kb_buf none = {0};
	struct kb_chain one = part(0, 1), two = part(0, 2), last = part(2, 1), *c = calloc(1, sizeof *c);
	(void)state;
	struct kb_state *s = fresh_state();
	assert_non_null(c);
	assert_int_equal(kb_trust_chain(s, &err, &none, c), KB_ENOTFOUND);
	free(c);
	assert_int_equal(kb_trust_set(s, &two, false, 5, &err), KB_OK);
	shows(s, 1, 2);
	assert_int_equal(kb_trust_set(s, &one, false, 5, &err), KB_OK);
	shows(s, 1, 2);
	assert_int_equal(kb_trust_advance(s, &last.roots[0], 5, &err), KB_OK);
	shows(s, 1, 3);
	kb_state_close(s);
	s = fresh_state(); // what stood before the trusted root in a chain was not proven
	last = part(1, 1);
	assert_int_equal(kb_trust_set(s, &one, false, 5, &err), KB_OK);
	assert_int_equal(kb_trust_set(s, &last, false, 5, &err), KB_OK);
	shows(s, 1, 2);
	kb_state_close(s);
}

static void forks_and_strangers_are_refused(void **state)
{
	static const uint8_t other_fleet[KB_ROOT_FLEET] = "other fleet";
	struct kb_chain one = part(0, 1), two = part(0, 2);
	struct kb_err err = {0};
	struct kb_root r;
	(void)state;
	struct kb_state *s = fresh_state();
	assert_int_equal(kb_trust_set(s, &one, false, 5, &err), KB_OK);
	// A root 1 of another key.
	memcpy(block[3], KB_SIGNATURES_NONE, 8);
	one_key_root(key[2], 1, false, &root[3]);
	put_signature(key[2], KB_DOMAIN_ROOT, &root[3], block[3], ROOM);
	one.roots[0] = signed_of(&root[3], block[3], ROOM);
	assert_int_equal(kb_trust_set(s, &one, false, 5, &err), KB_EDENIED);
	// A root 2 that only its own key has signed.
	root[3].len = 0;
	memset(block[3] + 8, 0, ROOM - 8);
	one_key_root(key[2], 2, false, &root[3]);
	put_signature(key[2], KB_DOMAIN_ROOT, &root[3], block[3], ROOM);
	two.roots[1] = signed_of(&root[3], block[3], ROOM);
	assert_int_equal(kb_trust_set(s, &two, false, 5, &err), KB_EDENIED);
	// Another fleet's.
	assert_int_equal(kb_root_parse(root[0].data, root[0].len, &err, &r), KB_OK);
	r.fleet = other_fleet;
	root[3].len = 0;
	memset(block[3] + 8, 0, ROOM - 8);
	assert_int_equal(kb_root_write(&r, &err, &root[3]), KB_OK);
	put_signature(key[0], KB_DOMAIN_ROOT, &root[3], block[3], ROOM);
	one.roots[0] = signed_of(&root[3], block[3], ROOM);
	assert_int_equal(kb_trust_set(s, &one, false, 5, &err), KB_EDENIED);
	assert_non_null(strstr(err.text, "fleet"));
	assert_int_equal(trusted(s), 1);
	kb_state_close(s);
}

static void test_keys_are_not_trusted(void **state)
{
	struct kb_chain one = part(0, 1);
	struct kb_err err = {0};
	(void)state;
	struct kb_state *s = fresh_state();
	root[3].len = 0;
	memset(block[3], 0, ROOM);
	memcpy(block[3], KB_SIGNATURES_NONE, 8);
	one_key_root(key[0], 1, true, &root[3]);
	put_signature(key[0], KB_DOMAIN_ROOT, &root[3], block[3], ROOM);
	one.roots[0] = signed_of(&root[3], block[3], ROOM);
	assert_int_equal(kb_trust_set(s, &one, false, 5, &err), KB_EDENIED);
	assert_int_equal(trusted(s), 0);
	assert_int_equal(kb_trust_set(s, &one, true, 5, &err), KB_OK);
	assert_int_equal(trusted(s), 1);
	kb_state_close(s);
}

static void time_does_not_go_back(void **state)
{
	struct kb_chain one = part(0, 1);
	struct kb_err err = {0};
	uint64_t now = 0;
	(void)state;
	struct kb_state *s = fresh_state();
	assert_int_equal(kb_trust_now(s, 17, &err, &now), KB_OK);
	assert_int_equal(now, 17);
	assert_int_equal(kb_trust_set(s, &one, false, 5, &err), KB_OK); // made in 2026, says the root
	assert_int_equal(kb_trust_now(s, 17, &err, &now), KB_OK);
	assert_int_equal(now, 1795651200);
	assert_int_equal(kb_trust_now(s, 4102444800, &err, &now), KB_OK);
	assert_int_equal(now, 4102444800);
	kb_state_close(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_box_goes_forward_only),
		cmocka_unit_test(a_box_shows_the_roots_that_it_has_seen),
		cmocka_unit_test(forks_and_strangers_are_refused),
		cmocka_unit_test(test_keys_are_not_trusted),
		cmocka_unit_test(time_does_not_go_back),
	};
	prepare();
	int failed = cmocka_run_group_tests_name("storage/trust", tests, NULL, NULL);
	for (int i = 0; i < 3; i++)
		kb_signer_close(key[i]);
	for (int i = 0; i < 4; i++)
		kb_buf_finish(&root[i]);
	return failed;
}
