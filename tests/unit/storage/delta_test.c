// The list of copied blocks: what is written is read, lookups agree with looking at every run, and lists that are out
// of order or reach beyond the file are refused.
#include "storage/delta.h"
#include "unit/storage/expect.h"

#define BLOCKS 3000u

static uint32_t seed;

static uint32_t random_below(uint32_t n)
{
	seed = seed * 1664525 + 1013904223;
	return (seed >> 8) % n;
}

// Random runs with gaps; where[i] is 1 + the source of block i.
static uint32_t make(uint8_t *runs, uint64_t where[BLOCKS])
{
	uint32_t n = 0;
	memset(where, 0, BLOCKS * sizeof *where);
	for (uint64_t at = random_below(5); at < BLOCKS;) {
		struct kb_delta_run r = {
			.target = at, .count = 1 + random_below(random_below(4) ? 3 : 400), .source = random_below(1u << 20)};
		if (r.count > BLOCKS - at)
			r.count = BLOCKS - at;
		kb_delta_put(&r, runs + (size_t)n++ * KB_DELTA_RUN);
		for (uint64_t i = 0; i < r.count; i++)
			where[at + i] = 1 + r.source + i;
		at += r.count + random_below(4);
	}
	return n;
}

static void lookups_agree(void **state)
{
	uint8_t *runs = malloc((size_t)BLOCKS * KB_DELTA_RUN), head[KB_DELTA_HEAD], base[32] = {7};
	uint64_t *where = malloc(BLOCKS * sizeof *where);
	struct kb_err err = {0};
	(void)state;
	assert_true(runs && where);
	for (seed = 1; seed < 40; seed += 13) {
		struct kb_delta d;
		uint32_t n = make(runs, where);
		kb_delta_put_head(base, n, head);
		assert_int_equal(kb_delta_head(head, &err, &d), KB_OK);
		assert_memory_equal(d.base, base, 32);
		assert_int_equal(d.n, n);
		d.runs = runs;
		assert_int_equal(kb_delta_check(&d, BLOCKS, &err), KB_OK);
		assert_int_equal(kb_delta_check(&d, where[BLOCKS - 1] ? BLOCKS - 1 : 1, &err), KB_EBAD);
		for (uint32_t round = 0; round < 3; round++) // rising, falling, anyhow
			for (uint32_t i = 0; i < BLOCKS; i++) {
				uint32_t block = round == 0 ? i : round == 1 ? BLOCKS - 1 - i : random_below(BLOCKS);
				uint64_t source = 0;
				bool found = kb_delta_find(&d, block, &source);
				assert_int_equal(found ? 1 + source : 0, where[block]);
			}
		for (uint32_t i = 0; i < 500; i++) {
			uint32_t first = random_below(BLOCKS), many = 1 + random_below(128);
			bool all = first + many <= BLOCKS;
			for (uint32_t k = first; k < first + many && all; k++)
				all = where[k] != 0;
			assert_int_equal(kb_delta_has_all(&d, first, many), all);
		}
	}
	free(runs);
	free(where);
}

static void bad_lists_are_refused(void **state)
{
	static const struct {
		struct kb_delta_run run[2];
		int code;
	} rows[] = {
		{{{0, 5, 9}, {5, 5, 0}}, KB_OK}, {{{0, 5, 9}, {6, 4, 0}}, KB_OK}, {{{0, 5, 9}, {4, 5, 0}}, KB_EBAD}, // overlap
		{{{5, 5, 9}, {0, 5, 0}}, KB_EBAD},                                                                   // order
		{{{0, 0, 9}, {5, 5, 0}}, KB_EBAD},                                                                   // empty
		{{{0, 5, 9}, {5, 6, 0}}, KB_EBAD},                                    // beyond the end
		{{{0, 5, 9}, {5, UINT64_MAX, 0}}, KB_EBAD},                           // and around
		{{{0, 5, UINT64_MAX - 2}, {5, 5, 0}}, KB_EBAD},                       // in the base
		{{{UINT64_MAX, 5, 9}, {5, 5, 0}}, KB_EBAD},                           //
		{{{0, 5, KB_VERITY_SIZE_MAX / KB_VERITY_BLOCK}, {5, 5, 0}}, KB_EBAD}, //
	};
	struct kb_err err = {0};
	(void)state;
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		uint8_t runs[2 * KB_DELTA_RUN];
		struct kb_delta d = {.n = 2, .runs = runs};
		kb_delta_put(&rows[i].run[0], runs);
		kb_delta_put(&rows[i].run[1], runs + KB_DELTA_RUN);
		if (kb_delta_check(&d, 10, &err) != rows[i].code)
			fail_msg("row %zu", i);
	}
	uint8_t head[KB_DELTA_HEAD], base[32] = {0};
	struct kb_delta d;
	kb_delta_put_head(base, KB_DELTA_RUNS_MAX + 1, head);
	assert_int_equal(kb_delta_head(head, &err, &d), KB_ELIMIT);
	kb_delta_put_head(base, 1, head);
	head[47] = 1;
	assert_int_equal(kb_delta_head(head, &err, &d), KB_EBAD);
	head[47] = 0;
	head[0] = 'k';
	assert_int_equal(kb_delta_head(head, &err, &d), KB_EBAD);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(lookups_agree),
		cmocka_unit_test(bad_lists_are_refused),
	};
	return cmocka_run_group_tests_name("storage/delta", tests, NULL, NULL);
}
