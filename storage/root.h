// A root: which keys may sign what. The idea is TUF's (theupdateframework.io, specification 1.0): a root is signed by
// keys that it names itself, and the next one by enough keys of the old and of the new one; versions go up by one, so
// a box that has slept for years walks the whole chain. Parsing is pure. docs/images.md has the format.
#pragma once
#include "base/buf.h"
#include "storage/signature.h"
#include <stdbool.h>

#define KB_ROOT_MAX (64u << 10) // bytes
#define KB_ROOT_KEYS_MAX 32u
#define KB_ROOT_FLEET 16u // bytes of a fleet's name: whose boxes these are
#define KB_ROOT_REVOKED_MAX 1024u

// Whether keys that a root marks as test keys count for a box of this build: in those for tests, never in a release.
#ifdef KB_TEST_KEYS
#define KB_ALLOW_TEST_KEYS true
#else
#define KB_ALLOW_TEST_KEYS false
#endif

enum kb_role { KB_ROLE_ROOT, KB_ROLE_MODEL, KB_ROLE_OS, KB_ROLE_CATALOG, KB_ROLES };

struct kb_root {
	const uint8_t *fleet;
	uint64_t version, created; // from 1; seconds since 1970
	uint64_t expires;          // advisory: no box stops because of it; 0: never
	uint32_t n_keys;
	struct kb_public_key keys[KB_ROOT_KEYS_MAX];
	bool is_test[KB_ROOT_KEYS_MAX]; // a key that everybody may know
	struct {
		uint32_t threshold, n; // 0, 0: nobody may
		uint8_t key[KB_ROOT_KEYS_MAX];
	} roles[KB_ROLES];
	uint32_t n_revoked;
	const uint8_t *revoked; // ids of keys, and digests of model files, of KB_KEY_ID bytes
};

// What ret points to lies in bytes. KB_EBAD names the offset; KB_ELIMIT; KB_EUNSUPPORTED: from the future.
KB_MUST_CHECK int kb_root_parse(const uint8_t *bytes, size_t len, struct kb_err *err, struct kb_root *ret);

// The same fields give the same bytes, which parse. KB_EARG says what is wrong with them.
KB_MUST_CHECK int kb_root_write(const struct kb_root *r, struct kb_err *err, struct kb_buf *ret);

// Whether enough keys of the role, none of them revoked, have signed. allow_test: keys marked so count too; never in a
// release. Errors as kb_signatures_check's.
KB_MUST_CHECK int kb_root_signed(const struct kb_root *r, enum kb_role role, const char *domain, const uint8_t *bytes,
	size_t len, const struct kb_signatures *signatures, bool allow_test, struct kb_err *err);

// Whether `next`, parsed from these bytes, may take the place of `r`. KB_EDENIED: another fleet, not the next version,
// or too few signatures of the old or of the new keys.
KB_MUST_CHECK int kb_root_follows(const struct kb_root *r, const struct kb_root *next, const uint8_t *bytes, size_t len,
	const struct kb_signatures *signatures, bool allow_test, struct kb_err *err);

extern const char *const kb_role_names[KB_ROLES];
bool kb_root_is_revoked(const struct kb_root *r, const uint8_t hash[static KB_KEY_ID]);
