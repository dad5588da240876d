// What an image says of itself before its payload, for tools that make, sign and show images. Nothing is proven here:
// a box reads images by bundle.h. Parsing is pure.
#pragma once
#include "storage/chain.h"
#include "storage/manifest.h"

#define KB_BUNDLE_HEAD_MAX (KB_CHAIN_MAX + 8u + KB_MANIFEST_MAX + KB_SIGNATURES_BYTES_MAX)

enum kb_bundle_encoding { KB_BUNDLE_WHOLE, KB_BUNDLE_DELTA, KB_BUNDLE_ENCODINGS };

struct kb_bundle_head {
	uint32_t encoding;
	struct kb_chain chain;
	struct kb_signed manifest;
	size_t len; // where the payload begins
};

// What ret points to lies in bytes, which may go on with the payload. KB_EPARTIAL: more is needed.
KB_MUST_CHECK int kb_bundle_head_parse(
	const uint8_t *bytes, size_t len, struct kb_err *err, struct kb_bundle_head *ret);
// Appends it. The manifest's signatures are those given and room for more: zeros, so that at least
// KB_BUNDLE_SIGNERS fit and the payload begins at a multiple of 4096.
#define KB_BUNDLE_SIGNERS 8u
KB_MUST_CHECK int kb_bundle_head_write(const struct kb_bundle_head *h, struct kb_err *err, struct kb_buf *ret);
// The head of a file, read from it; ret points into ret_bytes.
KB_MUST_CHECK int kb_bundle_head_read(int fd, struct kb_err *err, struct kb_buf *ret_bytes, struct kb_bundle_head *ret);
// Puts a signature over the manifest into the room that the file has for it, in place of an earlier one of that key.
// What stands there is checked for form only. KB_ELIMIT: no room is left.
KB_MUST_CHECK int kb_bundle_head_sign(int fd, const struct kb_signature *s, struct kb_err *err);
