// PID 1 of the box. One static program, run twice: in the initrd it opens the verified root (dm-verity over erofs) and
// moves into it; there it mounts what is writable, loads the board's modules, sees to the clock and keeps the services
// of /etc/kotobako/services running until the power button. It reads only what the signed command line and the verified
// root say; what comes from outside (a stick, the network) is parsed by services under a user of their own.
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum {
	KB_INIT_SERVICES_MAX = 20,  // rows of /etc/kotobako/services
	KB_INIT_ARGS_MAX = 24,      // words of a service's command
	KB_INIT_TEXT_MAX = 8192,    // bytes of a table or of the kernel's command line
	KB_INIT_HASH_HEX = 64,      // SHA-256 in hexadecimal
	KB_INIT_RECOVERIES_MAX = 4, // restarts by the recovery kernel in a row: each slot twice
	KB_INIT_SILENT_MS = 30000,  // a service that says that it is well does so every few seconds
	KB_INIT_STUCK_MS = 10000,   // what was killed is gone by then, or waits in the kernel for what does not come
	KB_INIT_REASON_MAX = 200,   // bytes of what a trial leaves in the firmware's variables
	KB_INIT_TRIAL_S = 120,      // to prove itself, where the command line says nothing else (kb.trial)
	KB_INIT_TRIAL_S_MAX = 3600, // an emulated processor may need minutes; nothing needs more
};

// --- tables: pure functions ---------------------------------------------------

enum kb_when {
	KB_WHEN_ALWAYS, // from start to power-off; started again, ever later, where it ends
	KB_WHEN_CLAIM,  // once, when a prepared stick comes and the box has no client yet
	KB_WHEN_STICK,  // when a stick comes that has a certain folder
	KB_WHEN_FILE,   // when a file appears; it must be gone afterwards
	KB_WHEN_ON,     // once at the start, and once more whenever a file was replaced, came or went
	KB_WHEN_WITH,   // as long as a file is there; ended and started again when it is replaced
	KB_WHEN_TRIAL,  // once, when services run, where the system that runs is on trial
};

enum { KB_INIT_STICKS = 4, KB_INIT_FOLDER_MAX = 32 };
// A service that ends with this status asks for an orderly restart of the box (sysexits.h and shells use none such).
#define KB_INIT_EXIT_RESTART 10
#define KB_INIT_EXIT_TRIAL 20 // kotobako-boot start: the system that runs has to prove itself

struct kb_service {
	char *name;
	uid_t uid;
	uint64_t memory_max; // bytes of its control group; 0: no limit of its own
	uint32_t pids_max;   // processes and threads of it; 0: no limit of its own
	int oom_adjust;      // proc(5), oom_score_adj: who goes first when memory is short
	enum kb_when when;
	const char *folder; // of KB_WHEN_STICK: on the stick, below kotobako/; of those with a file: its path; else ""
	uint64_t seen[KB_INIT_STICKS];    // disks that it had its turn with, by the kernel's number of them
	char *argv[KB_INIT_ARGS_MAX + 1]; // NULL behind the last
	// The supervisor's.
	pid_t pid;            // 0: does not run
	uint64_t mark;        // which file it was started for, by kb_init_file_mark()
	int64_t stop_by;      // it was asked to end; when it must have
	unsigned failures;    // ends in a row, forgotten after a minute of running
	int64_t started, due; // ms of CLOCK_BOOTTIME
	bool is_ready;        // it said so, and says that it is well from then on (sd_notify(3))
	int64_t heard;        // when it said anything last
	int64_t killed;       // when it was killed for its silence; 0: it was not
};

// Rows NAME UID always|claim|trial|stick:FOLDER|file:PATH|on:PATH|with:PATH [LIMIT...] COMMAND ARG..., # begins a
// comment. A limit is memory=MIB, pids=N or oom=N. Cuts text into words where it lies; ret points into it. Returns the
// number of rows, or -1 and the number of the wrong line in *ret_line.
int kb_init_parse_services(char *text, struct kb_service ret[KB_INIT_SERVICES_MAX], unsigned *ret_line);

// The value of KEY=VALUE among the words of text (the kernel's command line), the last one if there are several.
// Returns its length, or -1 where there is none or it does not fit.
int kb_init_option(const char *text, const char *key, char *ret, size_t size);

// A verified root: kb.verity=ROOTHASH:SALT:BLOCKS. The hash tree begins right behind the data.
struct kb_verity {
	char hash[KB_INIT_HASH_HEX + 1], salt[KB_INIT_HASH_HEX + 1];
	uint64_t blocks; // of 4096 bytes
};
// Returns -1 where the text is not one; what hash and salt hold is then of no use.
int kb_init_parse_verity(const char *text, struct kb_verity *ret);
// The parameters of the kernel's verity target (Documentation/admin-guide/device-mapper/verity.rst). A block that does
// not fit its hash ends in a panic: there is nothing to fall back on inside a running root.
int kb_init_verity_table(const struct kb_verity *v, const char *device, char *ret, size_t size);

// The ports that /proc/net/tcp or tcp6 says are listened on, into ret[n_max], each once; those that ret holds already
// (n of them) stay. Returns how many there are then.
unsigned kb_init_parse_listeners(const char *text, uint16_t *ret, unsigned n, unsigned n_max);

// What a recovery kernel does: systemd-boot could not start `selected` (the name of an entry; "" where it did not say),
// `by_default` is what starts by itself ("" likewise), and it is the n-th time in a row, from 1.
struct kb_recovery {
	int new_default; // a slot that is to start by itself from now on; -1: leave it
	bool is_over;    // both were tried: stay here
	char reason[200];
};
void kb_init_recovery(const char *selected, const char *by_default, unsigned n, struct kb_recovery *ret);

// What a service says of itself: lines READY=1, WATCHDOG=1, STOPPING=1; others mean nothing here.
void kb_init_heard(struct kb_service *s, const char *text, int64_t now);
enum kb_wellness {
	KB_WELL,
	KB_SILENT, // it runs, but has not said anything for KB_INIT_SILENT_MS: kill it, and it starts again
	KB_STUCK,  // it was killed for that and is still there: nothing but a restart of the box helps
};
enum kb_wellness kb_init_wellness(const struct kb_service *s, int64_t now);

// Milliseconds until a service that ended `failures` times in a row is started again.
int64_t kb_init_backoff(unsigned failures);

// --- the machine --------------------------------------------------------------

// Milliseconds since the kernel started.
int64_t kb_init_now(void);
// A line on the console: seconds since the kernel started, "init:", the text.
void kb_init_say(const char *format, ...) __attribute__((format(printf, 1, 2)));
// Says why and ends PID 1: the kernel panics, and reboots if its command line says panic=.
_Noreturn void kb_init_die(const char *format, ...) __attribute__((format(printf, 1, 2)));

// Reads a whole small file as text, NUL behind. -1: it cannot be read or is larger than size - 1.
ssize_t kb_init_read(const char *path, char *ret, size_t size);
int kb_init_write(const char *path, const char *text);

// Loads each file that a list names, one path a line, in its order. A module that this machine has no use for is said
// and passed over; what is needed is missed where it is needed.
void kb_init_load_modules(const char *list);
// The device with that GPT partition name, waited for. ret: "/dev/..."
int kb_init_find_partition(const char *name, int wait_ms, char *ret, size_t size);
// /dev/dm-0 from a device and its tree, read-only.
int kb_init_open_verity(const struct kb_verity *v, const char *device);
// Whether somebody takes connections at a unix socket.
bool kb_init_listens(const char *path);
int kb_init_loopback_up(void);
// A number for the file that lies at path now: another one when it was replaced or written; 0: there is none.
uint64_t kb_init_file_mark(const char *path);
// The clock is never earlier than the image, nor than when the box last kept the time (a board's battery is often
// empty). Returns the seconds that it was put forward, 0 where it was right.
int64_t kb_init_clock_floor(void);
void kb_init_clock_keep(void); // notes the time for the next start

// trial.c. A system on trial says how far it came in a variable of the firmware, for the old one to read if it does not
// come further. line: the kernel's command line. Whether this is one: open says so.
bool kb_init_trial_open(const char *line);
void kb_init_trial_close(void); // it has proven itself
// Seconds that a system on trial has to prove itself; 0: this one is on none.
int kb_init_trial_seconds(void);
void kb_init_mark(const char *text); // nothing where this is no trial
_Noreturn void kb_init_stage_recovery(void);

_Noreturn void kb_init_stage_initrd(void);
_Noreturn void kb_init_stage_root(void);
// trial_s: the system that runs has so many seconds to prove itself; 0: it is on no trial.
_Noreturn void kb_init_supervise(struct kb_service *services, int n, int trial_s);

// groups.c: control groups (version 2), one for each service.
void kb_init_groups_open(void);
void kb_init_group_make(const struct kb_service *s); // with its limits; for a fresh start
void kb_init_group_join(const struct kb_service *s); // the calling process, before it is another user's
void kb_init_group_kill(const struct kb_service *s); // whatever its processes left running

// What the supervisor looks at besides its services.
#define KB_INIT_NOTIFY "/run/kotobako/notify" // where services say that they are well (sd_notify(3))
void kb_init_notify_open(uid_t uid);
void kb_init_notify_read(struct kb_service *services, int n, int64_t now);
void kb_init_watchdog_open(void);
void kb_init_watchdog_feed(void);
int kb_init_button_open(void); // the number of buttons found
bool kb_init_button_pressed(int wait_ms);
// Mounts a stick that has a directory kotobako/ (with that folder in it, "" for none) on /run/stick, writable for the
// service's user; the sticks that were looked at are seen then. True where it did.
bool kb_init_stick_mount(struct kb_service *s);
void kb_init_stick_unmount(void);
