// What is signed of a model: the manifest. Binary, so that there is one way to write it: "KBMANIF1", then fields in
// strictly rising order of their tags (so none comes twice), each u16 tag, u16 zero, u32 length, value. Numbers are
// little-endian u64. docs/images.md has the table of tags. Parsing and writing are pure; nothing here is trusted
// before the signature over the bytes is.
#pragma once
#include "base/err.h"
#include "base/meta.h"
#include "storage/root.h"
#include <stdint.h>

#define KB_MANIFEST_MAX (1u << 20) // bytes, so that a reader may hold it whole before it is proven
#define KB_MANIFEST_TEXT_MAX 4096u // bytes of one text
#define KB_MANIFEST_HASH 32u

// KB_MANIFEST_OS: a system image (os_image.h); its family is the board. The others are signed by the role for models.
enum kb_manifest_kind { KB_MANIFEST_MODEL, KB_MANIFEST_ADAPTER, KB_MANIFEST_OS, KB_MANIFEST_KINDS };
extern const char *const kb_manifest_kind_names[KB_MANIFEST_KINDS];

// Texts are UTF-8 without control characters. Zeroed: not there.
struct kb_manifest {
	struct kb_str model;  // its name, as a box lists it
	uint64_t version;     // counts up; from 1
	uint64_t kind;        // enum kb_manifest_kind
	uint64_t created;     // seconds since 1970: a floor for the box's idea of time, not a proof
	struct kb_str family; // "llama"
	struct kb_str licence, origin, recipe,
		quality;            // of the weights: SPDX, where from, how quantised, what was measured
	uint64_t min_firmware;  // version of the firmware that can run it
	uint64_t device_memory; // bytes it needs
	uint64_t payload_bytes; // of the file to be installed, and its root (verity.h)
	const uint8_t *payload_root;
	const uint8_t *base; // fs-verity digest of the model file that an adapter belongs to
	uint64_t floor;      // of a system: once it is in use no version below this one comes in; 0: nothing changes
};

// Who signs such a thing, and as what: KB_ROLE_MODEL or KB_ROLE_OS.
enum kb_role kb_manifest_role(const struct kb_manifest *m);
const char *kb_manifest_domain(enum kb_role role);

// Everything in ret points into bytes. KB_EBAD names field and offset; KB_EUNSUPPORTED: a tag from the future that
// must be understood (an odd one; even ones may be passed over); KB_ELIMIT.
KB_MUST_CHECK int kb_manifest_parse(const uint8_t *bytes, size_t len, struct kb_err *err, struct kb_manifest *ret);

// The same fields give the same bytes. KB_EARG names the field that is missing or too long; KB_ELIMIT: capacity.
KB_MUST_CHECK int kb_manifest_write(
	const struct kb_manifest *m, size_t capacity, struct kb_err *err, uint8_t *ret_bytes, size_t *ret_len);
