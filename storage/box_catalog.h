// The catalog that this box has accepted, and what follows from it: no model comes in that is older than its entry
// there, or another one of the same version. Table "trust": "catalog" -> u64 when it came, then the catalog with its
// signatures as a file carries them.
//
// It counts as long as the trusted root's keys for catalogs have signed it: where a new root takes the role from a
// stolen key, what that key has signed goes, and with it how far it had counted (TUF, 5.3.11).
#pragma once
#include "storage/catalog.h"
#include "storage/state.h"

// Takes a catalog's file: first its roots, which are kept, then the catalog, in one transaction with the audit log.
// KB_EDENIED: not signed by whom it must be, another fleet's, older than the one that is there, another one of its
// version, or too far ahead; that is in the audit log too. KB_EEXISTS: it is there already. *ret_version: its.
KB_MUST_CHECK int kb_box_catalog_accept(struct kb_state *s, const uint8_t *bytes, size_t len, bool allow_test,
	uint64_t now_s, struct kb_err *err, uint64_t *ret_version);

// The catalog, in ret_bytes. KB_ENOTFOUND: the box has none.
KB_MUST_CHECK int kb_box_catalog_get(
	struct kb_state *s, struct kb_err *err, struct kb_buf *ret_bytes, struct kb_catalog *ret);
// The same as a file for other boxes, with the roots that this one has (trust.h). Appends.
KB_MUST_CHECK int kb_box_catalog_file(struct kb_state *s, struct kb_err *err, struct kb_buf *ret);
