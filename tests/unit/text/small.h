// Tokenizers of a few tokens, made in a test: a metadata source over arrays.
#pragma once
#include "harness/kt.h"
#include "text/tok.h"

#include <stdio.h>

#define SMALL_TOKENS 512

struct small {
	const char *model, *pre; // pre: byte-level BPE only
	unsigned n, n_merges;
	uint8_t tokens[16384], merges[16384], types[4 * SMALL_TOKENS];
	float scores[SMALL_TOKENS];
	size_t tokens_len, merges_len;
	uint8_t text[2][64], ids[3][4]; // encoded model and pre; bos, eos, unknown
	bool has_id[3], adds_space, adds_bos;
};

static void small_put(uint8_t *to, size_t *at, const char *text, size_t len)
{
	const uint64_t size = len;
	memcpy(to + *at, &size, 8);
	memcpy(to + *at + 8, text, len);
	*at += 8 + len;
}

static uint32_t small_add(struct small *s, const char *text, unsigned type, float score)
{
	assert_true(s->n < SMALL_TOKENS && s->tokens_len + 8 + strlen(text) <= sizeof s->tokens);
	small_put(s->tokens, &s->tokens_len, text, strlen(text));
	s->types[4 * s->n] = (uint8_t)type;
	s->scores[s->n] = score;
	return s->n++;
}

static inline void small_add_bytes(struct small *s)
{
	for (unsigned i = 0; i < 256; i++) {
		char text[8];
		snprintf(text, sizeof text, "<0x%02X>", i);
		small_add(s, text, 6, 0);
	}
}

static int small_find(void *ctx, const char *key, struct kb_meta_value *ret)
{
	struct small *s = ctx;
	static const char *const ids[] = {"bos", "eos", "unknown"};
	static const uint8_t flags[] = {0, 1};
	char name[64];
	size_t at = 0;
	for (int i = 0; i < 3; i++) {
		snprintf(name, sizeof name, "tokenizer.ggml.%s_token_id", ids[i]);
		if (strcmp(key, name) == 0 && s->has_id[i]) {
			*ret = (struct kb_meta_value){KB_META_U32, false, 1, s->ids[i], 4};
			return 0;
		}
	}
	for (int i = 0; i < 2; i++)
		if (strcmp(key, i ? "tokenizer.ggml.pre" : "tokenizer.ggml.model") == 0 && (i ? s->pre : s->model)) {
			small_put(s->text[i], &at, i ? s->pre : s->model, strlen(i ? s->pre : s->model));
			*ret = (struct kb_meta_value){KB_META_STRING, false, 1, s->text[i], at};
			return 0;
		}
	if (strcmp(key, "tokenizer.ggml.tokens") == 0)
		*ret = (struct kb_meta_value){KB_META_STRING, true, s->n, s->tokens, s->tokens_len};
	else if (strcmp(key, "tokenizer.ggml.merges") == 0)
		*ret = (struct kb_meta_value){KB_META_STRING, true, s->n_merges, s->merges, s->merges_len};
	else if (strcmp(key, "tokenizer.ggml.token_type") == 0)
		*ret = (struct kb_meta_value){KB_META_I32, true, s->n, s->types, 4 * s->n};
	else if (strcmp(key, "tokenizer.ggml.scores") == 0)
		*ret = (struct kb_meta_value){KB_META_F32, true, s->n, (const uint8_t *)s->scores, 4 * s->n};
	else if (strcmp(key, "tokenizer.ggml.add_space_prefix") == 0)
		*ret = (struct kb_meta_value){KB_META_BOOL, false, 1, flags + s->adds_space, 1};
	else if (strcmp(key, "tokenizer.ggml.add_bos_token") == 0)
		*ret = (struct kb_meta_value){KB_META_BOOL, false, 1, flags + s->adds_bos, 1};
	else
		return KB_ENOTFOUND;
	return 0;
}

static struct kb_tok *small_tok(struct small *s)
{
	const struct kb_meta_source meta = {s, small_find};
	struct kb_err err = {0};
	struct kb_tok *t = NULL;
	if (kb_tok_create(&meta, &err, &t))
		fail_msg("%s", err.text);
	return t;
}
