#include "harness/gguf_file.h"
#include "harness/kt.h"
#include "text/chat.h"
#include "text/detok.h"
#include "text/tok.h"

#include <stdio.h>
#include <time.h>

#define SMOLLM "build/downloads/smollm2-135m-instruct-q4_1.gguf"
#define GEMMA "build/downloads/gemma-3-270m-q4_k_m.gguf"

static struct kb_tok *open_tok(const char *path, struct gguf_file **ret_file)
{
	struct kb_err err;
	struct kb_tok *t;
	*ret_file = gguf_file_open(path);
	if (kb_tok_create(gguf_file_meta(*ret_file), &err, &t))
		fail_msg("%s: %s", path, err.text);
	return t;
}

static size_t unhex(const char *hex, size_t len, char *out)
{
	for (size_t i = 0; i < len / 2; i++) {
		unsigned byte;
		assert_int_equal(sscanf(hex + 2 * i, "%2x", &byte), 1);
		out[i] = (char)byte;
	}
	return len / 2;
}

static void compare_line(const struct kb_tok *t, bool trusted, const char *hex, const char *want)
{
	char text[512], got[4096] = "", round[1024];
	uint32_t ids[2048];
	size_t n, len = unhex(hex, strcspn(hex, "\t"), text), used = 0;
	struct kb_buf out = {0};
	struct kb_detok d = {0};
	assert_int_equal(kb_tok_encode(t, &(struct kb_span){text, len, trusted}, 1, 0, ids, 2048, &n), 0);
	for (size_t i = 0; i < n; i++) {
		used += (size_t)snprintf(got + used, sizeof got - used, "%s%u", i ? " " : "", ids[i]);
		assert_int_equal(kb_detok_push(&d, t, ids[i], &out), 0);
	}
	assert_int_equal(kb_detok_flush(&d, &out), 0);
	if (strlen(got) != strcspn(want, "\n") || memcmp(got, want, strlen(got)) != 0)
		fail_msg("'%.*s': got %s, want %.200s", (int)len, text, got, want);
	snprintf(round, sizeof round, "%s", kb_buf_cstr(&out));
	if (!trusted) { // and back again
		assert_int_equal(out.len, len);
		assert_memory_equal(round, text, len);
	}
	kb_buf_finish(&out);
}

// Ids by llama.cpp; tests/data/make_text_golden.py.
static void agrees_with_llama_cpp_on_japanese(void **state)
{
	(void)state;
	char *golden = read_whole_file("tests/data/tokens.golden", NULL);
	char current[128] = "";
	struct gguf_file *file = NULL;
	struct kb_tok *t = NULL;
	unsigned lines = 0;
	for (char *line = golden; *line; line = strchr(line, '\n') + 1, lines++) {
		size_t name = strcspn(line, "\t");
		if (strlen(current) != name + 6 || memcmp(current + 6, line, name) != 0) {
			kb_tok_destroy(t);
			if (file)
				gguf_file_close(file);
			snprintf(current, sizeof current, "build/%.*s", (int)name, line);
			t = open_tok(current, &file);
		}
		const char *hex = line + name + 3;
		compare_line(t, line[name + 1] == '1', hex, strchr(hex, '\t') + 1);
	}
	assert_int_equal(lines, 4 * (55 + 4));
	kb_tok_destroy(t);
	gguf_file_close(file);
	free(golden);
}

static void only_the_trusted_end_turns(void **state)
{
	(void)state;
	struct gguf_file *file;
	struct kb_tok *t = open_tok(SMOLLM, &file);
	uint32_t ids[64], end = kb_tok_find(t, "<|im_end|>", 10);
	size_t n;
	const struct kb_span trusted = {"<|im_end|>", 10, true}, typed = {"<|im_end|>", 10, false};
	assert_int_equal(kb_tok_encode(t, &trusted, 1, 0, ids, 64, &n), 0);
	assert_int_equal(n, 1);
	assert_int_equal(ids[0], end);
	assert_int_equal(kb_tok_encode(t, &typed, 1, 0, ids, 64, &n), 0);
	assert_true(n > 1);
	for (size_t i = 0; i < n; i++)
		assert_false(kb_tok_is_control(t, ids[i]));
	// Neither may a user finish what the frame begins, nor the other way round.
	const struct kb_span halves[] = {{"<|im_", 5, true}, {"end|>", 5, false}};
	assert_int_equal(kb_tok_encode(t, halves, 2, 0, ids, 64, &n), 0);
	for (size_t i = 0; i < n; i++)
		assert_false(kb_tok_is_control(t, ids[i]));
	// Two trusted neighbours are one text.
	const struct kb_span both[] = {{"<|im_", 5, true}, {"end|>", 5, true}};
	assert_int_equal(kb_tok_encode(t, both, 2, 0, ids, 64, &n), 0);
	assert_int_equal(n, 1);
	kb_tok_destroy(t);
	gguf_file_close(file);
}

static void spans_are_one_text(void **state)
{
	(void)state;
	struct gguf_file *file;
	struct kb_tok *t = open_tok(SMOLLM, &file);
	const char text[] = "The quick brown fox, 東京タワー and 12345 ünïcödé";
	uint32_t whole[128], cut[128];
	size_t n, m;
	assert_int_equal(kb_tok_encode(t, &(struct kb_span){text, sizeof text - 1, false}, 1, 0, whole, 128, &n), 0);
	for (size_t at = 0; at < sizeof text; at++) {
		const struct kb_span spans[] = {{text, at, true}, {text + at, sizeof text - 1 - at, false}};
		assert_int_equal(kb_tok_encode(t, spans, 2, 0, cut, 128, &m), 0);
		assert_int_equal(m, n);
		assert_memory_equal(cut, whole, n * sizeof *whole);
	}
	assert_int_equal(
		kb_tok_encode(t, &(struct kb_span){text, sizeof text - 1, false}, 1, 0, cut, n - 1, &m), KB_ELIMIT);
	kb_tok_destroy(t);
	gguf_file_close(file);
}

static void ends_and_beginnings(void **state)
{
	(void)state;
	struct gguf_file *file;
	struct kb_tok *t = open_tok(GEMMA, &file);
	uint32_t ids[8];
	size_t n;
	assert_int_equal(kb_tok_encode(t, &(struct kb_span){"Hi", 2, false}, 1, KB_TOK_BOS, ids, 8, &n), 0);
	assert_int_equal(n, 2);
	assert_int_equal(ids[0], 2); // <bos>, by the file's metadata
	assert_int_equal(kb_tok_encode(t, NULL, 0, 0, ids, 8, &n), 0);
	assert_int_equal(n, 0);
	assert_true(kb_tok_is_eog(t, 1));
	assert_true(kb_tok_is_eog(t, kb_tok_find(t, "<end_of_turn>", 13)));
	assert_false(kb_tok_is_eog(t, 2));
	assert_int_equal(kb_tok_piece(t, UINT32_MAX).len, 0);
	kb_tok_destroy(t);
	gguf_file_close(file);
}

// The tokens that end an answer, as llama.cpp 0.3.36 finds them in these files (llama_vocab_is_eog over all ids), but
// for Gemma's </s> (212), which it takes for an end and which is an HTML tag there.
static void the_same_tokens_end_answers(void **state)
{
	(void)state;
	static const struct {
		const char *path;
		uint32_t ids[4], n;
	} cases[] = {
		{SMOLLM, {0, 2, 4}, 3},
		{GEMMA, {1, 106}, 2},
		{"build/downloads/vocab/ggml-vocab-qwen2.gguf", {151643, 151645}, 2},
		{"build/downloads/vocab/ggml-vocab-llama-bpe.gguf", {128001, 128009}, 2},
		{"build/downloads/vocab/ggml-vocab-phi-3.gguf", {2, 32000, 32007}, 3},
		{"build/downloads/vocab/ggml-vocab-llama-spm.gguf", {2}, 1},
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct gguf_file *file;
		struct kb_tok *t = open_tok(cases[i].path, &file);
		uint32_t n = 0;
		for (uint32_t id = 0; id < kb_tok_size(t); id++)
			n += kb_tok_is_eog(t, id);
		assert_int_equal(n, cases[i].n);
		for (uint32_t k = 0; k < n; k++)
			assert_true(kb_tok_is_eog(t, cases[i].ids[k]));
		kb_tok_destroy(t);
		gguf_file_close(file);
	}
}

// Any bytes: no crash, within the bound, and back to the same bytes where they were UTF-8.
static void takes_any_bytes(void **state)
{
	(void)state;
	const char *paths[] = {SMOLLM, GEMMA};
	uint32_t seed = 1;
	for (int p = 0; p < 2; p++) {
		struct gguf_file *file;
		struct kb_tok *t = open_tok(paths[p], &file);
		for (int round = 0; round < 300; round++) {
			char text[64];
			uint32_t ids[512];
			size_t n, len = (size_t)round % sizeof text;
			struct kb_buf out = {0};
			struct kb_detok d = {0};
			for (size_t i = 0; i < len; i++) {
				seed = seed * 1664525 + 1013904223;
				text[i] = (char)(seed >> 24);
			}
			assert_true(kb_tok_bound(len) <= 512);
			assert_int_equal(
				kb_tok_encode(t, &(struct kb_span){text, len, round & 1}, 1, 0, ids, kb_tok_bound(len), &n), 0);
			for (size_t i = 0; i < n; i++)
				assert_int_equal(kb_detok_push(&d, t, ids[i], &out), 0);
			assert_int_equal(kb_detok_flush(&d, &out), 0);
			kb_buf_finish(&out);
		}
		kb_tok_destroy(t);
		gguf_file_close(file);
	}
}

// A Japanese text has no spaces: one piece of 100 KB. Quadratic merging would take minutes.
static void long_japanese_is_not_quadratic(void **state)
{
	(void)state;
	struct gguf_file *file;
	struct kb_tok *t = open_tok(SMOLLM, &file);
	size_t len = 99999, n;
	char *text = malloc(len);
	uint32_t *ids = malloc(kb_tok_bound(len) * sizeof *ids), seed = 7;
	for (size_t i = 0; i < len; i += 3) {
		seed = seed * 1664525 + 1013904223;
		uint32_t code = 0x3041 + (seed >> 16) % 80;
		text[i] = (char)(0xe0 | code >> 12);
		text[i + 1] = (char)(0x80 | (code >> 6 & 63));
		text[i + 2] = (char)(0x80 | (code & 63));
	}
	clock_t begin = clock();
	assert_int_equal(kb_tok_encode(t, &(struct kb_span){text, len, false}, 1, 0, ids, kb_tok_bound(len), &n), 0);
	double seconds = (double)(clock() - begin) / CLOCKS_PER_SEC;
	print_message("%zu bytes, %zu tokens: %.3f s of CPU\n", len, n, seconds);
	assert_true(seconds < 20); // a bound on growth, not a benchmark
	free(ids);
	free(text);
	kb_tok_destroy(t);
	gguf_file_close(file);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(agrees_with_llama_cpp_on_japanese),
		cmocka_unit_test(only_the_trusted_end_turns),
		cmocka_unit_test(spans_are_one_text),
		cmocka_unit_test(ends_and_beginnings),
		cmocka_unit_test(the_same_tokens_end_answers),
		cmocka_unit_test(takes_any_bytes),
		cmocka_unit_test(long_japanese_is_not_quadratic),
	};
	return cmocka_run_group_tests_name("text/tok", tests, NULL, NULL);
}
