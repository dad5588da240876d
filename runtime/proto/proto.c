#include "proto/proto.h"

#include "base/half.h"
#include <string.h>

#define HEAD_BYTES 9u // type and request id, after the length

// One description of every message serves both directions (walk_body), so encoder and decoder cannot disagree.
// The first failure sticks; from then on every step does nothing.
struct codec {
	struct kb_buf *out;      // encoding: appends here
	const uint8_t *at, *end; // decoding: what is left of the frame
	int error;
};

static void fail(struct codec *c, int error)
{
	if (!c->error)
		c->error = error;
}

static void put(struct codec *c, const void *data, size_t n)
{
	if (!c->error)
		fail(c, kb_buf_append(c->out, data, n));
}

// The next n bytes of the frame, or NULL.
static const uint8_t *take(struct codec *c, size_t n)
{
	if (c->error)
		return NULL;
	if (n > (size_t)(c->end - c->at)) {
		fail(c, KB_EBAD);
		return NULL;
	}
	const uint8_t *p = c->at;
	c->at += n;
	return p;
}

static void walk_uint(struct codec *c, uint64_t *v, size_t bytes)
{
	uint8_t raw[8];
	if (c->out) {
		for (size_t i = 0; i < bytes; i++)
			raw[i] = (uint8_t)(*v >> 8 * i);
		put(c, raw, bytes);
		return;
	}
	const uint8_t *p = take(c, bytes);
	*v = 0;
	for (size_t i = 0; p && i < bytes; i++)
		*v |= (uint64_t)p[i] << 8 * i;
}

static void walk_u8(struct codec *c, uint8_t *v, uint8_t max)
{
	uint64_t wide = *v;
	walk_uint(c, &wide, 1);
	*v = (uint8_t)wide;
	if (*v > max)
		fail(c, c->out ? KB_EARG : KB_EBAD);
}

static void walk_u32(struct codec *c, uint32_t *v)
{
	uint64_t wide = *v;
	walk_uint(c, &wide, 4);
	*v = (uint32_t)wide;
}

static void walk_u64(struct codec *c, uint64_t *v)
{
	walk_uint(c, v, 8);
}

static void walk_f32(struct codec *c, float *v)
{
	uint32_t bits = c->out ? kb_f32_bits(*v) : 0;
	walk_u32(c, &bits);
	*v = kb_f32_from_bits(bits);
}

static void walk_count(struct codec *c, uint32_t *n, uint32_t max)
{
	walk_u32(c, n);
	if (*n > max)
		fail(c, KB_ELIMIT);
}

// n bytes that are in the frame as they are.
static void walk_bytes(struct codec *c, const uint8_t **data, size_t n)
{
	if (c->out)
		put(c, *data, n);
	else
		*data = take(c, n);
}

static void walk_str(struct codec *c, struct kb_str *s)
{
	uint32_t n = s->len > KB_FRAME_MAX ? KB_FRAME_MAX + 1 : (uint32_t)s->len;
	walk_count(c, &n, KB_FRAME_MAX);
	const uint8_t *data = (const uint8_t *)s->data;
	walk_bytes(c, &data, n);
	*s = (struct kb_str){(const char *)data, c->error ? 0 : n};
}

static void walk_u32_list(struct codec *c, const uint8_t **data, uint32_t *n)
{
	walk_count(c, n, KB_FRAME_MAX / 4);
	walk_bytes(c, data, (size_t)*n * 4);
}

static bool read_message(struct codec *c, struct kb_chat_message *m)
{
	*m = (struct kb_chat_message){{NULL, 0}, {NULL, 0}};
	walk_str(c, &m->role);
	walk_str(c, &m->content);
	return !c->error;
}

// The list is checked in both directions: what the encoder is given must hold exactly n_messages.
static void walk_messages(struct codec *c, struct kb_msg_submit *s)
{
	walk_count(c, &s->n_messages, KB_MESSAGES_MAX);
	if (c->error)
		return;
	struct codec list = {.at = c->at, .end = c->end};
	if (c->out)
		list = (struct codec){.at = s->messages, .end = s->messages_len ? s->messages + s->messages_len : s->messages};
	const uint8_t *start = list.at;
	struct kb_chat_message message;
	for (uint32_t i = 0; i < s->n_messages; i++)
		if (!read_message(&list, &message))
			break;
	if (list.error)
		fail(c, c->out ? KB_EARG : list.error);
	else if (c->out && list.at != list.end)
		fail(c, KB_EARG);
	if (c->error)
		return;
	s->messages = start;
	s->messages_len = start ? (size_t)(list.at - start) : 0;
	walk_bytes(c, &s->messages, s->messages_len);
}

static void walk_submit(struct codec *c, struct kb_msg_submit *s)
{
	walk_u8(c, &s->kind, KB_PROMPT_TOKENS);
	walk_messages(c, s);
	walk_str(c, &s->text);
	walk_u32_list(c, &s->tokens, &s->n_tokens);
	walk_u32_list(c, &s->resume, &s->n_resume);
	walk_u32(c, &s->max_new);
	walk_f32(c, &s->sampling.temperature);
	walk_f32(c, &s->sampling.top_p);
	walk_f32(c, &s->sampling.min_p);
	walk_u32(c, &s->sampling.top_k);
	walk_f32(c, &s->sampling.repeat_penalty);
	walk_f32(c, &s->sampling.presence_penalty);
	walk_f32(c, &s->sampling.frequency_penalty);
	walk_u64(c, &s->sampling.seed);
	walk_u8(c, &s->logprobs, 1 + KB_TOP_LOGPROBS_MAX);
	walk_u8(c, &s->ignore_eos, 1);
	walk_count(c, &s->n_stop, KB_STOP_MAX);
	for (uint32_t i = 0; i < s->n_stop && !c->error; i++)
		walk_str(c, &s->stop[i]);
	walk_str(c, &s->client);
}

static void walk_ready(struct codec *c, struct kb_msg_ready *r)
{
	walk_u32(c, &r->version);
	walk_str(c, &r->arch);
	walk_str(c, &r->name);
	walk_str(c, &r->device);
	walk_u32(c, &r->vocab);
	walk_u32(c, &r->context);
	walk_u32(c, &r->max_seqs);
	walk_u32(c, &r->kv_tokens);
	walk_u64(c, &r->weight_bytes);
	walk_u64(c, &r->kv_bytes);
	walk_u64(c, &r->parameters);
}

static void walk_progress(struct codec *c, struct kb_msg_progress *p)
{
	walk_u64(c, &p->done);
	walk_u64(c, &p->total);
	walk_str(c, &p->what);
}

static void walk_logprob(struct codec *c, struct kb_logprob *l)
{
	walk_u32(c, &l->token);
	walk_f32(c, &l->logprob);
	walk_str(c, &l->bytes);
}

// chosen and top are in the frame only where has_logprob is 1.
static void walk_token(struct codec *c, struct kb_msg_token *t)
{
	walk_u32(c, &t->token);
	walk_str(c, &t->text);
	walk_u8(c, &t->has_logprob, 1);
	if (c->error || !t->has_logprob)
		return;
	walk_logprob(c, &t->chosen);
	walk_count(c, &t->n_top, KB_TOP_LOGPROBS_MAX);
	for (uint32_t i = 0; i < t->n_top && !c->error; i++)
		walk_logprob(c, &t->top[i]);
}

static void walk_done(struct codec *c, struct kb_msg_done *d)
{
	walk_u8(c, &d->finish, KB_FINISH_CANCELLED);
	walk_str(c, &d->text);
	walk_u32(c, &d->prompt_tokens);
	walk_u32(c, &d->completion_tokens);
	walk_u32(c, &d->cached_tokens);
	walk_u64(c, &d->queue_us);
	walk_u64(c, &d->prefill_us);
	walk_u64(c, &d->decode_us);
}

static void walk_error(struct codec *c, struct kb_msg_error *e)
{
	uint32_t bits = (uint32_t)e->code;
	walk_u32(c, &bits);
	e->code = (int32_t)bits;
	if (e->code >= 0) // an error that says "no error"
		fail(c, c->out ? KB_EARG : KB_EBAD);
	walk_str(c, &e->text);
}

static void walk_pong(struct codec *c, struct kb_msg_pong *p)
{
	walk_u8(c, &p->is_healthy, 1);
	walk_u32(c, &p->device_us);
	walk_str(c, &p->text);
}

static void walk_stats(struct codec *c, struct kb_msg_stats *s)
{
	walk_u32(c, &s->running);
	walk_u32(c, &s->waiting);
	walk_u32(c, &s->kv_pages);
	walk_u32(c, &s->kv_pages_used);
	walk_u32(c, &s->kv_pages_idle);
	walk_u64(c, &s->prompt_tokens);
	walk_u64(c, &s->generated_tokens);
	walk_u64(c, &s->steps);
	walk_u64(c, &s->step_us);
	walk_u64(c, &s->resident_bytes);
	walk_u64(c, &s->preemptions);
	walk_u64(c, &s->guessed_tokens);
	walk_u64(c, &s->guessed_right);
}

static void walk_body(struct codec *c, struct kb_msg *m)
{
	switch (m->type) {
	case KB_MSG_SUBMIT:
		walk_submit(c, &m->submit);
		return;
	case KB_MSG_READY:
		walk_ready(c, &m->ready);
		return;
	case KB_MSG_PROGRESS:
		walk_progress(c, &m->progress);
		return;
	case KB_MSG_ACCEPTED:
		walk_u32(c, &m->accepted.prompt_tokens);
		return;
	case KB_MSG_TOKEN:
		walk_token(c, &m->token);
		return;
	case KB_MSG_DONE:
		walk_done(c, &m->done);
		return;
	case KB_MSG_ERROR:
		walk_error(c, &m->error);
		return;
	case KB_MSG_PONG:
		walk_pong(c, &m->pong);
		return;
	case KB_MSG_STATS_REPLY:
		walk_stats(c, &m->stats);
		return;
	case KB_MSG_CANCEL:
	case KB_MSG_PING:
	case KB_MSG_STATS:
	case KB_MSG_QUIT:
		return; // nothing but type and id
	}
	fail(c, c->out ? KB_EARG : KB_EBAD); // a type that nobody knows
}

/* see proto.h */
int kb_proto_encode(struct kb_buf *out, const struct kb_msg *msg)
{
	size_t start = out->len;
	struct codec c = {.out = out};
	struct kb_msg m = *msg; // walk_body fills what it reads; when encoding it changes nothing
	uint64_t length = 0, type = m.type;
	if (type > UINT8_MAX)
		return KB_EARG;
	walk_uint(&c, &length, 4);
	walk_uint(&c, &type, 1);
	walk_u64(&c, &m.id);
	walk_body(&c, &m);
	if (!c.error && out->len - start - 4 > KB_FRAME_MAX)
		fail(&c, KB_ELIMIT);
	if (c.error) {
		out->len = start;
		return c.error;
	}
	length = out->len - start - 4;
	for (size_t i = 0; i < 4; i++)
		out->data[start + i] = (uint8_t)(length >> 8 * i);
	return 0;
}

/* see proto.h */
int kb_proto_add_message(struct kb_buf *list, struct kb_str role, struct kb_str content)
{
	size_t start = list->len;
	struct codec c = {.out = list};
	walk_str(&c, &role);
	walk_str(&c, &content);
	if (c.error)
		list->len = start;
	return c.error;
}

/* see proto.h */
int kb_proto_decode(const uint8_t *data, size_t len, struct kb_msg *ret_msg, size_t *ret_used)
{
	if (len < 4)
		return KB_EPARTIAL;
	struct codec c = {.at = data, .end = data + len};
	uint64_t length, type;
	walk_uint(&c, &length, 4);
	if (length > KB_FRAME_MAX)
		return KB_ELIMIT;
	if (length < HEAD_BYTES)
		return KB_EBAD;
	if (len - 4 < length)
		return KB_EPARTIAL;
	c.end = c.at + length;

	struct kb_msg m = {0};
	walk_uint(&c, &type, 1);
	walk_u64(&c, &m.id);
	m.type = (enum kb_msg_type)type;
	walk_body(&c, &m);
	if (!c.error && c.at != c.end)
		fail(&c, KB_EBAD);
	if (c.error)
		return c.error;
	*ret_msg = m;
	*ret_used = 4 + (size_t)length;
	return 0;
}

/* see proto.h */
bool kb_proto_next_message(const struct kb_msg_submit *s, size_t *cursor, struct kb_chat_message *ret)
{
	if (*cursor >= s->messages_len)
		return false;
	struct codec c = {.at = s->messages + *cursor, .end = s->messages + s->messages_len};
	if (!read_message(&c, ret))
		return false;
	*cursor = (size_t)(c.at - s->messages);
	return true;
}
