// Where pre-tokenizers cut, against the published expressions run by another engine (tests/data/make_pretok_golden.py).
#include "harness/gguf_file.h"
#include "harness/kt.h"
#include "text/pretok.h"

#include <stdio.h>

#define TEXT_MAX 512

static void compare(const char *row, size_t row_len, const char *text, size_t len, const char *want)
{
	struct kb_char chars[TEXT_MAX + 1];
	uint32_t ends[TEXT_MAX + 1], scratch[TEXT_MAX + 1];
	char got[4 * TEXT_MAX] = "";
	const struct kb_pretok *p = kb_pretok_find((struct kb_str){row, row_len});
	assert_non_null(p);
	size_t n = kb_pretok_chars(text, len, chars), used = 0;
	size_t pieces = kb_pretok_split(p, chars, n, ends, scratch);
	for (size_t i = 0; i < pieces; i++)
		used += (size_t)snprintf(got + used, sizeof got - used, "%s%u", i ? " " : "", chars[ends[i]].at);
	if (used != strlen(want) || strcmp(got, want) != 0)
		fail_msg("%.*s cuts '%.*s' at %s, want %s", (int)row_len, row, (int)len, text, got, want);
}

static void agrees_with_the_expressions(void **state)
{
	(void)state;
	char *golden = read_whole_file("tests/data/pretok.golden", NULL), *rest = golden, *line;
	unsigned lines = 0;
	for (; (line = strtok_r(rest, "\n", &rest)); lines++) {
		char text[TEXT_MAX], *hex = strchr(line, '\t') + 1, *want = strchr(hex, '\t') + 1;
		size_t len = (size_t)(want - hex - 1) / 2;
		assert_true(len < sizeof text);
		for (size_t i = 0; i < len; i++) {
			unsigned byte;
			assert_int_equal(sscanf(hex + 2 * i, "%2x", &byte), 1);
			text[i] = (char)byte;
		}
		compare(line, (size_t)(hex - line - 1), text, len, want);
	}
	print_message("%u texts\n", lines);
	assert_int_equal(lines, 14 * 40);
	free(golden);
}

// Any bytes: pieces are in order, none is empty, the last ends with the text.
static void cuts_any_bytes(void **state)
{
	(void)state;
	static const char *const names[] = {"gpt-2", "smollm", "falcon", "llama-bpe", "qwen2", "qwen35", "seed-coder",
		"gpt-4o", "tekken", "deepseek-llm", "deepseek-coder", "deepseek-v3", "bloom", "viking"};
	uint32_t seed = 5;
	for (size_t k = 0; k < sizeof names / sizeof *names; k++) {
		const struct kb_pretok *p = kb_pretok_find((struct kb_str){names[k], strlen(names[k])});
		for (size_t len = 0; len < 200; len++) {
			char text[200];
			struct kb_char chars[201];
			uint32_t ends[201], scratch[201], last = 0;
			for (size_t i = 0; i < len; i++) {
				seed = seed * 1664525 + 1013904223;
				text[i] = seed >> 31 ? (char)(seed >> 20) : " \r\n'sA1\xe3"[seed >> 20 & 7];
			}
			size_t n = kb_pretok_chars(text, len, chars), pieces = kb_pretok_split(p, chars, n, ends, scratch);
			for (size_t i = 0; i < pieces; last = ends[i++])
				assert_true(ends[i] > last && ends[i] <= n);
			assert_int_equal(last, n);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(agrees_with_the_expressions),
		cmocka_unit_test(cuts_any_bytes),
	};
	return cmocka_run_group_tests_name("text/pretok", tests, NULL, NULL);
}
