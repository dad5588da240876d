// Signatures over manifests and roots: ECDSA with P-256 and SHA-256 or P-384 and SHA-384 (FIPS 186-5), k of n.
//
// What is signed is a domain, a text that says what kind of thing it is, with its NUL, and then the bytes of the thing:
// so a signature over one kind is none over another. openssl verifies the same bytes (docs/images.md).
//
// A block of signatures: "KBSIGS01", then of each the key's id (32 bytes), u16 length (64 or 96), u16 zero, and r and
// s, big-endian; zeros may follow, room for more signatures. Parsing is pure.
#pragma once
#include "base/err.h"
#include <stddef.h>
#include <stdint.h>

#define KB_KEY_ID 32u
#define KB_KEY_POINT_MAX 97u // 4, x, y: uncompressed (SEC 1, 2.3.3)
#define KB_SIGNATURE_MAX 96u
#define KB_SIGNATURES_MAX 32u         // of a block: a bound on work for what may be hostile
#define KB_SIGNATURES_BYTES_MAX 8192u // with room for all of them
#define KB_SIGNATURES_NONE "KBSIGS01" // a block without any

#define KB_DOMAIN_MODEL "kotobako model manifest 1"
#define KB_DOMAIN_OS "kotobako os manifest 1"
#define KB_DOMAIN_ROOT "kotobako root 1"

enum kb_curve { KB_CURVE_P256 = 1, KB_CURVE_P384 = 2 };

struct kb_public_key {
	enum kb_curve curve;
	uint8_t point[KB_KEY_POINT_MAX]; // 65 or 97 bytes of it
};

struct kb_signature {
	const uint8_t *key_id;
	uint32_t len;
	const uint8_t *bytes; // r, s
};

struct kb_signatures {
	uint32_t n;
	struct kb_signature list[KB_SIGNATURES_MAX];
};

// 0 for a curve that is not known.
size_t kb_key_point_bytes(enum kb_curve curve);
// SHA-256 of the curve's number and the point.
void kb_key_id(const struct kb_public_key *key, uint8_t ret[static KB_KEY_ID]);

// Everything in ret points into bytes. KB_EBAD names the offset; KB_ELIMIT.
KB_MUST_CHECK int kb_signatures_parse(const uint8_t *bytes, size_t len, struct kb_err *err, struct kb_signatures *ret);

// Puts a signature into a block of `room` bytes, in place of an earlier one of that key, and fills up with zeros.
// KB_ELIMIT: there is no room left.
KB_MUST_CHECK int kb_signatures_put(uint8_t *block, size_t room, const struct kb_signature *s, struct kb_err *err);

// Whether at least `threshold` of the keys have signed; a key counts once, however often it is listed or has signed.
// Signatures of other keys are passed over; one that names a key of these and is not its signature makes it fail.
// KB_EDENIED says how many there are; KB_EBAD: a wrong signature; KB_EARG: a threshold of 0 or above n_keys.
KB_MUST_CHECK int kb_signatures_check(const char *domain, const uint8_t *bytes, size_t len,
	const struct kb_signatures *signatures, const struct kb_public_key *keys, uint32_t n_keys, uint32_t threshold,
	struct kb_err *err);
