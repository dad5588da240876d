// The streaming decoder on bytes: a vocabulary of the 256 bytes, made here.
#include "harness/kt.h"
#include "text/detok.h"

#include <stdio.h>

struct source {
	uint8_t tokens[8192], types[2048], scores[2048];
	size_t len;
};

static int find(void *ctx, const char *key, struct kb_meta_value *ret)
{
	struct source *s = ctx;
	if (strcmp(key, "tokenizer.ggml.model") == 0)
		*ret = (struct kb_meta_value){KB_META_STRING, false, 1, (const uint8_t *)"\5\0\0\0\0\0\0\0llama", 13};
	else if (strcmp(key, "tokenizer.ggml.tokens") == 0)
		*ret = (struct kb_meta_value){KB_META_STRING, true, 257, s->tokens, s->len};
	else if (strcmp(key, "tokenizer.ggml.token_type") == 0)
		*ret = (struct kb_meta_value){KB_META_I32, true, 257, s->types, sizeof s->types};
	else if (strcmp(key, "tokenizer.ggml.scores") == 0)
		*ret = (struct kb_meta_value){KB_META_F32, true, 257, s->scores, sizeof s->scores};
	else
		return KB_ENOTFOUND;
	return 0;
}

// Tokens 0..255 are bytes, 256 is the control token <end>.
static struct kb_tok *byte_tok(struct source *s)
{
	struct kb_tok *t = NULL;
	struct kb_err err = {0};
	memset(s, 0, sizeof *s);
	for (unsigned i = 0; i < 257; i++) {
		char text[16];
		int n = i < 256 ? snprintf(text, sizeof text, "<0x%02X>", i) : snprintf(text, sizeof text, "<end>");
		s->tokens[s->len] = (uint8_t)n;
		memcpy(s->tokens + s->len + 8, text, (size_t)n);
		s->len += 8 + (size_t)n;
		s->types[4 * i] = i < 256 ? 6 : 3;
	}
	const struct kb_meta_source meta = {s, find};
	if (kb_tok_create(&meta, &err, &t))
		fail_msg("%s", err.text);
	return t;
}

static void check(const struct kb_tok *t, const char *bytes, const char *want)
{
	struct kb_buf out = {0};
	struct kb_detok d = {.after_text = true};
	for (const char *p = bytes; *p; p++) {
		assert_int_equal(kb_detok_push(&d, t, (uint8_t)*p, &out), 0);
		assert_int_equal(kb_detok_push(&d, t, 256, &out), 0); // control tokens leave nothing
	}
	assert_int_equal(kb_detok_flush(&d, &out), 0);
	assert_string_equal(kb_buf_cstr(&out), want);
	kb_buf_finish(&out);
}

static void replaces_what_is_not_utf8(void **state)
{
	(void)state;
	struct source s;
	struct kb_tok *t = byte_tok(&s);
	check(t, "a\xe3\x81\x82\xf0\x9f\x90\xb1z", "a\xe3\x81\x82\xf0\x9f\x90\xb1z");
	check(t, "\xff", "\xef\xbf\xbd");
	check(t, "\xe3\x81", "\xef\xbf\xbd");                             // cut off: one replacement at the end
	check(t, "\xe3\x81Z", "\xef\xbf\xbdZ");                           // the letter is not swallowed
	check(t, "\xc0\x80", "\xef\xbf\xbd\xef\xbf\xbd");                 // overlong NUL
	check(t, "\xed\xa0\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"); // surrogate
	check(t, "\xf4\x90\x80\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"); // above U+10FFFF
	check(t, "\x80", "\xef\xbf\xbd");
	kb_tok_destroy(t);
}

static void gives_whole_characters_only(void **state)
{
	(void)state;
	struct source s;
	struct kb_tok *t = byte_tok(&s);
	struct kb_buf out = {0};
	struct kb_detok d = {.after_text = true};
	const uint8_t cat[] = {0xe7, 0x8c, 0xab};
	for (int i = 0; i < 3; i++) {
		assert_int_equal(kb_detok_push(&d, t, cat[i], &out), 0);
		assert_int_equal(out.len, i < 2 ? 0 : 3);
	}
	kb_buf_finish(&out);
	kb_tok_destroy(t);
}

static void drops_only_the_first_dummy_space(void **state)
{
	(void)state;
	struct source s;
	struct kb_tok *t = byte_tok(&s);
	struct kb_buf out = {0};
	struct kb_detok d = {0};
	assert_true(kb_tok_adds_space(t)); // the kind's default
	for (int i = 0; i < 2; i++)
		assert_int_equal(kb_detok_push(&d, t, ' ', &out), 0);
	assert_int_equal(out.len, 1);
	kb_buf_finish(&out);
	kb_tok_destroy(t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(replaces_what_is_not_utf8),
		cmocka_unit_test(gives_whole_characters_only),
		cmocka_unit_test(drops_only_the_first_dummy_space),
	};
	return cmocka_run_group_tests_name("text/detok", tests, NULL, NULL);
}
