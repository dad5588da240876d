// kotobako-boot: the part of an update that needs root, and reads nothing that was not signed or made by ourselves: the
// firmware's variables and the boot partition. What is decided is decided by `kotobako os`, under the daemon's user,
// which this program runs: it reads the images, and keeps the journal (storage/os_state.h).
//
// kotobako-boot [--under DIR] WORD. With --under it plays through an update in a folder instead of on a box: DIR/vars
// are the firmware's variables, DIR/esp the boot partition, DIR/slot_a and slot_b roots, DIR/cmdline the command line.
//
//   start   at each start, before the services: says what this start is (/run/kotobako/boot), sees to it that the
//   firmware
//           starts systemd-boot and then the recovery kernel, settles what an update has left
//   check   on trial: the system has proven itself, and starts by itself from now on
//   arm     a system is written: its kernel goes to the boot partition, and is started once
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

enum kb_boot_exit { // the last two are PID 1's KB_INIT_EXIT_*
	KB_BOOT_OK = 0,
	KB_BOOT_FAILED = 1,
	KB_BOOT_USAGE = 2,
	KB_BOOT_RESTART = 10,
	KB_BOOT_TRIAL = 20,
};
// Exit statuses of `kotobako os settle` (firmware/ctl/ctl_os.h).
enum { KB_SETTLED = 0, KB_SETTLED_TRIAL = 20, KB_SETTLED_ARM = 21, KB_SETTLED_RETURNED = 22 };

#define KB_BOOT_PATH 400 // bytes of a path below DIR
struct kb_boot_paths {
	const char *under; // NULL: a box
	char vars[KB_BOOT_PATH], state[KB_BOOT_PATH], cmdline[KB_BOOT_PATH], facts[KB_BOOT_PATH];
	char esp[KB_BOOT_PATH];     // where the boot partition is mounted
	char program[KB_BOOT_PATH]; // kotobako
};

struct kb_boot {
	struct kb_boot_paths at;
	int slot, default_slot; // 0: a; default_slot -1: nobody says
	bool is_armed;
	char version[24], board[65];
	char device[KB_BOOT_PATH]; // of the other slot's root
	char trial[256];
	uid_t owner; // of the state
};

// machine.c. KEY=VALUE of a text, as PID 1 reads the command line; length or -1.
int kb_boot_option(const char *text, const char *key, char *ret, size_t size);
// What the kernel and the firmware say. False: no slot, with the reason on standard error.
bool kb_boot_look(struct kb_boot *b);
// The boot partition on at.esp. 0, or -1.
int kb_boot_mount(const struct kb_boot *b, bool writable);
void kb_boot_unmount(const struct kb_boot *b);
// Boot order and entries; errors are said, and are no reason to stop.
void kb_boot_assert(const struct kb_boot *b);
