// A look at the pages of an LMDB file before LMDB sees it. LMDB trusts its pages: page numbers, node offsets and
// sizes of a damaged or hostile file make it read out of bounds or abort. Model images come from outside.
//
// Checked, over the newest snapshot: both meta pages; every branch and leaf page that can be reached from the main
// database and its named databases (page number, kind, bounds, at least two keys in a branch, a depth of at most 16,
// no page reached twice); every node inside its page, keys rising; every overflow value inside the file and within
// KB_MAX_VALUE_BYTES; no duplicates or integer keys, which images do not use.
// Not checked: the list of free pages (a reader does not look at it) and what values hold.
// Page layout: mdb.c of LMDB 0.9.31, structs MDB_page, MDB_node, MDB_meta, MDB_db; 64-bit little-endian.
#pragma once
#include "base/err.h"
#include <stdint.h>

// KB_EBAD, with the page in err. bytes: the whole file; only meta, tree and the heads of overflow pages are touched.
KB_MUST_CHECK int kb_pages_check(const uint8_t *bytes, uint64_t len, struct kb_err *err);
