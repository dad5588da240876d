#include "firmware/ctl/progress.c"
#include "harness/kt.h"

static char text[16384];

static FILE *begin(struct kb_ctl_progress *p, bool is_terminal)
{
	memset(text, 0, sizeof text);
	FILE *f = fmemopen(text, sizeof text, "w");
	assert_non_null(f);
	kb_ctl_progress_begin(p, f, is_terminal, "work", 1000);
	return f;
}

static void a_pipe_gets_a_line_for_every_tenth(void **state)
{
	(void)state;
	struct kb_ctl_progress p;
	FILE *f = begin(&p, false);
	for (uint64_t done = 0; done <= 1000; done++)
		kb_ctl_progress_step(&p, done, 1000, "tensor", 1000 + done);
	kb_ctl_progress_end(&p);
	fclose(f);
	assert_string_equal(text, "work: 0 %\nwork: 10 %\nwork: 20 %\nwork: 30 %\nwork: 40 %\nwork: 50 %\nwork: 60 %\n"
							  "work: 70 %\nwork: 80 %\nwork: 90 %\nwork: 100 %\n");
}

static void large_steps_skip_lines(void **state)
{
	(void)state;
	struct kb_ctl_progress p;
	FILE *f = begin(&p, false);
	kb_ctl_progress_step(&p, 5, 0, NULL, 1000); // nothing is known yet
	kb_ctl_progress_step(&p, 55, 100, NULL, 1000);
	kb_ctl_progress_step(&p, 20, 100, NULL, 1000); // never backwards
	kb_ctl_progress_step(&p, UINT64_MAX, 100, NULL, 1000);
	fclose(f);
	assert_string_equal(text, "work: 50 %\nwork: 100 %\n");
}

static unsigned count(const char *what)
{
	unsigned n = 0;
	for (const char *at = text; (at = strstr(at, what)); at++)
		n++;
	return n;
}

static void a_terminal_is_redrawn_ten_times_a_second(void **state)
{
	(void)state;
	struct kb_ctl_progress p;
	FILE *f = begin(&p, true);
	for (uint64_t ms = 0; ms < 1000; ms++)
		kb_ctl_progress_step(&p, ms, 1000, "tensor", 1000 + ms);
	kb_ctl_progress_step(&p, 1000, 1000, "tensor", 2000);
	kb_ctl_progress_end(&p);
	kb_ctl_progress_end(&p);
	fclose(f);
	assert_int_equal(count("\rwork ["), 11);
	assert_int_equal(count("\n"), 1);
	assert_int_equal(count("100 %"), 1);
	assert_int_equal(count("[########################]"), 1);
	assert_int_equal(count("[........................]"), 1);
}

static void the_rest_is_estimated(void **state)
{
	(void)state;
	struct kb_ctl_progress p;
	FILE *f = begin(&p, true);
	kb_ctl_progress_step(&p, 25, 100, NULL, 11000); // a quarter in 10 s
	fclose(f);
	assert_int_equal(count(", 30 s left"), 1);
}

static void bytes_have_units(void **state)
{
	(void)state;
	static const struct {
		uint64_t n;
		const char *want;
	} rows[] = {{0, "0 B"}, {999, "999 B"}, {1000, "1.0 kB"}, {1500, "1.5 kB"}, {9949, "9.9 kB"}, {9950, "10 kB"},
		{999499, "999 kB"}, {999500, "1.0 MB"}, {98476032, "98 MB"}, {UINT64_C(1) << 30, "1.1 GB"},
		{UINT64_C(5000000000000), "5.0 TB"}};
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		char got[16];
		assert_string_equal(kb_ctl_bytes(rows[i].n, got), rows[i].want);
	}
	char got[16];
	assert_string_equal(kb_ctl_bytes(UINT64_MAX, got), "18446744 TB");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_pipe_gets_a_line_for_every_tenth),
		cmocka_unit_test(large_steps_skip_lines),
		cmocka_unit_test(a_terminal_is_redrawn_ten_times_a_second),
		cmocka_unit_test(the_rest_is_estimated),
		cmocka_unit_test(bytes_have_units),
	};
	return cmocka_run_group_tests_name("ctl/progress", tests, NULL, NULL);
}
