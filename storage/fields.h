// Fields of what is signed: in strictly rising order of their tags (so none comes twice), each u16 tag, u16 zero, u32
// length, value; little-endian. Unknown fields with an even tag may be passed over, odd ones must be understood.
#pragma once
#include "base/err.h"
#include <stddef.h>
#include <stdint.h>

#define KB_FIELD_HEAD 8u

struct kb_field {
	uint32_t tag;
	size_t at; // of its head, for messages
	const uint8_t *value;
	size_t len;
};

// Walks fields. Start with at = 0, last = 0.
struct kb_fields {
	const char *what; // "manifest", for messages
	const uint8_t *bytes;
	size_t len, at;
	uint32_t last;
};

// KB_OK, KB_ENOTFOUND at the end, KB_EBAD with the offset.
KB_MUST_CHECK int kb_fields_next(struct kb_fields *f, struct kb_err *err, struct kb_field *ret);
// For a tag that is not known: KB_OK or KB_EUNSUPPORTED.
KB_MUST_CHECK int kb_fields_unknown(const struct kb_fields *f, const struct kb_field *field, struct kb_err *err);

// Little-endian numbers of 1 to 8 bytes.
uint64_t kb_field_get(const uint8_t *p, size_t bytes);
void kb_field_put(uint8_t *p, uint64_t v, size_t bytes);
