// What the firmware starts, in which order (UEFI 2.10, 3.1): Boot#### are load options, BootOrder lists their numbers.
// Ours come first: systemd-boot, and the recovery kernel where that fails. Everything else keeps its place behind them.
#pragma once
#include "efi/efi_var.h"

// The partition that programs are started from, as a device path says it (10.3.5.1).
struct kb_efi_partition {
	uint32_t number;        // from 1
	uint64_t start, blocks; // in blocks of the disk
	uint8_t guid[16];       // as in the GPT: the first three groups little-endian
};

// "8be4df61-93ca-...": as in the GPT. -1: it is none.
int kb_efi_guid(const char *text, uint8_t ret[static 16]);

struct kb_efi_boot {
	const char *title; // ASCII
	const char *path;  // "\\EFI\\BOOT\\BOOTX64.EFI"
};

// An active load option: title, the partition, the path. Bytes, or 0 where it does not fit. Pure.
size_t kb_efi_option(const struct kb_efi_boot *b, const struct kb_efi_partition *p, uint8_t *ret, size_t size);

// The order with `first` in front, each number once. Returns how many; ret has room for n_first + n. Pure.
size_t kb_efi_order(const uint16_t *first, size_t n_first, const uint16_t *order, size_t n, uint16_t *ret);

#define KB_EFI_BOOTS_MAX 64u // of numbers in BootOrder that are looked at

// Sees to it that each of list has its Boot#### (by its title; made, or brought up to date) and that BootOrder begins
// with them. Writes only what differs. The number of variables written, or -1.
int kb_efi_assert_boot(
	const char *vars, const struct kb_efi_boot *list, size_t n, const struct kb_efi_partition *partition);
