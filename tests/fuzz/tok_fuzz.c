// Tokenizer tables and texts from outside. Input: a byte for kind and pre-tokenizer, then metadata values (u8 key, u32
// length, bytes) for kb_tok_create, then a text that is half trusted.
#include "text/detok.h"
#include "text/tok.h"

#include <stdlib.h>
#include <string.h>

static const char *const keys[] = {"tokenizer.ggml.tokens", "tokenizer.ggml.token_type", "tokenizer.ggml.scores",
	"tokenizer.ggml.merges", "tokenizer.ggml.bos_token_id", "tokenizer.ggml.eos_token_id",
	"tokenizer.ggml.add_space_prefix", "tokenizer.ggml.unknown_token_id"};
static const uint8_t kinds[][2] = {{KB_META_STRING, 1}, {KB_META_I32, 1}, {KB_META_F32, 1}, {KB_META_STRING, 1},
	{KB_META_U32, 0}, {KB_META_U32, 0}, {KB_META_BOOL, 0}, {KB_META_U32, 0}};
static const uint8_t widths[] = {0, 4, 4, 0, 4, 4, 1, 4};

static const char *const pres[] = {"smollm", "gpt-2", "falcon", "llama-bpe", "qwen2", "qwen35", "gpt-4o", "tekken",
	"deepseek-llm", "deepseek-coder", "deepseek-v3", "bloom", "viking", "seed-coder", "klingon"};

struct input {
	bool is_bbpe;
	uint8_t pre[8 + 16];
	size_t pre_len;
	const uint8_t *value[8];
	size_t len[8];
	uint64_t count[8];
};

// Strings that are whole, as the GGUF parser guarantees.
static uint64_t count_strings(const uint8_t *p, size_t len)
{
	uint64_t n = 0, size;
	for (size_t at = 0; len - at >= 8; n++) {
		memcpy(&size, p + at, 8);
		if (size > len - at - 8)
			break;
		at += 8 + (size_t)size;
	}
	return n;
}

static int find(void *ctx, const char *key, struct kb_meta_value *ret)
{
	struct input *in = ctx;
	if (strcmp(key, "tokenizer.ggml.model") == 0) {
		const char *kind = in->is_bbpe ? "\4\0\0\0\0\0\0\0gpt2" : "\5\0\0\0\0\0\0\0llama";
		*ret = (struct kb_meta_value){KB_META_STRING, false, 1, (const uint8_t *)kind, in->is_bbpe ? 12 : 13};
		return 0;
	}
	if (strcmp(key, "tokenizer.ggml.pre") == 0) {
		*ret = (struct kb_meta_value){KB_META_STRING, false, 1, in->pre, 8 + in->pre_len};
		return 0;
	}
	for (size_t i = 0; i < 8; i++)
		if (strcmp(key, keys[i]) == 0 && in->value[i] && (kinds[i][1] || in->len[i] >= widths[i])) {
			*ret = (struct kb_meta_value){kinds[i][0], kinds[i][1], in->count[i], in->value[i], in->len[i]};
			return 0;
		}
	return KB_ENOTFOUND;
}

static void encode(const struct kb_tok *t, const uint8_t *text, size_t len)
{
	size_t n, half = len / 2;
	uint32_t *ids = malloc(kb_tok_bound(len) * sizeof *ids);
	struct kb_buf out = {0};
	struct kb_detok d = {0};
	const struct kb_span spans[] = {{(const char *)text, half, true}, {(const char *)text + half, len - half, false}};
	if (kb_tok_encode(t, spans, 2, KB_TOK_BOS, ids, kb_tok_bound(len), &n))
		abort(); // the bound is a promise
	for (size_t i = 0; i < n; i++)
		if (kb_detok_push(&d, t, ids[i], &out))
			abort();
	free(ids);
	kb_buf_finish(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = {0};
	struct kb_tok *t;
	size_t at = 1;
	if (!size)
		return 0;
	in.is_bbpe = data[0] & 1;
	const char *pre = pres[(data[0] >> 1) % (sizeof pres / sizeof *pres)];
	in.pre_len = strlen(pre);
	in.pre[0] = (uint8_t)in.pre_len;
	memcpy(in.pre + 8, pre, in.pre_len);
	while (size - at >= 5 && data[at] < 8) {
		uint32_t len;
		unsigned k = data[at];
		memcpy(&len, data + at + 1, 4);
		at += 5;
		if (len > size - at)
			len = (uint32_t)(size - at);
		in.value[k] = data + at;
		in.len[k] = len;
		in.count[k] = kinds[k][0] == KB_META_STRING ? count_strings(data + at, len) : len / widths[k];
		at += len;
	}
	const struct kb_meta_source meta = {&in, find};
	if (kb_tok_create(&meta, NULL, &t))
		return 0;
	encode(t, data + at, size - at);
	kb_tok_destroy(t);
	return 0;
}
