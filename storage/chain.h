// A chain of roots as a file: what a fleet's keepers make and every image carries. "KBCHAIN1", u32 how many, u32 zero,
// and of each root, oldest first, u32 length, u32 length of the signatures, root, signatures; little-endian. Parsing
// is pure; nothing is trusted by it.
#pragma once
#include "base/buf.h"
#include "storage/root.h"

#define KB_CHAIN_MAGIC "KBCHAIN1"
#define KB_CHAIN_ROOTS_MAX 256u // a new root a month for twenty years
#define KB_CHAIN_MAX (16u + KB_CHAIN_ROOTS_MAX * (8u + KB_ROOT_MAX + KB_SIGNATURES_BYTES_MAX))

struct kb_signed { // something and the signatures over it
	const uint8_t *bytes, *signatures;
	size_t len, signatures_len;
};

struct kb_chain {
	uint32_t n;
	struct kb_signed roots[KB_CHAIN_ROOTS_MAX];
};

// What ret points to lies in bytes. Every root is parsed too; versions must follow each other. KB_EBAD, KB_ELIMIT.
KB_MUST_CHECK int kb_chain_parse(const uint8_t *bytes, size_t len, struct kb_err *err, struct kb_chain *ret);
// A thing and its signatures at *at, as chains, images and catalogs carry them: u32 length, u32 length of the
// signatures, both; moves *at behind it. most: bytes of the thing. KB_EBAD, also where it is too large.
KB_MUST_CHECK int kb_signed_parse(const uint8_t *bytes, size_t len, size_t *at, size_t most, const char *what,
	struct kb_err *err, struct kb_signed *ret);
// So many roots at *at.
KB_MUST_CHECK int kb_chain_take(const uint8_t *bytes, size_t len, size_t *at, uint64_t roots, const char *what,
	struct kb_err *err, struct kb_chain *ret);
// Whether each root follows the one before, and the first is signed by its own keys. Says which does not.
KB_MUST_CHECK int kb_chain_check(const struct kb_chain *c, bool allow_test, struct kb_err *err);
// Appends the file's bytes.
KB_MUST_CHECK int kb_chain_write(const struct kb_chain *c, struct kb_err *err, struct kb_buf *ret);
// The same without the magic: how an image carries it.
KB_MUST_CHECK int kb_signed_write(const struct kb_signed *s, struct kb_err *err, struct kb_buf *ret);
