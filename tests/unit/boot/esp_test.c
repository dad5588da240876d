// Files of the boot partition, in a plain folder.
#include "firmware/boot/boot.h"
#include "firmware/boot/esp.h"
#include "harness/kt.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char folder[400];

static char *in(const char *name)
{
	static char path[2][512];
	static int turn;
	turn = 1 - turn;
	snprintf(path[turn], sizeof path[turn], "%s/%s", folder, name);
	return path[turn];
}

static void put(const char *name, const char *text)
{
	FILE *f = fopen(in(name), "w");
	assert_non_null(f);
	assert_true(fputs(text, f) >= 0);
	fclose(f);
}

static bool has(const char *name, const char *text)
{
	char have[64] = "";
	FILE *f = fopen(in(name), "r");
	const size_t n = f ? fread(have, 1, sizeof have - 1, f) : 0;
	if (f)
		fclose(f);
	return f && n == strlen(text) && strcmp(have, text) == 0;
}

static int fresh(void **state)
{
	static int n;
	const char *dir = getenv("KB_TMP");
	(void)state;
	snprintf(folder, sizeof folder, "%s/esp%d", dir ? dir : ".", n++);
	return mkdir(folder, 0700);
}

static void copies_whole_files(void **state)
{
	char from[512];
	(void)state;
	put("from", "a kernel");
	put("app_b.efi", "the one before");
	put("app_b.efi.new", "what an earlier try left, which was longer");
	snprintf(from, sizeof from, "%s", in("from"));
	assert_int_equal(kb_esp_copy(from, folder, "app_b.efi"), 0);
	assert_true(has("app_b.efi", "a kernel"));
	assert_int_equal(access(in("app_b.efi.new"), F_OK), -1);
	assert_true(kb_esp_same(from, in("app_b.efi")));
	put("app_b.efi", "a kernem");
	assert_false(kb_esp_same(from, in("app_b.efi")));
	put("app_b.efi", "a kernel, and more");
	assert_false(kb_esp_same(from, in("app_b.efi")));
	assert_false(kb_esp_same(from, in("nothing")));
}

static void takes_nothing_odd(void **state)
{
	char from[512];
	(void)state;
	put("app_b.efi", "the one before");
	put("empty", "");
	snprintf(from, sizeof from, "%s", in("empty"));
	assert_int_equal(kb_esp_copy(from, folder, "app_b.efi"), -1);
	assert_int_equal(symlink("app_b.efi", in("link")), 0);
	snprintf(from, sizeof from, "%s", in("link"));
	assert_int_equal(kb_esp_copy(from, folder, "app_b.efi"), -1);
	snprintf(from, sizeof from, "%s", in("nothing"));
	assert_int_equal(kb_esp_copy(from, folder, "app_b.efi"), -1);
	snprintf(from, sizeof from, "%s", in("large"));
	int fd = open(from, O_WRONLY | O_CREAT, 0600);
	assert_int_equal(ftruncate(fd, (off_t)KB_ESP_FILE_MAX + 1), 0);
	close(fd);
	assert_int_equal(kb_esp_copy(from, folder, "app_b.efi"), -1);
	put("from", "a kernel");
	snprintf(from, sizeof from, "%s", in("from"));
	assert_int_equal(kb_esp_copy(from, "/nonexistent", "app_b.efi"), -1);
	assert_true(has("app_b.efi", "the one before"));
}

static void knows_the_default(void **state)
{
	char conf[128];
	(void)state;
	for (int slot = 0; slot < 2; slot++) {
		assert_true(kb_esp_conf(slot, conf, sizeof conf) > 0);
		assert_int_equal(kb_esp_default(conf), slot);
	}
	assert_int_equal(kb_esp_default("default app_b.efi"), 1);
	assert_int_equal(kb_esp_default("timeout 0\r\ndefault app_a.efi\r\n"), 0);
	assert_int_equal(kb_esp_default(""), -1);
	assert_int_equal(kb_esp_default("default \n"), -1);
	assert_int_equal(kb_esp_default("default a-name-that-is-longer-than-any-of-ours.efi\n"), -1);
	assert_int_equal(kb_esp_default("timeout 0\n#default app_a.efi\n"), -1);
}

static void reads_the_command_line(void **state)
{
	char value[16];
	(void)state;
	assert_int_equal(kb_boot_option("a=1 kb.root=root_b x", "kb.root", value, sizeof value), 6);
	assert_string_equal(value, "root_b");
	assert_int_equal(kb_boot_option("kb.rootx=1 xkb.root=2", "kb.root", value, sizeof value), -1);
	assert_int_equal(kb_boot_option("kb.root=a-value-that-does-not-fit", "kb.root", value, sizeof value), -1);
	assert_int_equal(kb_boot_option("PARTNAME=esp\nPARTN=1\n", "PARTN", value, sizeof value), 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(copies_whole_files, fresh),
		cmocka_unit_test_setup(takes_nothing_odd, fresh),
		cmocka_unit_test(knows_the_default),
		cmocka_unit_test(reads_the_command_line),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
