// The box's encrypted partition: LUKS2 (libcryptsetup), opened by the TPM where the kernel that was measured is one
// that our key has signed a policy for (PCR 11, systemd-stub and systemd-cryptenroll), else by the recovery key. A
// program of its own in the verified root, so that PID 1 stays small; what it reads that is not signed is the
// partition's header.
#pragma once
#include <stdbool.h>
#include <stddef.h>

#define KB_DISK_NAME "state" // of the opened partition: /dev/mapper/state
#define KB_RECOVERY_BYTES 32u
#define KB_RECOVERY_TEXT 72u // 64 letters in groups of eight, with dashes and NUL

// A key as text that is the same on every keyboard (modhex, as systemd's recovery keys): c b d e f g h i j k l n r t u
// v.
void kb_recovery_print(const unsigned char key[static KB_RECOVERY_BYTES], char ret[static KB_RECOVERY_TEXT]);
// What a person or a file says, without blanks and dashes and in small letters, as kb_recovery_print has it. False: it
// is no recovery key.
bool kb_recovery_read(const char *text, size_t len, char ret[static KB_RECOVERY_TEXT]);

// disk_luks.c. Messages on standard error.
enum kb_disk_state {
	KB_DISK_BLANK,      // nothing but zeros where a header would be
	KB_DISK_UNFINISHED, // the power went while it was made: nothing of worth is in it
	KB_DISK_MADE,
	KB_DISK_FOREIGN, // something else, or a damaged header: not to be touched
};
enum kb_disk_state kb_disk_look(const char *device);
// Makes it anew: header, recovery key (said on the console), the TPM's slot, the file system; opened afterwards. Power
// may go at any point: it is made anew then.
int kb_disk_make(const char *device);
// Measures which phase of the start begins (PCR 11, as systemd does): the TPM opens the disk between KB_PHASE_OPEN and
// KB_PHASE_OVER only, so nothing that runs later can have the key again.
#define KB_PHASE_OPEN "enter-initrd"
#define KB_PHASE_OVER "leave-initrd"
int kb_disk_phase(const char *phase);
// Opens it by the TPM.
int kb_disk_open(const char *device);
// Opens it by the recovery key and gives this TPM a slot in place of the one before.
int kb_disk_recover(const char *device, const char recovery[static KB_RECOVERY_TEXT]);
// Destroys every key of the opened partition, if this is its recovery key: nobody can read what is on it any more, and
// the next start makes it anew. The box must go down at once: what is open stays open until then.
int kb_disk_destroy(const char recovery[static KB_RECOVERY_TEXT]);
