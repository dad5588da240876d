// The scheduler against a model whose answers are known without it (fake.h).
#include "box.h"
#include "sched/draft.h"
#include <pthread.h>

static void one_request_says_what_the_model_says(void **state)
{
	(void)state;
	struct box b = {.fake = {.eos_one_in = 0}};
	box_open(&b, 16, 32, 4, 0);
	assert_int_equal(ask(&b, 1, 70, 40, "a"), 0);
	assert_int_equal(heard_of(1)->n_accepted, 1);
	assert_int_equal(heard_of(1)->prompt_tokens, 70);
	run_all(&b);
	expect_greedy(&b.fake, 1, 70, 40, true);
	const struct kb_sched_done *d = &heard_of(1)->done;
	assert_int_equal(d->finish, KB_SCHED_LENGTH);
	assert_int_equal(d->prompt_tokens, 70);
	assert_int_equal(d->completion_tokens, 40);
	assert_int_equal(b.fake.steps, 3 + 39); // 32 + 32 + 6 tokens read, the first answer with the last of them
	assert_int_equal(d->prefill_us, 3);
	assert_int_equal(d->decode_us, 39);
	box_close(&b);
}

static void end_token_ends_and_is_not_said(void **state)
{
	(void)state;
	struct box b = {.fake = {.eos_one_in = 9}};
	box_open(&b, 16, 32, 4, 0);
	for (uint32_t id = 1; id <= 20; id++)
		assert_int_equal(ask(&b, id, 5, 100, "a"), 0);
	run_all(&b);
	uint32_t n_stopped = 0;
	for (uint32_t id = 1; id <= 20; id++) {
		expect_greedy(&b.fake, id, 5, 100, true);
		n_stopped += heard_of(id)->done.finish == KB_SCHED_STOP;
		for (uint32_t i = 0; i < heard_of(id)->n; i++)
			assert_int_not_equal(heard_of(id)->tokens[i], FAKE_EOS);
	}
	assert_true(n_stopped >= 18);
	// The same, told to go on: as many tokens as asked for, end tokens among them, but not in the text.
	uint32_t prompt[5], n_ends = 0;
	struct kb_err err = {0};
	make_prompt(1, 5, prompt);
	const struct kb_sched_request r = {.id = 50, .prompt = prompt, .n_prompt = 5, .max_new = 100, .ignore_eos = true};
	assert_int_equal(kb_sched_submit(b.sched, &r, 0, &err), 0);
	run_all(&b);
	assert_int_equal(heard_of(50)->n, 100);
	for (uint32_t i = 0; i < 100; i++)
		n_ends += heard_of(50)->tokens[i] == FAKE_EOS;
	assert_true(n_ends > 3);
	assert_null(strstr(heard_of(50)->text, "</s>"));
	box_close(&b);
}

static void together_equals_alone_with_any_memory(void **state)
{
	(void)state;
	// 12 requests of up to 150 tokens; 10 pages are the least that one of them needs.
	const uint32_t pages[] = {10, 12, 17, 25, 40, 200};
	uint64_t preemptions = 0;
	for (size_t k = 0; k < sizeof pages / sizeof *pages; k++) {
		struct box b = {.fake = {.eos_one_in = 200}};
		box_open(&b, pages[k], 24, 8, 0);
		for (uint32_t id = 1; id <= 12; id++)
			assert_int_equal(ask(&b, id, 3 + id * 7, 60, id % 2 ? "a" : "b"), 0);
		run_all(&b);
		for (uint32_t id = 1; id <= 12; id++) {
			expect_greedy(&b.fake, id, 3 + id * 7, 60, true);
			assert_int_equal(heard_of(id)->n_ended, 1);
			assert_int_equal(heard_of(id)->done.completion_tokens, heard_of(id)->n);
		}
		assert_true(b.fake.max_step <= 24);
		struct kb_sched_stats st;
		kb_sched_stats(b.sched, &st);
		preemptions += st.preemptions;
		if (pages[k] == 200)
			assert_int_equal(st.preemptions, 0);
		else if (pages[k] == 17)
			assert_true(st.preemptions > 0);
		box_close(&b);
	}
	assert_true(preemptions > 5);
	assert_true(preemptions < 25); // 36 where admission keeps nothing in reserve for those who run
}

// A step on a thread of its own, as the engine runs it (`make config=tsan` watches what both touch).
struct running {
	struct kb_sched *sched;
	struct kb_err err;
	int rc;
};

static void *run_on_thread(void *ctx)
{
	struct running *r = ctx;
	r->rc = kb_sched_run(r->sched, &r->err);
	return NULL;
}

struct storm {
	struct box box;
	uint32_t n_prompt[IDS_MAX], max_new[IDS_MAX], next, n_busy;
	bool is_cancelled[IDS_MAX];
};

static void arrive(struct storm *s)
{
	char client[2] = {(char)('a' + dice(5)), 0};
	uint32_t id = s->next, limit = s->box.fake.kv_pages * KB_KV_PAGE_TOKENS;
	if (id == IDS_MAX)
		return;
	s->n_prompt[id] = 1 + dice(dice(3) ? 20 : limit - 30);
	s->max_new[id] = 1 + dice(30);
	int rc = ask(&s->box, id, s->n_prompt[id], s->max_new[id], client);
	s->n_busy += rc == KB_EBUSY;
	assert_true(rc == 0 || rc == KB_EBUSY);
	assert_int_equal(heard_of(id)->n_accepted, rc == 0);
	s->next += rc == 0;
}

static void cancel_one(struct storm *s)
{
	uint32_t id = s->next > 20 ? s->next - 1 - dice(20) : 1 + dice(s->next - 1);
	bool is_open = heard_of(id)->n_ended == 0;
	assert_int_equal(kb_sched_cancel(s->box.sched, id, ears.now), is_open ? 0 : KB_ENOTFOUND);
	assert_int_equal(heard_of(id)->n_ended, 1);
	s->is_cancelled[id] |= is_open;
}

// Arrivals, cancels and questions at random while steps run; every request ends exactly once, with a prefix of its
// own greedy answer, and no page is lost.
static uint32_t storm_period;
static void storm(uint32_t pages, uint32_t max_tokens, uint32_t max_seqs, uint32_t rounds)
{
	static struct storm s;
	s = (struct storm){.box.fake = {.eos_one_in = 60, .period = storm_period}, .next = 1};
	box_open(&s.box, pages, max_tokens, max_seqs, 12);
	for (uint32_t round = 0; round < rounds; round++) {
		struct running r = {.sched = s.box.sched};
		struct kb_sched_stats st;
		pthread_t thread;
		bool is_planned = kb_sched_plan(s.box.sched, ears.now);
		if (is_planned)
			assert_int_equal(pthread_create(&thread, NULL, run_on_thread, &r), 0);
		for (uint32_t k = dice(4) == 0 ? dice(6) : 0; k > 0; k--)
			arrive(&s);
		if (s.next > 1 && dice(5) == 0)
			cancel_one(&s);
		kb_sched_stats(s.box.sched, &st);
		assert_true(st.kv_pages_used <= pages && st.waiting <= 12 + max_seqs);
		if (is_planned) {
			pthread_join(thread, NULL);
			assert_true(kb_sched_is_sound(s.box.sched));
			kb_sched_settle(s.box.sched, r.rc, &r.err, 1, ++ears.now);
		}
		assert_true(kb_sched_is_sound(s.box.sched));
	}
	run_all(&s.box);
	for (uint32_t id = 1; id < s.next; id++) {
		assert_int_equal(heard_of(id)->n_ended, 1);
		assert_int_equal(heard_of(id)->n_errors, 0);
		expect_greedy(&s.box.fake, id, s.n_prompt[id], s.max_new[id], !s.is_cancelled[id]);
		assert_int_equal(heard_of(id)->done.finish == KB_SCHED_CANCELLED, s.is_cancelled[id]);
	}
	assert_true(s.next > rounds / 20);
	assert_true(s.n_busy > 0);
	box_close(&s.box);
}

static void storms_leave_nothing_behind(void **state)
{
	(void)state;
	storm(8, 16, 4, 1500);
	storm(5, 32, 8, 1500);
	storm(64, 8, 8, 1500);
	storm(9, 4, 9, 1500);
	for (n_common = 10; n_common < 100; n_common += 35) { // the prefix cache finds something
		storm(8, 16, 4, 1500);
		storm(64, 8, 8, 1500);
	}
	n_common = 0;
	draft_max = KB_DRAFT_MAX;
	storm_period = 7;
	storm(8, 16, 4, 1500);
	storm(64, 32, 16, 1500);
	storm_period = draft_max = 0;
}

static void cancel_frees_pages_at_once_even_in_a_step(void **state)
{
	(void)state;
	struct box b = {0};
	struct kb_sched_stats st;
	struct kb_err err = {0};
	box_open(&b, 16, 64, 4, 0);
	assert_int_equal(ask(&b, 1, 50, 50, "a"), 0);
	assert_int_equal(ask(&b, 2, 20, 50, "a"), 0);
	assert_true(step(&b));
	assert_true(step(&b));
	kb_sched_stats(b.sched, &st);
	assert_true(st.kv_pages_used == 4 + 2 && st.running == 2);
	assert_true(kb_sched_plan(b.sched, 5));
	assert_int_equal(kb_sched_cancel(b.sched, 1, 5), 0);
	kb_sched_stats(b.sched, &st);
	assert_true(st.kv_pages_used == 2 && st.running == 1);
	uint32_t said = heard_of(1)->n;
	int rc = kb_sched_run(b.sched, &err);
	kb_sched_settle(b.sched, rc, &err, 1, 6);
	assert_int_equal(heard_of(1)->n, said);
	assert_int_equal(heard_of(1)->done.finish, KB_SCHED_CANCELLED);
	assert_int_equal(kb_sched_cancel(b.sched, 1, 7), KB_ENOTFOUND);
	// Waiting requests too, and an id may come again after its end.
	assert_int_equal(ask(&b, 3, 10, 5, "a"), 0);
	assert_int_equal(ask(&b, 3, 10, 5, "a"), KB_EEXISTS);
	assert_int_equal(kb_sched_cancel(b.sched, 3, 7), 0);
	memset(heard_of(3), 0, sizeof *heard_of(3));
	assert_int_equal(ask(&b, 3, 10, 5, "a"), 0);
	run_all(&b);
	expect_greedy(&b.fake, 2, 20, 50, true);
	expect_greedy(&b.fake, 3, 10, 5, true);
	box_close(&b);
}

static void clients_take_turns(void **state)
{
	(void)state;
	struct box b = {0};
	box_open(&b, 64, 32, 1, 0); // one at a time, so that the order of admission shows
	for (uint32_t id = 1; id <= 10; id++)
		assert_int_equal(ask(&b, id, 4, 3, "greedy"), 0);
	assert_int_equal(ask(&b, 20, 4, 3, "modest"), 0);
	assert_int_equal(ask(&b, 21, 4, 3, "modest"), 0);
	assert_int_equal(ask(&b, 30, 4, 3, "third"), 0);
	run_all(&b);
	assert_true(heard_of(1)->admitted_step < heard_of(20)->admitted_step);
	assert_true(heard_of(20)->admitted_step < heard_of(3)->admitted_step);
	assert_true(heard_of(30)->admitted_step < heard_of(3)->admitted_step);
	assert_true(heard_of(21)->admitted_step < heard_of(4)->admitted_step);
	for (uint32_t id = 2; id <= 10; id++)
		assert_true(heard_of(id - 1)->admitted_step < heard_of(id)->admitted_step);
	box_close(&b);
}

static void endless_newcomers_do_not_starve_anyone(void **state)
{
	(void)state;
	struct box b = {0};
	box_open(&b, 8, 16, 2, 0);
	assert_int_equal(ask(&b, 1, 4, 8, "old"), 0);
	assert_int_equal(ask(&b, 2, 100, 8, "old"), 0); // large: needs nearly all the pages
	assert_int_equal(ask(&b, 3, 100, 8, "old"), 0);
	uint32_t next = 10;
	for (uint32_t i = 0; i < 400 && !heard_of(3)->n_ended; i++) {
		char client[16];
		snprintf(client, sizeof client, "new %u", i);
		if (next < IDS_MAX && ask(&b, next, 3, 4, client) == 0)
			next++;
		step(&b);
	}
	assert_int_equal(heard_of(2)->n_ended, 1);
	assert_int_equal(heard_of(3)->n_ended, 1);
	assert_true(next > 50);
	run_all(&b);
	box_close(&b);
}

static void long_prompt_does_not_stop_answers(void **state)
{
	(void)state;
	struct box b = {0};
	box_open(&b, 64, 64, 4, 0); // mixed steps take 32
	assert_int_equal(ask(&b, 1, 4, 100, "a"), 0);
	assert_true(step(&b));
	assert_int_equal(ask(&b, 2, 400, 4, "b"), 0);
	assert_int_equal(ask(&b, 3, 10, 4, "c"), 0);
	uint32_t said = heard_of(1)->n;
	b.fake.max_step = 0;
	for (uint32_t i = 0; i < 10; i++) {
		assert_true(step(&b));
		assert_int_equal(heard_of(1)->n, said + i + 1); // one token a step, whatever the others read
	}
	assert_true(b.fake.max_step <= 32);
	assert_int_equal(heard_of(3)->n_ended, 1); // the short one did not wait for the long one
	assert_int_equal(heard_of(2)->n, 0);
	run_all(&b);
	expect_greedy(&b.fake, 2, 400, 4, true);
	box_close(&b);
}

static void refusals_have_numbers(void **state)
{
	(void)state;
	struct box b = {0};
	struct kb_err err = {0};
	uint32_t prompt[1024];
	box_open(&b, 8, 16, 2, 3); // 128 tokens
	make_prompt(1, 1024, prompt);
	struct kb_sched_request r = {.id = 1, .prompt = prompt, .n_prompt = 128};
	assert_int_equal(kb_sched_submit(b.sched, &r, 0, &err), KB_ELIMIT);
	assert_true(strstr(err.text, "128 tokens") && strstr(err.text, "holds 128"));
	r.n_prompt = 100;
	r.max_new = 29;
	assert_int_equal(kb_sched_submit(b.sched, &r, 0, &err), KB_ELIMIT);
	assert_true(strstr(err.text, "100 tokens") && strstr(err.text, "at most 28"));
	r.n_prompt = 0;
	assert_int_equal(kb_sched_submit(b.sched, &r, 0, &err), KB_EARG);
	r.n_prompt = 10;
	r.sampling.temperature = -1;
	assert_int_equal(kb_sched_submit(b.sched, &r, 0, &err), KB_EARG);
	r.sampling.temperature = 0;
	prompt[3] = FAKE_VOCAB;
	assert_int_equal(kb_sched_submit(b.sched, &r, 0, &err), KB_EARG);
	assert_non_null(strstr(err.text, "300"));
	prompt[3] = 5;
	assert_int_equal(heard_of(1)->n_accepted, 0);
	r.max_new = 118; // exactly what fits
	assert_int_equal(kb_sched_submit(b.sched, &r, 0, &err), 0);
	r.max_new = 0; // to the end
	for (r.id = 2; r.id <= 3; r.id++)
		assert_int_equal(kb_sched_submit(b.sched, &r, 0, &err), 0);
	r.id = 4;
	assert_int_equal(kb_sched_submit(b.sched, &r, 0, &err), KB_EBUSY);
	run_all(&b);
	assert_int_equal(heard_of(1)->n, 118);
	assert_int_equal(heard_of(2)->n, 118);
	box_close(&b);
}

static void failed_step_ends_its_requests_only(void **state)
{
	(void)state;
	struct box b = {0};
	box_open(&b, 16, 16, 1, 0);
	assert_int_equal(ask(&b, 1, 4, 10, "a"), 0);
	assert_int_equal(ask(&b, 2, 4, 10, "a"), 0);
	assert_true(step(&b));
	b.fake.fail_with = KB_ENOMEM;
	assert_true(step(&b));
	assert_int_equal(heard_of(1)->n_errors, 1);
	assert_int_equal(heard_of(1)->err.code, KB_ENOMEM);
	run_all(&b);
	assert_int_equal(heard_of(2)->n_errors, 0);
	expect_greedy(&b.fake, 2, 4, 10, true);
	box_close(&b);
}

// Asks with everything given; the answer is in heard_of(id).
static void ask_with(struct box *b, struct kb_sched_request r, uint32_t prompt_id, uint32_t n_prompt)
{
	uint32_t prompt[1024];
	struct kb_err err = {0};
	make_prompt(prompt_id, n_prompt, prompt);
	r.prompt = prompt;
	r.n_prompt = n_prompt;
	if (kb_sched_submit(b->sched, &r, ears.now, &err))
		fail_msg("%s", err.text);
}

static void resumed_answer_goes_on_exactly(void **state)
{
	(void)state;
	static const struct kb_str stops[] = {{"END", 3}, {"zq", 2}};
	struct kb_sched_request asks[] = {
		{.max_new = 40},
		{.max_new = 40, .sampling = {.temperature = 1.3f, .top_p = 0.95f, .seed = 99}},
		{.max_new = 40, .sampling = {.temperature = 2, .top_k = 20, .top_p = 1, .repeat_penalty = 1.3f, .seed = 5}},
		{.max_new = 40,
			.sampling = {.temperature = 2, .top_p = 1, .frequency_penalty = 1, .seed = 7},
			.n_stop = 2,
			.stop = stops},
	};
	for (size_t k = 0; k < sizeof asks / sizeof *asks; k++) {
		struct box b = {.fake = {.eos_one_in = 0}};
		box_open(&b, 32, 32, 4, 0);
		asks[k].id = 1;
		ask_with(&b, asks[k], 77, 20);
		run_all(&b);
		const struct heard *whole = heard_of(1);
		for (uint32_t cut = 0; cut <= whole->n; cut++) {
			struct kb_sched_request r = asks[k];
			r.id = 100 + cut;
			r.resume = whole->tokens;
			r.n_resume = cut;
			ask_with(&b, r, 77, 20);
			run_all(&b);
			const struct heard *rest = heard_of(r.id);
			assert_int_equal(rest->n, whole->n - cut);
			assert_memory_equal(rest->tokens, whole->tokens + cut, rest->n * sizeof(uint32_t));
			assert_int_equal(rest->done.completion_tokens, whole->done.completion_tokens);
			assert_int_equal(rest->done.finish, whole->done.finish);
			// Its text is the end of the whole text.
			assert_true(rest->text_len <= whole->text_len);
			assert_memory_equal(rest->text, whole->text + whole->text_len - rest->text_len, rest->text_len);
			if (cut == 0)
				assert_int_equal(rest->text_len, whole->text_len);
		}
		box_close(&b);
	}
}

// What is said: whole UTF-8 only, checked here by its definition (RFC 3629), and all of it.
static bool is_utf8(const char *text, size_t len)
{
	for (size_t i = 0; i < len;) {
		uint8_t c = (uint8_t)text[i];
		size_t n = c < 0x80 ? 1 : c >= 0xc2 && c < 0xe0 ? 2 : c >= 0xe0 && c < 0xf0 ? 3 : c >= 0xf0 && c < 0xf5 ? 4 : 0;
		if (n == 0 || i + n > len)
			return false;
		for (size_t k = 1; k < n; k++)
			if (((uint8_t)text[i + k] & 0xc0) != 0x80)
				return false;
		i += n;
	}
	return true;
}

static size_t text_at_token[64];
static void on_token_checked(void *ctx, uint64_t id, const struct kb_sched_token *t)
{
	assert_true(is_utf8(t->text.data, t->text.len));
	on_token(ctx, id, t);
	text_at_token[heard_of(id)->n - 1] = heard_of(id)->text_len;
}

// A model that says a given text, byte by byte.
struct parrot {
	const char *says;
	uint32_t n_prompt;
	float logits[FAKE_VOCAB];
	uint32_t rows[64];
};
static uint32_t *parrot_row(void *ctx, uint32_t seq)
{
	(void)seq;
	return ((struct parrot *)ctx)->rows;
}
static int parrot_step(void *ctx, const struct kb_batch *b, struct kb_err *err, const float **ret)
{
	struct parrot *p = ctx;
	(void)err;
	memset(p->logits, 0, sizeof p->logits);
	uint32_t at = b->position[b->n_tokens - 1] + 1 - p->n_prompt;
	p->logits[p->says[at] ? FAKE_BYTE + (uint8_t)p->says[at] : FAKE_EOS] = 9;
	*ret = p->logits;
	return 0;
}

static float penalty; // frequency_penalty of what parrot_says asks

static void parrot_says(const char *says, const char *stop, uint32_t max_new, bool logprobs)
{
	struct parrot p = {.says = says, .n_prompt = 2};
	const struct kb_sched_model model = {.ctx = &p,
		.vocab = FAKE_VOCAB,
		.context = 512,
		.kv_pages = 32,
		.max_tokens = 16,
		.max_seqs = 1,
		.max_out = 1,
		.page_row = parrot_row,
		.step = parrot_step};
	struct kb_sched_events checked = events;
	struct kb_sched *s;
	struct kb_err err = {0};
	const uint32_t prompt[] = {1, 50};
	const struct kb_str stops = {stop, stop ? strlen(stop) : 0};
	checked.token = on_token_checked;
	memset(&ears, 0, sizeof ears);
	assert_int_equal(kb_sched_create(&model, tok, NULL, &checked, &err, &s), 0);
	const struct kb_sched_request r = {.id = 1,
		.prompt = prompt,
		.n_prompt = 2,
		.max_new = max_new,
		.n_stop = stop != NULL,
		.stop = &stops,
		.sampling = {.frequency_penalty = penalty},
		.logprobs = logprobs ? 3 : 0};
	assert_int_equal(kb_sched_submit(s, &r, 0, &err), 0);
	while (kb_sched_plan(s, 0)) {
		int rc = kb_sched_run(s, &err);
		kb_sched_settle(s, rc, &err, 0, 0);
	}
	kb_sched_destroy(s);
	assert_true(is_utf8(heard_of(1)->text, heard_of(1)->text_len));
}

static void text_comes_in_whole_characters(void **state)
{
	(void)state;
	parrot_says("a\xc3\xa9\xe8\xa8\x80\xf0\x9f\x93\xa6z", NULL, 100, false); // 1, 2, 3 and 4 bytes
	assert_string_equal(heard_of(1)->text, "a\xc3\xa9\xe8\xa8\x80\xf0\x9f\x93\xa6z");
	static const size_t lengths[] = {1, 1, 3, 3, 3, 6, 6, 6, 6, 10, 11};
	for (size_t i = 0; i < 11; i++)
		assert_int_equal(text_at_token[i], lengths[i]);
	assert_int_equal(heard_of(1)->done.finish, KB_SCHED_STOP);
	// Cut in the middle of a character: the rest cannot come any more.
	parrot_says("ab\xe8\xa8\x80", NULL, 4, false);
	assert_string_equal(heard_of(1)->text, "ab\xef\xbf\xbd");
	assert_int_equal(heard_of(1)->done.finish, KB_SCHED_LENGTH);
}

static void stop_strings_are_never_said(void **state)
{
	(void)state;
	parrot_says("one EN two END three", "END", 100, false);
	assert_string_equal(heard_of(1)->text, "one EN two ");
	assert_int_equal(heard_of(1)->done.finish, KB_SCHED_STOP);
	assert_int_equal(heard_of(1)->done.completion_tokens, 14);
	assert_int_equal(text_at_token[4], 4); // E and N are held back,
	assert_int_equal(text_at_token[5], 4);
	assert_int_equal(text_at_token[6], 7); // and said when a space shows that they are none
	// Held back to the end, then said after all.
	parrot_says("one EN", "END", 100, false);
	assert_string_equal(heard_of(1)->text, "one EN");
	assert_int_equal(heard_of(1)->done.text.len, 2);
	parrot_says("one EN and more", "END", 6, false);
	assert_string_equal(heard_of(1)->text, "one EN");
	assert_int_equal(heard_of(1)->done.finish, KB_SCHED_LENGTH);
}

static void penalties_see_what_was_generated(void **state)
{
	(void)state;
	penalty = 2; // the model insists on "a" with a logit of 9, all others are 0: 9 - 2 * 5 is the first below
	parrot_says("aaaaaaaaaa", NULL, 7, false);
	penalty = 0;
	for (uint32_t i = 0; i < 7; i++)
		assert_int_equal(heard_of(1)->tokens[i] == FAKE_BYTE + 'a', i < 5);
}

static void logprobs_are_those_of_the_distribution(void **state)
{
	(void)state;
	parrot_says("xy", NULL, 100, true);
	const struct kb_sched_token *t = &heard_of(1)->last;
	assert_true(t->has_logprob && t->n_top == 2);
	assert_int_equal(t->chosen.token, FAKE_BYTE + 'y');
	assert_int_equal(t->top[0].token, FAKE_BYTE + 'y');
	assert_int_equal(t->top[1].token, 0); // the lowest id among equals
	// One logit is 9, 299 are 0: log(e^9 / (e^9 + 299)) and log(1 / (e^9 + 299)), worked out by hand.
	assert_true(t->chosen.logprob > -0.03624f && t->chosen.logprob < -0.03623f);
	assert_true(t->top[1].logprob > -9.03624f && t->top[1].logprob < -9.03622f);
	assert_int_equal(t->chosen.bytes.len, 1);
	assert_int_equal(t->chosen.bytes.data[0], 'y');
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(one_request_says_what_the_model_says),
		cmocka_unit_test(end_token_ends_and_is_not_said),
		cmocka_unit_test(together_equals_alone_with_any_memory),
		cmocka_unit_test(storms_leave_nothing_behind),
		cmocka_unit_test(cancel_frees_pages_at_once_even_in_a_step),
		cmocka_unit_test(clients_take_turns),
		cmocka_unit_test(endless_newcomers_do_not_starve_anyone),
		cmocka_unit_test(long_prompt_does_not_stop_answers),
		cmocka_unit_test(refusals_have_numbers),
		cmocka_unit_test(failed_step_ends_its_requests_only),
		cmocka_unit_test(resumed_answer_goes_on_exactly),
		cmocka_unit_test(text_comes_in_whole_characters),
		cmocka_unit_test(stop_strings_are_never_said),
		cmocka_unit_test(penalties_see_what_was_generated),
		cmocka_unit_test(logprobs_are_those_of_the_distribution),
	};
	return cmocka_run_group_tests(tests, box_setup, box_teardown);
}
