#include "storage/os_state.h"
#include "storage/fields.h"
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SETTING "os"
#define MAGIC "KBOSSTA1"
#define MAGIC_BYTES 8u
#define SLOT_BYTES (8u + 8u + 8u + KB_OS_DIGEST)
#define TAIL_BYTES (8u + 8u + 8u + 8u + KB_OS_BAD_MAX * KB_OS_DIGEST + KB_OS_REASON_MAX)
#define RECORD_BYTES (MAGIC_BYTES + KB_OS_SLOTS * SLOT_BYTES + TAIL_BYTES)

const char *const kb_os_phase_names[KB_OS_PHASES] = {"empty", "being written", "written", "on trial", "good", "bad"};

// --- the start, as text ----------------------------------------------------------------------------

enum kind { SLOT, FLAG, NUMBER, TEXT };
static const struct {
	const char *key;
	enum kind kind;
	size_t offset, size;
} keys[] = {
	{"slot", SLOT, offsetof(struct kb_os_boot, slot), 0},
	{"default", SLOT, offsetof(struct kb_os_boot, default_slot), 0},
	{"armed", FLAG, offsetof(struct kb_os_boot, is_armed), 0},
	{"version", NUMBER, offsetof(struct kb_os_boot, version), 0},
	{"board", TEXT, offsetof(struct kb_os_boot, board), sizeof((struct kb_os_boot *)0)->board},
	{"device", TEXT, offsetof(struct kb_os_boot, device), sizeof((struct kb_os_boot *)0)->device},
	{"trial", TEXT, offsetof(struct kb_os_boot, trial), sizeof((struct kb_os_boot *)0)->trial},
};
#define KEYS (sizeof keys / sizeof *keys)

static bool read_value(size_t k, const char *value, size_t len, struct kb_os_boot *b)
{
	char *to = (char *)b + keys[k].offset, number[21] = "", *end;
	switch (keys[k].kind) {
	case SLOT:
		*(int *)(void *)to = len == 1 ? value[0] - 'a' : -1;
		return len == 1 && (value[0] == 'a' || value[0] == 'b');
	case FLAG:
		*(bool *)to = len == 1 && value[0] == '1';
		return len == 1 && (value[0] == '0' || value[0] == '1');
	case NUMBER:
		if (len == 0 || len >= sizeof number || value[0] < '0' || value[0] > '9')
			return false;
		memcpy(number, value, len);
		*(uint64_t *)(void *)to = strtoull(number, &end, 10);
		return !*end;
	case TEXT:
		if (len >= keys[k].size || memchr(value, 0, len))
			return false;
		memcpy(to, value, len);
		to[len] = 0;
		return true;
	}
	return false;
}

/* see os_state.h */
int kb_os_boot_parse(const char *text, size_t len, struct kb_err *err, struct kb_os_boot *ret)
{
	struct kb_os_boot b = {0};
	bool seen[KEYS] = {0};
	for (size_t at = 0; at < len;) {
		const char *line = text + at, *end = memchr(line, '\n', len - at);
		const size_t n = end ? (size_t)(end - line) : len - at;
		for (size_t k = 0; k < KEYS; k++) {
			const size_t key = strlen(keys[k].key);
			if (n <= key || memcmp(line, keys[k].key, key) != 0 || line[key] != '=')
				continue;
			if (seen[k] || !read_value(k, line + key + 1, n - key - 1, &b))
				return kb_fail(err, KB_EBAD, "what the start was: %s= is wrong", keys[k].key);
			seen[k] = true;
		}
		at += n + 1;
	}
	for (size_t k = 0; k < KEYS; k++)
		if (!seen[k])
			return kb_fail(err, KB_EBAD, "what the start was: %s= is missing", keys[k].key);
	*ret = b;
	return KB_OK;
}

// --- the rules -------------------------------------------------------------------------------------

static bool is_bad(const struct kb_os_state *s, const uint8_t digest[static KB_OS_DIGEST])
{
	for (uint32_t i = 0; i < s->n_bad; i++)
		if (memcmp(s->bad[i], digest, KB_OS_DIGEST) == 0)
			return true;
	return false;
}

/* see os_state.h */
void kb_os_failed(struct kb_os_state *s, int slot, const char *reason, uint64_t now_s)
{
	struct kb_os_slot *bad = &s->slot[slot];
	bad->phase = KB_OS_BAD;
	s->failed_version = bad->version;
	s->failed_s = now_s;
	snprintf(s->reason, sizeof s->reason, "%s", reason);
	if (is_bad(s, bad->digest))
		return;
	if (s->n_bad == KB_OS_BAD_MAX)
		memmove(s->bad[0], s->bad[1], (KB_OS_BAD_MAX - 1) * (size_t)KB_OS_DIGEST);
	else
		s->n_bad++;
	memcpy(s->bad[s->n_bad - 1], bad->digest, KB_OS_DIGEST);
}

/* see os_state.h */
void kb_os_proven(struct kb_os_state *s, const struct kb_os_boot *boot)
{
	s->slot[boot->slot].phase = KB_OS_GOOD;
}

/* see os_state.h */
void kb_os_armed(struct kb_os_state *s, const struct kb_os_boot *boot)
{
	s->slot[1 - boot->slot].phase = KB_OS_TRIAL;
}

// The system in the slot that runs, where nothing is under way.
static void settle_own(struct kb_os_state *s, const struct kb_os_boot *boot)
{
	struct kb_os_slot *own = &s->slot[boot->slot];
	if (own->phase != KB_OS_GOOD || own->version != boot->version) // the disk was written by an installer
		*own = (struct kb_os_slot){.phase = KB_OS_GOOD, .version = boot->version};
	else if (own->floor > s->floor)
		s->floor = own->floor; // it has started by itself: the way back to older ones is closed
}

/* see os_state.h */
enum kb_os_outcome kb_os_settle(struct kb_os_state *s, const struct kb_os_boot *boot, uint64_t now_s)
{
	struct kb_os_slot *own = &s->slot[boot->slot], *other = &s->slot[1 - boot->slot];
	if (own->phase == KB_OS_WRITTEN || own->phase == KB_OS_TRIAL) {
		if (boot->default_slot != boot->slot) {
			own->phase = KB_OS_TRIAL;
			return KB_OS_ON_TRIAL;
		}
		own->phase = KB_OS_GOOD; // proven; the power went before that could be written down
		return KB_OS_CLEAN;
	}
	if (other->phase == KB_OS_WRITTEN || other->phase == KB_OS_TRIAL) {
		if (boot->is_armed) // the power went before the restart
			return KB_OS_TO_ARM;
		if (other->phase == KB_OS_TRIAL || boot->trial[0]) {
			kb_os_failed(s, 1 - boot->slot, boot->trial[0] ? boot->trial : "its kernel did not start", now_s);
			return KB_OS_RETURNED;
		}
		return KB_OS_TO_ARM;
	}
	if (own->phase == KB_OS_GOOD && other->phase == KB_OS_GOOD && boot->trial[0]) { // the recovery kernel was here
		kb_os_failed(s, 1 - boot->slot, boot->trial, now_s);
		return KB_OS_RETURNED;
	}
	settle_own(s, boot);
	return KB_OS_CLEAN;
}

/* see os_state.h */
int kb_os_allow(const struct kb_os_state *s, const struct kb_os_boot *boot, const char *board, uint64_t version,
	const uint8_t digest[static KB_OS_DIGEST], bool again, struct kb_err *err)
{
	const struct kb_os_slot *own = &s->slot[boot->slot];
	if (strcmp(board, boot->board) != 0)
		return kb_fail(err, KB_EDENIED, "it is for the board %s, this is %s", board, boot->board);
	if (own->phase == KB_OS_TRIAL)
		return kb_fail(err, KB_EBUSY, "the system that runs is on trial itself; try again in some minutes");
	if (version == boot->version)
		return kb_fail(err, KB_EEXISTS, "version %" PRIu64 " runs already", version);
	if (version < s->floor)
		return kb_fail(err, KB_EDENIED, "version %" PRIu64 " is below this box's floor, %" PRIu64, version, s->floor);
	if (version < boot->version)
		return kb_fail(err, KB_EDENIED,
			"version %" PRIu64 " is older than the one that runs, %" PRIu64
			" (kotobako os rollback goes back to the one before)",
			version, boot->version);
	if (!again && is_bad(s, digest))
		return kb_fail(err, KB_EDENIED,
			"version %" PRIu64 " was tried before and did not prove itself: %.150s (--again tries it again)", version,
			s->reason);
	return KB_OK;
}

/* see os_state.h */
int kb_os_roll_back(struct kb_os_state *s, const struct kb_os_boot *boot, struct kb_err *err)
{
	struct kb_os_slot *other = &s->slot[1 - boot->slot];
	if (s->slot[boot->slot].phase == KB_OS_TRIAL)
		return kb_fail(err, KB_EBUSY, "the system that runs is on trial itself; try again in some minutes");
	if (other->phase != KB_OS_GOOD)
		return kb_fail(
			err, KB_EDENIED, "the other slot holds no system to go back to: it is %s", kb_os_phase_names[other->phase]);
	if (other->version < s->floor)
		return kb_fail(err, KB_EDENIED, "the system before, version %" PRIu64 ", is below this box's floor, %" PRIu64,
			other->version, s->floor);
	other->phase = KB_OS_WRITTEN;
	return KB_OK;
}

// --- the record ------------------------------------------------------------------------------------

static const uint8_t *get(const uint8_t *p, uint64_t *ret)
{
	*ret = kb_field_get(p, 8);
	return p + 8;
}

static uint8_t *put(uint8_t *p, uint64_t v)
{
	kb_field_put(p, v, 8);
	return p + 8;
}

static int parse(const uint8_t *p, size_t len, struct kb_err *err, struct kb_os_state *ret)
{
	struct kb_os_state s = {0};
	uint64_t phase, n_bad;
	if (len < MAGIC_BYTES || memcmp(p, MAGIC, MAGIC_BYTES - 1) != 0)
		return kb_fail(err, KB_EBAD, "the record of the system's slots is damaged");
	if (len != RECORD_BYTES || p[MAGIC_BYTES - 1] != (uint8_t)MAGIC[MAGIC_BYTES - 1])
		return kb_fail(err, KB_EUNSUPPORTED, "the record of the system's slots was made by a newer system");
	p += MAGIC_BYTES;
	for (int i = 0; i < KB_OS_SLOTS; i++) {
		p = get(p, &phase);
		if (phase >= KB_OS_PHASES)
			return kb_fail(err, KB_EBAD, "the record of the system's slots is damaged");
		s.slot[i].phase = (enum kb_os_phase)phase;
		p = get(p, &s.slot[i].version);
		p = get(p, &s.slot[i].floor);
		memcpy(s.slot[i].digest, p, KB_OS_DIGEST);
		p += KB_OS_DIGEST;
	}
	p = get(get(get(get(p, &s.floor), &s.failed_version), &s.failed_s), &n_bad);
	if (n_bad > KB_OS_BAD_MAX)
		return kb_fail(err, KB_EBAD, "the record of the system's slots is damaged");
	s.n_bad = (uint32_t)n_bad;
	memcpy(s.bad, p, sizeof s.bad);
	memcpy(s.reason, p + sizeof s.bad, KB_OS_REASON_MAX - 1);
	*ret = s;
	return KB_OK;
}

/* see os_state.h */
int kb_os_load(struct kb_state *state, struct kb_err *err, struct kb_os_state *ret)
{
	struct kb_buf bytes = {0};
	int r = kb_state_get_setting(state, SETTING, &bytes);
	if (r == KB_ENOTFOUND) {
		*ret = (struct kb_os_state){0};
		r = KB_OK;
	} else if (r) {
		r = kb_fail(err, r, "reading the record of the system's slots: %s", kb_err_message(r));
	} else {
		r = parse(bytes.data, bytes.len, err, ret);
	}
	kb_buf_finish(&bytes);
	return r;
}

/* see os_state.h */
int kb_os_store(struct kb_state *state, const struct kb_os_state *s, struct kb_err *err)
{
	uint8_t bytes[RECORD_BYTES] = MAGIC, *p = bytes + MAGIC_BYTES;
	for (int i = 0; i < KB_OS_SLOTS; i++) {
		p = put(put(put(p, s->slot[i].phase), s->slot[i].version), s->slot[i].floor);
		memcpy(p, s->slot[i].digest, KB_OS_DIGEST);
		p += KB_OS_DIGEST;
	}
	p = put(put(put(put(p, s->floor), s->failed_version), s->failed_s), s->n_bad);
	memcpy(p, s->bad, sizeof s->bad);
	memcpy(p + sizeof s->bad, s->reason, KB_OS_REASON_MAX);
	return kb_state_set_setting(state, SETTING, bytes, sizeof bytes, err);
}
