// The firmware's variables, in a directory that stands in for efivarfs; load options against bytes that were written
// down from the tables of UEFI 2.10 (3.1.3, 10.3.1, 10.3.5.1, 10.3.5.4).
#include "efi/boot_entry.h"
#include "harness/kt.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char vars[512];

static int fresh(void **state)
{
	const char *dir = getenv("KB_TMP");
	static int n;
	(void)state;
	snprintf(vars, sizeof vars, "%s/vars%d", dir ? dir : ".", n++);
	return mkdir(vars, 0700);
}

static void keeps_values(void **state)
{
	uint8_t bytes[64], raw[64];
	char path[600], text[32];
	(void)state;
	assert_int_equal(kb_efi_get(vars, "X", bytes, sizeof bytes), -1);
	assert_int_equal(errno, ENOENT);
	assert_int_equal(kb_efi_set(vars, "X", "abcdef", 6), 0);
	assert_int_equal(kb_efi_set(vars, "X", "ab", 2), 0); // shorter: nothing of the longer one is left
	assert_int_equal(kb_efi_get(vars, "X", bytes, sizeof bytes), 2);
	assert_memory_equal(bytes, "ab", 2);
	assert_int_equal(kb_efi_get(vars, "X", bytes, 1), -1);
	snprintf(path, sizeof path, "%s/X", vars);
	int fd = open(path, O_RDONLY);
	assert_int_equal(read(fd, raw, sizeof raw), 6);
	close(fd);
	assert_memory_equal(raw, "\7\0\0\0ab", 6); // non-volatile, boot and run time
	assert_int_equal(kb_efi_delete(vars, "X"), 0);
	assert_int_equal(kb_efi_delete(vars, "X"), 0);
	assert_int_equal(kb_efi_set_text(vars, KB_EFI_DEFAULT, "app_b.efi"), 0);
	assert_int_equal(kb_efi_get(vars, KB_EFI_DEFAULT, bytes, sizeof bytes), 20);
	assert_memory_equal(bytes, "a\0p\0p\0_\0b\0.\0e\0f\0i\0\0\0", 20);
	assert_int_equal(kb_efi_get_text(vars, KB_EFI_DEFAULT, text, sizeof text), 0);
	assert_string_equal(text, "app_b.efi");
	assert_int_equal(kb_efi_get_text(vars, KB_EFI_DEFAULT, text, 4), 0);
	assert_string_equal(text, "app");
}

// What is right already is not written: the file's time stays.
static void does_not_wear_the_flash(void **state)
{
	char path[600];
	struct stat before, after;
	const struct timespec old[2] = {{.tv_sec = 1000}, {.tv_sec = 1000}};
	(void)state;
	assert_int_equal(kb_efi_set(vars, "X", "abc", 3), 0);
	snprintf(path, sizeof path, "%s/X", vars);
	assert_int_equal(utimensat(AT_FDCWD, path, old, 0), 0);
	assert_int_equal(stat(path, &before), 0);
	assert_int_equal(kb_efi_set(vars, "X", "abc", 3), 0);
	assert_int_equal(stat(path, &after), 0);
	assert_int_equal(before.st_mtime, after.st_mtime);
}

static void foreign_texts_are_harmless(void **state)
{
	static const uint8_t strange[] = {'a', 0, 0xe9, 0, 0x30, 0x30, 27, 0, 'b', 0, 'c'};
	char text[16];
	(void)state;
	kb_efi_ascii(strange, sizeof strange, text, sizeof text);
	assert_string_equal(text, "a???b");
	kb_efi_ascii(strange, 0, text, sizeof text);
	assert_string_equal(text, "");
	assert_int_equal(kb_efi_slot("app_a.efi"), 0);
	assert_int_equal(kb_efi_slot("app_b.efi"), 1);
	assert_int_equal(kb_efi_slot("app_c.efi"), -1);
	assert_int_equal(kb_efi_slot(""), -1);
}

static const struct kb_efi_partition esp = {1, 0x800, 0x40000,
	{0x5c, 0x7a, 0x1f, 0x5a, 0x38, 0x0c, 0x39, 0x4a, 0x9a, 0x3e, 0x6f, 0x1d, 0x0b, 0x7a, 0x9e, 0x11}};

static void writes_load_options(void **state)
{
	static const uint8_t expected[] = {1, 0, 0, 0, 42 + 10 + 4, 0, 'K', 0, 0, 0, //
		4, 1, 42, 0, 1, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0x5c, 0x7a, 0x1f, 0x5a, 0x38, 0x0c,
		0x39, 0x4a, 0x9a, 0x3e, 0x6f, 0x1d, 0x0b, 0x7a, 0x9e, 0x11, 2, 2, //
		4, 4, 10, 0, '\\', 0, 'a', 0, 0, 0,                               //
		0x7f, 0xff, 4, 0};
	uint8_t bytes[128], guid[16];
	const struct kb_efi_boot b = {"K", "\\a"};
	(void)state;
	assert_int_equal(kb_efi_option(&b, &esp, bytes, sizeof bytes), sizeof expected);
	assert_memory_equal(bytes, expected, sizeof expected);
	assert_int_equal(kb_efi_option(&b, &esp, bytes, sizeof expected - 1), 0);
	assert_int_equal(kb_efi_guid("5a1f7a5c-0c38-4a39-9a3e-6f1d0b7a9e11", guid), 0);
	assert_memory_equal(guid, esp.guid, 16);
	static const char *const wrong[] = {"", "5a1f7a5c", "5a1f7a5c-0c38-4a39-9a3e-6f1d0b7a9e1",
		"5a1f7a5c-0c38-4a39-9a3e-6f1d0b7a9e111", "5a1f7a5c+0c38-4a39-9a3e-6f1d0b7a9e11",
		"5a1f7a5c-0c38-4a39-9a3e-6f1d0b7a9e1x"};
	for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
		assert_int_equal(kb_efi_guid(wrong[i], guid), -1);
}

static void ours_come_first(void **state)
{
	static const struct kb_efi_boot list[] = {{"Kotobako", "\\a"}, {"Kotobako recovery", "\\b"}};
	static const struct kb_efi_boot moved[] = {{"Kotobako", "\\c"}, {"Kotobako recovery", "\\b"}};
	uint8_t order[64];
	(void)state;
	// Something else has Boot0000 and Boot0002 already.
	assert_int_equal(kb_efi_set(vars, "Boot0000-" KB_EFI_GLOBAL, "\1\0\0\0\0\0U\0\0\0", 10), 0);
	assert_int_equal(kb_efi_set(vars, "Boot0002-" KB_EFI_GLOBAL, "\1\0\0\0\0\0V\0\0\0", 10), 0);
	assert_int_equal(kb_efi_set(vars, KB_EFI_BOOT_ORDER, "\0\0\2\0", 4), 0);
	assert_int_equal(kb_efi_assert_boot(vars, list, 2, &esp), 3);
	assert_int_equal(kb_efi_get(vars, KB_EFI_BOOT_ORDER, order, sizeof order), 8);
	assert_memory_equal(order, "\1\0\3\0\0\0\2\0", 8);
	assert_int_equal(kb_efi_assert_boot(vars, list, 2, &esp), 0); // nothing to be done
	// The firmware put its own in front, and a path has changed.
	assert_int_equal(kb_efi_set(vars, KB_EFI_BOOT_ORDER, "\2\0\1\0\3\0\0\0", 8), 0);
	assert_int_equal(kb_efi_assert_boot(vars, moved, 2, &esp), 2);
	assert_int_equal(kb_efi_get(vars, KB_EFI_BOOT_ORDER, order, sizeof order), 8);
	assert_memory_equal(order, "\1\0\3\0\2\0\0\0", 8);
	// The order is lost: made again from what is ours.
	assert_int_equal(kb_efi_delete(vars, KB_EFI_BOOT_ORDER), 0);
	assert_int_equal(kb_efi_assert_boot(vars, moved, 2, &esp), 1);
	assert_int_equal(kb_efi_get(vars, KB_EFI_BOOT_ORDER, order, sizeof order), 4);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(keeps_values, fresh),
		cmocka_unit_test_setup(does_not_wear_the_flash, fresh),
		cmocka_unit_test(foreign_texts_are_harmless),
		cmocka_unit_test(writes_load_options),
		cmocka_unit_test_setup(ours_come_first, fresh),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
