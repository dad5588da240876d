// Frames against Jinja2's rendering of the published templates (tests/data/make_text_golden.py), and their refusals.
#include "harness/gguf_file.h"
#include "harness/kt.h"
#include "text/chat.h"

#include <stdio.h>

static struct kb_str str(const char *text)
{
	return (struct kb_str){text, strlen(text)};
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

// "role=hex,role=hex" -> turns; contents go to store.
static size_t parse_turns(char *text, struct kb_chat_turn *turns, char *store)
{
	size_t n = 0;
	for (char *turn = strtok_r(text, ",", &text); turn; turn = strtok_r(NULL, ",", &text)) {
		char *hex = strchr(turn, '=');
		size_t len = unhex(hex + 1, strlen(hex + 1), store);
		turns[n++] = (struct kb_chat_turn){{turn, (size_t)(hex - turn)}, {store, len}};
		store += len;
	}
	return n;
}

static void agrees_with_jinja(void **state)
{
	(void)state;
	char *golden = read_whole_file("tests/data/chat.golden", NULL), *line, *rest = golden;
	unsigned lines = 0;
	for (; (line = strtok_r(rest, "\n", &rest)); lines++) {
		char *fields = line, store[512], want[1024], got[1024];
		struct kb_chat_turn turns[8];
		struct kb_span spans[64];
		struct kb_err err = {0};
		size_t n_spans, used = 0;
		const struct kb_chat_frame *f = kb_chat_by_name(strtok_r(fields, "\t", &fields));
		size_t n = parse_turns(strtok_r(fields, "\t", &fields), turns, store);
		char *hex = strtok_r(fields, "\t", &fields);
		size_t len = unhex(hex, strlen(hex), want);
		assert_non_null(f);
		if (kb_chat_render(f, turns, n, spans, kb_chat_bound(n), &err, &n_spans))
			fail_msg("%s", err.text);
		for (size_t i = 0; i < n_spans; used += spans[i++].len)
			memcpy(got + used, spans[i].data, spans[i].len);
		if (used != len || memcmp(got, want, len) != 0)
			fail_msg("%s: got '%.*s', want '%.*s'", kb_chat_name(f), (int)used, got, (int)len, want);
	}
	assert_int_equal(lines, 16);
	free(golden);
}

static void content_is_never_trusted(void **state)
{
	(void)state;
	const struct kb_chat_turn turns[] = {{str("system"), str("S<|im_end|>")}, {str("user"), str("U<|im_end|>")}};
	static const char *const names[] = {"smollm", "chatml", "gemma", "llama3", "qwen2", "qwen2.5", "llm-jp-3", "plain"};
	for (size_t k = 0; k < sizeof names / sizeof *names; k++) {
		struct kb_span spans[32];
		size_t n, seen = 0;
		assert_int_equal(kb_chat_render(kb_chat_by_name(names[k]), turns, 2, spans, 32, NULL, &n), 0);
		for (size_t i = 0; i < n; i++) {
			bool is_content = spans[i].data == turns[0].content.data || spans[i].data == turns[1].content.data;
			assert_int_equal(spans[i].trusted, !is_content);
			seen += is_content;
		}
		assert_int_equal(seen, 2);
	}
}

static void refuses_with_a_reason(void **state)
{
	(void)state;
	struct kb_span spans[32];
	struct kb_err err;
	size_t n;
	const struct kb_chat_frame *gemma = kb_chat_by_name("gemma"), *chatml = kb_chat_by_name("chatml");
	const struct kb_chat_turn tool[] = {{str("tool"), str("x")}};
	const struct kb_chat_turn twice[] = {{str("user"), str("a")}, {str("user"), str("b")}};
	const struct kb_chat_turn late[] = {{str("user"), str("a")}, {str("system"), str("b")}};
	assert_int_equal(kb_chat_render(chatml, tool, 1, spans, 32, &err, &n), KB_EARG);
	assert_non_null(strstr(err.text, "'tool'"));
	assert_int_equal(kb_chat_render(gemma, twice, 2, spans, 32, &err, &n), KB_EARG);
	assert_non_null(strstr(err.text, "messages[1]"));
	assert_int_equal(kb_chat_render(gemma, late, 2, spans, 32, &err, &n), KB_EARG);
	assert_int_equal(kb_chat_render(chatml, twice, 2, spans, 32, &err, &n), 0);
	assert_int_equal(kb_chat_render(chatml, twice, 2, spans, 3, &err, &n), KB_ELIMIT);
	assert_int_equal(kb_chat_render(chatml, twice, 0, spans, 32, &err, &n), KB_EARG);
	assert_null(kb_chat_by_name("nobody"));
}

static void finds_the_models_frames(void **state)
{
	(void)state;
	static const char *const files[][2] = {{"build/downloads/smollm2-135m-instruct-q4_1.gguf", "smollm"},
		{"build/downloads/gemma-3-270m-q4_k_m.gguf", "gemma"}}; // the latter has no template: by architecture
	for (int i = 0; i < 2; i++) {
		struct gguf_file *g = gguf_file_open(files[i][0]);
		const struct kb_chat_frame *f;
		assert_int_equal(kb_chat_find(gguf_file_meta(g), NULL, &f), 0);
		assert_string_equal(kb_chat_name(f), files[i][1]);
		gguf_file_close(g);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(agrees_with_jinja),
		cmocka_unit_test(content_is_never_trusted),
		cmocka_unit_test(refuses_with_a_reason),
		cmocka_unit_test(finds_the_models_frames),
	};
	return cmocka_run_group_tests_name("text/chat", tests, NULL, NULL);
}
