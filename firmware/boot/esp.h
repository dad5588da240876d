// The boot partition (FAT) as files. A power cut leaves the old file or the new one, never half a file under its name:
// written beside, synced, renamed, and the renamed file synced again, because Linux's vfat puts a renamed file's size
// on the disk only then. Folders are arguments, so that tests have their own.
#pragma once
#include <stdbool.h>
#include <stddef.h>

#define KB_ESP_FILE_MAX (64u << 20) // storage/os_image.h: KB_OS_KERNEL_MAX

// folder/name becomes what `from` is. Only a plain file of at most KB_ESP_FILE_MAX bytes is taken. 0, or -1 with the
// reason on standard error; nothing is changed then.
int kb_esp_copy(const char *from, const char *folder, const char *name);
int kb_esp_write(const char *folder, const char *name, const void *bytes, size_t len);
// Whether both are the same, byte for byte.
bool kb_esp_same(const char *a, const char *b);
// The slot that loader.conf starts by itself ("default app_b.efi"), or -1. Pure.
int kb_esp_default(const char *conf);
// loader.conf with that slot. Bytes without the NUL.
int kb_esp_conf(int slot, char *ret, size_t size);
