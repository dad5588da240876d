// The scheduler and its prefix cache: how much is read, for whom, and that answers do not change.
#include "box.h"

static void run_counted(struct box *b, uint64_t id, uint32_t n_prompt, const char *client, uint32_t n_cached)
{
	uint64_t tokens = b->fake.tokens;
	assert_int_equal(ask(b, id, n_prompt, 30, client), 0);
	run_all(b);
	expect_greedy(&b->fake, id, n_prompt, 30, true);
	assert_int_equal(heard_of(id)->done.cached_tokens, n_cached);
	assert_int_equal(b->fake.tokens - tokens, n_prompt - n_cached + 29);
}

static void what_was_read_before_is_not_read_again(void **state)
{
	(void)state;
	struct box b = {0};
	struct kb_err err = {0};
	n_common = 80;
	box_open(&b, 64, 32, 4, 0);
	run_counted(&b, 3, 100, "a", 0);
	run_counted(&b, 6, 100, "a", 80); // the same first 80
	run_counted(&b, 3 + 9, 81, "a", 80);
	run_counted(&b, 3 + 12, 80, "a", 64); // a whole number of pages: the last is read for its logits
	run_counted(&b, 9, 100, "b", 0);      // another client's are not for it
	run_counted(&b, 3 + 15, 100, "b", 80);
	// A conversation: the answer is part of the next prompt. 100 + 30 tokens, the last of them without K and V.
	uint32_t prompt[256];
	const struct heard *first = heard_of(3);
	make_prompt(3, 100, prompt);
	memcpy(prompt + 100, first->tokens, 30 * sizeof *prompt);
	make_prompt(77, 20, prompt + 130);
	const struct kb_sched_request r = {.id = 40, .prompt = prompt, .n_prompt = 150, .max_new = 5, .client = {"a", 1}};
	assert_int_equal(kb_sched_submit(b.sched, &r, 0, &err), 0);
	run_all(&b);
	uint32_t want[5];
	assert_int_equal(heard_of(40)->n, fake_expect(&b.fake, prompt, 150, 5, want));
	assert_memory_equal(heard_of(40)->tokens, want, sizeof want);
	assert_int_equal(heard_of(40)->done.cached_tokens, 128);
	struct kb_sched_stats st;
	kb_sched_stats(b.sched, &st);
	assert_int_equal(st.cached_tokens, 80 + 80 + 64 + 80 + 128);
	assert_true(st.kv_pages_idle > 10 && st.kv_pages_used == 0);
	box_close(&b);
	n_common = 0;
}

static void a_shared_beginning_is_everyones_and_nothing_else(void **state)
{
	(void)state;
	struct box b = {0};
	uint32_t shared[40];
	n_common = 80;
	make_prompt(3, 40, shared);
	box_open_with(&b, 64, 32, 4, &(struct kb_sched_options){.shared = shared, .n_shared = 40});
	run_counted(&b, 3, 100, "a", 0);
	run_counted(&b, 6, 100, "b", 32); // of the shared 40, as whole pages
	run_counted(&b, 9, 100, "b", 80);
	run_counted(&b, 4, 100, "c", 0); // another text
	box_close(&b);
	n_common = 0;
}

static void without_the_cache_everything_is_read(void **state)
{
	(void)state;
	struct box b = {0};
	box_open_with(&b, 64, 32, 4, &(struct kb_sched_options){.no_prefix_cache = true});
	n_common = 80;
	run_counted(&b, 3, 100, "a", 0);
	run_counted(&b, 6, 100, "a", 0);
	n_common = 0;
	box_close(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_was_read_before_is_not_read_again),
		cmocka_unit_test(a_shared_beginning_is_everyones_and_nothing_else),
		cmocka_unit_test(without_the_cache_everything_is_read),
	};
	return cmocka_run_group_tests(tests, box_setup, box_teardown);
}
