#include "sched/sched.h"
#include "sched/budget.h"
#include "sched/pace.h"
#include "sched/prefix.h"
#include "sched/seq.h"
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define QUEUE_DEFAULT 256u

// A client with at least one request or page in the prefix cache. tag: when its turn is; it grows by one with each
// admission.
struct kb_client {
	char key[KB_SCHED_CLIENT_MAX];
	size_t key_len;
	uint64_t tag;
	uint32_t n_seqs;
	struct kb_prefix_scope scope;
	struct kb_client *next;
};

struct kb_sched {
	struct kb_sched_model model;
	const struct kb_tok *tok;
	struct kb_sched_options options;
	struct kb_sched_events events;
	uint32_t limit; // tokens of one request

	struct kb_pages pages;
	struct kb_prefix prefix;
	uint32_t *shared, n_shared; // options.shared, copied
	struct kb_client *clients;
	uint64_t turn, n_orders; // turn: tag of the client admitted last
	struct kb_seq *waiting;  // by order
	uint32_t n_waiting;
	struct kb_seq **running; // (n_running_max) by order
	uint32_t n_running, n_running_max;
	bool *row_used; // (model.max_seqs)

	// The step in flight. Sequences in it that were cancelled meanwhile stay until settle.
	bool is_stepping;
	struct kb_seq **step; // (n_running_max)
	uint32_t n_step;
	struct kb_batch batch;
	struct kb_sampler_scratch scratch; // run's
	uint32_t *batch_data;              // token, position, slot, seq (max_tokens each), out_row (max_out)

	struct kb_pace pace;
	uint64_t prompt_tokens, cached_tokens, generated_tokens, steps, step_us, preemptions;
	uint64_t guessed_tokens, guessed_right;
};

static int step_of_model(void *ctx, const struct kb_batch *batch, struct kb_err *err, const float **ret_logits)
{
	return kb_model_step(ctx, batch, err, ret_logits);
}

static uint32_t *page_row_of_model(void *ctx, uint32_t seq)
{
	return kb_model_page_row(ctx, seq);
}

struct kb_sched_model kb_sched_model_of(struct kb_model *m) /* see sched.h */
{
	const struct kb_model_info *info = kb_model_info(m);
	return (struct kb_sched_model){
		.ctx = m,
		.vocab = info->vocab,
		.context = info->context,
		.kv_pages = info->kv_pages,
		.max_tokens = info->max_tokens,
		.max_seqs = info->max_seqs,
		.max_out = info->max_out,
		.page_row = page_row_of_model,
		.step = step_of_model,
	};
}

static uint32_t min_u32(uint32_t a, uint32_t b)
{
	return a < b ? a : b;
}

static uint32_t pages_for(uint32_t n_tokens)
{
	return (n_tokens + KB_KV_PAGE_TOKENS - 1) / KB_KV_PAGE_TOKENS;
}

int kb_sched_create(const struct kb_sched_model *model, const struct kb_tok *tok,
	const struct kb_sched_options *options, const struct kb_sched_events *events, struct kb_err *err,
	struct kb_sched **ret)
{
	if (!model->max_tokens || !model->max_seqs || !model->max_out || !model->kv_pages)
		return kb_fail(err, KB_EARG, "scheduler: the model has no room for even one token");
	struct kb_sched *s = calloc(1, sizeof *s);
	if (!s)
		return kb_fail(err, KB_ENOMEM, "scheduler: out of memory");
	s->model = *model;
	s->tok = tok;
	s->events = *events;
	s->options = options ? *options : (struct kb_sched_options){0};
	if (!s->options.queue_max)
		s->options.queue_max = QUEUE_DEFAULT;
	if (!s->options.mixed_tokens)
		s->options.mixed_tokens = model->max_tokens;
	s->options.draft_max = min_u32(s->options.draft_max, KB_DRAFT_MAX);
	s->limit = (uint32_t)(model->kv_pages < UINT32_MAX / KB_KV_PAGE_TOKENS
							  ? min_u32(model->context, model->kv_pages * KB_KV_PAGE_TOKENS)
							  : model->context);
	// Each running request may decode in every step, which takes one token and one row of logits.
	s->n_running_max = min_u32(model->max_seqs, min_u32(model->max_out, model->max_tokens));
	s->running = calloc(s->n_running_max, sizeof *s->running);
	s->step = calloc(s->n_running_max, sizeof *s->step);
	s->row_used = calloc(model->max_seqs, sizeof *s->row_used);
	s->batch_data = calloc((size_t)model->max_tokens * 4 + model->max_out, sizeof *s->batch_data);
	s->n_shared = s->options.n_shared;
	s->shared = calloc(s->n_shared + 1, sizeof *s->shared);
	if (!s->running || !s->step || !s->row_used || !s->batch_data || !s->shared ||
		kb_sampler_scratch_init(&s->scratch, model->vocab) || kb_pages_init(&s->pages, model->kv_pages) ||
		kb_prefix_init(&s->prefix, &s->pages)) {
		kb_sched_destroy(s);
		return kb_fail(err, KB_ENOMEM, "scheduler: out of memory");
	}
	if (s->n_shared)
		memcpy(s->shared, s->options.shared, s->n_shared * sizeof *s->shared);
	s->options.shared = s->shared; // the caller's may go
	*ret = s;
	return 0;
}

// --- clients --------------------------------------------------------------------

static struct kb_client *client_find(struct kb_sched *s, struct kb_str key)
{
	size_t len = key.len < KB_SCHED_CLIENT_MAX ? key.len : KB_SCHED_CLIENT_MAX;
	for (struct kb_client *c = s->clients; c; c = c->next)
		if (c->key_len == len && (len == 0 || memcmp(c->key, key.data, len) == 0)) {
			if (c->n_seqs == 0 && c->tag < s->turn + 1)
				c->tag = s->turn + 1; // it was away, and comes like a new one
			return c;
		}
	struct kb_client *c = calloc(1, sizeof *c);
	if (!c)
		return NULL;
	if (len)
		memcpy(c->key, key.data, len);
	c->key_len = len;
	// After everyone who waits for their turn now: an endless row of new clients must not starve an old one.
	c->tag = s->turn + 1;
	c->next = s->clients;
	s->clients = c;
	return c;
}

static void client_drop_if_idle(struct kb_sched *s, struct kb_client *c)
{
	if (c->n_seqs > 0 || c->scope.n_pages > 0)
		return;
	struct kb_client **at = &s->clients;
	while (*at != c)
		at = &(*at)->next;
	*at = c->next;
	free(c);
}

// --- pages ----------------------------------------------------------------------

// Gives q's pages from entry `from` on to the model.
static void write_page_row(struct kb_sched *s, const struct kb_seq *q, uint32_t from)
{
	uint32_t *row = s->model.page_row(s->model.ctx, q->row);
	for (uint32_t i = from; i < q->pages.n; i++)
		row[i] = q->pages.page[i];
}

// How q looks to the prefix cache, as far as its first n_tokens go.
static struct kb_prefix_text text_so_far(struct kb_sched *s, struct kb_seq *q, uint32_t n_tokens)
{
	uint32_t n_same = 0, most = min_u32(s->n_shared, n_tokens);
	while (n_same < most && q->token[n_same] == s->shared[n_same])
		n_same++;
	return (struct kb_prefix_text){&q->client->scope, n_same / KB_KV_PAGE_TOKENS, q->token, n_tokens};
}

// Keeps what is computed of q for whoever asks the same. Returns true when q's pages are others now.
static bool keep_pages(struct kb_sched *s, struct kb_seq *q)
{
	if (s->options.no_prefix_cache)
		return false;
	const struct kb_prefix_text text = text_so_far(s, q, q->n_computed);
	return kb_prefix_insert(&s->prefix, &text, &q->pages);
}

// As kb_page_list_grow, at the prefix cache's expense.
static int grow(struct kb_sched *s, struct kb_page_list *list, uint32_t n)
{
	if (n > list->n && kb_prefix_make_room(&s->prefix, n - list->n) > 0)
		for (struct kb_client *c = s->clients, *next; c; c = next) {
			next = c->next;
			client_drop_if_idle(s, c);
		}
	return kb_page_list_grow(list, &s->pages, n);
}

// --- lists ----------------------------------------------------------------------

static void waiting_insert(struct kb_sched *s, struct kb_seq *q)
{
	struct kb_seq **at = &s->waiting;
	while (*at && (*at)->order < q->order)
		at = &(*at)->next;
	q->next = *at;
	*at = q;
	s->n_waiting++;
}

static void waiting_remove(struct kb_sched *s, struct kb_seq *q)
{
	struct kb_seq **at = &s->waiting;
	while (*at != q)
		at = &(*at)->next;
	*at = q->next;
	q->next = NULL;
	s->n_waiting--;
}

static void running_insert(struct kb_sched *s, struct kb_seq *q)
{
	assert(s->n_running < s->n_running_max);
	uint32_t i = s->n_running++;
	for (; i > 0 && s->running[i - 1]->order > q->order; i--)
		s->running[i] = s->running[i - 1];
	s->running[i] = q;
}

// Takes q off the running list; its pages and its row are free afterwards.
static void running_remove(struct kb_sched *s, struct kb_seq *q)
{
	uint32_t i = 0;
	while (s->running[i] != q)
		i++;
	s->n_running--;
	memmove(s->running + i, s->running + i + 1, (s->n_running - i) * sizeof *s->running);
	keep_pages(s, q); // a step in flight writes behind them
	kb_page_list_clear(&q->pages, &s->pages);
	s->row_used[q->row] = false;
	q->n_computed = 0;
}

static void seq_free(struct kb_sched *s, struct kb_seq *q)
{
	struct kb_client *client = q->client;
	kb__seq_destroy(q, &s->pages);
	if (client) {
		client->n_seqs--;
		client_drop_if_idle(s, client);
	}
}

// Off every list. What is in flight stays in memory until settle, because run may be looking at it.
static void seq_end(struct kb_sched *s, struct kb_seq *q)
{
	if (q->state == KB_SEQ_WAITING)
		waiting_remove(s, q);
	else
		running_remove(s, q);
	kb__seq_set_state(q, KB_SEQ_DONE);
	if (!q->in_flight)
		seq_free(s, q);
}

static struct kb_seq *seq_find(const struct kb_sched *s, uint64_t id)
{
	for (struct kb_seq *q = s->waiting; q; q = q->next)
		if (q->id == id)
			return q;
	for (uint32_t i = 0; i < s->n_running; i++)
		if (s->running[i]->id == id)
			return s->running[i];
	return NULL;
}

static struct kb_str text_of(const struct kb_buf *b)
{
	return (struct kb_str){(const char *)b->data, b->len};
}

static void emit_done(struct kb_sched *s, const struct kb_seq *q, enum kb_sched_finish finish, uint64_t now_us)
{
	uint64_t admitted = q->admitted_us != KB_SEQ_NEVER ? q->admitted_us : now_us;
	uint64_t first = q->first_token_us != KB_SEQ_NEVER ? q->first_token_us : now_us;
	struct kb_sched_done done = {
		.finish = finish,
		.text = finish == KB_SCHED_CANCELLED ? (struct kb_str){0} : text_of(&q->text),
		.prompt_tokens = q->n_prompt,
		.completion_tokens = q->n_tokens - q->n_prompt,
		.cached_tokens = q->n_cached,
		.queue_us = admitted - q->submitted_us,
		.prefill_us = first - admitted,
		.decode_us = now_us - first,
	};
	s->events.done(s->events.ctx, q->id, &done);
}

static void fail(struct kb_sched *s, struct kb_seq *q, const struct kb_err *err)
{
	s->events.error(s->events.ctx, q->id, err);
	seq_end(s, q);
}

// Done, with the text that was held back.
static void complete(struct kb_sched *s, struct kb_seq *q, enum kb_sched_finish finish, uint64_t now_us)
{
	struct kb_err err = {0};
	int rc = kb__seq_flush(q);
	if (rc) {
		kb_fail(&err, rc, "the end of the answer: %s", kb_err_message(rc));
		fail(s, q, &err);
		return;
	}
	emit_done(s, q, finish, now_us);
	seq_end(s, q);
}

// --- submit and cancel ------------------------------------------------------------

static int check_request(const struct kb_sched *s, const struct kb_sched_request *r, struct kb_err *err)
{
	if (r->n_prompt == 0)
		return kb_fail(err, KB_EARG, "the prompt is empty: it needs at least one token");
	for (uint32_t i = 0; i < r->n_prompt; i++)
		if (r->prompt[i] >= s->model.vocab)
			return kb_fail(err, KB_EARG, "prompt token %u is %u, but the vocabulary has %u tokens", i, r->prompt[i],
				s->model.vocab);
	for (uint32_t i = 0; i < r->n_resume; i++)
		if (r->resume[i] >= s->model.vocab)
			return kb_fail(err, KB_EARG, "resumed token %u is %u, but the vocabulary has %u tokens", i, r->resume[i],
				s->model.vocab);
	if (r->n_prompt >= s->limit)
		return kb_fail(err, KB_ELIMIT,
			"the prompt has %u tokens and the answer needs at least one, but the context holds %u: shorten the prompt",
			r->n_prompt, s->limit);
	if (r->max_new > s->limit - r->n_prompt)
		return kb_fail(err, KB_ELIMIT,
			"the prompt has %u tokens and the answer may have %u, but the context holds %u: shorten the prompt or ask "
			"for at most %u tokens",
			r->n_prompt, r->max_new, s->limit, s->limit - r->n_prompt);
	if (r->n_resume > s->limit - r->n_prompt || (r->max_new && r->n_resume > r->max_new))
		return kb_fail(err, KB_EARG, "%u resumed tokens are more than the answer may have", r->n_resume);
	if (r->logprobs > KB_SCHED_TOP_MAX + 1)
		return kb_fail(err, KB_EARG, "at most %u alternatives a token", KB_SCHED_TOP_MAX);
	if (seq_find(s, r->id))
		return kb_fail(err, KB_EEXISTS, "request %llu is already running", (unsigned long long)r->id);
	return 0;
}

int kb_sched_submit(struct kb_sched *s, const struct kb_sched_request *r, uint64_t now_us, struct kb_err *err)
{
	int rc = check_request(s, r, err);
	if (rc)
		return rc;
	if (s->n_waiting >= s->options.queue_max)
		return kb_fail(err, KB_EBUSY, "%u requests are waiting already: try again later", s->n_waiting);
	struct kb_seq *q;
	rc = kb__seq_create(r, s->tok, s->limit, err, &q);
	if (rc)
		return rc;
	q->submitted_us = now_us;
	q->order = s->n_orders++;
	q->client = client_find(s, r->client);
	if (!q->client) {
		seq_free(s, q);
		return kb_fail(err, KB_ENOMEM, "out of memory for the client's record");
	}
	q->client->n_seqs++;
	s->prompt_tokens += q->n_prompt;
	s->events.accepted(s->events.ctx, q->id, q->n_prompt);
	waiting_insert(s, q);
	if (kb__seq_is_complete(q)) // the engine before this one died between the last token and done
		complete(s, q, q->is_stopped ? KB_SCHED_STOP : KB_SCHED_LENGTH, now_us);
	return 0;
}

int kb_sched_cancel(struct kb_sched *s, uint64_t id, uint64_t now_us)
{
	struct kb_seq *q = seq_find(s, id);
	if (!q)
		return KB_ENOTFOUND;
	emit_done(s, q, KB_SCHED_CANCELLED, now_us);
	seq_end(s, q);
	return 0;
}

// --- planning ---------------------------------------------------------------------

static void preempt(struct kb_sched *s, struct kb_seq *q)
{
	running_remove(s, q);
	q->was_preempted = true;
	q->n_step = 0;
	kb__seq_set_state(q, KB_SEQ_WAITING);
	waiting_insert(s, q);
	s->preemptions++;
}

// Who is admitted next: the oldest preempted request; else the oldest of the client whose turn it is.
static struct kb_seq *next_waiting(const struct kb_sched *s)
{
	struct kb_seq *best = NULL;
	for (struct kb_seq *q = s->waiting; q; q = q->next) {
		if (q->was_preempted)
			return q; // the list is in order
		if (!best || q->client->tag < best->client->tag)
			best = q;
	}
	return best;
}

// Pages for what q has to read yet and one token more; one page more for each who runs already, so that the next few
// tokens do not preempt it again. Alone it needs no reserve.
static bool has_room(const struct kb_sched *s, const struct kb_seq *q)
{
	uint32_t tokens = q->n_tokens < q->limit ? q->n_tokens + 1 : q->n_tokens;
	return s->pages.n_free + s->pages.n_idle >= pages_for(tokens) - q->pages.n + s->n_running;
}

// Pages for all of q's tokens: what the prefix cache has of them (all but one, which gives the first logits), then new
// ones.
static bool take_pages(struct kb_sched *s, struct kb_seq *q)
{
	const struct kb_prefix_text text = text_so_far(s, q, q->n_tokens - 1);
	if (!s->options.no_prefix_cache && kb_prefix_match(&s->prefix, &text, &q->pages))
		return false;
	q->n_computed = q->pages.n * KB_KV_PAGE_TOKENS;
	if (has_room(s, q) && grow(s, &q->pages, pages_for(q->n_tokens)) == 0)
		return true;
	kb_page_list_clear(&q->pages, &s->pages);
	q->n_computed = 0;
	return false;
}

static bool admit_one(struct kb_sched *s, uint64_t now_us)
{
	struct kb_seq *q = s->n_running < s->n_running_max ? next_waiting(s) : NULL;
	// The one whose turn it is must not be overtaken by smaller ones for ever: if it does not fit, all wait.
	if (!q || !take_pages(s, q))
		return false;
	waiting_remove(s, q);
	q->row = 0;
	while (s->row_used[q->row])
		q->row++;
	s->row_used[q->row] = true;
	write_page_row(s, q, 0);
	if (!q->was_preempted) {
		if (q->client->tag > s->turn)
			s->turn = q->client->tag;
		q->client->tag = s->turn + 1;
		q->admitted_us = now_us;
		q->n_cached = min_u32(q->n_computed, q->n_prompt);
		s->cached_tokens += q->n_cached;
	}
	q->was_preempted = false;
	kb__seq_set_state(q, KB_SEQ_PREFILL);
	running_insert(s, q);
	return true;
}

// Oldest first; whoever is newest pays.
static void reserve_pages(struct kb_sched *s)
{
	for (uint32_t i = 0; i < s->n_running; i++) {
		struct kb_seq *q = s->running[i];
		uint32_t had = q->pages.n;
		while (grow(s, &q->pages, pages_for(q->n_computed + q->n_step)) != 0) {
			if (q->n_draft > 0) { // nobody is put back for a guess
				q->n_step -= q->n_draft;
				q->n_draft = 0;
				continue;
			}
			struct kb_seq *newest = s->running[s->n_running - 1];
			preempt(s, newest);
			if (newest == q)
				break;
		}
		if (q->state != KB_SEQ_WAITING && q->pages.n > had)
			write_page_row(s, q, had);
	}
}

static void batch_add(struct kb_sched *s, struct kb_seq *q, struct kb_batch *b)
{
	uint32_t *token = s->batch_data, *position = token + s->model.max_tokens;
	uint32_t *slot = position + s->model.max_tokens, *seq = slot + s->model.max_tokens;
	uint32_t *out_row = seq + s->model.max_tokens;
	for (uint32_t i = 0; i < q->n_step; i++) {
		uint32_t at = q->n_computed + i, n = b->n_tokens++;
		token[n] = at < q->n_tokens ? q->token[at] : q->guess[at - q->n_tokens];
		position[n] = at;
		slot[n] = q->pages.page[at / KB_KV_PAGE_TOKENS] * KB_KV_PAGE_TOKENS + at % KB_KV_PAGE_TOKENS;
		seq[n] = q->row;
	}
	q->out = UINT32_MAX;
	if (q->n_computed + q->n_step >= q->n_tokens) {
		q->out = b->n_out;
		for (uint32_t i = 0; i <= q->n_draft; i++)
			out_row[b->n_out++] = b->n_tokens - 1 - q->n_draft + i;
	}
	q->in_flight = true;
	s->step[s->n_step++] = q;
}

bool kb_sched_plan(struct kb_sched *s, uint64_t now_us) /* see sched.h */
{
	assert(!s->is_stepping);
	while (admit_one(s, now_us))
		;
	const struct kb_budget budget = {.pace = &s->pace,
		.max_tokens = s->model.max_tokens,
		.max_out = s->model.max_out,
		.mixed_tokens = s->options.mixed_tokens,
		.draft_max = s->options.draft_max};
	kb__budget_share(&budget, s->running, s->n_running);
	reserve_pages(s);
	uint32_t *data = s->batch_data, n = s->model.max_tokens;
	struct kb_batch b = {.token = data, .position = data + n, .slot = data + 2 * n, .seq = data + 3 * n};
	b.out_row = data + 4 * (size_t)n;
	s->n_step = 0;
	for (uint32_t i = 0; i < s->n_running; i++)
		if (s->running[i]->n_step > 0)
			batch_add(s, s->running[i], &b);
	s->batch = b;
	s->is_stepping = s->n_step > 0;
	return s->is_stepping;
}

// --- a step -----------------------------------------------------------------------

int kb_sched_run(struct kb_sched *s, struct kb_err *err)
{
	assert(s->is_stepping);
	const float *logits = NULL;
	int rc = s->model.step(s->model.ctx, &s->batch, err, &logits);
	for (uint32_t i = 0; i < s->n_step && rc == 0; i++)
		if (s->step[i]->out != UINT32_MAX)
			rc = kb__seq_sample(s->step[i], &s->scratch, logits + (size_t)s->step[i]->out * s->model.vocab, err);
	return rc;
}

static struct kb_sched_logprob logprob_of(const struct kb_seq *q, uint32_t token, float logprob)
{
	return (struct kb_sched_logprob){token, logprob, kb_tok_piece(q->tok, token)};
}

static void emit_token(struct kb_sched *s, const struct kb_seq *q, const struct kb_seq_sample *a)
{
	struct kb_sched_token t = {.token = a->token, .text = text_of(&q->text), .has_logprob = q->logprobs > 0};
	if (t.has_logprob) {
		t.chosen = logprob_of(q, a->token, a->logprob);
		t.n_top = q->logprobs - 1u;
		for (uint32_t i = 0; i < t.n_top; i++)
			t.top[i] = logprob_of(q, a->top[i].token, a->top[i].logprob);
	}
	s->events.token(s->events.ctx, q->id, &t);
}

// A token was sampled for q: text, stops, limits, events. Returns true while q goes on.
static bool take_token(struct kb_sched *s, struct kb_seq *q, const struct kb_seq_sample *a, uint64_t now_us)
{
	struct kb_err err = {0};
	if (q->first_token_us == KB_SEQ_NEVER)
		q->first_token_us = now_us;
	if (kb__seq_is_end(q, a->token)) {
		complete(s, q, KB_SCHED_STOP, now_us);
		return false;
	}
	int rc = kb__seq_say(q, a->token);
	if (rc) {
		kb_fail(&err, rc, "token %u of the answer: %s", q->n_tokens - q->n_prompt, kb_err_message(rc));
		fail(s, q, &err);
		return false;
	}
	s->generated_tokens++;
	emit_token(s, q, a);
	if (!kb__seq_is_complete(q))
		return true;
	complete(s, q, q->is_stopped ? KB_SCHED_STOP : KB_SCHED_LENGTH, now_us);
	return false;
}

// Guesses that were made, also those that no step checked, are compared with what came.
static void learn(struct kb_sched *s, struct kb_seq *q)
{
	uint32_t n_right = 0, n = min_u32(q->n_sampled, q->n_guesses);
	while (n_right < n && q->sampled[n_right].token == q->guess[n_right])
		n_right++;
	kb_draft_learn(&q->draft, q->agreed, n_right, n_right < n);
	s->guessed_tokens += q->n_draft;
	s->guessed_right += q->n_sampled - 1;
}

static void settle_one(struct kb_sched *s, struct kb_seq *q, int rc, const struct kb_err *err, uint64_t now_us)
{
	q->in_flight = false;
	if (q->state == KB_SEQ_DONE) { // cancelled meanwhile
		seq_free(s, q);
		return;
	}
	if (rc) {
		fail(s, q, err);
		return;
	}
	q->n_computed += q->n_step - q->n_draft;
	q->n_step = 0;
	if (q->out == UINT32_MAX)
		return;
	if (q->state == KB_SEQ_PREFILL) {
		kb__seq_set_state(q, KB_SEQ_DECODE);
		if (keep_pages(s, q))
			write_page_row(s, q, 0);
	}
	learn(s, q);
	for (uint32_t i = 0; i < q->n_sampled; i++) {
		q->n_computed += i > 0; // the guess before this token was right: its K and V are there
		if (!take_token(s, q, &q->sampled[i], now_us))
			return;
	}
}

void kb_sched_settle(struct kb_sched *s, int rc, const struct kb_err *err, uint64_t step_us, uint64_t now_us)
{
	assert(s->is_stepping);
	s->is_stepping = false;
	s->steps++;
	s->step_us += step_us;
	if (rc == 0)
		kb_pace_add(&s->pace, s->batch.n_tokens, step_us);
	for (uint32_t i = 0; i < s->n_step; i++)
		settle_one(s, s->step[i], rc, err, now_us);
	s->n_step = 0;
}

void kb_sched_destroy(struct kb_sched *s)
{
	if (!s)
		return;
	assert(!s->is_stepping);
	while (s->waiting)
		seq_end(s, s->waiting);
	while (s->running && s->n_running > 0)
		seq_end(s, s->running[s->n_running - 1]);
	kb_prefix_finish(&s->prefix);
	while (s->clients)
		client_drop_if_idle(s, s->clients);
	kb_pages_finish(&s->pages);
	kb_sampler_scratch_finish(&s->scratch);
	free(s->running);
	free(s->step);
	free(s->row_used);
	free(s->batch_data);
	free(s->shared);
	free(s);
}

void kb_sched_stats(const struct kb_sched *s, struct kb_sched_stats *ret)
{
	*ret = (struct kb_sched_stats){
		.running = s->n_running,
		.waiting = s->n_waiting,
		.kv_pages = s->pages.total,
		.kv_pages_used = s->pages.total - s->pages.n_free - s->pages.n_idle,
		.kv_pages_idle = s->pages.n_idle,
		.prompt_tokens = s->prompt_tokens,
		.cached_tokens = s->cached_tokens,
		.guessed_tokens = s->guessed_tokens,
		.guessed_right = s->guessed_right,
		.generated_tokens = s->generated_tokens,
		.steps = s->steps,
		.step_us = s->step_us,
		.preemptions = s->preemptions,
	};
}

// Every reference to a page is a running request's or the prefix cache's.
static bool pages_are_sound(const struct kb_sched *s)
{
	uint16_t *refs = calloc(s->pages.total + 1, sizeof *refs);
	if (!refs)
		return false;
	for (uint32_t i = 0; i < s->n_running; i++)
		for (uint32_t p = 0; p < s->running[i]->pages.n; p++)
			refs[s->running[i]->pages.page[p]]++;
	for (uint32_t p = 0; p < s->pages.total; p++)
		refs[p] += s->pages.is_kept[p];
	bool is_sound = memcmp(refs, s->pages.refs, s->pages.total * sizeof *refs) == 0;
	free(refs);
	return is_sound && kb_pages_is_sound(&s->pages) && kb_prefix_is_sound(&s->prefix);
}

// What a running request will write is its own.
static bool running_is_sound(const struct kb_sched *s, const struct kb_seq *q)
{
	if (q->state != KB_SEQ_PREFILL && q->state != KB_SEQ_DECODE)
		return false;
	if (!s->row_used[q->row] || q->n_computed >= q->n_tokens || q->n_tokens > q->limit)
		return false;
	for (uint32_t p = q->n_computed / KB_KV_PAGE_TOKENS; p < q->pages.n; p++)
		if (s->pages.refs[q->pages.page[p]] != 1)
			return false;
	return q->pages.n >= pages_for(q->n_computed);
}

bool kb_sched_is_sound(const struct kb_sched *s)
{
	uint32_t rows = 0, n_waiting = 0, n_seqs = 0, n_kept = s->prefix.shared.n_pages;
	for (uint32_t i = 0; i < s->n_running; i++)
		if (!running_is_sound(s, s->running[i]) || (i > 0 && s->running[i - 1]->order >= s->running[i]->order))
			return false;
	for (uint32_t i = 0; i < s->model.max_seqs; i++)
		rows += s->row_used[i];
	for (const struct kb_seq *q = s->waiting; q; q = q->next) {
		if (q->state != KB_SEQ_WAITING || q->pages.n != 0 || q->n_computed != 0)
			return false;
		n_waiting++;
	}
	for (const struct kb_client *c = s->clients; c; c = c->next) {
		if (c->n_seqs == 0 && c->scope.n_pages == 0)
			return false;
		n_seqs += c->n_seqs;
		n_kept += c->scope.n_pages;
	}
	for (uint32_t p = 0; p < s->pages.total; p++)
		n_kept -= s->pages.is_kept[p];
	uint32_t ended = 0; // cancelled, but still in flight
	for (uint32_t i = 0; i < s->n_step; i++)
		ended += s->step[i]->state == KB_SEQ_DONE;
	return pages_are_sound(s) && n_kept == 0 && rows == s->n_running && n_waiting == s->n_waiting &&
		   n_seqs == s->n_running + s->n_waiting + ended;
}
