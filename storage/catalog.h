// The catalog: what is current in a fleet, in one signed list that counts up. It is TUF's snapshot (specification 1.0,
// role "snapshot") without its online keys: a box that has a catalog knows of every model which version it should have,
// also of those that it was never shown, so old images cannot be mixed with new ones. docs/images.md has the format.
// Parsing is pure.
#pragma once
#include "storage/chain.h"
#include "storage/manifest.h"

#define KB_CATALOG_MAX (512u << 10)     // bytes
#define KB_CATALOG_IMAGES_MAX 4096u     // more models than a fleet has
#define KB_CATALOG_JUMP_MAX (1u << 20)  // versions at once: a stolen key cannot use them all up (TUF's fast-forward)
#define KB_CATALOG_OLD_S (90u * 86400u) // from here on a box says that its catalog is old
#define KB_CATALOG_NAME "catalog.kbc"   // of its file on a mirror
#define KB_DOMAIN_CATALOG "kotobako catalog 1"

struct kb_catalog_image {
	struct kb_str model;
	uint64_t version;
	const uint8_t *digest; // of the model file, KB_MANIFEST_HASH bytes
	uint64_t bytes;        // of it
};

struct kb_catalog {
	const uint8_t *fleet;      // KB_ROOT_FLEET bytes
	uint64_t version, created; // from 1; seconds since 1970
	uint32_t n;
	const uint8_t *images; // packed, in order of name
	size_t images_len;
};

// Everything in ret points into bytes; every image was looked at. KB_EBAD names the offset; KB_ELIMIT; KB_EUNSUPPORTED.
KB_MUST_CHECK int kb_catalog_parse(const uint8_t *bytes, size_t len, struct kb_err *err, struct kb_catalog *ret);
// The next image: *at begins with 0. False: that was all.
bool kb_catalog_next(const struct kb_catalog *c, size_t *at, struct kb_catalog_image *ret);
bool kb_catalog_find(const struct kb_catalog *c, struct kb_str model, struct kb_catalog_image *ret);
// Of images in order of name; the same ones give the same bytes, which parse. KB_EARG.
KB_MUST_CHECK int kb_catalog_write(const uint8_t fleet[static KB_ROOT_FLEET], uint64_t version, uint64_t created,
	const struct kb_catalog_image *images, uint32_t n, struct kb_err *err, struct kb_buf *ret);

// As a file: the chain of roots and the catalog with its signatures, so that a box that has slept can follow.
struct kb_catalog_file {
	struct kb_chain chain;
	struct kb_signed catalog;
};
#define KB_CATALOG_FILE_MAX (KB_CHAIN_MAX + 8u + KB_CATALOG_MAX + KB_SIGNATURES_BYTES_MAX)

// What ret points to lies in bytes. Form only, the catalog is not looked into. KB_EBAD, KB_ELIMIT.
KB_MUST_CHECK int kb_catalog_file_parse(
	const uint8_t *bytes, size_t len, struct kb_err *err, struct kb_catalog_file *ret);
KB_MUST_CHECK int kb_catalog_file_write(const struct kb_catalog_file *f, struct kb_err *err, struct kb_buf *ret);
