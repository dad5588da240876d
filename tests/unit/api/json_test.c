// JSON out, read back by yyjson; shares of clients; figures.
#include "firmware/api/json.h"
#include "firmware/api/limiter.h"
#include "firmware/api/metrics.h"
#include "harness/kt.h"
#include <math.h>
#include <stdio.h>

static void assert_round_trip(const char *bytes, size_t len, const char *expected, size_t expected_len)
{
	struct kb_buf b = {0};
	struct kb_json j = {.out = &b};
	struct kb_err err;
	kb_json_str(&j, bytes, len);
	assert_int_equal(j.error, 0);
	for (size_t i = 0; i < b.len; i++)
		assert_true(b.data[i] >= 0x20); // one line, always
	yyjson_doc *doc = kb_json_parse(b.data, b.len, &err);
	assert_non_null(doc);
	yyjson_val *v = yyjson_doc_get_root(doc);
	assert_int_equal(yyjson_get_len(v), expected_len);
	assert_memory_equal(yyjson_get_str(v), expected, expected_len);
	yyjson_doc_free(doc);
	kb_buf_finish(&b);
}

static void strings_survive(void **state)
{
	(void)state;
	char all[128];
	for (int i = 0; i < 128; i++)
		all[i] = (char)i;
	assert_round_trip(all, 128, all, 128);
	assert_round_trip("", 0, "", 0);
	assert_round_trip("\xe8\xa8\x80\xf0\x9f\x98\x80\xc3\xa9", 9, "\xe8\xa8\x80\xf0\x9f\x98\x80\xc3\xa9", 9);
	// Ill-formed sequences (Unicode 15, 3.9): lone, short, overlong, surrogate, too high.
	assert_round_trip("\xff", 1, "\xef\xbf\xbd", 3);
	assert_round_trip("a\xe8\xa8", 3, "a\xef\xbf\xbd\xef\xbf\xbd", 7);
	assert_round_trip("\xc0\xaf", 2, "\xef\xbf\xbd\xef\xbf\xbd", 6);
	assert_round_trip("\xed\xa0\x80", 3, "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd", 9);
	assert_round_trip("\xf4\x90\x80\x80z", 5, "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbdz", 13);
}

static void numbers_are_json(void **state)
{
	(void)state;
	const double values[] = {0, -0.25, 1e-30, -INFINITY, INFINITY, NAN, 123456789};
	const char *const texts[] = {"0", "-0.25", "1e-30", "-9999", "9999", "0", "123456789"};
	for (int i = 0; i < 7; i++) {
		struct kb_buf b = {0};
		struct kb_json j = {.out = &b};
		kb_json_float(&j, values[i]);
		assert_string_equal(kb_buf_cstr(&b), texts[i]);
		kb_buf_finish(&b);
	}
}

static void the_first_failure_sticks(void **state)
{
	(void)state;
	struct kb_buf b = {.max = 8};
	struct kb_json j = {.out = &b};
	kb_json_raw(&j, "123456789");
	assert_int_equal(j.error, KB_ELIMIT);
	kb_json_raw(&j, "1");
	assert_int_equal(j.error, KB_ELIMIT);
	kb_buf_finish(&b);
}

static void code_points_are_counted(void **state)
{
	(void)state;
	struct kb_buf b = {0};
	size_t n;
	assert_int_equal(kb_utf8_clean(&b, "a\xe8\xa8\x80\xff", 5, &n), 0);
	assert_int_equal(n, 3);
	assert_string_equal(kb_buf_cstr(&b), "a\xe8\xa8\x80\xef\xbf\xbd");
	kb_buf_finish(&b);
}

static void a_client_has_its_share(void **state)
{
	(void)state;
	static struct kb_limiter l = {.rate = 10, .running_max = 2};
	uint8_t a[32] = {1}, b[32] = {2};
	for (int i = 0; i < 20; i++)
		assert_int_equal(kb_limiter_take(&l, a, 1000), 0); // a burst of two seconds
	assert_int_equal(kb_limiter_take(&l, a, 1000), 1);
	assert_int_equal(kb_limiter_take(&l, b, 1000), 0); // another's is untouched
	assert_int_equal(kb_limiter_take(&l, a, 1100), 0); // one more after a tenth of a second
	assert_int_equal(kb_limiter_take(&l, a, 1100), 1);
	assert_true(kb_limiter_enter(&l, a, 1100) && kb_limiter_enter(&l, a, 1100) && !kb_limiter_enter(&l, a, 1100));
	kb_limiter_leave(&l, a);
	assert_true(kb_limiter_enter(&l, a, 1100));
	// As many clients as there are rows: those with something running are not forgotten.
	for (uint32_t i = 0; i < 2 * KB_LIMITER_ROWS; i++) {
		uint8_t c[32] = {3, (uint8_t)i, (uint8_t)(i >> 8)};
		assert_int_equal(kb_limiter_take(&l, c, 2000 + i), 0);
	}
	assert_false(kb_limiter_enter(&l, a, 9000));
}

static void histograms_add_up(void **state)
{
	(void)state;
	struct kb_metrics m = {0};
	struct kb_gauges g = {
		.n_engines = 1, .engines = {{.model = "m", .is_up = 1, .kv_pages = 8, .kv_pages_used = 2, .has_stats = 1}}};
	struct kb_buf out = {0};
	kb_histogram_add(&m.first_token_s, 0.03);
	kb_histogram_add(&m.first_token_s, 1000);
	assert_int_equal(kb_metrics_print(&m, &g, &out), 0);
	const char *text = kb_buf_cstr(&out);
	assert_non_null(strstr(text, "\nkotobako_time_to_first_token_seconds_bucket{le=\"0.02\"} 0\n"));
	assert_non_null(strstr(text, "\nkotobako_time_to_first_token_seconds_bucket{le=\"0.05\"} 1\n"));
	assert_non_null(strstr(text, "\nkotobako_time_to_first_token_seconds_bucket{le=\"180\"} 1\n"));
	assert_non_null(strstr(text, "\nkotobako_time_to_first_token_seconds_bucket{le=\"+Inf\"} 2\n"));
	assert_non_null(strstr(text, "\nkotobako_time_to_first_token_seconds_sum 1000.03\n"));
	assert_non_null(strstr(text, "\nkotobako_kv_cache_usage_ratio{model=\"m\"} 0.25\n"));
	assert_non_null(strstr(text, "\nkotobako_kv_pages_used{model=\"m\"} 2\n"));
	kb_buf_finish(&out);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(strings_survive),
		cmocka_unit_test(numbers_are_json),
		cmocka_unit_test(the_first_failure_sticks),
		cmocka_unit_test(code_points_are_counted),
		cmocka_unit_test(a_client_has_its_share),
		cmocka_unit_test(histograms_add_up),
	};
	return cmocka_run_group_tests_name("api/json", tests, NULL, NULL);
}
