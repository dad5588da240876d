#include "harness/kt.h"
#include "net/claim.h"

#include <string.h>

static const uint8_t one_certificate[KB_FINGERPRINT_LEN] = {1}, other_certificate[KB_FINGERPRINT_LEN] = {2};

struct sides {
	struct kb_claim *client, *box;
	const uint8_t *at_box; // the certificate of the box's connection
};

// Both rounds, with the client's and the box's code and certificate.
static void exchange(const char *code, const char *box_code, const uint8_t *box_certificate, struct sides *ret)
{
	struct kb_err err;
	struct kb_buf b = {0};
	assert_int_equal(kb_tls_init(&err), 0);
	ret->at_box = box_certificate;
	assert_int_equal(kb_claim_create(false, code, &ret->client, &err), 0);
	assert_int_equal(kb_claim_create(true, box_code, &ret->box, &err), 0);
	assert_int_equal(kb_claim_write_one(ret->client, &b, &err), 0);
	assert_int_equal(kb_claim_read_one(ret->box, b.data, b.len, &err), 0);
	b.len = 0;
	assert_int_equal(kb_claim_write_one(ret->box, &b, &err), 0);
	assert_int_equal(kb_claim_read_one(ret->client, b.data, b.len, &err), 0);
	b.len = 0;
	assert_int_equal(kb_claim_write_two(ret->box, &b, &err), 0);
	assert_int_equal(kb_claim_read_two(ret->client, b.data, b.len, &err), 0);
	b.len = 0;
	assert_int_equal(kb_claim_write_two(ret->client, &b, &err), 0);
	assert_int_equal(kb_claim_read_two(ret->box, b.data, b.len, &err), 0);
	kb_buf_finish(&b);
}

static bool agree(struct sides *s, bool of_box, const char *first, const char *at_box)
{
	uint8_t mine[KB_CLAIM_PROOF], theirs[KB_CLAIM_PROOF];
	struct kb_err err;
	assert_int_equal(kb_claim_prove(s->client, of_box, one_certificate, first, "x", mine, &err), 0);
	assert_int_equal(kb_claim_prove(s->box, of_box, s->at_box, at_box, "x", theirs, &err), 0);
	return memcmp(mine, theirs, sizeof mine) == 0;
}

static void finish(struct sides *s)
{
	kb_claim_destroy(s->client);
	kb_claim_destroy(s->box);
}

static void who_knows_the_code_agrees(void **state)
{
	(void)state;
	struct sides s;
	exchange("12345678", "12345678", one_certificate, &s);
	assert_true(agree(&s, false, "request", "request"));
	assert_true(agree(&s, true, "certificate", "certificate"));
	assert_false(agree(&s, false, "request", "another"));
	uint8_t client[KB_CLAIM_PROOF], box[KB_CLAIM_PROOF], moved[KB_CLAIM_PROOF];
	struct kb_err err;
	assert_int_equal(kb_claim_prove(s.client, false, one_certificate, "a", "bc", client, &err), 0);
	assert_int_equal(kb_claim_prove(s.client, true, one_certificate, "a", "bc", box, &err), 0);
	assert_int_equal(kb_claim_prove(s.client, false, one_certificate, "ab", "c", moved, &err), 0);
	assert_memory_not_equal(client, box, sizeof client); // nobody sends a proof back as its own
	assert_memory_not_equal(client, moved, sizeof client);
	finish(&s);
}

static void who_does_not_know_it_does_not(void **state)
{
	(void)state;
	struct sides s;
	exchange("12345678", "12345679", one_certificate, &s);
	assert_false(agree(&s, false, "request", "request"));
	finish(&s);
}

// Each side has the certificate of its own connection: somebody between has two.
static void a_man_in_the_middle_is_found(void **state)
{
	(void)state;
	struct sides s;
	exchange("12345678", "12345678", other_certificate, &s);
	assert_false(agree(&s, false, "request", "request"));
	finish(&s);
}

static void refuses_what_is_no_message(void **state)
{
	(void)state;
	struct kb_claim *c, *d;
	struct kb_err err;
	struct kb_buf b = {0};
	uint8_t proof[KB_CLAIM_PROOF];
	assert_int_equal(kb_tls_init(&err), 0);
	assert_int_equal(kb_claim_create(true, "12345678", &c, &err), 0);
	assert_int_equal(kb_claim_create(false, "12345678", &d, &err), 0);
	assert_int_equal(kb_claim_read_one(c, "", 0, &err), KB_EBAD);
	assert_int_equal(kb_claim_read_one(c, "nonsense", 8, &err), KB_EBAD);
	assert_int_equal(kb_claim_read_two(c, "nonsense", 8, &err), KB_EBAD);
	assert_int_not_equal(kb_claim_prove(c, true, one_certificate, "a", "b", proof, &err), 0);
	assert_int_equal(kb_claim_write_one(d, &b, &err), 0);
	for (size_t i = 0; i < b.len; i++) { // every byte counts
		struct kb_claim *fresh;
		b.data[i] ^= 1;
		assert_int_equal(kb_claim_create(true, "12345678", &fresh, &err), 0);
		assert_int_not_equal(kb_claim_read_one(fresh, b.data, b.len, &err), 0);
		kb_claim_destroy(fresh);
		b.data[i] ^= 1;
	}
	assert_int_equal(kb_claim_read_one(c, b.data, b.len - 1, &err), KB_EBAD);
	kb_buf_finish(&b);
	kb_claim_destroy(c);
	kb_claim_destroy(d);
}

static void codes(void **state)
{
	(void)state;
	char code[KB_CLAIM_DIGITS + 1], other[KB_CLAIM_DIGITS + 1];
	struct kb_err err;
	assert_int_equal(kb_claim_code_clean(" 1234-5678\n", code), 0);
	assert_string_equal(code, "12345678");
	static const char *const wrong[] = {"", "1234567", "123456789", "1234567a", "１２３４５６７８"};
	for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
		assert_int_equal(kb_claim_code_clean(wrong[i], code), KB_EARG);
	assert_int_equal(kb_tls_init(&err), 0);
	assert_int_equal(kb_claim_code_make(code, &err), 0);
	assert_int_equal(kb_claim_code_make(other, &err), 0);
	assert_int_equal(strspn(code, "0123456789"), KB_CLAIM_DIGITS);
	assert_string_not_equal(code, other);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(who_knows_the_code_agrees),
		cmocka_unit_test(who_does_not_know_it_does_not),
		cmocka_unit_test(a_man_in_the_middle_is_found),
		cmocka_unit_test(refuses_what_is_no_message),
		cmocka_unit_test(codes),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
