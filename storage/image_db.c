/* see image_db.h */
#include "storage/image_db.h"

#include <errno.h>
#include <nettle/sha2.h>
#include <string.h>

#define HASH_PIECE (4u << 20)

int kb__image_db_fail(struct kb_err *err, int rc, const char *doing)
{
	int code = rc > 0 ? kb_err_from_errno(rc) : KB_EBAD;
	if (rc == MDB_NOTFOUND)
		code = KB_ENOTFOUND;
	else if (rc == MDB_MAP_FULL || rc == MDB_TXN_FULL)
		code = KB_ELIMIT;
	else if (rc == EFBIG)
		code = KB_ENOSPACE;
	return kb_fail(err, code, "%s: %s", doing, mdb_strerror(rc));
}

int kb__image_db_tables(struct kb_image_db *db, unsigned flags, struct kb_err *err)
{
	static const char *const names[KB_TABLES] = {[KB_TABLE_META] = "meta",
		[KB_TABLE_TENSOR] = "tensor",
		[KB_TABLE_SEGMENT] = "segment",
		[KB_TABLE_HASH] = "hash"};
	int rc = mdb_dbi_open(db->txn, NULL, 0, &db->main);
	for (int i = 0; i < KB_TABLES && !rc; i++)
		rc = mdb_dbi_open(db->txn, names[i], flags, &db->table[i]);
	if (rc == MDB_NOTFOUND || rc == MDB_INCOMPATIBLE)
		return kb_fail(err, KB_EBAD, "this is not a model image (an LMDB file without its tables)");
	return rc ? kb__image_db_fail(err, rc, "opening the image's tables") : 0;
}

void kb__image_db_index_key(uint32_t index, uint8_t key[static 4])
{
	for (int i = 0; i < 4; i++)
		key[i] = (uint8_t)(index >> (24 - 8 * i));
}

int kb__image_db_each(
	const struct kb_image_db *db, enum kb_image_table table, kb__image_visit *visit, void *ctx, struct kb_err *err)
{
	MDB_cursor *cursor;
	MDB_val key, value;
	int r = 0, rc = mdb_cursor_open(db->txn, db->table[table], &cursor);
	if (rc)
		return kb__image_db_fail(err, rc, "reading the image");
	while (!r && (rc = mdb_cursor_get(cursor, &key, &value, MDB_NEXT)) == 0)
		r = visit(ctx, (struct kb_str){key.mv_data, key.mv_size}, (struct kb_str){value.mv_data, value.mv_size}, err);
	mdb_cursor_close(cursor);
	if (r)
		return r;
	return rc == MDB_NOTFOUND ? 0 : kb__image_db_fail(err, rc, "reading the image");
}

int kb__image_sha256(const void *bytes, uint64_t len, const struct kb_progress *progress, uint64_t done, uint64_t total,
	const char *what, struct kb_err *err, uint8_t hash[static KB_HASH_BYTES])
{
	struct sha256_ctx sha;
	sha256_init(&sha);
	for (uint64_t at = 0; at < len; at += HASH_PIECE) {
		size_t n = len - at < HASH_PIECE ? (size_t)(len - at) : HASH_PIECE;
		sha256_update(&sha, n, (const uint8_t *)bytes + at);
		if (kb_progress_step(progress, done + at + n, total, what))
			return kb_fail(err, KB_ECANCELLED, "stopped on request");
	}
	sha256_digest(&sha, KB_HASH_BYTES, hash);
	return 0;
}

static int add_record(void *ctx, struct kb_str key, struct kb_str value, struct kb_err *err)
{
	uint32_t key_len = (uint32_t)key.len;
	uint64_t value_len = value.len;
	(void)err;
	sha256_update(ctx, sizeof key_len, (const uint8_t *)&key_len);
	sha256_update(ctx, key.len, (const uint8_t *)key.data);
	sha256_update(ctx, sizeof value_len, (const uint8_t *)&value_len);
	sha256_update(ctx, value.len, (const uint8_t *)value.data);
	return 0;
}

static int add_segment_hash(void *ctx, struct kb_str key, struct kb_str value, struct kb_err *err)
{
	return key.len == 4 ? add_record(ctx, key, value, err) : 0;
}

int kb__image_total(const struct kb_image_db *db, const struct kb_record_info *info, struct kb_err *err,
	uint8_t hash[static KB_HASH_BYTES])
{
	struct sha256_ctx sha;
	sha256_init(&sha);
	sha256_update(&sha, sizeof *info, (const uint8_t *)info);
	int r = kb__image_db_each(db, KB_TABLE_META, add_record, &sha, err);
	r = r ? r : kb__image_db_each(db, KB_TABLE_TENSOR, add_record, &sha, err);
	r = r ? r : kb__image_db_each(db, KB_TABLE_HASH, add_segment_hash, &sha, err);
	if (!r)
		sha256_digest(&sha, KB_HASH_BYTES, hash);
	return r;
}
