// The prefix cache against a plain list of what was kept.
#include "harness/kt.h"
#include "sched/prefix.h"
#include <stdlib.h>
#include <string.h>

enum { P = KB_KV_PAGE_TOKENS, TEXT_MAX = 12 * P };

struct cache {
	struct kb_pages pages;
	struct kb_prefix prefix;
	struct kb_prefix_scope a, b;
};

static void cache_open(struct cache *c, uint32_t n_pages)
{
	*c = (struct cache){0};
	assert_int_equal(kb_pages_init(&c->pages, n_pages), 0);
	assert_int_equal(kb_prefix_init(&c->prefix, &c->pages), 0);
}

static void cache_close(struct cache *c)
{
	kb_prefix_finish(&c->prefix);
	assert_int_equal(c->a.n_pages + c->b.n_pages, 0);
	kb_pages_finish(&c->pages); // asserts that all came back
}

static void check(const struct cache *c)
{
	assert_true(kb_pages_is_sound(&c->pages));
	assert_true(kb_prefix_is_sound(&c->prefix));
}

// Tokens of a text that is the numbers from `first` on.
static const uint32_t *count_from(uint32_t first)
{
	static uint32_t token[TEXT_MAX];
	for (uint32_t i = 0; i < TEXT_MAX; i++)
		token[i] = first + i;
	return token;
}

// What a request does: finds, takes the rest, keeps, ends. Returns the tokens it found.
static uint32_t pass(struct cache *c, const struct kb_prefix_text *t)
{
	struct kb_page_list list = {0};
	assert_int_equal(kb_prefix_match(&c->prefix, t, &list), 0);
	uint32_t n_found = list.n, n = (t->n_tokens + P - 1) / P;
	kb_prefix_make_room(&c->prefix, n - n_found);
	assert_int_equal(kb_page_list_grow(&list, &c->pages, n), 0);
	check(c);
	assert_false(kb_prefix_insert(&c->prefix, t, &list));
	check(c);
	kb_page_list_finish(&list, &c->pages);
	check(c);
	return n_found * P;
}

static void only_whole_pages_that_agree_are_found(void **state)
{
	(void)state;
	struct cache c;
	uint32_t token[TEXT_MAX];
	cache_open(&c, 32);
	struct kb_prefix_text t = {&c.a, 0, count_from(100), 3 * P + 5};
	assert_int_equal(pass(&c, &t), 0);
	assert_int_equal(c.pages.n_idle, 3); // the begun page is not kept
	assert_int_equal(pass(&c, &t), 3 * P);
	t.n_tokens = 3 * P - 1;
	assert_int_equal(pass(&c, &t), 2 * P);
	t.n_tokens = 5 * P;
	assert_int_equal(pass(&c, &t), 3 * P);
	assert_int_equal(pass(&c, &t), 5 * P);
	memcpy(token, count_from(100), sizeof token);
	token[P + P - 1] ^= 1; // one token of the second page: what follows is another text though its tokens are the same
	t.token = token;
	assert_int_equal(pass(&c, &t), P);
	assert_int_equal(pass(&c, &t), 5 * P);
	t.token = count_from(100 + P); // the second page's tokens at the beginning
	assert_int_equal(pass(&c, &t), 0);
	cache_close(&c);
}

static void scopes_are_apart_except_for_what_is_shared(void **state)
{
	(void)state;
	struct cache c;
	cache_open(&c, 32);
	struct kb_prefix_text a = {&c.a, 0, count_from(7), 4 * P}, b = {&c.b, 0, a.token, 4 * P};
	assert_int_equal(pass(&c, &a), 0);
	assert_int_equal(pass(&c, &b), 0);
	assert_int_equal(c.a.n_pages, 4);
	assert_int_equal(c.b.n_pages, 4);
	a.token = b.token = count_from(5000);
	a.n_shared = b.n_shared = 2;
	assert_int_equal(pass(&c, &a), 0);
	assert_int_equal(pass(&c, &b), 2 * P);
	assert_int_equal(pass(&c, &b), 4 * P);
	assert_int_equal(c.prefix.shared.n_pages, 2);
	cache_close(&c);
}

static void two_who_read_the_same_at_once_end_with_the_same_pages(void **state)
{
	(void)state;
	struct cache c;
	struct kb_page_list one = {0}, two = {0};
	cache_open(&c, 16);
	struct kb_prefix_text t = {&c.a, 0, count_from(1), 3 * P};
	assert_int_equal(kb_page_list_grow(&one, &c.pages, 4), 0);
	assert_int_equal(kb_page_list_grow(&two, &c.pages, 4), 0);
	assert_false(kb_prefix_insert(&c.prefix, &t, &one));
	assert_true(kb_prefix_insert(&c.prefix, &t, &two));
	check(&c);
	assert_memory_equal(one.page, two.page, 3 * sizeof *one.page);
	assert_int_not_equal(one.page[3], two.page[3]);
	assert_int_equal(c.pages.n_free, 16 - 5);
	t.n_tokens = 4 * P; // the one goes on alone
	assert_false(kb_prefix_insert(&c.prefix, &t, &one));
	kb_page_list_finish(&one, &c.pages);
	check(&c);
	assert_int_equal(c.pages.n_idle, 1);
	kb_page_list_finish(&two, &c.pages);
	check(&c);
	cache_close(&c);
}

static void the_oldest_goes_first_and_what_is_used_stays(void **state)
{
	(void)state;
	struct cache c;
	struct kb_page_list held = {0};
	cache_open(&c, 12);
	struct kb_prefix_text t1 = {&c.a, 0, count_from(1000), 4 * P};
	assert_int_equal(pass(&c, &t1), 0);
	uint32_t other[TEXT_MAX], third[TEXT_MAX];
	memcpy(other, count_from(2000), sizeof other);
	memcpy(third, count_from(3000), sizeof third);
	struct kb_prefix_text t2 = {&c.a, 0, other, 4 * P}, t3 = {&c.a, 0, third, 6 * P};
	assert_int_equal(pass(&c, &t2), 0);
	count_from(1000);
	assert_int_equal(pass(&c, &t1), 4 * P); // used again: t2 is older now
	assert_int_equal(pass(&c, &t3), 0);     // needs 6, 4 are free: the last two of t2 go
	count_from(1000);
	assert_int_equal(pass(&c, &t1), 4 * P);
	assert_int_equal(kb_prefix_match(&c.prefix, &t2, &held), 0);
	assert_int_equal(held.n, 2);
	assert_int_equal(kb_prefix_make_room(&c.prefix, 12), 10);
	check(&c);
	assert_int_equal(c.pages.n_free, 10); // held ones cannot go
	kb_page_list_finish(&held, &c.pages);
	assert_int_equal(c.pages.n_idle, 2);
	cache_close(&c);
}

static uint64_t seed = 3;
static uint32_t dice(uint32_t n)
{
	seed = seed * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t)(seed >> 33) % n;
}

// Many requests at once over few words, so that texts agree for a while and part; more than memory holds.
static void random_texts_share_exactly_their_beginnings(void **state)
{
	(void)state;
	enum { LIVE = 6, PAGES = 40 };
	struct cache c;
	struct kb_page_list list[LIVE] = {0};
	static uint32_t token[LIVE][TEXT_MAX], page_token[PAGES][TEXT_MAX], page_len[PAGES];
	struct kb_prefix_text text[LIVE];
	uint64_t n_hits = 0;
	cache_open(&c, PAGES);
	for (uint32_t round = 0; round < 20000; round++) {
		uint32_t k = dice(LIVE);
		if (list[k].n > 0) {
			kb_prefix_insert(&c.prefix, &text[k], &list[k]);
			kb_page_list_clear(&list[k], &c.pages);
			check(&c);
			continue;
		}
		for (uint32_t i = 0; i < TEXT_MAX; i++)
			token[k][i] = i % P == 0 ? dice(2) : 0;
		text[k] = (struct kb_prefix_text){dice(2) ? &c.a : &c.b, 0, token[k], 1 + dice(TEXT_MAX)};
		assert_int_equal(kb_prefix_match(&c.prefix, &text[k], &list[k]), 0);
		n_hits += list[k].n;
		for (uint32_t i = 0; i < list[k].n; i++) { // the page was written with this very text, by the same scope
			assert_int_equal(page_len[list[k].page[i]], (i + 1) * P);
			assert_memory_equal(page_token[list[k].page[i]], token[k], (i + 1) * P * sizeof(uint32_t));
			assert_ptr_equal(c.prefix.node[list[k].page[i]].scope, text[k].scope);
		}
		uint32_t had = list[k].n, n = (text[k].n_tokens + P - 1) / P;
		kb_prefix_make_room(&c.prefix, n - had);
		if (kb_page_list_grow(&list[k], &c.pages, n)) {
			kb_page_list_clear(&list[k], &c.pages);
			continue;
		}
		for (uint32_t i = had; i < n; i++) {
			page_len[list[k].page[i]] = (i + 1) * P;
			memcpy(page_token[list[k].page[i]], token[k], (i + 1) * P * sizeof(uint32_t));
		}
		check(&c);
	}
	for (uint32_t k = 0; k < LIVE; k++)
		kb_page_list_finish(&list[k], &c.pages);
	assert_true(n_hits > 10000);
	cache_close(&c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(only_whole_pages_that_agree_are_found),
		cmocka_unit_test(scopes_are_apart_except_for_what_is_shared),
		cmocka_unit_test(two_who_read_the_same_at_once_end_with_the_same_pages),
		cmocka_unit_test(the_oldest_goes_first_and_what_is_used_stays),
		cmocka_unit_test(random_texts_share_exactly_their_beginnings),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
