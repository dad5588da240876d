// A fleet's chain of roots as a file: what is written is read again, each root must follow the one before, and a cut or
// lengthened file is refused.
#include "storage/chain.h"
#include "unit/storage/keys.h"

#define ROOM 256u

struct fixture {
	struct kb_signer *first, *second;
	struct kb_buf roots[3];
	uint8_t blocks[3][ROOM];
	struct kb_chain chain;
};

// Root 1 of the first key; root 2 of the second, signed by both; root 3 of the second.
static struct fixture *make(bool is_test)
{
	struct fixture *f = calloc(1, sizeof *f);
	assert_non_null(f);
	f->first = new_signer(KB_CURVE_P256);
	f->second = new_signer(KB_CURVE_P384);
	f->chain.n = 3;
	for (uint32_t i = 0; i < 3; i++) {
		memcpy(f->blocks[i], KB_SIGNATURES_NONE, 8);
		one_key_root(i ? f->second : f->first, i + 1, is_test, &f->roots[i]);
		put_signature(i ? f->second : f->first, KB_DOMAIN_ROOT, &f->roots[i], f->blocks[i], ROOM);
		f->chain.roots[i] = signed_of(&f->roots[i], f->blocks[i], ROOM);
	}
	put_signature(f->first, KB_DOMAIN_ROOT, &f->roots[1], f->blocks[1], ROOM);
	return f;
}

static void finish(struct fixture *f)
{
	for (int i = 0; i < 3; i++)
		kb_buf_finish(&f->roots[i]);
	kb_signer_close(f->first);
	kb_signer_close(f->second);
	free(f);
}

static void written_and_read_again(void **state)
{
	struct fixture *f = make(false);
	struct kb_buf file = {0};
	struct kb_err err = {0};
	struct kb_chain *c = calloc(1, sizeof *c);
	(void)state;
	assert_non_null(c);
	assert_int_equal(kb_chain_check(&f->chain, false, &err), KB_OK);
	assert_int_equal(kb_chain_write(&f->chain, &err, &file), KB_OK);
	assert_int_equal(kb_chain_parse(file.data, file.len, &err, c), KB_OK);
	assert_int_equal(c->n, 3);
	for (uint32_t i = 0; i < 3; i++) {
		assert_int_equal(c->roots[i].len, f->roots[i].len);
		assert_memory_equal(c->roots[i].bytes, f->roots[i].data, f->roots[i].len);
		assert_memory_equal(c->roots[i].signatures, f->blocks[i], ROOM);
	}
	assert_int_equal(kb_chain_check(c, false, &err), KB_OK);
	for (size_t n = 0; n < file.len; n++)
		assert_int_equal(kb_chain_parse(file.data, n, &err, c), KB_EBAD);
	assert_int_equal(kb_buf_append(&file, "", 1), KB_OK);
	assert_int_equal(kb_chain_parse(file.data, file.len, &err, c), KB_EBAD);
	kb_buf_finish(&file);
	free(c);
	finish(f);
}

// No bit of a chain can be turned without notice. Its blocks are without room for more: there another's signature could
// appear, which would do no harm.
static void no_bit_may_be_turned(void **state)
{
	struct fixture *f = make(false);
	struct kb_buf file = {0};
	struct kb_err err = {0};
	struct kb_chain *c = calloc(1, sizeof *c);
	(void)state;
	assert_non_null(c);
	f->chain.n = 2;
	f->chain.roots[0].signatures_len = 8 + KB_KEY_ID + 4 + 64;
	f->chain.roots[1].signatures_len = 8 + 2 * (KB_KEY_ID + 4) + 64 + 96;
	assert_int_equal(kb_chain_write(&f->chain, &err, &file), KB_OK);
	for (size_t bit = 0; bit < 8 * file.len; bit += 3) {
		file.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
		int rc = kb_chain_parse(file.data, file.len, &err, c);
		rc = rc ? rc : kb_chain_check(c, false, &err);
		if (rc == KB_OK)
			fail_msg("bit %zu of byte %zu", bit % 8, bit / 8);
		file.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
	}
	kb_buf_finish(&file);
	free(c);
	finish(f);
}

static void each_must_follow(void **state)
{
	struct fixture *f = make(false), *t = make(true);
	struct kb_buf file = {0};
	struct kb_err err = {0};
	struct kb_chain c = f->chain;
	uint8_t unsigned_block[] = KB_SIGNATURES_NONE;
	(void)state;
	c.roots[1].signatures = unsigned_block;
	c.roots[1].signatures_len = 8;
	assert_int_equal(kb_chain_check(&c, false, &err), KB_EDENIED);
	c = f->chain;
	c.roots[1] = c.roots[2]; // 1, 3
	c.n = 2;
	assert_int_equal(kb_chain_check(&c, false, &err), KB_EDENIED);
	assert_int_equal(kb_chain_write(&c, &err, &file), KB_OK);
	assert_int_equal(kb_chain_parse(file.data, file.len, &err, &c), KB_EBAD);
	assert_int_equal(kb_chain_check(&t->chain, true, &err), KB_OK);
	assert_int_equal(kb_chain_check(&t->chain, false, &err), KB_EDENIED); // keys that everybody may know
	kb_buf_finish(&file);
	finish(f);
	finish(t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(written_and_read_again),
		cmocka_unit_test(no_bit_may_be_turned),
		cmocka_unit_test(each_must_follow),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
