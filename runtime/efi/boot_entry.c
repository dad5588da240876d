#include "efi/boot_entry.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ACTIVE = 1, HARD_DRIVE_BYTES = 42, NODE_HEAD = 4, END_BYTES = 4 };

static uint8_t *put(uint8_t *p, uint64_t v, unsigned bytes)
{
	for (unsigned i = 0; i < bytes; i++)
		*p++ = (uint8_t)(v >> 8 * i);
	return p;
}

/* see boot_entry.h */
int kb_efi_guid(const char *text, uint8_t ret[static 16])
{
	static const uint8_t place[16] = {3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15};
	for (int i = 0; i < 16; i++) {
		char two[3] = {0}, *end;
		if (i == 4 || i == 6 || i == 8 || i == 10)
			if (*text++ != '-')
				return -1;
		if (!(two[0] = text[0]) || !(two[1] = text[1]))
			return -1;
		ret[place[i]] = (uint8_t)strtoul(two, &end, 16);
		if (*end || two[0] == '-' || two[0] == '+' || two[0] == ' ')
			return -1;
		text += 2;
	}
	return *text ? -1 : 0;
}

/* see boot_entry.h */
size_t kb_efi_option(const struct kb_efi_boot *b, const struct kb_efi_partition *p, uint8_t *ret, size_t size)
{
	const size_t title = 2 * (strlen(b->title) + 1), path = 2 * (strlen(b->path) + 1);
	const size_t list = HARD_DRIVE_BYTES + NODE_HEAD + path + END_BYTES, all = 6 + title + list;
	if (all > size || list > UINT16_MAX)
		return 0;
	uint8_t *at = put(put(ret, ACTIVE, 4), list, 2);
	at += kb_efi_utf16(b->title, at, title);
	at = put(put(put(at, 4, 1), 1, 1), HARD_DRIVE_BYTES, 2);
	at = put(put(put(at, p->number, 4), p->start, 8), p->blocks, 8);
	memcpy(at, p->guid, 16);
	at = put(put(at + 16, 2, 1), 2, 1); // the table is a GPT, the signature a GUID
	at = put(put(put(at, 4, 1), 4, 1), NODE_HEAD + path, 2);
	at += kb_efi_utf16(b->path, at, path);
	put(put(put(at, 0x7f, 1), 0xff, 1), END_BYTES, 2);
	return all;
}

static size_t add(uint16_t number, uint16_t *list, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (list[i] == number)
			return n;
	list[n] = number;
	return n + 1;
}

/* see boot_entry.h */
size_t kb_efi_order(const uint16_t *first, size_t n_first, const uint16_t *order, size_t n, uint16_t *ret)
{
	size_t have = 0;
	for (size_t i = 0; i < n_first; i++)
		have = add(first[i], ret, have);
	for (size_t i = 0; i < n; i++)
		have = add(order[i], ret, have);
	return have;
}

static void name_of(unsigned number, char *ret, size_t size)
{
	snprintf(ret, size, "Boot%04X-" KB_EFI_GLOBAL, number);
}

static bool has_title(const uint8_t *option, size_t len, const char *title)
{
	char text[KB_EFI_TEXT_MAX] = "";
	if (len > 6)
		kb_efi_ascii(option + 6, len - 6, text, sizeof text);
	return strcmp(text, title) == 0;
}

// The number of the option with that title, else the first free one; -1: none is.
static int number_of(const char *vars, const char *title)
{
	uint8_t option[KB_EFI_VALUE_MAX];
	char name[64];
	int unused = -1;
	for (unsigned i = 0; i < KB_EFI_BOOTS_MAX; i++) {
		name_of(i, name, sizeof name);
		const ssize_t n = kb_efi_get(vars, name, option, sizeof option);
		if (n >= 0 && has_title(option, (size_t)n, title))
			return (int)i;
		if (n < 0 && errno == ENOENT && unused < 0)
			unused = (int)i;
	}
	return unused;
}

// 1: written; 0: it was so already.
static int set(const char *vars, const char *name, const void *value, size_t len)
{
	uint8_t old[KB_EFI_VALUE_MAX];
	if (kb_efi_get(vars, name, old, sizeof old) == (ssize_t)len && memcmp(old, value, len) == 0)
		return 0;
	return kb_efi_set(vars, name, value, len) ? -1 : 1;
}

/* see boot_entry.h */
int kb_efi_assert_boot(
	const char *vars, const struct kb_efi_boot *list, size_t n, const struct kb_efi_partition *partition)
{
	uint16_t ours[4], order[KB_EFI_BOOTS_MAX], all[KB_EFI_BOOTS_MAX + 4];
	uint8_t bytes[KB_EFI_VALUE_MAX];
	int written = 0;
	for (size_t i = 0; i < n && i < sizeof ours / sizeof *ours; i++) {
		char name[64];
		const int number = number_of(vars, list[i].title);
		const size_t len = kb_efi_option(&list[i], partition, bytes, sizeof bytes);
		if (number < 0 || len == 0) {
			errno = ENOSPC;
			return -1;
		}
		name_of((unsigned)number, name, sizeof name);
		const int r = set(vars, name, bytes, len);
		if (r < 0)
			return -1;
		written += r;
		ours[i] = (uint16_t)number;
	}
	const ssize_t have = kb_efi_get(vars, KB_EFI_BOOT_ORDER, bytes, sizeof order);
	const size_t n_order = have > 0 ? (size_t)have / 2 : 0;
	for (size_t i = 0; i < n_order; i++)
		order[i] = (uint16_t)(bytes[2 * i] | bytes[2 * i + 1] << 8);
	const size_t n_all = kb_efi_order(ours, n, order, n_order, all);
	for (size_t i = 0; i < n_all; i++)
		put(bytes + 2 * i, all[i], 2);
	const int r = set(vars, KB_EFI_BOOT_ORDER, bytes, 2 * n_all);
	return r < 0 ? -1 : written + r;
}
