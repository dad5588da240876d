// Special tokens: which win where they overlap, and that nothing a user types becomes one.
#include "small.h"

// llama.cpp's way (src/llama-vocab.cpp, tokenizer_st_partition), as slow as it is plain: one token after the other,
// longest first, cut out of what is still text, from the left. id_at: per byte, 0 text, 1 + id at a token's first
// byte, -1 within one.
static void reference(const char *text, size_t len, const char *const *specials, size_t n, int *id_at)
{
	memset(id_at, 0, len * sizeof *id_at);
	for (size_t want = 8; want > 0; want--)
		for (size_t k = 0; k < n; k++)
			for (size_t at = 0; strlen(specials[k]) == want && at + want <= len; at++) {
				bool fits = memcmp(text + at, specials[k], want) == 0;
				for (size_t i = at; fits && i < at + want; i++)
					fits = id_at[i] == 0;
				for (size_t i = at; fits && i < at + want; i++)
					id_at[i] = i == at ? 1 + (int)k : -1;
			}
}

static void longest_special_wins(void **state)
{
	(void)state;
	uint32_t seed = 3;
	for (int round = 0; round < 60; round++) {
		struct small s = {.model = "llama"};
		char names[6][9];
		const char *specials[6];
		size_t n = 0;
		for (int k = 0; k < 6; k++) { // distinct words over {a, b}; one length each, so that no tie is open
			size_t len = 1 + (size_t)k + (seed = seed * 1664525 + 1013904223) % 2;
			if (n && len <= strlen(specials[n - 1]))
				len++;
			for (size_t i = 0; i < len; i++)
				names[k][i] = "ab"[(seed = seed * 1664525 + 1013904223) >> 31];
			names[k][len] = 0;
			specials[n++] = names[k];
		}
		for (size_t k = 0; k < n; k++)
			small_add(&s, specials[k], 4, 0);
		small_add_bytes(&s);
		struct kb_tok *t = small_tok(&s);
		char text[48];
		for (size_t i = 0; i < sizeof text; i++)
			text[i] = "ab"[(seed = seed * 1664525 + 1013904223) >> 31];
		int id_at[sizeof text];
		uint32_t ids[256], want[256];
		size_t got, m = 0;
		reference(text, sizeof text, specials, n, id_at);
		for (size_t i = 0; i < sizeof text; i++)
			if (id_at[i] >= 0)
				want[m++] = id_at[i] ? (uint32_t)id_at[i] - 1 : (uint32_t)n + (uint8_t)text[i];
		assert_int_equal(kb_tok_encode(t, &(struct kb_span){text, sizeof text, false}, 1, 0, ids, 256, &got), 0);
		assert_int_equal(got, m);
		assert_memory_equal(ids, want, m * sizeof *ids);
		kb_tok_destroy(t);
	}
}

static size_t encode(const struct kb_tok *t, const char *text, bool trusted, uint32_t *ids)
{
	size_t n;
	assert_int_equal(kb_tok_encode(t, &(struct kb_span){text, strlen(text), trusted}, 1, 0, ids, 64, &n), 0);
	return n;
}

// SentencePiece: the pieces of "<e>" may merge to a word of that text, never to the control token.
static void scores_do_not_make_control_tokens(void **state)
{
	(void)state;
	struct small s = {.model = "llama"};
	uint32_t ids[64], end = small_add(&s, "<e>", 3, 0), begun = small_add(&s, "<e", 1, -1);
	small_add(&s, ">", 1, -2);
	small_add(&s, "<", 1, -2);
	small_add(&s, "e", 1, -2);
	small_add_bytes(&s);
	struct kb_tok *t = small_tok(&s);
	assert_int_equal(encode(t, "<e>", true, ids), 1);
	assert_int_equal(ids[0], end);
	assert_int_equal(encode(t, "<e>", false, ids), 2);
	assert_int_equal(ids[0], begun);
	assert_int_equal(encode(t, "<0x41>", false, ids), 6); // nor a byte token by its name
	for (int i = 0; i < 6; i++)
		assert_true(ids[i] != 5 + 0x41);
	kb_tok_destroy(t);
}

// Byte-level BPE: merges may lead to a control token's text; those are left out.
static void merges_do_not_make_control_tokens(void **state)
{
	(void)state;
	struct small s = {.model = "gpt2", .pre = "llama-bpe"}; // a pre-tokenizer that looks whole pieces up, too
	uint32_t ids[64], end = small_add(&s, "ab", 3, 0);
	small_add(&s, "a", 1, 0);
	small_add(&s, "b", 1, 0);
	small_put(s.merges, &s.merges_len, "a b", 3);
	s.n_merges = 1;
	struct kb_tok *t = small_tok(&s);
	assert_int_equal(encode(t, "ab", true, ids), 1);
	assert_int_equal(ids[0], end);
	assert_int_equal(encode(t, "ab", false, ids), 2);
	kb_tok_destroy(t);
}

// A file that calls its turn marks words of the user's ("user-defined") does not open the door.
static void turn_marks_are_control_tokens_whatever_the_file_says(void **state)
{
	(void)state;
	static const char *const marks[] = {"<|im_end|>", "<|im_start|>", "<end_of_turn>", "<start_of_turn>", "<|eot_id|>",
		"<|start_header_id|>", "<|end|>", "<|user|>", "[INST]", "</s>", "<s>"};
	for (unsigned type = 3; type <= 4; type++) {
		struct small s = {.model = "llama", .has_id = {true, true}};
		uint32_t ids[64];
		for (size_t i = 0; i < sizeof marks / sizeof *marks; i++)
			small_add(&s, marks[i], type, 0);
		s.ids[0][0] = 10; // bos <s>
		s.ids[1][0] = 9;  // eos </s>
		small_add_bytes(&s);
		struct kb_tok *t = small_tok(&s);
		for (size_t i = 0; i < sizeof marks / sizeof *marks; i++) {
			assert_int_equal(encode(t, marks[i], true, ids), 1);
			assert_int_equal(ids[0], i);
			assert_true(kb_tok_is_control(t, ids[0]));
			assert_int_equal(encode(t, marks[i], false, ids), strlen(marks[i]));
		}
		assert_true(kb_tok_is_eog(t, 0) && kb_tok_is_eog(t, 9) && !kb_tok_is_eog(t, 1));
		kb_tok_destroy(t);
	}
}

// Where sentences do not begin with <s>, </s> is an HTML tag (Gemma 3), and Harmony's <|end|> ends no answer.
static void some_ends_depend_on_their_company(void **state)
{
	(void)state;
	struct small s = {.model = "llama", .has_id = {true}};
	uint32_t ids[64];
	small_add(&s, "<bos>", 3, 0);
	small_add(&s, "</s>", 4, 0);
	small_add(&s, "<|end|>", 3, 0);
	small_add(&s, "<|return|>", 3, 0);
	small_add_bytes(&s);
	struct kb_tok *t = small_tok(&s);
	assert_false(kb_tok_is_eog(t, 1));
	assert_false(kb_tok_is_eog(t, 2));
	assert_true(kb_tok_is_eog(t, 3));
	assert_int_equal(encode(t, "</s>", false, ids), 1);
	assert_int_equal(ids[0], 1);
	kb_tok_destroy(t);
}

// A lead byte that is not followed by its character takes bytes of the next space's U+2581, which leaves the others
// as symbols of their own: more symbols than characters.
static void stray_lead_bytes_before_spaces(void **state)
{
	(void)state;
	struct small s = {.model = "llama"};
	uint32_t ids[256];
	char text[64];
	size_t n;
	small_add_bytes(&s);
	struct kb_tok *t = small_tok(&s);
	for (size_t i = 0; i < sizeof text; i++)
		text[i] = i % 2 ? ' ' : '\xc3';
	assert_int_equal(kb_tok_encode(t, &(struct kb_span){text, sizeof text, false}, 1, 0, ids, 256, &n), 0);
	assert_int_equal(n, 32 + 3 * 32);
	assert_true(n <= kb_tok_bound(sizeof text));
	kb_tok_destroy(t);
}

// The most ids a text can give: byte tokens only, a dummy space after every control token, every text byte a space.
static void the_bound_holds_at_the_worst(void **state)
{
	(void)state;
	struct small s = {.model = "llama", .adds_space = true};
	uint32_t ids[512];
	char text[101];
	size_t n;
	small_add(&s, "!", 3, 0);
	small_add_bytes(&s);
	struct kb_tok *t = small_tok(&s);
	for (size_t i = 0; i < sizeof text; i++)
		text[i] = i % 2 ? '!' : ' ';
	assert_true(kb_tok_bound(sizeof text) <= 512);
	assert_int_equal(
		kb_tok_encode(t, &(struct kb_span){text, sizeof text, true}, 1, 0, ids, kb_tok_bound(sizeof text), &n), 0);
	assert_int_equal(n, 50 + 51 * 6);
	kb_tok_destroy(t);
}

static void refuses_what_is_not_built_in(void **state)
{
	(void)state;
	static const struct {
		const char *model, *pre, *text;
		int code;
	} cases[] = {{"gpt2", "klingon", "'klingon'", KB_EUNSUPPORTED},
		{"gpt2", NULL, "tokenizer.ggml.pre", KB_EUNSUPPORTED}, {"t5", NULL, "'t5'", KB_EUNSUPPORTED},
		{NULL, NULL, "no tokenizer", KB_EBAD}};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct small s = {.model = cases[i].model, .pre = cases[i].pre};
		const struct kb_meta_source meta = {&s, small_find};
		struct kb_err err = {0};
		struct kb_tok *t = NULL;
		small_add(&s, "a", 1, 0);
		assert_int_equal(kb_tok_create(&meta, &err, &t), cases[i].code);
		assert_non_null(strstr(err.text, cases[i].text));
		assert_null(t);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(longest_special_wins),
		cmocka_unit_test(scores_do_not_make_control_tokens),
		cmocka_unit_test(merges_do_not_make_control_tokens),
		cmocka_unit_test(turn_marks_are_control_tokens_whatever_the_file_says),
		cmocka_unit_test(some_ends_depend_on_their_company),
		cmocka_unit_test(stray_lead_bytes_before_spaces),
		cmocka_unit_test(the_bound_holds_at_the_worst),
		cmocka_unit_test(refuses_what_is_not_built_in),
	};
	return cmocka_run_group_tests_name("text/special", tests, NULL, NULL);
}
