// For scheduler tests: a scheduler over the fake model (fake.h), and what its requests are told.
#pragma once
#include "fake.h"

enum { IDS_MAX = 4096, TOKENS_MAX = 512 };

struct heard {
	uint32_t n_accepted, n_ended, n_errors, prompt_tokens;
	uint32_t tokens[TOKENS_MAX], n;
	char text[TOKENS_MAX * 8];
	size_t text_len;
	struct kb_sched_done done;
	struct kb_err err;
	struct kb_sched_token last;
	uint64_t admitted_step; // when its first token came
};

struct listener {
	struct heard of[IDS_MAX];
	uint64_t now;
};
static struct listener ears; // large: static

static inline struct heard *heard_of(uint64_t id)
{
	assert_true(id < IDS_MAX);
	return &ears.of[id];
}

static inline void hear_text(struct heard *h, struct kb_str text)
{
	if (!text.len)
		return;
	assert_true(h->text_len + text.len < sizeof h->text);
	memcpy(h->text + h->text_len, text.data, text.len);
	h->text_len += text.len;
	h->text[h->text_len] = 0;
}

static inline void on_accepted(void *ctx, uint64_t id, uint32_t prompt_tokens)
{
	assert_ptr_equal(ctx, &ears);
	heard_of(id)->n_accepted++;
	heard_of(id)->prompt_tokens = prompt_tokens;
}

static inline void on_token(void *ctx, uint64_t id, const struct kb_sched_token *t)
{
	(void)ctx;
	struct heard *h = heard_of(id);
	assert_true(h->n_accepted == 1 && h->n_ended == 0 && h->n < TOKENS_MAX);
	if (h->n == 0)
		h->admitted_step = ears.now;
	h->tokens[h->n++] = t->token;
	h->last = *t;
	hear_text(h, t->text);
}

static inline void on_done(void *ctx, uint64_t id, const struct kb_sched_done *d)
{
	(void)ctx;
	struct heard *h = heard_of(id);
	assert_true(h->n_accepted == 1 && h->n_ended == 0);
	h->n_ended++;
	h->done = *d;
	hear_text(h, d->text);
}

static inline void on_error(void *ctx, uint64_t id, const struct kb_err *err)
{
	(void)ctx;
	struct heard *h = heard_of(id);
	assert_true(h->n_accepted == 1 && h->n_ended == 0);
	h->n_ended++;
	h->n_errors++;
	h->err = *err;
}

static const struct kb_sched_events events = {&ears, on_accepted, on_token, on_done, on_error};
static struct kb_tok *tok;

struct box {
	struct fake fake;
	struct kb_sched *sched;
};

static uint32_t draft_max; // of box_open

static inline void box_open_with(
	struct box *b, uint32_t kv_pages, uint32_t max_tokens, uint32_t max_seqs, const struct kb_sched_options *options)
{
	struct kb_err err = {0};
	memset(&ears, 0, sizeof ears);
	b->fake.kv_pages = kv_pages;
	b->fake.max_tokens = max_tokens;
	b->fake.max_seqs = max_seqs;
	b->fake.context = 1024;
	struct kb_sched_model model = fake_model(&b->fake);
	assert_int_equal(kb_sched_create(&model, tok, options, &events, &err, &b->sched), 0);
}

static inline void box_open(
	struct box *b, uint32_t kv_pages, uint32_t max_tokens, uint32_t max_seqs, uint32_t queue_max)
{
	const struct kb_sched_options options = {
		.queue_max = queue_max, .mixed_tokens = max_tokens / 2, .draft_max = draft_max};
	box_open_with(b, kv_pages, max_tokens, max_seqs, &options);
}

static inline void box_close(struct box *b)
{
	struct kb_sched_stats st;
	kb_sched_stats(b->sched, &st);
	assert_int_equal(st.kv_pages_used, 0);
	assert_int_equal(st.running + st.waiting, 0);
	kb_sched_destroy(b->sched);
	fake_finish(&b->fake);
	*b = (struct box){0};
}

static inline bool step(struct box *b)
{
	struct kb_err err = {0};
	if (!kb_sched_plan(b->sched, ears.now))
		return false;
	assert_true(kb_sched_is_sound(b->sched));
	int rc = kb_sched_run(b->sched, &err);
	kb_sched_settle(b->sched, rc, &err, 10, ++ears.now);
	assert_true(kb_sched_is_sound(b->sched));
	return true;
}

static inline void run_all(struct box *b)
{
	for (uint32_t i = 0; i < 100000; i++)
		if (!step(b))
			return;
	fail_msg("it never ends");
}

static uint64_t seed = 1;
static inline uint32_t dice(uint32_t n)
{
	seed = seed * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t)(seed >> 33) % n;
}

static uint32_t n_common; // so many first tokens of a prompt are one of three texts

static inline void make_prompt(uint32_t id, uint32_t n, uint32_t *ret)
{
	for (uint32_t i = 0; i < n; i++)
		ret[i] = FAKE_BYTE + (uint32_t)(fake_mix(i < n_common ? id % 3 : id, i) % 256);
}

static inline int ask(struct box *b, uint64_t id, uint32_t n_prompt, uint32_t max_new, const char *client)
{
	uint32_t prompt[1024];
	struct kb_err err = {0};
	make_prompt((uint32_t)id, n_prompt, prompt);
	const struct kb_sched_request r = {
		.id = id, .prompt = prompt, .n_prompt = n_prompt, .max_new = max_new, .client = {client, strlen(client)}};
	return kb_sched_submit(b->sched, &r, ears.now, &err);
}

static inline void expect_greedy(const struct fake *f, uint64_t id, uint32_t n_prompt, uint32_t max_new, bool whole)
{
	uint32_t prompt[1024], want[TOKENS_MAX];
	const struct heard *h = heard_of(id);
	make_prompt((uint32_t)id, n_prompt, prompt);
	uint32_t n = fake_expect(f, prompt, n_prompt, max_new, want);
	assert_true(h->n <= n);
	if (whole)
		assert_int_equal(h->n, n);
	for (uint32_t i = 0; i < h->n; i++)
		assert_int_equal(h->tokens[i], want[i]);
}

static inline int box_setup(void **state)
{
	(void)state;
	tok = fake_tok();
	return tok == NULL;
}
static inline int box_teardown(void **state)
{
	(void)state;
	kb_tok_destroy(tok);
	return 0;
}
