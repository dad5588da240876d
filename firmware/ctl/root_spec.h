// What a new root is to say, as its keepers write it down (docs/images.md):
//
//   {"fleet": "acme", "expires": "2036-01-01", "keys": {"ann": "ann.pub", "bea": "bea.pub", "release": "release.pub"},
//    "test_keys": [], "roles": {"root": {"threshold": 2, "keys": ["ann", "bea"]}, "model": {"threshold": 1, "keys":
//    ["release"]}}, "revoked": ["64 hexadecimal digits"]}
//
// fleet, keys and roles are needed. Names of keys stand only in this file.
#pragma once
#include "storage/root.h"

struct kb_root_spec {
	struct kb_root root; // version and created are the caller's
	uint8_t fleet[KB_ROOT_FLEET];
	uint8_t revoked[KB_ROOT_REVOKED_MAX * KB_KEY_ID];
};

// How the key of a name is had; an error is what reading gives.
typedef int (*kb_root_spec_key)(void *ctx, const char *file, struct kb_err *err, struct kb_public_key *ret);

// ret->root points into *ret. KB_EBAD says where it is wrong.
KB_MUST_CHECK int kb_root_spec_read(
	const char *json, size_t len, kb_root_spec_key key, void *ctx, struct kb_err *err, struct kb_root_spec *ret);
