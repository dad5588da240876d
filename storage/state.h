// The daemon's own LMDB environment, STATE/state.mdb (0600): paired clients, settings, the schema's version.
// Default sync: a change that was acknowledged survives a power cut. Each function is a transaction of its own, so that
// threads may call them side by side; opening and closing is one thread's.
// Several processes may have it open (the installer beside the daemon): LMDB lets one write at a time.
// Tables of this file: "clients" fingerprint -> record, "bearers" hash of the key -> fingerprint, "settings" name ->
// text. Others keep theirs in it too: trust.h, installed.h, audit.h.
#pragma once
#include "base/buf.h"
#include "base/err.h"
#include <stdbool.h>
#include <stdint.h>

#define KB_STATE_SCHEMA 2u            // of this build; a newer one on disk is refused, an older one migrated
#define KB_STATE_MAP_BYTES (1u << 30) // address space, not disk: far above KB_STATE_CLIENTS_MAX records
#define KB_STATE_CLIENTS_MAX 10000u   // an office; the table is read whole by `kotobako client list`
#define KB_STATE_SETTING_MAX 65536u   // bytes of one setting's value
#define KB_CLIENT_NAME_MAX 64u

struct kb_client {
	uint8_t fingerprint[32]; // SHA-256 of the certificate's DER
	char name[KB_CLIENT_NAME_MAX + 1];
	char serial[33];              // hexadecimal
	int64_t created_s, revoked_s; // seconds since 1970; revoked_s 0: not revoked
	bool has_bearer;
	bool is_admin;           // may install models over the API
	uint8_t bearer_hash[32]; // SHA-256 of the key; the key itself is stored nowhere
};

struct kb_state;

// Creates what is missing. KB_EUNSUPPORTED: the schema is newer than this build.
KB_MUST_CHECK int kb_state_open(const char *path, struct kb_state **ret, struct kb_err *err);
void kb_state_close(struct kb_state *s); // NULL is fine

// KB_EEXISTS: the fingerprint is known, or a client that is not revoked has this name. KB_ELIMIT.
KB_MUST_CHECK int kb_state_add_client(struct kb_state *s, const struct kb_client *c, struct kb_err *err);
// KB_ENOTFOUND; a revoked client is found.
KB_MUST_CHECK int kb_state_get_client(struct kb_state *s, const uint8_t fingerprint[32], struct kb_client *ret);
// The client of that name that is not revoked.
KB_MUST_CHECK int kb_state_find_client(struct kb_state *s, const char *name, struct kb_client *ret);
// Whose bearer key has this hash; KB_ENOTFOUND also where that client is revoked.
KB_MUST_CHECK int kb_state_find_bearer(struct kb_state *s, const uint8_t hash[32], struct kb_client *ret);
// Calls each() for every client, revoked ones too, in fingerprint order; non-zero from it ends the walk with it.
KB_MUST_CHECK int kb_state_each_client(
	struct kb_state *s, int (*each)(void *ctx, const struct kb_client *c), void *ctx, struct kb_err *err);
// Also ends its bearer key. Harmless on a revoked one.
KB_MUST_CHECK int kb_state_revoke(struct kb_state *s, const uint8_t fingerprint[32], int64_t now_s, struct kb_err *err);
// Replaces an earlier key of the same client. KB_EDENIED: it is revoked.
KB_MUST_CHECK int kb_state_set_bearer(
	struct kb_state *s, const uint8_t fingerprint[32], const uint8_t hash[32], struct kb_err *err);

// Appends the value. KB_ENOTFOUND.
KB_MUST_CHECK int kb_state_get_setting(struct kb_state *s, const char *name, struct kb_buf *ret);
KB_MUST_CHECK int kb_state_set_setting(
	struct kb_state *s, const char *name, const void *value, size_t len, struct kb_err *err);
