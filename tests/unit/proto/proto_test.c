// The codec of daemon and engine. The byte vectors are written by hand from the comments of proto/proto.h.
#include "harness/kt.h"
#include "proto/proto.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#define STR(s) ((struct kb_str){(s), sizeof(s) - 1})

// Memory that ends at a page nobody may touch: a read past the end is a crash.
static uint8_t *guard_base;
static size_t guard_size;

static int guard_setup(void **state)
{
	(void)state;
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	guard_size = 16 * page;
	guard_base = mmap(NULL, guard_size + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (guard_base == MAP_FAILED)
		return -1;
	return mprotect(guard_base + guard_size, page, PROT_NONE);
}

static const uint8_t *guarded(const uint8_t *data, size_t len)
{
	assert_true(len <= guard_size);
	uint8_t *at = guard_base + guard_size - len;
	if (len)
		memcpy(at, data, len);
	return at;
}

static int decode_guarded(const uint8_t *data, size_t len, struct kb_msg *ret, size_t *ret_used)
{
	return kb_proto_decode(guarded(data, len), len, ret, ret_used);
}

static void assert_str(struct kb_str got, struct kb_str want)
{
	assert_int_equal(got.len, want.len);
	if (want.len)
		assert_memory_equal(got.data, want.data, want.len);
}

// --- one message of each type, small and full ---------------------------------
#define SAMPLES_MAX 40
static struct kb_msg samples[SAMPLES_MAX];
static size_t n_samples;
static struct kb_buf sample_list;
static const uint8_t sample_tokens[12] = {1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0x80};

static struct kb_msg *add(enum kb_msg_type type, uint64_t id)
{
	assert_true(n_samples < SAMPLES_MAX);
	samples[n_samples] = (struct kb_msg){.type = type, .id = id};
	return &samples[n_samples++];
}

static void add_submits(void)
{
	add(KB_MSG_SUBMIT, 0); // all zero and empty
	assert_int_equal(kb_proto_add_message(&sample_list, STR("system"), STR("")), 0);
	assert_int_equal(kb_proto_add_message(&sample_list, STR("user"), STR("a\0b \xe8\xa8\x80\xe7\xae\xb1")), 0);
	assert_int_equal(kb_proto_add_message(&sample_list, STR(""), STR("\xff\xfe")), 0);
	struct kb_msg *chat = add(KB_MSG_SUBMIT, UINT64_MAX);
	chat->submit = (struct kb_msg_submit){.kind = KB_PROMPT_CHAT,
		.n_messages = 3,
		.messages = sample_list.data,
		.messages_len = sample_list.len,
		.resume = sample_tokens,
		.n_resume = 3,
		.max_new = UINT32_MAX,
		.sampling = {.temperature = FLT_MAX,
			.top_p = 1,
			.min_p = -0.0f,
			.top_k = UINT32_MAX,
			.repeat_penalty = FLT_MIN,
			.presence_penalty = -2,
			.frequency_penalty = INFINITY,
			.seed = UINT64_MAX},
		.logprobs = 1 + KB_TOP_LOGPROBS_MAX,
		.ignore_eos = 1,
		.n_stop = KB_STOP_MAX,
		.client = STR("alice")};
	for (size_t i = 0; i < KB_STOP_MAX; i++)
		chat->submit.stop[i] = i % 2 ? STR("") : STR("\n\n");
	struct kb_msg *tokens = add(KB_MSG_SUBMIT, 7);
	tokens->submit = (struct kb_msg_submit){.kind = KB_PROMPT_TOKENS, .tokens = sample_tokens, .n_tokens = 3};
	struct kb_msg *text = add(KB_MSG_SUBMIT, 8);
	text->submit = (struct kb_msg_submit){.kind = KB_PROMPT_TEXT, .text = STR("Once upon")};
}

static void add_answers(void)
{
	add(KB_MSG_TOKEN, 0);
	struct kb_msg *full = add(KB_MSG_TOKEN, UINT64_MAX);
	full->token = (struct kb_msg_token){.token = UINT32_MAX,
		.text = STR("\xe7\xae\xb1"),
		.has_logprob = 1,
		.chosen = {UINT32_MAX, -FLT_MAX, STR("\xe7")},
		.n_top = KB_TOP_LOGPROBS_MAX};
	for (uint32_t i = 0; i < KB_TOP_LOGPROBS_MAX; i++)
		full->token.top[i] = (struct kb_logprob){i, -(float)i, i % 2 ? STR("x") : STR("")};
	add(KB_MSG_TOKEN, 3)->token = (struct kb_msg_token){.text = STR("plain"), .has_logprob = 1};
	add(KB_MSG_DONE, 0);
	add(KB_MSG_DONE, 1)->done = (struct kb_msg_done){
		KB_FINISH_CANCELLED, STR("held"), UINT32_MAX, UINT32_MAX, UINT32_MAX, UINT64_MAX, UINT64_MAX, UINT64_MAX};
	add(KB_MSG_ERROR, 0)->error = (struct kb_msg_error){KB_EDEVICE, STR("the device was lost")};
	add(KB_MSG_ERROR, 1)->error = (struct kb_msg_error){INT32_MIN, STR("")};
	add(KB_MSG_PONG, 0);
	add(KB_MSG_PONG, 1)->pong = (struct kb_msg_pong){1, UINT32_MAX, STR("ok")};
	add(KB_MSG_STATS_REPLY, 0);
	add(KB_MSG_STATS_REPLY, 1)->stats =
		(struct kb_msg_stats){UINT32_MAX, 1, 2, UINT32_MAX, 7, UINT64_MAX, 3, 4, 5, 6, UINT64_MAX, 8, UINT64_MAX};
}

static int samples_setup(void **state)
{
	n_samples = 0;
	sample_list.len = 0;
	add_submits();
	for (uint64_t id = 0; id <= 1; id++) {
		add(KB_MSG_CANCEL, id ? UINT64_MAX : 0);
		add(KB_MSG_PING, id);
		add(KB_MSG_STATS, id);
		add(KB_MSG_QUIT, id);
		add(KB_MSG_ACCEPTED, id)->accepted.prompt_tokens = id ? UINT32_MAX : 0;
		add(KB_MSG_READY, id);
		add(KB_MSG_PROGRESS, id);
	}
	add(KB_MSG_READY, 2)->ready = (struct kb_msg_ready){UINT32_MAX, STR("llama"), STR("SmolLM2"), STR("llvmpipe"),
		UINT32_MAX, 1, 2, UINT32_MAX, UINT64_MAX, 3, UINT64_MAX};
	add(KB_MSG_PROGRESS, 2)->progress = (struct kb_msg_progress){UINT64_MAX, UINT64_MAX, STR("weights")};
	add_answers();
	return guard_setup(state);
}

static int samples_teardown(void **state)
{
	(void)state;
	kb_buf_finish(&sample_list);
	return munmap(guard_base, guard_size + (size_t)sysconf(_SC_PAGESIZE));
}

// --- field by field ------------------------------------------------------------
static void assert_submit(const struct kb_msg_submit *a, const struct kb_msg_submit *b)
{
	assert_int_equal(a->kind, b->kind);
	assert_int_equal(a->n_messages, b->n_messages);
	assert_str((struct kb_str){(const char *)a->messages, a->messages_len},
		(struct kb_str){(const char *)b->messages, b->messages_len});
	assert_str(a->text, b->text);
	assert_str((struct kb_str){(const char *)a->tokens, a->n_tokens * (size_t)4},
		(struct kb_str){(const char *)b->tokens, b->n_tokens * (size_t)4});
	assert_str((struct kb_str){(const char *)a->resume, a->n_resume * (size_t)4},
		(struct kb_str){(const char *)b->resume, b->n_resume * (size_t)4});
	assert_int_equal(a->max_new, b->max_new);
	const struct kb_sampling *x = &a->sampling, *y = &b->sampling;
	const float xs[] = {
		x->temperature, x->top_p, x->min_p, x->repeat_penalty, x->presence_penalty, x->frequency_penalty};
	const float ys[] = {
		y->temperature, y->top_p, y->min_p, y->repeat_penalty, y->presence_penalty, y->frequency_penalty};
	assert_memory_equal(xs, ys, sizeof xs);
	assert_int_equal(x->top_k, y->top_k);
	assert_true(x->seed == y->seed);
	assert_int_equal(a->logprobs, b->logprobs);
	assert_int_equal(a->ignore_eos, b->ignore_eos);
	assert_int_equal(a->n_stop, b->n_stop);
	for (uint32_t i = 0; i < a->n_stop; i++)
		assert_str(a->stop[i], b->stop[i]);
	assert_str(a->client, b->client);
}

static void assert_logprob(const struct kb_logprob *a, const struct kb_logprob *b)
{
	assert_int_equal(a->token, b->token);
	assert_memory_equal(&a->logprob, &b->logprob, sizeof a->logprob);
	assert_str(a->bytes, b->bytes);
}

static void assert_token(const struct kb_msg_token *a, const struct kb_msg_token *b)
{
	assert_int_equal(a->token, b->token);
	assert_str(a->text, b->text);
	assert_int_equal(a->has_logprob, b->has_logprob);
	assert_logprob(&a->chosen, &b->chosen);
	assert_int_equal(a->n_top, b->n_top);
	for (uint32_t i = 0; i < a->n_top; i++)
		assert_logprob(&a->top[i], &b->top[i]);
}

static void assert_ready(const struct kb_msg_ready *a, const struct kb_msg_ready *b)
{
	assert_int_equal(a->version, b->version);
	assert_str(a->arch, b->arch);
	assert_str(a->name, b->name);
	assert_str(a->device, b->device);
	assert_int_equal(a->vocab, b->vocab);
	assert_int_equal(a->context, b->context);
	assert_int_equal(a->max_seqs, b->max_seqs);
	assert_int_equal(a->kv_tokens, b->kv_tokens);
	assert_true(a->weight_bytes == b->weight_bytes && a->kv_bytes == b->kv_bytes && a->parameters == b->parameters);
}

static void assert_done(const struct kb_msg_done *a, const struct kb_msg_done *b)
{
	assert_int_equal(a->finish, b->finish);
	assert_str(a->text, b->text);
	assert_int_equal(a->prompt_tokens, b->prompt_tokens);
	assert_int_equal(a->completion_tokens, b->completion_tokens);
	assert_int_equal(a->cached_tokens, b->cached_tokens);
	assert_true(a->queue_us == b->queue_us && a->prefill_us == b->prefill_us && a->decode_us == b->decode_us);
}

static void assert_message(const struct kb_msg *a, const struct kb_msg *b)
{
	assert_int_equal(a->type, b->type);
	assert_true(a->id == b->id);
	switch (b->type) {
	case KB_MSG_SUBMIT:
		assert_submit(&a->submit, &b->submit);
		break;
	case KB_MSG_READY:
		assert_ready(&a->ready, &b->ready);
		break;
	case KB_MSG_PROGRESS:
		assert_true(a->progress.done == b->progress.done && a->progress.total == b->progress.total);
		assert_str(a->progress.what, b->progress.what);
		break;
	case KB_MSG_ACCEPTED:
		assert_int_equal(a->accepted.prompt_tokens, b->accepted.prompt_tokens);
		break;
	case KB_MSG_TOKEN:
		assert_token(&a->token, &b->token);
		break;
	case KB_MSG_DONE:
		assert_done(&a->done, &b->done);
		break;
	case KB_MSG_ERROR:
		assert_int_equal(a->error.code, b->error.code);
		assert_str(a->error.text, b->error.text);
		break;
	case KB_MSG_PONG:
		assert_int_equal(a->pong.is_healthy, b->pong.is_healthy);
		assert_int_equal(a->pong.device_us, b->pong.device_us);
		assert_str(a->pong.text, b->pong.text);
		break;
	case KB_MSG_STATS_REPLY:
		assert_memory_equal(&a->stats, &b->stats, offsetof(struct kb_msg_stats, kv_pages_idle));
		assert_int_equal(a->stats.kv_pages_idle, b->stats.kv_pages_idle); // and padding behind it
		assert_memory_equal(&a->stats.prompt_tokens, &b->stats.prompt_tokens,
			sizeof a->stats - offsetof(struct kb_msg_stats, prompt_tokens));
		break;
	default:
		break;
	}
}

// --- tests -----------------------------------------------------------------------
static void every_type_comes_back_as_it_was(void **state)
{
	(void)state;
	for (size_t i = 0; i < n_samples; i++) {
		struct kb_buf out = {0};
		assert_int_equal(kb_buf_puts(&out, "before"), 0); // appends, does not overwrite
		assert_int_equal(kb_proto_encode(&out, &samples[i]), 0);
		assert_memory_equal(out.data, "before", 6);
		struct kb_msg got;
		size_t used = 0;
		assert_int_equal(decode_guarded(out.data + 6, out.len - 6, &got, &used), 0);
		assert_int_equal(used, out.len - 6);
		assert_message(&got, &samples[i]);
		kb_buf_finish(&out);
	}
}

static void bytes_are_as_the_header_says(void **state)
{
	(void)state;
	static const uint8_t cancel[] = {9, 0, 0, 0, 2, 0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11};
	static const uint8_t accepted[] = {13, 0, 0, 0, 34, 1, 0, 0, 0, 0, 0, 0, 0, 0x04, 0x03, 0x02, 0x01};
	static const uint8_t token[] = {
		37, 0, 0, 0, 35, 2, 0, 0, 0, 0, 0, 0, 0,       // length, type, id
		5, 0, 0, 0, 2, 0, 0, 0, 'h', 'i', 1,           // token, text, has_logprob
		5, 0, 0, 0, 0, 0, 0x80, 0xbf, 1, 0, 0, 0, 'h', // chosen: token, -1.0f, bytes
		0, 0, 0, 0,                                    // n_top
	};
	const struct {
		const uint8_t *bytes;
		size_t len;
		struct kb_msg msg;
	} rows[] = {
		{cancel, sizeof cancel, {.type = KB_MSG_CANCEL, .id = 0x1122334455667788}},
		{accepted, sizeof accepted, {.type = KB_MSG_ACCEPTED, .id = 1, .accepted = {0x01020304}}},
		{token, sizeof token,
			{.type = KB_MSG_TOKEN,
				.id = 2,
				.token = {.token = 5, .text = STR("hi"), .has_logprob = 1, .chosen = {5, -1.0f, STR("h")}}}},
	};
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		struct kb_buf out = {0};
		assert_int_equal(kb_proto_encode(&out, &rows[i].msg), 0);
		assert_int_equal(out.len, rows[i].len);
		assert_memory_equal(out.data, rows[i].bytes, out.len);
		kb_buf_finish(&out);
	}
}

static void a_submit_has_its_fields_in_order(void **state)
{
	(void)state;
	static const uint8_t want[] = {
		96, 0, 0, 0, 1, 3, 0, 0, 0, 0, 0, 0, 0,            // length, type, id
		0,                                                 // kind
		1, 0, 0, 0, 1, 0, 0, 0, 'u', 2, 0, 0, 0, 'h', 'i', // messages
		0, 0, 0, 0,                                        // text
		0, 0, 0, 0,                                        // tokens
		1, 0, 0, 0, 9, 0, 0, 0,                            // resume
		64, 0, 0, 0,                                       // max_new
		0, 0, 0x80, 0x3f, 0, 0, 0, 0x3f, 0, 0, 0x80, 0x3e, // temperature 1, top_p 0.5, min_p 0.25
		40, 0, 0, 0,                                       // top_k
		0, 0, 0, 0x40, 0, 0, 0, 0x40, 0, 0, 0, 0xc0,       // penalties 2, 2, -2
		42, 0, 0, 0, 0, 0, 0, 0,                           // seed
		3, 0,                                              // logprobs, ignore_eos
		1, 0, 0, 0, 1, 0, 0, 0, '.',                       // stop
		0, 0, 0, 0,                                        // client
	};
	struct kb_buf list = {0}, out = {0};
	static const uint8_t resume[4] = {9, 0, 0, 0};
	assert_int_equal(kb_proto_add_message(&list, STR("u"), STR("hi")), 0);
	struct kb_msg m = {.type = KB_MSG_SUBMIT,
		.id = 3,
		.submit = {.n_messages = 1,
			.messages = list.data,
			.messages_len = list.len,
			.resume = resume,
			.n_resume = 1,
			.max_new = 64,
			.sampling = {1, 0.5f, 0.25f, 40, 2, 2, -2, 42},
			.logprobs = 3,
			.n_stop = 1,
			.stop = {STR(".")}}};
	assert_int_equal(kb_proto_encode(&out, &m), 0);
	assert_int_equal(out.len, sizeof want);
	assert_memory_equal(out.data, want, sizeof want);
	kb_buf_finish(&list);
	kb_buf_finish(&out);
}

static void chat_messages_are_walked_in_order(void **state)
{
	(void)state;
	struct kb_buf out = {0};
	assert_int_equal(kb_proto_encode(&out, &samples[1]), 0);
	struct kb_msg got;
	size_t used, cursor = 0;
	assert_int_equal(decode_guarded(out.data, out.len, &got, &used), 0);
	struct kb_chat_message m;
	assert_true(kb_proto_next_message(&got.submit, &cursor, &m));
	assert_str(m.role, STR("system"));
	assert_str(m.content, STR(""));
	assert_true(kb_proto_next_message(&got.submit, &cursor, &m));
	assert_str(m.role, STR("user"));
	assert_str(m.content, STR("a\0b \xe8\xa8\x80\xe7\xae\xb1"));
	assert_true(kb_proto_next_message(&got.submit, &cursor, &m));
	assert_str(m.content, STR("\xff\xfe"));
	assert_false(kb_proto_next_message(&got.submit, &cursor, &m));
	assert_false(kb_proto_next_message(&got.submit, &cursor, &m));
	kb_buf_finish(&out);
}

static void set_length(uint8_t *frame, size_t len)
{
	for (size_t i = 0; i < 4; i++)
		frame[i] = (uint8_t)((len - 4) >> 8 * i);
}

static void every_cut_is_noticed(void **state)
{
	(void)state;
	for (size_t i = 0; i < n_samples; i++) {
		struct kb_buf out = {0};
		assert_int_equal(kb_proto_encode(&out, &samples[i]), 0);
		for (size_t cut = 0; cut < out.len; cut++) {
			struct kb_msg got = {.id = 77};
			size_t used = 55;
			// Bytes that have not come yet ...
			assert_int_equal(decode_guarded(out.data, cut, &got, &used), KB_EPARTIAL);
			// ... and a frame whose length says that it ends here.
			if (cut >= 4) {
				uint8_t keep[4];
				memcpy(keep, out.data, 4);
				set_length(out.data, cut);
				assert_int_equal(decode_guarded(out.data, cut, &got, &used), KB_EBAD);
				memcpy(out.data, keep, 4);
			}
			assert_int_equal(got.id, 77);
			assert_int_equal(used, 55);
		}
		assert_int_equal(kb_buf_append(&out, "", 1), 0); // one byte too many
		set_length(out.data, out.len);
		struct kb_msg got;
		size_t used;
		assert_int_equal(decode_guarded(out.data, out.len, &got, &used), KB_EBAD);
		kb_buf_finish(&out);
	}
}

static void hostile_numbers_stay_inside(void **state)
{
	(void)state;
	static const uint32_t hostile[] = {0xffffffff, 0x7fffffff, 0x80000000, 0x40000000, KB_FRAME_MAX, KB_FRAME_MAX + 1,
		KB_MESSAGES_MAX + 1, KB_STOP_MAX + 1, KB_TOP_LOGPROBS_MAX + 1, 1};
	for (size_t i = 0; i < n_samples; i++) {
		struct kb_buf out = {0};
		assert_int_equal(kb_proto_encode(&out, &samples[i]), 0);
		for (size_t at = 0; at + 4 <= out.len; at++) {
			uint8_t keep[4];
			memcpy(keep, out.data + at, 4);
			for (size_t h = 0; h < sizeof hostile / sizeof *hostile; h++) {
				memcpy(out.data + at, &hostile[h], 4);
				struct kb_msg got;
				size_t used;
				int r = decode_guarded(out.data, out.len, &got, &used);
				assert_true(r == 0 || r == KB_EBAD || r == KB_ELIMIT || (r == KB_EPARTIAL && at < 4));
				if (r == 0 && got.type == KB_MSG_SUBMIT)
					assert_true(got.submit.n_stop <= KB_STOP_MAX && got.submit.n_messages <= KB_MESSAGES_MAX);
			}
			memcpy(out.data + at, keep, 4);
		}
		kb_buf_finish(&out);
	}
}

static int decode_patched(const struct kb_msg *m, size_t at, uint32_t value)
{
	struct kb_buf out = {0};
	assert_int_equal(kb_proto_encode(&out, m), 0);
	memcpy(out.data + at, &value, 4);
	struct kb_msg got;
	size_t used;
	int r = decode_guarded(out.data, out.len, &got, &used);
	kb_buf_finish(&out);
	return r;
}

static void limits_have_their_own_code(void **state)
{
	(void)state;
	const struct kb_msg empty = {.type = KB_MSG_SUBMIT};
	const size_t body = 13; // length, type, id
	assert_int_equal(decode_patched(&empty, 0, KB_FRAME_MAX + 1), KB_ELIMIT);
	assert_int_equal(decode_patched(&empty, 0, KB_FRAME_MAX), KB_EPARTIAL);
	assert_int_equal(decode_patched(&empty, 0, 8), KB_EBAD);
	assert_int_equal(decode_patched(&empty, body + 1, KB_MESSAGES_MAX + 1), KB_ELIMIT);
	assert_int_equal(decode_patched(&empty, body + 1, KB_MESSAGES_MAX), KB_EBAD); // allowed, but not there
	assert_int_equal(decode_patched(&empty, body + 5, KB_FRAME_MAX + 1), KB_ELIMIT);
	assert_int_equal(decode_patched(&empty, body + 9, KB_FRAME_MAX / 4 + 1), KB_ELIMIT);
	assert_int_equal(decode_patched(&empty, body + 9, KB_FRAME_MAX / 4), KB_EBAD);
	const size_t n_stop = body + 1 + 4 + 4 + 4 + 4 + 4 + 28 + 8 + 2;
	assert_int_equal(decode_patched(&empty, n_stop, KB_STOP_MAX + 1), KB_ELIMIT);
	assert_int_equal(decode_patched(&empty, n_stop, KB_STOP_MAX), KB_EBAD);
	const struct kb_msg token = {.type = KB_MSG_TOKEN, .token = {.has_logprob = 1}};
	assert_int_equal(decode_patched(&token, body + 9 + 12, KB_TOP_LOGPROBS_MAX + 1), KB_ELIMIT);
	assert_int_equal(decode_patched(&token, body + 9 + 12, KB_TOP_LOGPROBS_MAX), KB_EBAD);
}

static void only_known_types_and_values_pass(void **state)
{
	(void)state;
	uint8_t frame[13] = {9};
	size_t known = 0;
	for (unsigned type = 0; type < 256; type++) {
		frame[4] = (uint8_t)type;
		struct kb_msg got;
		size_t used;
		int r = decode_guarded(frame, sizeof frame, &got, &used);
		if (r == 0)
			known++;
		else
			assert_int_equal(r, KB_EBAD);
	}
	assert_int_equal(known, 4); // CANCEL, PING, STATS and QUIT have no body
	const struct kb_msg bad[] = {
		{.type = (enum kb_msg_type)0},
		{.type = (enum kb_msg_type)99},
		{.type = (enum kb_msg_type)(256 + KB_MSG_PING)},
		{.type = KB_MSG_SUBMIT, .submit = {.kind = 3}},
		{.type = KB_MSG_SUBMIT, .submit = {.logprobs = 2 + KB_TOP_LOGPROBS_MAX}},
		{.type = KB_MSG_SUBMIT, .submit = {.ignore_eos = 2}},
		{.type = KB_MSG_SUBMIT, .submit = {.n_messages = 1}},
		{.type = KB_MSG_SUBMIT, .submit = {.messages = (const uint8_t *)"x", .messages_len = 1}},
		{.type = KB_MSG_TOKEN, .token = {.has_logprob = 2}},
		{.type = KB_MSG_DONE, .done = {.finish = 3}},
		{.type = KB_MSG_ERROR, .error = {.code = 0}},
		{.type = KB_MSG_PONG, .pong = {.is_healthy = 2}},
	};
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		struct kb_buf out = {0};
		assert_int_equal(kb_buf_puts(&out, "kept"), 0);
		assert_int_equal(kb_proto_encode(&out, &bad[i]), KB_EARG);
		assert_int_equal(out.len, 4);
		kb_buf_finish(&out);
	}
	// The same values from the other side.
	assert_int_equal(decode_patched(&(struct kb_msg){.type = KB_MSG_SUBMIT}, 13, 3), KB_EBAD);
	assert_int_equal(decode_patched(&(struct kb_msg){.type = KB_MSG_DONE}, 13, 3), KB_EBAD);
	assert_int_equal(decode_patched(&(struct kb_msg){.type = KB_MSG_PONG}, 13, 2), KB_EBAD);
	assert_int_equal(decode_patched(&(struct kb_msg){.type = KB_MSG_ERROR, .error = {-1, {0}}}, 13, 0), KB_EBAD);
}

static void encoding_refuses_what_is_too_large(void **state)
{
	(void)state;
	char *large = calloc(1, KB_FRAME_MAX + 1);
	assert_non_null(large);
	struct kb_buf out = {0}, list = {0};
	struct kb_msg m = {.type = KB_MSG_SUBMIT, .submit = {.text = {large, KB_FRAME_MAX + 1}}};
	assert_int_equal(kb_proto_encode(&out, &m), KB_ELIMIT);
	m.submit.text.len = KB_FRAME_MAX; // the string may be, the frame around it may not
	assert_int_equal(kb_proto_encode(&out, &m), KB_ELIMIT);
	assert_int_equal(out.len, 0);
	m.submit.text.len = KB_FRAME_MAX - 76; // the rest of an empty SUBMIT after its length
	assert_int_equal(kb_proto_encode(&out, &m), 0);
	assert_int_equal(out.len, 4 + KB_FRAME_MAX);
	struct kb_msg got;
	size_t used;
	assert_int_equal(kb_proto_decode(out.data, out.len, &got, &used), 0);
	assert_int_equal(got.submit.text.len, KB_FRAME_MAX - 76);
	out.len = 0;
	m.submit.text.len++;
	assert_int_equal(kb_proto_encode(&out, &m), KB_ELIMIT);
	assert_int_equal(kb_proto_add_message(&list, STR("user"), (struct kb_str){large, KB_FRAME_MAX + 1}), KB_ELIMIT);
	assert_int_equal(list.len, 0);
	m = (struct kb_msg){.type = KB_MSG_SUBMIT, .submit = {.n_stop = KB_STOP_MAX + 1}};
	assert_int_equal(kb_proto_encode(&out, &m), KB_ELIMIT);
	m = (struct kb_msg){.type = KB_MSG_TOKEN, .token = {.has_logprob = 1, .n_top = KB_TOP_LOGPROBS_MAX + 1}};
	assert_int_equal(kb_proto_encode(&out, &m), KB_ELIMIT);
	assert_int_equal(out.len, 0);
	struct kb_buf small = {.max = 12}; // the buffer's own ceiling
	assert_int_equal(kb_proto_encode(&small, &(struct kb_msg){.type = KB_MSG_PING}), KB_ELIMIT);
	assert_int_equal(small.len, 0);
	free(large);
	kb_buf_finish(&out);
	kb_buf_finish(&list);
	kb_buf_finish(&small);
}

static void frames_follow_one_another(void **state)
{
	(void)state;
	struct kb_buf out = {0};
	for (size_t i = 0; i < n_samples; i++)
		assert_int_equal(kb_proto_encode(&out, &samples[i]), 0);
	size_t at = 0;
	for (size_t i = 0; i < n_samples; i++) {
		struct kb_msg got;
		size_t used;
		assert_int_equal(decode_guarded(out.data + at, out.len - at, &got, &used), 0);
		assert_message(&got, &samples[i]);
		at += used;
	}
	assert_int_equal(at, out.len);
	kb_buf_finish(&out);
}

// The fuzzer's seeds come from a second encoder (tests/data/make_proto_corpus.py).
static void another_encoder_is_understood(void **state)
{
	(void)state;
	static const char *const names[] = {"submit-chat", "submit-text", "submit-tokens", "cancel-ping-stats-quit",
		"ready", "progress", "accepted", "token", "token-logprobs", "done", "error", "pong", "stats"};
	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		char path[128];
		uint8_t data[1024];
		snprintf(path, sizeof path, "tests/fuzz/corpus/proto/%s", names[i]);
		FILE *f = fopen(path, "rb");
		if (!f)
			fail_msg("cannot open %s", path);
		size_t len = fread(data, 1, sizeof data, f), at = 0, used = 0;
		fclose(f);
		while (at < len) {
			struct kb_msg got;
			assert_int_equal(decode_guarded(data + at, len - at, &got, &used), 0);
			if (got.type == KB_MSG_SUBMIT && got.submit.kind == KB_PROMPT_CHAT)
				assert_str(got.submit.stop[1], STR("."));
			if (got.type == KB_MSG_STATS_REPLY)
				assert_int_equal(got.stats.preemptions, 10);
			if (got.type == KB_MSG_TOKEN && got.token.has_logprob)
				assert_str(got.token.top[1].bytes, STR("ho"));
			at += used;
		}
		assert_int_equal(at, len);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_type_comes_back_as_it_was),
		cmocka_unit_test(bytes_are_as_the_header_says),
		cmocka_unit_test(a_submit_has_its_fields_in_order),
		cmocka_unit_test(chat_messages_are_walked_in_order),
		cmocka_unit_test(every_cut_is_noticed),
		cmocka_unit_test(hostile_numbers_stay_inside),
		cmocka_unit_test(limits_have_their_own_code),
		cmocka_unit_test(only_known_types_and_values_pass),
		cmocka_unit_test(encoding_refuses_what_is_too_large),
		cmocka_unit_test(frames_follow_one_another),
		cmocka_unit_test(another_encoder_is_understood),
	};
	return cmocka_run_group_tests_name("proto/proto", tests, samples_setup, samples_teardown);
}
