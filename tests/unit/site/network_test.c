#include "harness/kt.h"
#include "site/network.h"

#include <string.h>

static int parse(const char *text, struct kb_site_network *ret, struct kb_err *err)
{
	return kb_site_network_parse(text, strlen(text), err, ret);
}

static void reads_all_rows(void **state)
{
	(void)state;
	struct kb_site_network n;
	struct kb_err err;
	assert_int_equal(parse("# of the branch\naddress 192.0.2.7/24 # fixed\r\n\n gateway\t192.0.2.1\ntime 192.0.2.2\n"
						   "time 198.51.100.9\nname kotobako-2",
						 &n, &err),
		0);
	assert_true(n.is_fixed);
	assert_int_equal(n.address, 0xc0000207);
	assert_int_equal(n.prefix, 24);
	assert_int_equal(n.gateway, 0xc0000201);
	assert_int_equal(n.n_times, 2);
	assert_int_equal(n.times[1], 0xc6336409);
	assert_string_equal(n.name, "kotobako-2");
}

static void without_rows_it_is_dhcp(void **state)
{
	(void)state;
	struct kb_site_network n = {.is_fixed = true};
	assert_int_equal(parse("", &n, NULL), 0);
	assert_false(n.is_fixed);
	assert_int_equal(n.n_times, 0);
	assert_string_equal(n.name, "");
}

static void says_what_is_wrong(void **state)
{
	(void)state;
	static const struct {
		const char *text, *why;
	} rows[] = {
		{"address 192.0.2.7", "ADDRESS/PREFIX"},
		{"address 192.0.2.7/33", "ADDRESS/PREFIX"},
		{"address 192.0.2.7/-1", "ADDRESS/PREFIX"},
		{"address 192.0.2.7/ 4", "ADDRESS/PREFIX"},
		{"address 192.0.2.07/24", "ADDRESS/PREFIX"}, // octal or decimal? neither
		{"address 192.0.2/24", "ADDRESS/PREFIX"},
		{"address 192.0.2.7/24/24", "ADDRESS/PREFIX"},
		{"address", "ADDRESS/PREFIX"},
		{"address 192.0.2.0/24", "that of a network"},
		{"address 192.0.2.255/24", "that of a network"},
		{"address 127.0.0.1/8", "cannot have it"},
		{"address 224.0.0.1/24", "cannot have it"},
		{"address 192.0.2.7/32", "cannot have it"},
		{"address 192.0.2.7/24\ngateway 192.0.3.1", "not another machine"},
		{"address 192.0.2.7/24\ngateway 192.0.2.7", "not another machine"},
		{"gateway 192.0.2.1", "wants a fixed address"},
		{"gateway none", "wants an address"},
		{"time time.example", "NTP server"},
		{"time 0.0.0.0", "NTP server"},
		{"time 192.0.2.1\ntime 192.0.2.1\ntime 192.0.2.1\ntime 192.0.2.1\ntime 192.0.2.1", "line 5: more than 4"},
		{"name -box", "name -box"},
		{"name Box", "name Box"},
		{"name a.b", "name a.b"},
		{"name x\nscript /bin/sh", "line 2: script: there is"},
		{"name $(reboot)", "name $(reboot)"},
	};
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		struct kb_site_network n;
		struct kb_err err = {0};
		assert_int_equal(parse(rows[i].text, &n, &err), KB_EBAD);
		if (!strstr(err.text, rows[i].why))
			fail_msg("\"%s\" says \"%s\", not \"%s\"", rows[i].text, err.text, rows[i].why);
	}
}

static void what_it_writes_it_reads(void **state)
{
	(void)state;
	static const char *const texts[] = {"address dhcp\n", "address dhcp\ntime 192.0.2.1\nname a\n",
		"address 10.0.0.1/31\ngateway 10.0.0.0\ntime 10.9.9.9\ntime 10.9.9.8\nname box-1\n"};
	for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
		struct kb_site_network n;
		struct kb_buf b = {0};
		assert_int_equal(parse(texts[i], &n, NULL), 0);
		assert_int_equal(kb_site_network_format(&n, &b), 0);
		assert_string_equal(kb_buf_cstr(&b), texts[i]);
		kb_buf_finish(&b);
	}
}

static void what_is_too_long_or_binary_is_refused(void **state)
{
	(void)state;
	char text[KB_SITE_NETWORK_MAX + 1];
	struct kb_site_network n;
	memset(text, '#', sizeof text);
	assert_int_equal(kb_site_network_parse(text, sizeof text - 1, NULL, &n), 0);
	assert_int_equal(kb_site_network_parse(text, sizeof text, NULL, &n), KB_EBAD);
	assert_int_equal(kb_site_network_parse("address dhcp\n\0", 14, NULL, &n), KB_EBAD);
	memset(text, 'a', 64);
	text[64] = 0;
	assert_false(kb_site_name_ok(text));
	assert_true(kb_site_name_ok(text + 1));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(reads_all_rows),
		cmocka_unit_test(without_rows_it_is_dhcp),
		cmocka_unit_test(says_what_is_wrong),
		cmocka_unit_test(what_it_writes_it_reads),
		cmocka_unit_test(what_is_too_long_or_binary_is_refused),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
