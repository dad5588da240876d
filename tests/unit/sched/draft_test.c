// Guessed tokens: what is guessed, and that checking guesses changes nothing but the number of steps.
#include "box.h"
#include "sched/draft.h"
#include "sched/pace.h"

static void what_followed_before_is_guessed(void **state)
{
	(void)state;
	uint32_t got[KB_DRAFT_MAX];
	const uint32_t text[] = {1, 2, 3, 4, 5, 9, 2, 3, 4, 6, 7, 2, 3, 4};
	const uint32_t want[] = {6, 7, 2, 3, 4, 6, 7}; // the latest; behind the end it goes on with itself
	assert_int_equal(kb_draft_look_up(text, 14, 7, got), 3);
	assert_memory_equal(got, want, sizeof want);
	// The longer agreement counts, though it is older.
	const uint32_t longer[] = {8, 2, 3, 4, 5, 9, 9, 2, 3, 4, 6, 7, 8, 2, 3, 4};
	assert_int_equal(kb_draft_look_up(longer, 16, 1, got), 4);
	assert_int_equal(got[0], 5);
	// One token is too few; so is a text of two.
	const uint32_t one[] = {2, 3, 4, 9, 9, 4};
	assert_int_equal(kb_draft_look_up(one, 6, 4, got), 0);
	assert_int_equal(kb_draft_look_up((const uint32_t[]){7, 7}, 2, 4, got), 0);
	assert_int_equal(kb_draft_look_up((const uint32_t[]){7, 7, 7}, 3, 4, got), 2);
	assert_int_equal(kb_draft_look_up(text, 0, 4, got), 0);
	assert_int_equal(kb_draft_look_up(text, 14, 0, got), 0);
}

static void look_up_is_bounded(void **state)
{
	(void)state;
	enum { N = KB_DRAFT_LOOK_BACK + 100 };
	static uint32_t text[N];
	uint32_t got[1];
	for (uint32_t i = 0; i < N; i++)
		text[i] = i + 10;
	for (uint32_t i = 0; i < 4; i++) // stands at the very beginning, out of reach, and at the end
		text[i] = text[N - 4 + i] = i;
	assert_int_equal(kb_draft_look_up(text, N, 1, got), 0);
	assert_int_equal(kb_draft_look_up(text + 100, N - 100, 1, got), 0);
	memcpy(text + 200, text, 4 * sizeof *text);
	assert_int_equal(kb_draft_look_up(text, N, 1, got), 4);
	assert_int_equal(got[0], 214); // what stands behind the copy
}

static void expectation_follows_what_came(void **state)
{
	(void)state;
	struct kb_draft d = {0};
	assert_true(kb_draft_expect(&d, 2, 1) > 0.49 && kb_draft_expect(&d, 2, 1) < 0.51);
	for (uint32_t i = 0; i < 20; i++)
		kb_draft_learn(&d, 9, 4, false);
	assert_true(kb_draft_expect(&d, 9, 7) > 4);
	assert_true(kb_draft_expect(&d, 2, 1) < 0.51); // little agreement is another matter,
	assert_true(kb_draft_expect(&d, 8, 7) > 2);    // until guesses that were right have made it long
	for (uint32_t i = 0; i < 20; i++)
		kb_draft_learn(&d, 9, 0, true);
	assert_true(kb_draft_expect(&d, 9, 7) < 0.4);
}

static void pace_is_learned_by_size(void **state)
{
	(void)state;
	struct kb_pace p = {0};
	assert_true(kb_pace_guess(&p, 8, 2) <= 0);
	kb_pace_add(&p, 1, 900000); // made its graph
	kb_pace_add(&p, 1, 1000);
	assert_true(kb_pace_guess(&p, 1, 2) > 999 && kb_pace_guess(&p, 1, 2) < 1001);
	assert_true(kb_pace_guess(&p, 8, 1) < 1001);
	assert_true(kb_pace_guess(&p, 5, 2) > 7999 && kb_pace_guess(&p, 8, 2) < 8001);
	for (uint32_t i = 0; i < 2; i++)
		kb_pace_add(&p, 7, 3000);
	assert_true(kb_pace_guess(&p, 8, 2) > 2999 && kb_pace_guess(&p, 16, 2) < 6001);
	for (uint32_t i = 0; i < KB_PACE_STALE; i++)
		kb_pace_add(&p, 1, 1000);
	assert_true(kb_pace_guess(&p, 8, 1) < 1001); // forgotten
	kb_pace_add(&p, UINT32_MAX, 5);
	kb_pace_add(&p, 0, 5);
}

struct answer {
	struct heard heard;
	uint64_t steps;
};

// Prompt 5 of 60 tokens, whose last 20 repeat the 20 before.
static void ask_repeating(struct box *b, const struct kb_sched_request *with, uint32_t max, struct answer *ret)
{
	uint32_t prompt[60];
	struct kb_err err = {0};
	struct kb_sched_request r = *with;
	const struct kb_sched_options options = {.draft_max = max};
	b->fake = (struct fake){.period = 20, .eos_one_in = with->ignore_eos ? 0 : 300};
	box_open_with(b, 64, 32, 16, &options);
	make_prompt(5, 60, prompt);
	memcpy(prompt + 40, prompt + 20, 20 * sizeof *prompt);
	r.id = 1;
	r.prompt = prompt;
	r.n_prompt = 60;
	assert_int_equal(kb_sched_submit(b->sched, &r, 0, &err), 0);
	run_all(b);
	ret->heard = *heard_of(1);
	ret->steps = b->fake.steps;
	struct kb_sched_stats st;
	kb_sched_stats(b->sched, &st);
	assert_int_equal(st.guessed_right <= st.guessed_tokens, 1);
	if (max == 0)
		assert_int_equal(st.guessed_tokens, 0);
	box_close(b);
}

static void guesses_change_only_the_number_of_steps(void **state)
{
	(void)state;
	static const struct kb_str stops[] = {{"END", 3}, {"zq", 2}};
	const struct kb_sched_request asks[] = {
		{.max_new = 200, .ignore_eos = true},
		{.max_new = 200, .logprobs = 4},
		{.max_new = 199, .ignore_eos = true, .sampling = {.temperature = 0.2f, .top_p = 1, .seed = 3}},
		{.max_new = 200, .sampling = {.temperature = 0.25f, .top_p = 0.9f, .seed = 4}, .logprobs = 21},
		{.max_new = 200, .ignore_eos = true, .sampling = {.temperature = 0.15f, .top_p = 1, .repeat_penalty = 1.05f}},
		{.max_new = 200, .ignore_eos = true, .sampling = {.frequency_penalty = 0.05f, .presence_penalty = 0.1f}},
		{.max_new = 200, .n_stop = 2, .stop = stops},
	};
	static struct answer plain, guessed;
	struct box b;
	for (size_t k = 0; k < sizeof asks / sizeof *asks; k++)
		for (uint32_t max = 1; max <= KB_DRAFT_MAX; max += 7) {
			ask_repeating(&b, &asks[k], 0, &plain);
			ask_repeating(&b, &asks[k], max, &guessed);
			struct heard *p = &plain.heard, *g = &guessed.heard;
			assert_int_equal(g->n, p->n);
			assert_memory_equal(g->tokens, p->tokens, p->n * sizeof *p->tokens);
			assert_int_equal(g->text_len, p->text_len);
			assert_memory_equal(g->text, p->text, p->text_len);
			assert_int_equal(g->done.finish, p->done.finish);
			assert_int_equal(g->done.completion_tokens, p->done.completion_tokens);
			assert_int_equal(g->last.n_top, p->last.n_top);
			assert_memory_equal(&g->last.chosen.logprob, &p->last.chosen.logprob, sizeof(float));
			for (uint32_t i = 0; i < p->last.n_top; i++)
				assert_int_equal(g->last.top[i].token, p->last.top[i].token);
			assert_true(guessed.steps <= plain.steps);
			if (asks[k].ignore_eos) // the others may be over before anything repeats
				assert_true(guessed.steps * 10 < plain.steps * 9);
			if (k == 0 && max > 1) // seven of eight tokens repeat, and two must have come before a guess is made
				assert_true(guessed.steps * 2 < plain.steps);
		}
}

// Without room for guesses nobody loses any: the same requests, preempted or not, with and without.
static void guesses_take_no_memory_from_answers(void **state)
{
	(void)state;
	for (draft_max = 0; draft_max <= 8; draft_max += 4) {
		struct box b = {.fake = {.period = 9}};
		box_open(&b, 10, 24, 8, 0);
		for (uint32_t id = 1; id <= 8; id++)
			assert_int_equal(ask(&b, id, 20 + id * 3, 60, "a"), 0);
		run_all(&b);
		for (uint32_t id = 1; id <= 8; id++)
			expect_greedy(&b.fake, id, 20 + id * 3, 60, true);
		box_close(&b);
	}
	draft_max = 0;
}

static void guesses_are_not_made_where_they_cost_too_much(void **state)
{
	(void)state;
	struct box b = {.fake = {.period = 20}};
	struct kb_err err = {0};
	const struct kb_sched_options options = {.draft_max = 15};
	box_open_with(&b, 64, 32, 4, &options);
	assert_int_equal(ask(&b, 1, 60, 300, "a"), 0);
	while (kb_sched_plan(b.sched, 0)) { // a device on which a token costs the same in company as alone
		uint64_t tokens = b.fake.tokens;
		int rc = kb_sched_run(b.sched, &err);
		kb_sched_settle(b.sched, rc, &err, 100 * (b.fake.tokens - tokens), ++ears.now);
	}
	expect_greedy(&b.fake, 1, 60, 300, true);
	assert_true(b.fake.tokens < 60 + 299 + 60); // a few, to find that out
	box_close(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_followed_before_is_guessed),
		cmocka_unit_test(look_up_is_bounded),
		cmocka_unit_test(expectation_follows_what_came),
		cmocka_unit_test(pace_is_learned_by_size),
		cmocka_unit_test(guesses_change_only_the_number_of_steps),
		cmocka_unit_test(guesses_take_no_memory_from_answers),
		cmocka_unit_test(guesses_are_not_made_where_they_cost_too_much),
	};
	return cmocka_run_group_tests(tests, box_setup, box_teardown);
}
