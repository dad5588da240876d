#include "firmware/init/init.h"
#include "harness/kt.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int parse(const char *text, struct kb_service *ret, unsigned *line, char **copy)
{
	*copy = strdup(text);
	assert_non_null(*copy);
	return kb_init_parse_services(*copy, ret, line);
}

static void reads_services(void **state)
{
	(void)state;
	struct kb_service s[KB_INIT_SERVICES_MAX];
	unsigned line;
	char *copy;
	assert_int_equal(parse("# rows\n\nbox 100 always /usr/bin/box --state  /state # why\n\tpair\t7 stick:models /p", s,
						 &line, &copy),
		2);
	assert_string_equal(s[0].name, "box");
	assert_int_equal(s[0].uid, 100);
	assert_int_equal(s[0].when, KB_WHEN_ALWAYS);
	assert_string_equal(s[0].argv[0], "/usr/bin/box");
	assert_string_equal(s[0].argv[2], "/state");
	assert_null(s[0].argv[3]);
	assert_int_equal(s[1].when, KB_WHEN_STICK);
	assert_int_equal(s[1].uid, 7);
	assert_null(s[1].argv[1]);
	free(copy);
}

static void knows_when(void **state)
{
	(void)state;
	struct kb_service s[KB_INIT_SERVICES_MAX];
	unsigned line;
	char *copy;
	assert_int_equal(
		parse("arm 0 file:/state/os/arm /a\ncheck 0 trial /b\nnet 0 on:/state/network /c\ndhcp 0 with:/run/x /d", s,
			&line, &copy),
		4);
	assert_int_equal(s[0].when, KB_WHEN_FILE);
	assert_string_equal(s[0].folder, "/state/os/arm");
	assert_int_equal(s[1].when, KB_WHEN_TRIAL);
	assert_int_equal(s[2].when, KB_WHEN_ON);
	assert_string_equal(s[2].folder, "/state/network");
	assert_int_equal(s[3].when, KB_WHEN_WITH);
	assert_string_equal(s[3].folder, "/run/x");
	free(copy);
}

static void has_limits(void **state)
{
	(void)state;
	struct kb_service s[KB_INIT_SERVICES_MAX];
	unsigned line;
	char *copy;
	assert_int_equal(
		parse("a 0 always memory=64 pids=32 oom=-500 /a --x=1\nb 0 always /b memory=1", s, &line, &copy), 2);
	assert_int_equal(s[0].memory_max, 64 << 20);
	assert_int_equal(s[0].pids_max, 32);
	assert_int_equal(s[0].oom_adjust, -500);
	assert_string_equal(s[0].argv[0], "/a");
	assert_string_equal(s[0].argv[1], "--x=1");
	assert_int_equal(s[1].memory_max, 0);
	assert_string_equal(s[1].argv[1], "memory=1"); // what follows the command is the command's
	free(copy);
	static const char *const wrong[] = {"memory=0", "memory=-1", "memory=", "memory", "memory=1M", "pids=0", "pids=x",
		"oom=1001", "oom=--1", "weight=1", "=1", "memory=99999999999"};
	for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
		char row[64];
		snprintf(row, sizeof row, "a 0 always %s /a", wrong[i]);
		assert_int_equal(parse(row, s, &line, &copy), -1);
		free(copy);
	}
}

static void notices_silence(void **state)
{
	(void)state;
	struct kb_service s = {.pid = 7};
	const int64_t long_after = 10 * KB_INIT_SILENT_MS;
	assert_int_equal(kb_init_wellness(&s, long_after), KB_WELL); // it promised nothing
	kb_init_heard(&s, "WATCHDOG=1", 5);
	assert_int_equal(kb_init_wellness(&s, long_after), KB_WELL);
	kb_init_heard(&s, "STATUS=x\nREADY=1\n", 10);
	assert_int_equal(kb_init_wellness(&s, 10 + KB_INIT_SILENT_MS), KB_WELL);
	assert_int_equal(kb_init_wellness(&s, 11 + KB_INIT_SILENT_MS), KB_SILENT);
	kb_init_heard(&s, "STATUS=x", 1000); // chatter is no sign of health
	kb_init_heard(&s, "WATCHDOG=10", 1000);
	kb_init_heard(&s, "XWATCHDOG=1", 1000);
	kb_init_heard(&s, "", 1000);
	assert_int_equal(kb_init_wellness(&s, 11 + KB_INIT_SILENT_MS), KB_SILENT);
	kb_init_heard(&s, "WATCHDOG=1", 11 + KB_INIT_SILENT_MS);
	assert_int_equal(kb_init_wellness(&s, 12 + KB_INIT_SILENT_MS), KB_WELL);
	s.killed = 100000;
	assert_int_equal(kb_init_wellness(&s, 100000 + KB_INIT_STUCK_MS), KB_WELL);
	assert_int_equal(kb_init_wellness(&s, 100001 + KB_INIT_STUCK_MS), KB_STUCK);
	s.pid = 0;
	assert_int_equal(kb_init_wellness(&s, 100001 + KB_INIT_STUCK_MS), KB_WELL);
	s = (struct kb_service){.pid = 7, .is_ready = true};
	kb_init_heard(&s, "STOPPING=1", 1);
	assert_int_equal(kb_init_wellness(&s, long_after), KB_WELL);
}

static void recovers(void **state)
{
	(void)state;
	static const struct {
		const char *selected, *by_default;
		unsigned n;
		int new_default;
		bool is_over;
	} rows[] = {
		{"app_b.efi", "app_a.efi", 1, -1, false}, // a trial: the next start is the old one's anyway
		{"app_a.efi", "app_b.efi", 2, -1, false},
		{"app_b.efi", "app_b.efi", 1, 0, false}, // the one that starts by itself does not
		{"app_a.efi", "app_a.efi", 1, 1, false},
		{"app_a.efi", "", 1, 1, false}, // the firmware forgot
		{"", "app_a.efi", 1, 1, false}, // systemd-boot itself did not start, or found nothing
		{"", "", 1, 0, false},
		{"strange.efi", "app_a.efi", 1, 1, false},
		{"app_a.efi", "app_a.efi", KB_INIT_RECOVERIES_MAX, 1, false},
		{"app_a.efi", "app_a.efi", KB_INIT_RECOVERIES_MAX + 1, 1, true},
	};
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		struct kb_recovery r;
		kb_init_recovery(rows[i].selected, rows[i].by_default, rows[i].n, &r);
		assert_int_equal(r.new_default, rows[i].new_default);
		assert_int_equal(r.is_over, rows[i].is_over);
		if (rows[i].selected[0])
			assert_non_null(strstr(r.reason, rows[i].selected));
	}
}

static void refuses_wrong_rows(void **state)
{
	(void)state;
	static const char *const wrong[] = {
		"a 1 always /x\nb",
		"a 1 always /x\nb 1",
		"a 1 always /x\nb 1 always",
		"a 1 always /x\nb 1 sometimes /x",
		"a 1 always /x\nb 1 file:x /x",
		"a 1 always /x\nb -1 always /x",
		"a 1 always /x\nb 65534 always /x", // nobody's, and above
		"a 1 always /x\nb 1x always /x",
		"a 1 always /x\nb 1 always x", // no path is searched
		"a 1 always /x\nb 1 always /x 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25",
	};
	for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
		struct kb_service s[KB_INIT_SERVICES_MAX];
		unsigned line;
		char *copy;
		assert_int_equal(parse(wrong[i], s, &line, &copy), -1);
		assert_int_equal(line, 2);
		free(copy);
	}
	char many[512] = "";
	for (size_t i = 0; i <= KB_INIT_SERVICES_MAX; i++)
		snprintf(many + strlen(many), sizeof many - strlen(many), "s%zu 1 always /x\n", i);
	struct kb_service s[KB_INIT_SERVICES_MAX];
	unsigned line;
	assert_int_equal(kb_init_parse_services(many, s, &line), -1);
	assert_int_equal(line, KB_INIT_SERVICES_MAX + 1);
}

static void finds_options(void **state)
{
	(void)state;
	char text[8];
	assert_int_equal(kb_init_option("quiet a=1 ab=2 a=33\n", "a", text, sizeof text), 2);
	assert_string_equal(text, "33");
	assert_int_equal(kb_init_option("a=1\nPARTNAME=state\n", "PARTNAME", text, sizeof text), 5);
	assert_string_equal(text, "state");
	assert_int_equal(kb_init_option("xa=1", "a", text, sizeof text), -1);
	assert_int_equal(kb_init_option("a", "a", text, sizeof text), -1);
	assert_int_equal(kb_init_option("", "a", text, sizeof text), -1);
	assert_int_equal(kb_init_option("a=", "a", text, sizeof text), 0);
	assert_int_equal(kb_init_option("a=1234567", "a", text, sizeof text), 7);
	assert_int_equal(kb_init_option("a=1 a=12345678", "a", text, sizeof text), -1); // the last one counts
}

#define H "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"
#define S "ffeeddccbbaa99887766554433221100ffeeddccbbaa99887766554433221100"

// By the words of the kernel's documentation; that a kernel takes it is what every boot in tests/image shows.
static void makes_the_verity_table(void **state)
{
	(void)state;
	struct kb_verity v;
	char table[512];
	assert_int_equal(kb_init_parse_verity(H ":" S ":19100", &v), 0);
	assert_int_equal(kb_init_verity_table(&v, "/dev/vda2", table, sizeof table), 0);
	assert_string_equal(table, "1 /dev/vda2 /dev/vda2 4096 4096 19100 19100 sha256 " H " " S " 1 panic_on_corruption");
	assert_int_equal(kb_init_verity_table(&v, "/dev/vda2", table, strlen(table)), -1);
	static const char *const wrong[] = {"", H, H ":" S, H ":" S ":", H ":" S ":0", H ":" S ":-1", H ":" S ":1 2",
		H ":" S ":99999999999999", H "0:" S ":1", "0" H ":" S ":1", H ":" S "0:1", "G" H ":" S ":1",
		"A0112233445566778899aabbccddeeff00112233445566778899aabbccddeeff:" S ":1"};
	for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
		assert_int_equal(kb_init_parse_verity(wrong[i], &v), -1);
}

// Lines as Linux 6.12 writes them.
static void finds_listeners(void **state)
{
	(void)state;
	static const char head[] = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid\n";
	static const char tail[] = " 00000000:00000000 00:00000000 00000000   100        0 1234 1 0 100 0 0 10 0\n";
	char text[2048];
	uint16_t ports[2];
	snprintf(text, sizeof text, "%s   0: 00000000:20FB 00000000:0000 0A%s   1: 0F02000A:20FB 0202000A:D3A2 01%s", head,
		tail, tail);
	assert_int_equal(kb_init_parse_listeners(text, ports, 0, 2), 1); // the connection is none
	assert_int_equal(ports[0], 8443);
	assert_int_equal(kb_init_parse_listeners(text, ports, 1, 2), 1); // known already
	snprintf(text, sizeof text,
		"%s   0: 00000000000000000000000000000000:0016 00000000000000000000000000000000:0000 0A%s", head, tail);
	assert_int_equal(kb_init_parse_listeners(text, ports, 1, 2), 2);
	assert_int_equal(ports[1], 22);
	assert_int_equal(kb_init_parse_listeners(text, ports, 0, 0), 0);
	assert_int_equal(kb_init_parse_listeners("", ports, 0, 2), 0);
	assert_int_equal(kb_init_parse_listeners(head, ports, 0, 2), 0);
}

static void waits_longer_each_time(void **state)
{
	(void)state;
	assert_int_equal(kb_init_backoff(0), 0);
	for (unsigned i = 1; i < 6; i++)
		assert_int_equal(kb_init_backoff(i), 500 << (i - 1));
	assert_int_equal(kb_init_backoff(7), 30000);
	assert_int_equal(kb_init_backoff(UINT32_MAX), 30000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(reads_services),
		cmocka_unit_test(knows_when),
		cmocka_unit_test(has_limits),
		cmocka_unit_test(notices_silence),
		cmocka_unit_test(recovers),
		cmocka_unit_test(refuses_wrong_rows),
		cmocka_unit_test(finds_options),
		cmocka_unit_test(makes_the_verity_table),
		cmocka_unit_test(finds_listeners),
		cmocka_unit_test(waits_longer_each_time),
	};
	return cmocka_run_group_tests_name("init/table", tests, NULL, NULL);
}
