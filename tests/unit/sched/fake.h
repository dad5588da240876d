// A model for scheduler tests that cannot be fooled: what it says next is a hash of what the KV cache holds for the
// whole sequence, read through the page table. A page that two sequences share by mistake, a slot that was not
// written, a stale row: all change the answer. Its own answer for a lone sequence (fake_expect) needs no cache.
#pragma once
#include "harness/kt.h"
#include "sched/sched.h"
#include <stdio.h>

// Vocabulary: 0 <unk>, 1 <s>, 2 </s>, 3 + b: byte b, then words.
enum { FAKE_VOCAB = 300, FAKE_EOS = 2, FAKE_BYTE = 3, FAKE_WORD = 259 };
static const char *const fake_words[] = {"the", " quick", " brown", " fox", "END", "EN", "D", "\xe8\xa8\x80"};

struct fake {
	uint32_t kv_pages, max_tokens, max_seqs, context;
	uint32_t *rows;      // (max_seqs, kv_pages)
	uint64_t *kv;        // (slots)
	uint32_t *token;     // (slots) the same as it was given
	float *logits;       // (max_seqs, FAKE_VOCAB)
	uint32_t eos_one_in; // how often the answer ends by itself; 0: never
	uint32_t ascii_only; // speak letters only
	uint32_t period;     // 0, or: mostly repeat what stood so many tokens before
	uint64_t steps, tokens, max_step;
	int fail_with; // the next step's result
};

static inline uint64_t fake_mix(uint64_t h, uint64_t v)
{
	h ^= v + 0x9e3779b97f4a7c15u + (h << 6) + (h >> 2);
	h *= 0xbf58476d1ce4e5b9u;
	return h ^ h >> 31;
}

static inline uint32_t fake_best(const struct fake *f, uint64_t h)
{
	if (f->eos_one_in && h % f->eos_one_in == 0)
		return FAKE_EOS;
	if (f->ascii_only)
		return FAKE_BYTE + 'a' + (uint32_t)(h >> 20) % 26;
	return FAKE_BYTE + (uint32_t)(h >> 20) % (FAKE_VOCAB - FAKE_BYTE);
}

static inline bool fake_repeats(const struct fake *f, uint64_t h, uint32_t n)
{
	return f->period && n >= f->period && h % 8 != 0;
}

static inline void fake_logits(uint64_t h, uint32_t best, float *row)
{
	for (uint32_t i = 0; i < FAKE_VOCAB; i++)
		row[i] = (float)(fake_mix(h, i) >> 40) * 0x1p-22f; // 0 to 4
	row[best] = 5;
}

static inline uint64_t fake_hash(const uint32_t *tokens, uint32_t n)
{
	uint64_t h = 1;
	for (uint32_t i = 0; i < n; i++)
		h = fake_mix(h, fake_mix(i, tokens[i]));
	return h;
}

// The greedy answer of a lone request, end token left out. Returns how many tokens.
static inline uint32_t fake_expect(
	const struct fake *f, const uint32_t *prompt, uint32_t n_prompt, uint32_t max_new, uint32_t *ret)
{
	uint32_t all[4096], n = n_prompt;
	memcpy(all, prompt, n_prompt * sizeof *prompt);
	while (n < n_prompt + max_new) {
		uint64_t h = fake_hash(all, n);
		uint32_t t = fake_repeats(f, h, n) ? all[n - f->period] : fake_best(f, h);
		if (t == FAKE_EOS)
			break;
		ret[n - n_prompt] = t;
		all[n++] = t;
	}
	return n - n_prompt;
}

static inline uint32_t *fake_page_row(void *ctx, uint32_t seq)
{
	struct fake *f = ctx;
	assert_true(seq < f->max_seqs);
	return f->rows + (size_t)seq * f->kv_pages;
}

static inline uint32_t fake_slot(const struct fake *f, uint32_t seq, uint32_t position)
{
	uint32_t page = f->rows[(size_t)seq * f->kv_pages + position / KB_KV_PAGE_TOKENS];
	assert_true(page < f->kv_pages);
	return page * KB_KV_PAGE_TOKENS + position % KB_KV_PAGE_TOKENS;
}

static inline int fake_step(void *ctx, const struct kb_batch *b, struct kb_err *err, const float **ret)
{
	struct fake *f = ctx;
	assert_true(b->n_tokens > 0 && b->n_tokens <= f->max_tokens && b->n_out <= f->max_seqs);
	f->steps++;
	f->tokens += b->n_tokens;
	if (b->n_tokens > f->max_step)
		f->max_step = b->n_tokens;
	if (f->fail_with) {
		int rc = f->fail_with;
		f->fail_with = 0;
		return kb_fail(err, rc, "the fake model fails");
	}
	for (uint32_t i = 0; i < b->n_tokens; i++) {
		assert_int_equal(b->slot[i], fake_slot(f, b->seq[i], b->position[i]));
		f->kv[b->slot[i]] = fake_mix(b->position[i], b->token[i]);
		f->token[b->slot[i]] = b->token[i];
	}
	for (uint32_t o = 0; o < b->n_out; o++) {
		uint32_t t = b->out_row[o], n = b->position[t] + 1;
		uint64_t h = 1;
		for (uint32_t p = 0; p < n; p++)
			h = fake_mix(h, f->kv[fake_slot(f, b->seq[t], p)]);
		uint32_t best = fake_best(f, h);
		if (fake_repeats(f, h, n))
			best = f->token[fake_slot(f, b->seq[t], n - f->period)];
		fake_logits(h, best, f->logits + (size_t)o * FAKE_VOCAB);
	}
	*ret = f->logits;
	return 0;
}

static inline struct kb_sched_model fake_model(struct fake *f)
{
	f->rows = calloc((size_t)f->max_seqs * f->kv_pages, sizeof *f->rows);
	f->kv = calloc((size_t)f->kv_pages * KB_KV_PAGE_TOKENS, sizeof *f->kv);
	f->token = calloc((size_t)f->kv_pages * KB_KV_PAGE_TOKENS, sizeof *f->token);
	f->logits = calloc((size_t)f->max_seqs * FAKE_VOCAB, sizeof *f->logits);
	memset(f->rows, 0xff, (size_t)f->max_seqs * f->kv_pages * sizeof *f->rows);
	return (struct kb_sched_model){.ctx = f,
		.vocab = FAKE_VOCAB,
		.context = f->context,
		.kv_pages = f->kv_pages,
		.max_tokens = f->max_tokens,
		.max_seqs = f->max_seqs,
		.max_out = f->max_seqs,
		.page_row = fake_page_row,
		.step = fake_step};
}

static inline void fake_finish(struct fake *f)
{
	free(f->rows);
	free(f->kv);
	free(f->token);
	free(f->logits);
}

// --- its tokenizer ----------------------------------------------------------------

static uint8_t fake_tokens[FAKE_VOCAB * 24];
static int32_t fake_types[FAKE_VOCAB];
static float fake_scores[FAKE_VOCAB];

static inline int fake_meta_find(void *ctx, const char *key, struct kb_meta_value *ret)
{
	static const uint32_t ids[] = {1, FAKE_EOS, 0};
	static const uint8_t no = 0;
	static const uint8_t model[] = "\5\0\0\0\0\0\0\0llama";
	size_t *tokens_len = ctx;
	struct kb_meta_value v = {.type = KB_META_U32, .count = 1, .len = 4};
	if (strcmp(key, "tokenizer.ggml.model") == 0)
		v = (struct kb_meta_value){KB_META_STRING, false, 1, model, sizeof model - 1};
	else if (strcmp(key, "tokenizer.ggml.tokens") == 0)
		v = (struct kb_meta_value){KB_META_STRING, true, FAKE_VOCAB, fake_tokens, *tokens_len};
	else if (strcmp(key, "tokenizer.ggml.scores") == 0)
		v = (struct kb_meta_value){KB_META_F32, true, FAKE_VOCAB, (uint8_t *)fake_scores, sizeof fake_scores};
	else if (strcmp(key, "tokenizer.ggml.token_type") == 0)
		v = (struct kb_meta_value){KB_META_I32, true, FAKE_VOCAB, (uint8_t *)fake_types, sizeof fake_types};
	else if (strcmp(key, "tokenizer.ggml.bos_token_id") == 0)
		v.data = (const uint8_t *)&ids[0];
	else if (strcmp(key, "tokenizer.ggml.eos_token_id") == 0)
		v.data = (const uint8_t *)&ids[1];
	else if (strcmp(key, "tokenizer.ggml.unknown_token_id") == 0)
		v.data = (const uint8_t *)&ids[2];
	else if (strcmp(key, "tokenizer.ggml.add_space_prefix") == 0)
		v = (struct kb_meta_value){KB_META_BOOL, false, 1, &no, 1};
	else
		return KB_ENOTFOUND;
	*ret = v;
	return 0;
}

static inline struct kb_tok *fake_tok(void)
{
	static size_t len;
	len = 0;
	for (uint32_t i = 0; i < FAKE_VOCAB; i++) {
		char text[24];
		const char *special[] = {"<unk>", "<s>", "</s>"};
		if (i < FAKE_BYTE)
			snprintf(text, sizeof text, "%s", special[i]);
		else if (i < FAKE_WORD)
			snprintf(text, sizeof text, "<0x%02X>", i - FAKE_BYTE);
		else if (i - FAKE_WORD < sizeof fake_words / sizeof *fake_words)
			snprintf(text, sizeof text, "%s", fake_words[i - FAKE_WORD]);
		else
			snprintf(text, sizeof text, "w%u", i);
		// GGUF's token types: 1 normal, 2 unknown, 3 control, 6 byte
		fake_types[i] = i == 0 ? 2 : i < FAKE_BYTE ? 3 : i < FAKE_WORD ? 6 : 1;
		uint64_t n = strlen(text);
		memcpy(fake_tokens + len, &n, 8);
		memcpy(fake_tokens + len + 8, text, n);
		len += 8 + n;
	}
	const struct kb_meta_source meta = {&len, fake_meta_find};
	struct kb_err err = {0};
	struct kb_tok *tok = NULL;
	int rc = kb_tok_create(&meta, &err, &tok);
	if (rc)
		fail_msg("%s", err.text);
	return tok;
}
