#include "firmware/ctl/common.c"
#include "firmware/ctl/options.c"
#include "harness/kt.h"

enum { G_STATE, G_VERSION };
static const struct kb_ctl_option globals[] = {
	[G_STATE] = {"state", KB_CTL_TEXT, "DIR", "", 0, 0},
	[G_VERSION] = {"version", KB_CTL_FLAG, NULL, "", 0, 0},
	{0},
};
enum { O_NAME, O_COUNT, O_REAL, O_FLAG };
static const struct kb_ctl_option options[] = {
	[O_NAME] = {"name", KB_CTL_TEXT, "NAME", "", 0, 0},
	[O_COUNT] = {"count", KB_CTL_COUNT, "N", "", 1, 100},
	[O_REAL] = {"real", KB_CTL_REAL, "R", "", 0, 2},
	[O_FLAG] = {"flag", KB_CTL_FLAG, NULL, "", 0, 0},
	{0},
};
static const struct kb_ctl_command command = {
	.name = "cmd", .arguments = "ONE [TWO]", .options = options, .args_min = 1, .args_max = 2};

#define WORDS(...) ((const char *const[]){__VA_ARGS__, NULL})

// The words are copied: the parser reorders them, and what it returns points there.
static int parse(const struct kb_ctl_command *c, const char *const *words, struct kb_ctl_args *ret, struct kb_err *err)
{
	static char copies[2][16][64], *argv[16]; // the words of two calls in a row live side by side
	static int turn;
	int n = 0;
	turn ^= 1;
	for (; words[n]; n++) {
		snprintf(copies[turn][n], sizeof copies[turn][n], "%s", words[n]);
		argv[n] = copies[turn][n];
	}
	return kb_ctl_parse(globals, c, n, argv, ret, err);
}

static void options_stand_anywhere(void **state)
{
	(void)state;
	struct kb_ctl_args a = {0};
	struct kb_err err;
	const char *const *words =
		WORDS("--count=7", "one", "--state", "/s", "--real", "0.5", "two", "--flag", "--name=a=b");
	assert_int_equal(parse(&command, words, &a, &err), 0);
	assert_int_equal(a.n, 2);
	assert_string_equal(a.arg[0], "one");
	assert_string_equal(a.arg[1], "two");
	assert_int_equal(a.option[O_COUNT].count, 7);
	assert_true(a.option[O_REAL].real == 0.5);
	assert_true(a.option[O_FLAG].is_set);
	assert_string_equal(a.option[O_NAME].text, "a=b");
	assert_string_equal(a.global[G_STATE].text, "/s");
	assert_false(a.global[G_VERSION].is_set);
}

static void the_first_argument_is_the_command(void **state)
{
	(void)state;
	struct kb_ctl_args a = {0};
	struct kb_err err;
	assert_int_equal(parse(NULL, WORDS("--state", "/s", "cmd", "--unknown", "x"), &a, &err), 0);
	assert_int_equal(a.n, 3);
	assert_string_equal(a.arg[0], "cmd");
	assert_string_equal(a.arg[1], "--unknown");
	// Globals given before the command stay when its own words are parsed.
	assert_int_equal(parse(&command, WORDS("one", "--version"), &a, &err), 0);
	assert_string_equal(a.global[G_STATE].text, "/s");
	assert_true(a.global[G_VERSION].is_set);
	a = (struct kb_ctl_args){0};
	assert_int_equal(parse(NULL, WORDS("--version"), &a, &err), 0);
	assert_int_equal(a.n, 0);
}

static void dashes_can_be_arguments(void **state)
{
	(void)state;
	struct kb_ctl_args a = {0};
	struct kb_err err;
	assert_int_equal(parse(&command, WORDS("-", "--", "--flag"), &a, &err), 0);
	assert_int_equal(a.n, 2);
	assert_string_equal(a.arg[0], "-");
	assert_string_equal(a.arg[1], "--flag");
	assert_false(a.option[O_FLAG].is_set);
}

static void help_needs_nothing_else(void **state)
{
	(void)state;
	struct kb_err err;
	struct kb_ctl_args a = {0};
	assert_int_equal(parse(&command, WORDS("--help"), &a, &err), 0);
	assert_true(a.wants_help);
	a = (struct kb_ctl_args){0};
	assert_int_equal(parse(&command, WORDS("-h"), &a, &err), 0);
	assert_true(a.wants_help);
}

static void mistakes_are_named(void **state)
{
	(void)state;
	static const struct {
		const char *words[6], *says;
	} rows[] = {
		{{"one", "--nosuch"}, "--nosuch"},
		{{"one", "--flags"}, "--flags"}, // no guessing by beginnings
		{{"one", "--fla"}, "--fla"},
		{{"one", "-x"}, "-x"},
		{{"one", "--name"}, "NAME"},
		{{"one", "--flag=1"}, "no value"},
		{{"one", "--count", "x"}, "number"},
		{{"one", "--count", ""}, "number"},
		{{"one", "--count", "-1"}, "number"},
		{{"one", "--count", "+1"}, "number"},
		{{"one", "--count", " 1"}, "number"},
		{{"one", "--count", "1x"}, "number"},
		{{"one", "--count", "0"}, "1 to 100"},
		{{"one", "--count", "101"}, "1 to 100"},
		{{"one", "--count", "99999999999999999999999"}, "number"},
		{{"one", "--real", "nan"}, "number"},
		{{"one", "--real", "2.5"}, "0 to 2"},
		{{"one", "--real", "-0.1"}, "0 to 2"},
		{{"one", "--real", "1,5"}, "number"},
		{{"--flag"}, "ONE [TWO]"},
		{{"one", "two", "three"}, "\"three\""},
	};
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		struct kb_ctl_args a = {0};
		struct kb_err err = {0};
		assert_int_equal(parse(&command, rows[i].words, &a, &err), KB_EARG);
		if (!strstr(err.text, rows[i].says))
			fail_msg("\"%s\" does not say \"%s\"", err.text, rows[i].says);
		assert_int_equal(a.n, 0); // untouched
	}
}

static void boxes_are_host_and_port(void **state)
{
	(void)state;
	static const struct {
		const char *text, *host;
		uint16_t port;
	} good[] = {
		{"box.example", "box.example", KB_CTL_PORT},
		{"box:1", "box", 1},
		{"127.0.0.1:65535", "127.0.0.1", 65535},
		{"[::1]:8443", "::1", 8443},
		{"[fe80::1]", "fe80::1", KB_CTL_PORT},
		{"::1", "::1", KB_CTL_PORT},
	};
	for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
		char host[32];
		uint16_t port = 0;
		assert_int_equal(kb_ctl_parse_box(good[i].text, host, sizeof host, &port), 0);
		assert_string_equal(host, good[i].host);
		assert_int_equal(port, good[i].port);
	}
	static const char *const bad[] = {"", ":1", "box:", "box:0", "box:65536", "box:-1", "box: 1", "box:1x", "[::1",
		"[]", "[::1]x", "a-name-that-does-not-fit-32-bytes"};
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		char host[32] = "kept";
		uint16_t port = 5;
		assert_int_equal(kb_ctl_parse_box(bad[i], host, sizeof host, &port), KB_EARG);
		assert_string_equal(host, "kept");
		assert_int_equal(port, 5);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(options_stand_anywhere),
		cmocka_unit_test(the_first_argument_is_the_command),
		cmocka_unit_test(dashes_can_be_arguments),
		cmocka_unit_test(help_needs_nothing_else),
		cmocka_unit_test(mistakes_are_named),
		cmocka_unit_test(boxes_are_host_and_port),
	};
	return cmocka_run_group_tests_name("ctl/options", tests, NULL, NULL);
}
