// Signing as `root sign` and `image sign` offer it: by a key at hand, or in two steps where the key is on a machine
// without a network or in a token: --export writes what is to be signed, --import takes the signature that openssl
// made.
#pragma once
#include "firmware/ctl/ctl.h"
#include "storage/chain.h"
#include "storage/signing.h"

#define KB_SIGN_TAKES ((1u << KB_SIGN_OPTIONS) - 1) // options of an action that signs

struct kb_ctl_signature {
	struct kb_public_key key;
	uint8_t id[KB_KEY_ID], raw[KB_SIGNATURE_MAX];
	uint32_t len;
	bool is_made; // false: it was an export, and what to do with it was said
};

// options: KB_SIGN_*. What it makes was checked. Returns the exit status; what is wrong was said.
int kb_ctl_sign(
	const struct kb_ctl_value *options, const char *domain, const struct kb_signed *what, struct kb_ctl_signature *ret);

// Private or public key of a PEM file.
KB_MUST_CHECK int kb_ctl_public_key(const char *path, struct kb_err *err, struct kb_public_key *ret);
// "P-256", "P-384"
const char *kb_ctl_curve_name(enum kb_curve curve);
