// The firmware's variables (UEFI 2.10, 8.2) as Linux's efivarfs shows them: a file NAME-GUID, four bytes of attributes
// and the value. The directory is an argument, so that tests have one of their own. errno says why something failed.
// For PID 1 too: no allocation, no other room.
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define KB_EFI_VARS "/sys/firmware/efi/efivars"
#define KB_EFI_GLOBAL "8be4df61-93ca-11d2-aa0d-00e098032b8c" // UEFI's own: BootOrder, Boot0000
// systemd-boot's (systemd.io, "The Boot Loader Interface"); texts are UTF-16 with a NUL.
#define KB_EFI_LOADER "4a67b082-0a4c-41cf-b6c7-440b29bb8c4f"
// Ours. KotobakoTrial: text, how far the system on trial came. KotobakoRecovered: text, why the recovery kernel was
// started; KotobakoRecoveries: a byte, how often since the last good start.
#define KB_EFI_OWN "b2d4f3a0-8f4e-4a55-9d0c-6b6f746f6261"

#define KB_EFI_DEFAULT "LoaderEntryDefault-" KB_EFI_LOADER
#define KB_EFI_ONE_SHOT "LoaderEntryOneShot-" KB_EFI_LOADER
#define KB_EFI_SELECTED "LoaderEntrySelected-" KB_EFI_LOADER
#define KB_EFI_ESP "LoaderDevicePartUUID-" KB_EFI_LOADER
#define KB_EFI_BOOT_ORDER "BootOrder-" KB_EFI_GLOBAL
#define KB_EFI_TRIAL "KotobakoTrial-" KB_EFI_OWN
#define KB_EFI_RECOVERIES "KotobakoRecoveries-" KB_EFI_OWN

#define KB_EFI_VALUE_MAX 2048u // of what is read and written here: a load option, a text, an order
#define KB_EFI_TEXT_MAX 256u

// Bytes of the value, or -1.
ssize_t kb_efi_get(const char *vars, const char *name, void *ret, size_t size);
// Non-volatile, for boot and run time. What is there already with that value is not written again: flash wears out.
int kb_efi_set(const char *vars, const char *name, const void *value, size_t len);
// Nothing to delete is fine.
int kb_efi_delete(const char *vars, const char *name);

// efivarfs is mounted read-only but for the moments in which something is to be changed. vars: where it is mounted.
int kb_efi_writable(const char *vars, bool writable);

// A text of ASCII as UTF-16 with its NUL; bytes, or 0 where it does not fit.
size_t kb_efi_utf16(const char *text, uint8_t *ret, size_t size);
// The other way round; what is not ASCII becomes '?'. ret is cut where it is short.
void kb_efi_ascii(const uint8_t *utf16, size_t len, char *ret, size_t size);
// get and set of UTF-16 texts. -1: there is none.
int kb_efi_get_text(const char *vars, const char *name, char *ret, size_t size);
int kb_efi_set_text(const char *vars, const char *name, const char *text);

// The slots' entries of systemd-boot: "app_a.efi", "app_b.efi".
#define KB_EFI_ENTRY_MAX 16u
void kb_efi_entry(int slot, char ret[static KB_EFI_ENTRY_MAX]);
// 0, 1, or -1 for another name.
int kb_efi_slot(const char *entry);
