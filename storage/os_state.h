// Which systems lie in the box's two slots, and how an update goes on after whatever ended it: a journal of one record,
// and the rules over it. A system is written to the slot that does not run, started once on trial, and becomes the one
// that starts by itself only when it has proven itself; until then a restart of any kind is the old one's.
//
//   EMPTY ─install─► WRITING ─► WRITTEN ─armed─► TRIAL ─proven─► GOOD
//                                  └──────────────┴─ the other slot starts ─► BAD, with the reason
//
// The firmware's variables say what it will start, and are the last word: GOOD follows LoaderEntryDefault, TRIAL
// LoaderEntryOneShot (systemd-boot), never the other way round. Everything but load and store is pure.
// Kept as the setting "os" of state.mdb.
#pragma once
#include "storage/state.h"

#define KB_OS_SLOTS 2
#define KB_OS_REASON_MAX 256u
#define KB_OS_BAD_MAX 8u // systems that did not prove themselves, and are not tried again by themselves
#define KB_OS_DIGEST 32u

enum kb_os_phase { KB_OS_EMPTY, KB_OS_WRITING, KB_OS_WRITTEN, KB_OS_TRIAL, KB_OS_GOOD, KB_OS_BAD, KB_OS_PHASES };
extern const char *const kb_os_phase_names[KB_OS_PHASES];

struct kb_os_slot {
	enum kb_os_phase phase;
	uint64_t version, floor; // floor: manifest.h; moves the box's once this system has started a second time
	uint8_t digest[KB_OS_DIGEST];
};

struct kb_os_state {
	struct kb_os_slot slot[KB_OS_SLOTS];
	uint64_t floor; // no older version comes in
	uint32_t n_bad;
	uint8_t bad[KB_OS_BAD_MAX][KB_OS_DIGEST]; // the oldest one goes first
	uint64_t failed_version, failed_s;        // the last update that failed; 0: none has
	char reason[KB_OS_REASON_MAX];            // why
};

// What this start is, as the firmware and the signed command line have it (kotobako-boot writes it, see parse).
struct kb_os_boot {
	int slot;                     // that runs; 0: a, 1: b
	int default_slot;             // that starts by itself
	bool is_armed;                // the other one is to be started once, the next time
	uint64_t version;             // of the system that runs
	char board[65];               // that it was made for
	char device[400];             // of the other slot's root
	char trial[KB_OS_REASON_MAX]; // how far the last trial came, as its kernel left it; "": there was none
};

// Lines KEY=VALUE. KB_EBAD names the key that is missing or wrong.
KB_MUST_CHECK int kb_os_boot_parse(const char *text, size_t len, struct kb_err *err, struct kb_os_boot *ret);

enum kb_os_outcome {
	KB_OS_CLEAN,    // nothing is under way
	KB_OS_ON_TRIAL, // the system that runs has to prove itself
	KB_OS_TO_ARM,   // another one is written, and waits for its trial
	KB_OS_RETURNED, // the other one did not prove itself; this is the old one again
};

// At each start, before anything else: brings the journal to what the start shows.
enum kb_os_outcome kb_os_settle(struct kb_os_state *s, const struct kb_os_boot *boot, uint64_t now_s);
// The firmware starts the other slot next.
void kb_os_armed(struct kb_os_state *s, const struct kb_os_boot *boot);
// The firmware starts this one by itself from now on.
void kb_os_proven(struct kb_os_state *s, const struct kb_os_boot *boot);
// The system in that slot is not to be started any more.
void kb_os_failed(struct kb_os_state *s, int slot, const char *reason, uint64_t now_s);
// Whether a system may come in. KB_EEXISTS: it runs already. KB_EDENIED: for another board, below the floor, older than
// what runs, or one that failed before (unless again).
KB_MUST_CHECK int kb_os_allow(const struct kb_os_state *s, const struct kb_os_boot *boot, const char *board,
	uint64_t version, const uint8_t digest[static KB_OS_DIGEST], bool again, struct kb_err *err);

// The system in the other slot is to be tried again, on request. KB_EDENIED: there is none to go back to.
KB_MUST_CHECK int kb_os_roll_back(struct kb_os_state *s, const struct kb_os_boot *boot, struct kb_err *err);

// A box without a record has an empty one. KB_EBAD, KB_EUNSUPPORTED: made by a newer system.
KB_MUST_CHECK int kb_os_load(struct kb_state *state, struct kb_err *err, struct kb_os_state *ret);
KB_MUST_CHECK int kb_os_store(struct kb_state *state, const struct kb_os_state *s, struct kb_err *err);
