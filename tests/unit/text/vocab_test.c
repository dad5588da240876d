// Token ids against llama.cpp's published vectors (tests/data/fetch_llama_vocab.sh), every text of every vocabulary
// of a kind that is built in. Vocabularies of other kinds are listed, not counted.
#include "harness/gguf_file.h"
#include "harness/kt.h"
#include "text/detok.h"
#include "text/tok.h"

#include <stdio.h>

#define DIR "build/downloads/vocab/ggml-vocab-"
#define SEPARATOR "\n__ggml_vocab_test__\n"

struct vocab {
	const char *name;
	bool is_built;  // else: kind or pre-tokenizer is refused with KB_EUNSUPPORTED
	unsigned texts; // that the file has
};

static const struct vocab vocabs[] = {
	{"gpt-2", true, 46},
	{"llama-bpe", true, 46},
	{"qwen2", true, 46},
	{"qwen35", true, 50},
	{"falcon", true, 46},
	{"mpt", true, 46},
	{"starcoder", true, 46},
	{"refact", true, 46},
	{"command-r", true, 46},
	{"deepseek-coder", true, 46},
	{"llama-spm", true, 46},
	{"phi-3", true, 46},
	{"deepseek-llm", true, 46},
	{"bert-bge", false, 0},
	{"gemma-4", false, 0},
	{"nomic-bert-moe", false, 0},
};

// Compares one text; line: the expected ids.
static int compare(const struct kb_tok *t, const char *text, size_t len, const char *line)
{
	size_t cap = kb_tok_bound(len), n = 0;
	uint32_t *ids = malloc(cap * sizeof *ids);
	struct kb_span span = {text, len, false};
	int bad = 0;
	assert_int_equal(kb_tok_encode(t, &span, 1, 0, ids, cap, &n), 0);
	char *end;
	size_t i = 0;
	for (; *line && *line != '\n'; i++) {
		unsigned long want = strtoul(line, &end, 10);
		if (end == line)
			break;
		bad |= i >= n || ids[i] != want;
		line = end;
		while (*line == ' ')
			line++;
	}
	bad |= i != n;
	free(ids);
	return bad;
}

static unsigned run_vocab(const struct kb_tok *t, const char *texts, const char *lines, unsigned *ret_bad)
{
	unsigned n = 0, bad = 0;
	for (const char *at = texts; at; n++) {
		const char *next = strstr(at, SEPARATOR);
		size_t len = next ? (size_t)(next - at) : strlen(at);
		if (!next && len == 0)
			break;
		if (compare(t, at, len, lines)) {
			print_message("text %u differs: %.60s\n", n, at);
			bad++;
		}
		at = next ? next + strlen(SEPARATOR) : NULL;
		lines = strchr(lines, '\n');
		lines = lines ? lines + 1 : "";
	}
	*ret_bad = bad;
	return n;
}

static void agrees_with_llama_cpp(void **state)
{
	const struct vocab *v = *state;
	char path[160];
	struct kb_err err;
	struct kb_tok *t = NULL;
	snprintf(path, sizeof path, DIR "%s.gguf", v->name);
	struct gguf_file *g = gguf_file_open(path);
	int r = kb_tok_create(gguf_file_meta(g), &err, &t);
	if (!v->is_built) {
		assert_int_equal(r, KB_EUNSUPPORTED);
		print_message("%s: not built in: %s\n", v->name, err.text);
	} else {
		unsigned bad;
		if (r)
			fail_msg("%s: %s", v->name, err.text);
		snprintf(path, sizeof path, DIR "%s.gguf.inp", v->name);
		char *texts = read_whole_file(path, NULL);
		snprintf(path, sizeof path, DIR "%s.gguf.out", v->name);
		char *lines = read_whole_file(path, NULL);
		unsigned n = run_vocab(t, texts, lines, &bad);
		print_message("%s: %u texts, %u differ\n", v->name, n, bad);
		assert_int_equal(bad, 0);
		assert_int_equal(n, v->texts);
		free(texts);
		free(lines);
	}
	kb_tok_destroy(t);
	gguf_file_close(g);
}

int main(void)
{
	struct CMUnitTest tests[sizeof vocabs / sizeof *vocabs];
	size_t n = sizeof vocabs / sizeof *vocabs;
	for (size_t i = 0; i < n; i++)
		tests[i] =
			(struct CMUnitTest){vocabs[i].name, agrees_with_llama_cpp, NULL, NULL, (void *)(uintptr_t)&vocabs[i]};
	return _cmocka_run_group_tests("text/vocab", tests, n, NULL, NULL);
}
