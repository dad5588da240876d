// The payload of a system image: what one slot of the box is made of. The first block says what lies where:
// "KBOSIMG1", u32 length of the fields, u32 zero, fields (fields.h), zeros up to KB_OS_HEAD. docs/images.md has the
// tags. A part begins at a multiple of KB_OS_HEAD, in the order of the enum. Pure.
#pragma once
#include "base/err.h"
#include "base/meta.h"
#include <stdint.h>

#define KB_OS_HEAD 4096u
#define KB_OS_KERNEL_MAX (64u << 20) // two of them, the recovery kernel and one that is being written fit on the ESP
#define KB_OS_HASH 32u

enum kb_os_part_kind { KB_OS_ROOT, KB_OS_KERNEL_A, KB_OS_KERNEL_B, KB_OS_PARTS };
extern const char *const kb_os_part_names[KB_OS_PARTS];

struct kb_os_part {
	uint64_t offset, bytes; // in the payload
	const uint8_t *sha256;  // for reading back what was written; the payload's own tree proves what comes in
};

struct kb_os_image {
	struct kb_str board; // file of board/ that it is for
	uint64_t version;
	struct kb_os_part part[KB_OS_PARTS];
};

// What ret points to lies in block. payload_bytes: of the whole. KB_EBAD names what is wrong.
KB_MUST_CHECK int kb_os_image_parse(
	const uint8_t block[static KB_OS_HEAD], uint64_t payload_bytes, struct kb_err *err, struct kb_os_image *ret);
// The same fields give the same block. Offsets are laid out here. KB_EARG.
KB_MUST_CHECK int kb_os_image_write(struct kb_os_image *image, struct kb_err *err, uint8_t ret[static KB_OS_HEAD]);
