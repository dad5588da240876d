// Whole prompts, as llama.cpp's own programs made them for tests/golden (template rendered, then tokenised): text
// and conversations through frame and tokenizer give the same ids.
#include "harness/gguf_file.h"
#include "harness/golden.h"
#include "harness/kt.h"
#include "text/chat.h"
#include "text/tok.h"

static void compare(const struct kb_tok *t, const struct kb_chat_frame *f, const struct kb_golden_case *c)
{
	const char *text = c->is_chat ? c->say : c->text;
	const struct kb_chat_turn turn = {{"user", 4}, {text, strlen(text)}};
	struct kb_span spans[16] = {{text, strlen(text), false}};
	size_t n_spans = 1, n, cap = kb_tok_bound(strlen(text) + 512);
	uint32_t *ids = malloc(cap * sizeof *ids);
	assert_non_null(ids);
	if (c->is_chat)
		assert_int_equal(kb_chat_render(f, &turn, 1, spans, 16, NULL, &n_spans), 0);
	assert_int_equal(kb_tok_encode(t, spans, n_spans, KB_TOK_BOS, ids, cap, &n), 0);
	if (n != c->n_prompt || memcmp(ids, c->prompt, n * sizeof *ids) != 0)
		fail_msg("%s: %zu ids, want %u, or others", c->name, n, c->n_prompt);
	free(ids);
}

static void compare_file(const char *path, const char *model, unsigned chats_min)
{
	struct kb_golden_greedy golden;
	struct kb_err err;
	struct kb_tok *t;
	const struct kb_chat_frame *f;
	unsigned chats = 0;
	if (kb_golden_greedy_open(path, &err, &golden))
		fail_msg("%s", err.text);
	struct gguf_file *file = gguf_file_open(model);
	if (kb_tok_create(gguf_file_meta(file), &err, &t) || kb_chat_find(gguf_file_meta(file), &err, &f))
		fail_msg("%s: %s", model, err.text);
	assert_true(golden.n_cases >= 20);
	for (uint32_t i = 0; i < golden.n_cases; i++) {
		compare(t, f, &golden.cases[i]);
		chats += golden.cases[i].is_chat;
	}
	assert_true(chats >= chats_min);
	kb_tok_destroy(t);
	gguf_file_close(file);
	kb_golden_greedy_close(&golden);
}

static void smollm2(void **state)
{
	(void)state;
	compare_file("tests/golden/greedy_smollm2_q.txt", "build/downloads/smollm2-135m-instruct-q4_1.gguf", 5);
}

static void gemma3(void **state)
{
	(void)state;
	compare_file("tests/golden/greedy_gemma3_q.txt", "build/downloads/gemma-3-270m-q4_k_m.gguf", 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(smollm2),
		cmocka_unit_test(gemma3),
	};
	return cmocka_run_group_tests_name("text/prompt", tests, NULL, NULL);
}
