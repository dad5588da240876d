// Tiny models of every family with made-up weights, as tests/data/make_tiny_models.py makes them for llama.cpp: the
// same generator, the same table. A model lies in one segment of memory.
#pragma once
#include "harness/kt.h"
#include "model/model.h"

#include <stdio.h>

#define TINY_TOKENS 24u
#define TINY_VOCAB 96u
#define TINY_WIDTH 64u
#define TINY_FF 96u
#define TINY_TENSORS_MAX 160u
#define TINY_META_MAX 32u

enum { TINY_OUTPUT = 1, TINY_ROPE_FREQS = 2, TINY_BIAS = 4, TINY_QK_NORM = 8, TINY_POST = 16 };

struct tiny_spec {
	const char *name, *arch;
	uint32_t layers, heads, kv_heads, head_dim;
	float rope_base, rope_factor; // 0: no such key
	uint32_t window;
	float score_softcap, logit_softcap;
	uint32_t extras;
};

static const struct tiny_spec tiny_specs[] = {
	{"llama3", "llama", 2, 4, 2, 16, 500000, 0, 0, 0, 0, TINY_OUTPUT | TINY_ROPE_FREQS},
	{"linear", "llama", 2, 4, 4, 16, 0, 4, 0, 0, 0, 0},
	{"qwen2", "qwen2", 2, 4, 1, 16, 1000000, 0, 0, 0, 0, TINY_BIAS},
	{"qwen3", "qwen3", 2, 4, 2, 32, 1000000, 0, 0, 0, 0, TINY_QK_NORM | TINY_OUTPUT},
	{"gemma2", "gemma2", 4, 4, 2, 32, 0, 0, 5, 2, 8, TINY_POST},
	{"gemma3", "gemma3", 7, 4, 1, 32, 1000000, 0, 6, 0, 0, TINY_POST | TINY_QK_NORM},
};
#define TINY_SPECS (sizeof tiny_specs / sizeof *tiny_specs)

struct tiny_meta {
	char key[64];
	struct kb_meta_value value;
	uint8_t bytes[64];
};

struct tiny_tensor {
	char name[48];
	struct kb_source_tensor t;
};

struct tiny {
	const struct tiny_spec *spec;
	struct tiny_meta meta[TINY_META_MAX];
	struct tiny_tensor tensors[TINY_TENSORS_MAX];
	uint32_t n_meta, n_tensors;
	uint8_t *bytes; // the segment
	uint64_t size, capacity;
	struct kb_model_source source;
};

// --- metadata ----------------------------------------------------------------

static int tiny_find(void *ctx, const char *key, struct kb_meta_value *ret)
{
	struct tiny *t = ctx;
	for (uint32_t i = 0; i < t->n_meta; i++)
		if (strcmp(t->meta[i].key, key) == 0) {
			*ret = t->meta[i].value;
			ret->data = t->meta[i].bytes;
			return 0;
		}
	return KB_ENOTFOUND;
}

// Sets or replaces "ARCH.suffix" (or the whole key where it has a dot of its own kind, "general." or "tokenizer.").
static void tiny_set(struct tiny *t, const char *key, enum kb_meta_type type, const void *value, size_t len)
{
	struct tiny_meta m = {.value = {.type = type, .count = 1, .len = len}};
	bool is_whole = strncmp(key, "general.", 8) == 0 || strncmp(key, "tokenizer.", 10) == 0;
	snprintf(m.key, sizeof m.key, "%s%s%s", is_whole ? "" : t->spec->arch, is_whole ? "" : ".", key);
	assert_true(len <= sizeof m.bytes);
	memcpy(m.bytes, value, len);
	for (uint32_t i = 0; i < t->n_meta; i++)
		if (strcmp(t->meta[i].key, m.key) == 0) {
			t->meta[i] = m;
			return;
		}
	assert_true(t->n_meta < TINY_META_MAX);
	t->meta[t->n_meta++] = m;
}

static void tiny_set_u32(struct tiny *t, const char *key, uint32_t value)
{
	tiny_set(t, key, KB_META_U32, &value, sizeof value);
}

static void tiny_set_f32(struct tiny *t, const char *key, float value)
{
	tiny_set(t, key, KB_META_F32, &value, sizeof value);
}

static void tiny_set_str(struct tiny *t, const char *key, const char *value)
{
	uint8_t bytes[64];
	uint64_t len = strlen(value);
	assert_true(len + 8 <= sizeof bytes);
	memcpy(bytes, &len, 8);
	memcpy(bytes + 8, value, len);
	tiny_set(t, key, KB_META_STRING, bytes, 8 + len);
}

// --- weights -----------------------------------------------------------------

// splitmix64 (Vigna) of FNV-1a(name) and the index: 24 bits in [0, 1).
static double tiny_uniform(uint64_t seed, uint64_t i)
{
	uint64_t z = seed + (i + 1) * UINT64_C(0x9e3779b97f4a7c15);
	z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
	z ^= z >> 31;
	return (double)(z >> 40) * 0x1p-24;
}

static void tiny_values(const char *name, uint64_t n, float *ret)
{
	uint64_t seed = UINT64_C(0xcbf29ce484222325);
	for (const char *c = name; *c; c++)
		seed = (seed ^ (uint8_t)*c) * UINT64_C(0x100000001b3);
	bool is_bias = strlen(name) > 4 && strcmp(name + strlen(name) - 4, "bias") == 0;
	for (uint64_t i = 0; i < n; i++) {
		double u = tiny_uniform(seed, i);
		if (strncmp(name, "rope_freqs", 10) == 0)
			ret[i] = (float)(1 + 3 * u);
		else if (strstr(name, "norm"))
			ret[i] = (float)(0.75 + 0.5 * u);
		else if (strncmp(name, "token_embd", 10) == 0)
			ret[i] = (float)(2 * u - 1);
		else if (strstr(name, "attn_q") || strstr(name, "attn_k") || is_bias)
			ret[i] = (float)(u - 0.5);
		else
			ret[i] = (float)(0.5 * u - 0.25);
	}
}

static void tiny_add(struct tiny *t, const char *name, uint32_t rows, uint32_t cols)
{
	const struct kb_ggml_info *g = kb_ggml_find(KB_GGML_F32);
	float *values = malloc((size_t)rows * cols * sizeof *values);
	assert_true(t->n_tensors < TINY_TENSORS_MAX);
	struct tiny_tensor *tensor = &t->tensors[t->n_tensors++];
	snprintf(tensor->name, sizeof tensor->name, "%s", name);
	tensor->t = (struct kb_source_tensor){.format = KB_FMT_F32, .rows = rows, .cols = cols, .offset = t->size};
	tensor->t.bytes = rows > 1 ? kb_format_bytes(KB_FMT_F32, rows, cols) : cols * sizeof *values;
	assert_true(t->size + tensor->t.bytes <= t->capacity);
	tiny_values(name, (uint64_t)rows * cols, values);
	if (rows == 1)
		memcpy(t->bytes + t->size, values, cols * sizeof *values);
	for (uint32_t r = 0; rows > 1 && r < rows; r += KB_PANEL_ROWS)
		kb_quant_pack_panel(g, values + (size_t)r * cols, cols * sizeof *values,
			rows - r < KB_PANEL_ROWS ? rows - r : KB_PANEL_ROWS, cols,
			t->bytes + t->size + r / KB_PANEL_ROWS * kb_format_panel_bytes(KB_FMT_F32, cols));
	t->size += (tensor->t.bytes + 255) / 256 * 256;
	free(values);
}

static struct kb_source_tensor *tiny_tensor(struct tiny *t, const char *name)
{
	for (uint32_t i = 0; i < t->n_tensors; i++)
		if (strcmp(t->tensors[i].name, name) == 0)
			return &t->tensors[i].t;
	return NULL;
}

static int tiny_source_tensor(void *ctx, const char *name, struct kb_source_tensor *ret)
{
	struct kb_source_tensor *found = tiny_tensor(ctx, name);
	if (!found)
		return KB_ENOTFOUND;
	*ret = *found;
	return 0;
}

static int tiny_source_segment(void *ctx, uint32_t i, const void **ret_bytes, uint64_t *ret_size)
{
	struct tiny *t = ctx;
	assert_int_equal(i, 0);
	*ret_bytes = t->bytes;
	*ret_size = (t->size + 4095) / 4096 * 4096;
	return 0;
}

static void tiny_add_layer(struct tiny *t, uint32_t layer)
{
	const struct tiny_spec *s = t->spec;
	uint32_t q = s->heads * s->head_dim, kv = s->kv_heads * s->head_dim;
	const struct {
		const char *name;
		uint32_t rows, cols, extra;
	} tensors[] = {
		{"attn_norm.weight", 1, TINY_WIDTH, 0},
		{"attn_q.weight", q, TINY_WIDTH, 0},
		{"attn_k.weight", kv, TINY_WIDTH, 0},
		{"attn_v.weight", kv, TINY_WIDTH, 0},
		{"attn_q.bias", 1, q, TINY_BIAS},
		{"attn_k.bias", 1, kv, TINY_BIAS},
		{"attn_v.bias", 1, kv, TINY_BIAS},
		{"attn_q_norm.weight", 1, s->head_dim, TINY_QK_NORM},
		{"attn_k_norm.weight", 1, s->head_dim, TINY_QK_NORM},
		{"attn_output.weight", TINY_WIDTH, q, 0},
		{"ffn_norm.weight", 1, TINY_WIDTH, 0},
		{"ffn_gate.weight", TINY_FF, TINY_WIDTH, 0},
		{"ffn_up.weight", TINY_FF, TINY_WIDTH, 0},
		{"ffn_down.weight", TINY_WIDTH, TINY_FF, 0},
		{"post_attention_norm.weight", 1, TINY_WIDTH, TINY_POST},
		{"post_ffw_norm.weight", 1, TINY_WIDTH, TINY_POST},
	};
	char name[48];
	for (size_t i = 0; i < sizeof tensors / sizeof *tensors; i++)
		if ((tensors[i].extra & s->extras) == tensors[i].extra) {
			snprintf(name, sizeof name, "blk.%u.%s", layer, tensors[i].name);
			tiny_add(t, name, tensors[i].rows, tensors[i].cols);
		}
}

static struct tiny *tiny_make(const struct tiny_spec *s)
{
	struct tiny *t = calloc(1, sizeof *t);
	t->spec = s;
	t->capacity = 2 << 20;
	t->bytes = aligned_alloc(4096, t->capacity);
	memset(t->bytes, 0, t->capacity);
	t->size = 16; // as LMDB has it: data begins a little past a page's border
	tiny_set_str(t, "general.architecture", s->arch);
	tiny_set_str(t, "general.name", s->name);
	tiny_set_u32(t, "vocab_size", TINY_VOCAB);
	tiny_set_u32(t, "context_length", 256);
	tiny_set_u32(t, "embedding_length", TINY_WIDTH);
	tiny_set_u32(t, "block_count", s->layers);
	tiny_set_u32(t, "feed_forward_length", TINY_FF);
	tiny_set_u32(t, "attention.head_count", s->heads);
	tiny_set_u32(t, "attention.head_count_kv", s->kv_heads);
	tiny_set_u32(t, "attention.key_length", s->head_dim);
	tiny_set_u32(t, "attention.value_length", s->head_dim);
	tiny_set_f32(t, "attention.layer_norm_rms_epsilon", 1e-5f);
	if (s->rope_base > 0)
		tiny_set_f32(t, "rope.freq_base", s->rope_base);
	if (s->rope_factor > 0) {
		tiny_set_str(t, "rope.scaling.type", "linear");
		tiny_set_f32(t, "rope.scaling.factor", s->rope_factor);
	}
	if (s->window)
		tiny_set_u32(t, "attention.sliding_window", s->window);
	if (s->score_softcap > 0)
		tiny_set_f32(t, "attn_logit_softcapping", s->score_softcap);
	if (s->logit_softcap > 0)
		tiny_set_f32(t, "final_logit_softcapping", s->logit_softcap);
	tiny_add(t, "token_embd.weight", TINY_VOCAB, TINY_WIDTH);
	tiny_add(t, "output_norm.weight", 1, TINY_WIDTH);
	if (s->extras & TINY_OUTPUT)
		tiny_add(t, "output.weight", TINY_VOCAB, TINY_WIDTH);
	if (s->extras & TINY_ROPE_FREQS)
		tiny_add(t, "rope_freqs.weight", 1, s->head_dim / 2);
	for (uint32_t i = 0; i < s->layers; i++)
		tiny_add_layer(t, i);
	t->source = (struct kb_model_source){
		.meta = {.ctx = t, .find = tiny_find},
		.ctx = t,
		.tensor = tiny_source_tensor,
		.n_segments = 1,
		.segment = tiny_source_segment,
	};
	return t;
}

static void tiny_free(struct tiny *t)
{
	free(t->bytes);
	free(t);
}

static uint32_t tiny_token(uint32_t i)
{
	return (i * 37 + 11) % TINY_VOCAB;
}

// llama.cpp's logits (TINY_TOKENS, TINY_VOCAB) of spec i. Freed with free().
static float *tiny_golden(uint32_t i)
{
	size_t record = 16 + sizeof(float) * TINY_TOKENS * TINY_VOCAB;
	char name[16];
	float *logits = malloc(record - 16);
	FILE *f = fopen("tests/data/tiny_models.bin", "rb");
	assert_non_null(f);
	assert_int_equal(fseek(f, (long)(20 + i * record), SEEK_SET), 0);
	assert_int_equal(fread(name, 1, sizeof name, f), sizeof name);
	assert_string_equal(name, tiny_specs[i].name);
	assert_int_equal(fread(logits, 1, record - 16, f), record - 16);
	fclose(f);
	return logits;
}
