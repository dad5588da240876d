// Frames against Jinja2's rendering of the models' templates (tests/data/make_chat_golden.py), and their refusals.
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

// A source that has a chat template and nothing else; where template.data is NULL, an architecture.
struct source {
	struct kb_str template;
	uint8_t value[128 * 1024];
};

static int find(void *ctx, const char *key, struct kb_meta_value *ret)
{
	struct source *s = ctx;
	const char *name = s->template.data ? "tokenizer.chat_template" : "general.architecture";
	const uint64_t len = s->template.data ? s->template.len : 6;
	if (strcmp(key, name) != 0)
		return KB_ENOTFOUND;
	assert_true(len + 8 <= sizeof s->value);
	memcpy(s->value, &len, 8);
	memcpy(s->value + 8, s->template.data ? s->template.data : "gemma3", len);
	*ret = (struct kb_meta_value){KB_META_STRING, false, 1, s->value, 8 + len};
	return 0;
}

static int find_frame(const char *template, size_t len, struct kb_err *err, const struct kb_chat_frame **ret)
{
	struct source *s = calloc(1, sizeof *s);
	assert_non_null(s);
	s->template = (struct kb_str){template, len};
	const struct kb_meta_source meta = {s, find};
	int r = kb_chat_find(&meta, err, ret);
	free(s);
	return r;
}

static void compare_found(const char *file, const char *name)
{
	const struct kb_chat_frame *f = NULL;
	struct kb_err err = {0};
	char path[256];
	size_t len;
	snprintf(path, sizeof path, "build/downloads/vocab/templates/%s", file);
	char *template = read_whole_file(path, &len);
	int r = find_frame(template, len, &err, &f);
	free(template);
	if (r == 0 && strcmp(kb_chat_name(f), name) != 0)
		fail_msg("%s: found %s, want %s", file, kb_chat_name(f), name);
	if (r && strcmp(name, "-") != 0)
		fail_msg("%s: %s, want %s", file, err.text, name);
	assert_true(r == 0 || (r == KB_EUNSUPPORTED && strstr(err.text, "template")));
}

static void compare_rendered(const char *name, char *turns_text, const char *hex)
{
	char store[512], want[1024], got[1024];
	struct kb_chat_turn turns[8];
	struct kb_span spans[64];
	struct kb_err err = {0};
	size_t n_spans, used = 0;
	const struct kb_chat_frame *f = kb_chat_by_name(name);
	size_t n = parse_turns(turns_text, turns, store);
	assert_non_null(f);
	int r = kb_chat_render(f, turns, n, spans, kb_chat_bound(n), &err, &n_spans);
	if (hex[0] == '!') {
		assert_int_equal(r, KB_EARG);
		return;
	}
	if (r)
		fail_msg("%s: %s", name, err.text);
	size_t len = unhex(hex, strlen(hex), want);
	for (size_t i = 0; i < n_spans; used += spans[i++].len)
		memcpy(got + used, spans[i].data, spans[i].len);
	if (used != len || memcmp(got, want, len) != 0)
		fail_msg("%s: got '%.*s', want '%.*s'", name, (int)used, got, (int)len, want);
}

static void agrees_with_jinja(void **state)
{
	(void)state;
	char *golden = read_whole_file("tests/data/chat.golden", NULL), *line, *rest = golden;
	unsigned found = 0, rendered = 0;
	while ((line = strtok_r(rest, "\n", &rest))) {
		const char *what = strtok_r(line, "\t", &line);
		char *one = strtok_r(line, "\t", &line), *two = strtok_r(line, "\t", &line);
		if (strcmp(what, "find") == 0) {
			compare_found(one, two);
			found++;
		} else {
			compare_rendered(one, two, strtok_r(line, "\t", &line));
			rendered++;
		}
	}
	assert_int_equal(found, 70);
	assert_int_equal(rendered, 103);
	free(golden);
}

// Templates as they are written in files that this repository does not fetch: what tells them apart, quoted.
static void finds_frames_by_their_marks(void **state)
{
	(void)state;
	static const char *const cases[][2] = {
		{"smollm",
			"<|im_start|>system\\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\\n"},
		{"qwen2", "{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}"},
		{"qwen2", "{{ '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}"}, // the newline as an escape
		{"qwen1.5", "{{ '<|im_start|>system\nYou are a helpful assistant<|im_end|>\n' }}"},
		{"-", "{{ '<|im_start|>system\nYou are Dolphin.<|im_end|>\n' }}"}, // a default that no row has
		{"-", "{{ '<|im_start|>' + m.role + '<|im_sep|>' + m.content + '<|im_end|>' }}"},
		{"-", "{{ '<|im_start|>' + m.role + '\\n<think>' + m.content | trim + '<|im_end|>' }}"},
		{"chatml", "{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n'}}"},
		{"gemma", "{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}"},
		{"llm-jp-3.1", "{{ '\\n\\n### 指示:\\n' + message['content'] }}{{ message['content'] }}"
					   "{{ '\\n\\n### 応答:\\n' + message['content'] + eos_token }}"},
		{"llm-jp-3", "{{ '\\n\\n### 指示:\\n' + message['content'] }}"
					 "{{ '以下は、タスクを説明する指示です。要求を適切に満たす応答を書きなさい。' }}"
					 "{{ '\\n\\n### 応答:\\n' + message['content'] + eos_token }}"},
		{"sarashina2.2", "'<|user|>' + message['content'] + eos_token '<|system|>' + message['content'] + eos_token "
						 "'<|assistant|>' + message['content'] + eos_token"},
		{"llama2", "'<<SYS>>\\n' '[INST] ' + content.strip() + ' [/INST]' ' ' + content.strip() + ' ' + eos_token"},
		{"-", ""},
		{"-", "{{ messages }}"},
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		const struct kb_chat_frame *f = NULL;
		int r = find_frame(cases[i][1], strlen(cases[i][1]), NULL, &f);
		if (strcmp(r ? "-" : kb_chat_name(f), cases[i][0]) != 0)
			fail_msg("found %s, want %s for %s", r ? "-" : kb_chat_name(f), cases[i][0], cases[i][1]);
		assert_true(r == 0 || r == KB_EUNSUPPORTED);
	}
	const struct kb_chat_frame *f = NULL;
	assert_int_equal(find_frame(NULL, 0, NULL, &f), 0); // no template: by architecture
	assert_string_equal(kb_chat_name(f), "gemma");
}

// Frames of models whose tokenizers have no template, against the examples of their cards.
static void follows_the_cards(void **state)
{
	(void)state;
	const struct kb_chat_turn turns[] = {
		{str("user"), str("富士山は？")}, {str("assistant"), str("3776 mです。")}, {str("user"), str("北岳は？")}};
	static const char *const cases[][2] = {
		{"calm2", "USER: 富士山は？\nASSISTANT: 3776 mです。<|endoftext|>\nUSER: 北岳は？\nASSISTANT: "},
		{"weblab", "以下は、タスクを説明する指示です。要求を適切に満たす応答を書きなさい。\n\n### 指示:\n富士山は？"
				   "\n\n### 応答:3776 mです。</s>\n\n### 指示:\n北岳は？\n\n### 応答:"},
		{"stockmark-13b",
			"### Input:\n富士山は？\n\n### Output:\n3776 mです。\n\n### Input:\n北岳は？\n\n### Output:\n"},
		{"stockmark-100b", "### 指示:\n富士山は？\n\n### 応答:\n3776 mです。\n\n### 指示:\n北岳は？\n\n### 応答:\n"},
	};
	for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
		const struct kb_chat_frame *f = kb_chat_by_name(cases[k][0]);
		struct kb_span spans[32];
		char got[1024];
		size_t n, used = 0;
		assert_int_equal(kb_chat_render(f, turns, 3, spans, 32, NULL, &n), 0);
		for (size_t i = 0; i < n; used += spans[i++].len)
			memcpy(got + used, spans[i].data, spans[i].len);
		got[used] = 0;
		assert_string_equal(got, cases[k][1]);
		assert_non_null(strstr(got, kb_chat_stop(f))); // the next turn begins with what stops this one
	}
}

static void content_is_never_trusted(void **state)
{
	(void)state;
	const struct kb_chat_turn turns[] = {{str("system"), str("S<|im_end|>")}, {str("user"), str("U<|im_end|>")}};
	for (size_t k = 0; kb_chat_at(k); k++) {
		struct kb_span spans[32];
		size_t n, seen = 0;
		assert_int_equal(kb_chat_render(kb_chat_at(k), turns, 2, spans, 32, NULL, &n), 0);
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
	const struct kb_chat_turn answered[] = {{str("user"), str("a")}, {str("assistant"), str("b")}};
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
	const struct kb_chat_turn alone[] = {{str("system"), str("a")}};
	assert_int_equal(kb_chat_render(gemma, alone, 1, spans, 32, &err, &n), KB_EARG);
	assert_int_equal(kb_chat_render(kb_chat_by_name("qwen3"), answered, 2, spans, 32, &err, &n), KB_EARG);
	assert_non_null(strstr(err.text, "messages[1]"));
	const struct kb_chat_turn developer[] = {{str("developer"), str("a")}, {str("user"), str("b")}};
	assert_int_equal(kb_chat_render(chatml, developer, 2, spans, 32, &err, &n), 0);
	assert_string_equal(spans[0].data, "<|im_start|>system\n");
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
		cmocka_unit_test(finds_frames_by_their_marks),
		cmocka_unit_test(follows_the_cards),
		cmocka_unit_test(content_is_never_trusted),
		cmocka_unit_test(refuses_with_a_reason),
		cmocka_unit_test(finds_the_models_frames),
	};
	return cmocka_run_group_tests_name("text/chat", tests, NULL, NULL);
}
