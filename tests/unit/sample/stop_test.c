// Oracle: searching the whole text at once (memcmp at every place).
#include "harness/kt.h"
#include "sample/stop.h"

#include <stdio.h>

static struct kb_str str(const char *text)
{
	return (struct kb_str){text, strlen(text)};
}

static void stops_init(struct kb_stops *s, const char *const *strings, uint32_t n)
{
	struct kb_str list[KB_STOPS_MAX];
	struct kb_err err;
	for (uint32_t i = 0; i < n; i++)
		list[i] = str(strings[i]);
	assert_int_equal(kb_stops_init(s, list, n, &err), 0);
}

// Where the text ends for these stop strings: before the one that ends first (of those, the longest).
static size_t cut_of(const char *text, size_t len, const char *const *strings, uint32_t n, bool *ret_stopped)
{
	for (size_t end = 1; end <= len; end++) {
		size_t longest = 0;
		for (uint32_t i = 0; i < n; i++) {
			size_t m = strlen(strings[i]);
			if (m > longest && m <= end && memcmp(text + end - m, strings[i], m) == 0)
				longest = m;
		}
		if (longest) {
			*ret_stopped = true;
			return end - longest;
		}
	}
	*ret_stopped = false;
	return len;
}

// The longest end of text[0, len) that begins a stop string (and is not a whole one).
static size_t held_of(const char *text, size_t len, const char *const *strings, uint32_t n)
{
	for (size_t held = len; held > 0; held--)
		for (uint32_t i = 0; i < n; i++)
			if (held < strlen(strings[i]) && memcmp(text + len - held, strings[i], held) == 0)
				return held;
	return 0;
}

static bool is_utf8(const uint8_t *p, size_t n)
{
	for (size_t i = 0; i < n;) {
		size_t len = p[i] < 0x80 ? 1 : p[i] >> 5 == 6 ? 2 : p[i] >> 4 == 14 ? 3 : p[i] >> 3 == 30 ? 4 : 9;
		if (i + len > n)
			return false;
		for (size_t j = 1; j < len; j++)
			if (p[i + j] >> 6 != 2)
				return false;
		i += len;
	}
	return true;
}

static const struct {
	const char *text;
	const char *stop[4];
	uint32_t n;
} cases[] = {
	{"Hello world.\n\nUser: no", {"\n\nUser:"}, 1}, {"aaaaaab", {"aaab"}, 1}, {"ababababc", {"ababc", "bab"}, 2},
	{"abcabcabd", {"abcabd"}, 1}, {"nothing here", {"###", "END"}, 2}, {"almost ##", {"###"}, 1},
	{"xabcdy", {"bc", "abcd", "c"}, 3}, // bc and c end together: bc
	{"xabcdy", {"abcd", "d"}, 2},
	{"\xe5\x90\xbe\xe8\xbc\xa9\xe3\x81\xaf\xe7\x8c\xab", {"\xe7\x8c\xab"}, 1},              // wagahai ha neko
	{"\xe3\x81\x82\xe3\x81\x84\xe3\x81\x82\xe3\x81\x86.", {"\xe3\x81\x82\xe3\x81\x86"}, 1}, // a i a u
	{"\xf0\x9f\x98\x80\xf0\x9f\x98\x81", {"\xf0\x9f\x98\x81", "\xf0\x9f\x98\x82"}, 2},      // faces
	{"stop at once", {"s"}, 1}, {"", {"x"}, 1}, {"no stops at all", {""}, 1}, // an empty string is ignored
};

// Every way to cut the text into three pieces.
static void every_split_gives_the_same(void **state)
{
	(void)state;
	for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
		const char *text = cases[c].text;
		size_t len = strlen(text);
		uint32_t n = cases[c].stop[0][0] ? cases[c].n : 0;
		bool must_stop;
		size_t want = cut_of(text, len, cases[c].stop, n, &must_stop);
		for (size_t a = 0; a <= len; a++)
			for (size_t b = a; b <= len; b++) {
				struct kb_stops s;
				struct kb_buf out = {0};
				bool stopped = false;
				size_t at[4] = {0, a, b, len};
				stops_init(&s, cases[c].stop, cases[c].n);
				for (int i = 0; i < 3; i++)
					assert_int_equal(
						kb_stops_push(&s, (struct kb_str){text + at[i], at[i + 1] - at[i]}, &out, &stopped), 0);
				assert_int_equal(stopped, must_stop);
				assert_int_equal(kb_stops_flush(&s, &out), 0);
				assert_int_equal(out.len, want);
				assert_true(want == 0 || memcmp(out.data, text, want) == 0);
				kb_stops_finish(&s);
				kb_buf_finish(&out);
			}
	}
}

// Character by character: what is out is whole UTF-8 and everything but what may still become a stop string.
static void no_byte_is_held_back_too_long(void **state)
{
	(void)state;
	for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
		const uint8_t *text = (const uint8_t *)cases[c].text;
		struct kb_stops s;
		struct kb_buf out = {0};
		bool stopped = false;
		size_t len = strlen(cases[c].text);
		stops_init(&s, cases[c].stop, cases[c].n);
		for (size_t at = 0; at < len;) {
			size_t n = text[at] < 0x80 ? 1 : text[at] < 0xe0 ? 2 : text[at] < 0xf0 ? 3 : 4;
			assert_int_equal(kb_stops_push(&s, (struct kb_str){(const char *)text + at, n}, &out, &stopped), 0);
			at += n;
			if (stopped)
				break;
			assert_int_equal(out.len, at - held_of(cases[c].text, at, cases[c].stop, cases[c].n));
			assert_true(is_utf8(out.data, out.len));
		}
		kb_stops_finish(&s);
		kb_buf_finish(&out);
	}
}

static void after_the_stop_nothing_comes(void **state)
{
	(void)state;
	struct kb_stops s;
	struct kb_buf out = {0};
	bool stopped;
	stops_init(&s, (const char *const[]){"END"}, 1);
	assert_int_equal(kb_stops_push(&s, str("a E"), &out, &stopped), 0);
	assert_false(stopped);
	assert_int_equal(kb_stops_push(&s, str("NDxyz"), &out, &stopped), 0);
	assert_true(stopped);
	assert_int_equal(kb_stops_push(&s, str("more"), &out, &stopped), 0);
	assert_true(stopped);
	assert_int_equal(kb_stops_flush(&s, &out), 0);
	assert_int_equal(out.len, 2);
	assert_memory_equal(out.data, "a ", 2);
	kb_stops_finish(&s);
	kb_buf_finish(&out);
}

static void limits(void **state)
{
	(void)state;
	struct kb_stops s;
	struct kb_err err;
	struct kb_str list[KB_STOPS_MAX + 1];
	char *large = calloc(1, KB_STOP_BYTES_MAX + 1);
	memset(large, 'x', KB_STOP_BYTES_MAX + 1);
	for (uint32_t i = 0; i <= KB_STOPS_MAX; i++)
		list[i] = str("stop");
	assert_int_equal(kb_stops_init(&s, list, KB_STOPS_MAX + 1, &err), KB_EARG);
	assert_int_equal(kb_stops_init(&s, list, KB_STOPS_MAX, &err), 0);
	kb_stops_finish(&s);
	list[0] = (struct kb_str){large, KB_STOP_BYTES_MAX + 1};
	assert_int_equal(kb_stops_init(&s, list, 1, &err), KB_EARG);
	list[0].len--;
	assert_int_equal(kb_stops_init(&s, list, 1, &err), 0);
	kb_stops_finish(&s);
	kb_stops_finish(&s);
	free(large);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_split_gives_the_same),
		cmocka_unit_test(no_byte_is_held_back_too_long),
		cmocka_unit_test(after_the_stop_nothing_comes),
		cmocka_unit_test(limits),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
