// Inside storage/: what the image's reader and writer share of LMDB. Schema: record.h.
#pragma once
#include "storage/progress.h"
#include "storage/record.h"
#include <lmdb.h>

enum kb_image_table { KB_TABLE_META, KB_TABLE_TENSOR, KB_TABLE_SEGMENT, KB_TABLE_HASH, KB_TABLES };

struct kb_image_db {
	MDB_env *env;
	MDB_txn *txn;
	MDB_dbi main, table[KB_TABLES];
};

// Turns LMDB's or errno's number into one of our codes and "doing: reason".
int kb__image_db_fail(struct kb_err *err, int rc, const char *doing);
// Opens the databases in db->txn; flags MDB_CREATE to make them.
KB_MUST_CHECK int kb__image_db_tables(struct kb_image_db *db, unsigned flags, struct kb_err *err);
// Big-endian, so that keys are in the order of their numbers.
void kb__image_db_index_key(uint32_t index, uint8_t ret_key[static 4]);
// Calls visit for each record of a table in key order until it returns nonzero, and returns that.
typedef int kb__image_visit(void *ctx, struct kb_str key, struct kb_str value, struct kb_err *err);
KB_MUST_CHECK int kb__image_db_each(
	const struct kb_image_db *db, enum kb_image_table table, kb__image_visit *visit, void *ctx, struct kb_err *err);

// SHA-256 in pieces, reporting progress from `done` on; what as in kb_progress.
KB_MUST_CHECK int kb__image_sha256(const void *bytes, uint64_t len, const struct kb_progress *progress, uint64_t done,
	uint64_t total, const char *what, struct kb_err *err, uint8_t ret_hash[static KB_HASH_BYTES]);
// "total" of record.h, from what the tables hold now.
KB_MUST_CHECK int kb__image_total(const struct kb_image_db *db, const struct kb_record_info *info, struct kb_err *err,
	uint8_t ret_hash[static KB_HASH_BYTES]);
