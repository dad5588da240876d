/* see image_write.h */
#include "storage/image_write.h"
#include "base/limits.h"
#include "storage/image_db.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PAGE_HEADER 16u // of LMDB, before a large value

struct kb_image_writer {
	struct kb_image_db db;
	struct kb_record_info info;
	uint32_t page_bytes;
	uint8_t *value; // of the open segment; NULL when none is
	uint64_t value_bytes, data_bytes;
};

static uint64_t round_up(uint64_t n, uint64_t unit)
{
	return (n + unit - 1) / unit * unit;
}

// As LMDB picks it for a new file.
static uint32_t image_page_bytes(void)
{
	long page = sysconf(_SC_PAGESIZE);
	return page > 32768 ? 32768u : (uint32_t)page;
}

uint64_t kb_image_segment_max(void)
{
	uint32_t page = image_page_bytes();
	return KB_MAX_VALUE_BYTES / page * page - page;
}

// Records of tensors and small keys share pages, at worst half full; a large value wastes up to a page; every
// transaction leaves a few copies of tree pages behind, which the next but one uses again.
uint64_t kb_image_write_bound(
	uint32_t n_segments, uint64_t segment_bytes, uint32_t n_tensors, uint32_t n_meta, uint64_t meta_bytes)
{
	uint64_t page = image_page_bytes();
	uint64_t small = 4 * (uint64_t)n_tensors * (sizeof(struct kb_record_tensor) + KB_MAX_TENSOR_NAME + 16);
	uint64_t meta = meta_bytes + (uint64_t)n_meta * (page + 2 * KB_MAX_META_KEY_BYTES);
	return round_up(segment_bytes + 2 * page * n_segments + small + meta + 64 * page, page);
}

static int begin(struct kb_image_writer *w, struct kb_err *err)
{
	int rc = mdb_txn_begin(w->db.env, NULL, 0, &w->db.txn);
	return rc ? kb__image_db_fail(err, rc, "writing the image") : 0;
}

static int commit(struct kb_image_writer *w, struct kb_err *err)
{
	int rc = mdb_txn_commit(w->db.txn);
	w->db.txn = NULL;
	w->value = NULL;
	return rc ? kb__image_db_fail(err, rc, "writing the image (is the disk full?)") : 0;
}

// A tree page is written when its transaction commits; MDB_NOSYNC leaves the waiting for the disk to finish().
int kb_image_writer_create(const char *path, uint64_t bytes_max, struct kb_err *err, struct kb_image_writer **ret)
{
	struct kb_image_writer *w = calloc(1, sizeof *w);
	if (!w)
		return kb_fail(err, KB_ENOMEM, "no memory to write the image");
	int r = 0, rc = mdb_env_create(&w->db.env);
	if (!rc)
		rc = mdb_env_set_maxdbs(w->db.env, KB_TABLES);
	if (!rc)
		rc = mdb_env_set_mapsize(w->db.env, bytes_max);
	if (!rc)
		rc = mdb_env_open(w->db.env, path, MDB_NOSUBDIR | MDB_NOLOCK | MDB_NOTLS | MDB_NOSYNC, 0644);
	if (rc) {
		r = kb__image_db_fail(err, rc, "creating the image");
	} else {
		MDB_stat stat;
		mdb_env_stat(w->db.env, &stat);
		w->page_bytes = stat.ms_psize;
		r = begin(w, err);
		r = r ? r : kb__image_db_tables(&w->db, MDB_CREATE, err);
		r = r ? r : commit(w, err);
	}
	if (r) {
		kb_image_writer_destroy(w);
		return r;
	}
	*ret = w;
	return 0;
}

void kb_image_writer_destroy(struct kb_image_writer *w)
{
	if (!w)
		return;
	if (w->db.txn)
		mdb_txn_abort(w->db.txn);
	if (w->db.env)
		mdb_env_close(w->db.env);
	free(w);
}

static int put(
	struct kb_image_writer *w, MDB_dbi dbi, struct kb_str key, MDB_val *value, unsigned flags, struct kb_err *err)
{
	MDB_val k = {key.len, (void *)(uintptr_t)key.data};
	if (value->mv_size > KB_MAX_VALUE_BYTES)
		return kb_fail(err, KB_ELIMIT, "a value of %zu bytes is over the image's limit of 1 GiB", value->mv_size);
	int rc = mdb_put(w->db.txn, dbi, &k, value, flags | MDB_NOOVERWRITE);
	return rc ? kb__image_db_fail(err, rc, "writing the image") : 0;
}

int kb_image_writer_segment(struct kb_image_writer *w, uint64_t bytes, struct kb_err *err, uint8_t **ret_data)
{
	uint8_t key[4];
	if (bytes == 0 || bytes > kb_image_segment_max() || w->info.n_segments == KB_MAX_SEGMENTS)
		return kb_fail(err, KB_ELIMIT, "a segment of %llu bytes, or segment %u, is over the image's limits",
			(unsigned long long)bytes, w->info.n_segments);
	MDB_val value = {w->page_bytes - PAGE_HEADER + round_up(bytes, w->page_bytes), NULL};
	int r = begin(w, err);
	if (r)
		return r;
	kb__image_db_index_key(w->info.n_segments, key);
	r = put(w, w->db.table[KB_TABLE_SEGMENT], (struct kb_str){(const char *)key, 4}, &value, MDB_RESERVE, err);
	if (r)
		return r;
	memset(value.mv_data, 0, value.mv_size);
	w->value = value.mv_data;
	w->value_bytes = value.mv_size;
	w->data_bytes = value.mv_size - (w->page_bytes - PAGE_HEADER);
	*ret_data = w->value + (w->page_bytes - PAGE_HEADER);
	return 0;
}

int kb_image_writer_tensor(struct kb_image_writer *w, const struct kb_image_tensor *t, struct kb_err *err)
{
	if (!w->value || t->offset > w->data_bytes || t->bytes > w->data_bytes - t->offset)
		return kb_fail(err, KB_EARG, "a tensor outside the open segment");
	struct kb_record_tensor r = {
		.format = (uint32_t)t->format,
		.source = (uint32_t)t->source->type,
		.n_dims = t->n_dims,
		.rows = t->rows,
		.cols = t->cols,
		.segment = w->info.n_segments,
		.is_exact = t->is_exact,
		.dims = {t->dims[0], t->dims[1], t->dims[2], t->dims[3]},
		.offset = t->offset,
		.bytes = t->bytes,
		.check = kb_record_check(w->value + (w->page_bytes - PAGE_HEADER) + t->offset, t->bytes),
		.rms_error = t->rms_error,
	};
	struct kb_image_tensor again;
	int bad = kb_record_tensor_decode(t->name, &r, sizeof r, err, &again); // what a reader would refuse
	if (bad)
		return bad;
	MDB_val value = {sizeof r, &r};
	bad = put(w, w->db.table[KB_TABLE_TENSOR], t->name, &value, 0, err);
	if (bad)
		return bad;
	w->info.n_tensors++;
	w->info.parameters += (uint64_t)t->rows * t->cols;
	w->info.tensor_bytes += t->bytes;
	return 0;
}

int kb_image_writer_segment_end(struct kb_image_writer *w, struct kb_err *err)
{
	uint8_t key[4], hash[KB_HASH_BYTES];
	int r = kb__image_sha256(w->value, w->value_bytes, NULL, 0, 0, "", err, hash);
	if (r)
		return r;
	MDB_val value = {sizeof hash, hash};
	kb__image_db_index_key(w->info.n_segments, key);
	r = put(w, w->db.table[KB_TABLE_HASH], (struct kb_str){(const char *)key, 4}, &value, 0, err);
	if (r)
		return r;
	w->info.n_segments++;
	return commit(w, err);
}

int kb_image_writer_meta(
	struct kb_image_writer *w, struct kb_str key, struct kb_str encoded, uint32_t place, struct kb_err *err)
{
	MDB_val value = {4 + encoded.len, NULL};
	int r = w->db.txn ? 0 : begin(w, err);
	if (r)
		return r;
	r = put(w, w->db.table[KB_TABLE_META], key, &value, MDB_RESERVE, err);
	if (r)
		return r;
	memcpy(value.mv_data, &place, 4);
	memcpy((uint8_t *)value.mv_data + 4, encoded.data, encoded.len);
	w->info.n_meta++;
	return 0;
}

int kb_image_writer_finish(struct kb_image_writer *w, struct kb_err *err)
{
	uint8_t hash[KB_HASH_BYTES];
	MDB_val info = {sizeof w->info, &w->info}, total = {sizeof hash, hash};
	memcpy(w->info.magic, KB_IMAGE_MAGIC, 8);
	w->info.format = KB_IMAGE_FORMAT;
	w->info.page_bytes = w->page_bytes;
	int r = w->db.txn ? 0 : begin(w, err);
	r = r ? r : put(w, w->db.main, (struct kb_str){KB_IMAGE_KEY, sizeof KB_IMAGE_KEY - 1}, &info, 0, err);
	r = r ? r : kb__image_total(&w->db, &w->info, err, hash);
	r = r ? r : put(w, w->db.table[KB_TABLE_HASH], (struct kb_str){"total", 5}, &total, 0, err);
	r = r ? r : commit(w, err);
	if (r)
		return r;
	int rc = mdb_env_sync(w->db.env, 1);
	return rc ? kb__image_db_fail(err, rc, "writing the image to the disk") : 0;
}
