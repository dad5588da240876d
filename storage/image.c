/* see image.h */
#include "storage/image.h"
#include "base/limits.h"
#include "storage/image_db.h"
#include "storage/pages.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define PAGE_HEADER 16u // of LMDB, before a large value

struct segment {
	struct kb_str value; // whole: what the hash covers
	const uint8_t *data;
	uint64_t len;
	const uint8_t *hash; // as recorded
};

struct kb_image {
	struct kb_image_db db;
	struct kb_record_info record;
	struct kb_image_info info;
	struct kb_image_meta *meta;          // in order of key
	const struct kb_image_meta **placed; // in order of place
	struct kb_image_tensor *tensors;
	struct segment *segments;
	uint32_t n_meta, n_tensors, n_segments; // loaded so far
};

static int compare_str(struct kb_str a, struct kb_str b)
{
	int r = memcmp(a.data, b.data, a.len < b.len ? a.len : b.len);
	return r ? r : (a.len > b.len) - (a.len < b.len);
}

// --- opening -----------------------------------------------------------------

static int check_pages(const char *path, struct kb_err *err, uint64_t *ret_size)
{
	struct stat st;
	int r, fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return kb_fail(err, kb_err_from_errno(errno), "%s", strerror(errno));
	void *map = MAP_FAILED;
	if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode))
		r = kb_fail(err, KB_EBAD, "this is not a file");
	else if (st.st_size == 0)
		r = kb_fail(err, KB_EBAD, "this is not a model image (it is empty)");
	else if ((map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0)) == MAP_FAILED)
		r = kb_fail(err, kb_err_from_errno(errno), "cannot map it: %s", strerror(errno));
	else
		r = kb_pages_check(map, (uint64_t)st.st_size, err);
	if (map != MAP_FAILED)
		munmap(map, (size_t)st.st_size);
	close(fd);
	if (!r)
		*ret_size = (uint64_t)st.st_size;
	return r;
}

static int open_env(const char *path, struct kb_image_db *db, struct kb_err *err)
{
	int rc = mdb_env_create(&db->env);
	if (rc)
		return kb__image_db_fail(err, rc, "opening the image");
	rc = mdb_env_set_maxdbs(db->env, KB_TABLES);
	if (!rc)
		rc = mdb_env_open(db->env, path, MDB_RDONLY | MDB_NOSUBDIR | MDB_NOLOCK | MDB_NOTLS, 0);
	if (!rc)
		rc = mdb_txn_begin(db->env, NULL, MDB_RDONLY, &db->txn);
	if (rc)
		return kb__image_db_fail(err, rc, "opening the image");
	return kb__image_db_tables(db, 0, err);
}

static int load_info(struct kb_image *im, struct kb_err *err)
{
	char name[] = KB_IMAGE_KEY;
	MDB_val key = {sizeof name - 1, name}, value;
	MDB_stat stat;
	int rc = mdb_get(im->db.txn, im->db.main, &key, &value);
	if (rc == MDB_NOTFOUND)
		return kb_fail(err, KB_EBAD, "this is not a model image (no Kotobako record in it)");
	if (rc)
		return kb__image_db_fail(err, rc, "reading the image");
	int r = kb_record_info_decode(value.mv_data, value.mv_size, err, &im->record);
	if (r)
		return r;
	rc = mdb_env_stat(im->db.env, &stat);
	if (rc || stat.ms_psize != im->record.page_bytes)
		return kb_fail(err, KB_EBAD, "the image's own record is damaged (page size)");
	im->meta = calloc(im->record.n_meta + 1u, sizeof *im->meta);
	im->placed = calloc(im->record.n_meta + 1u, sizeof *im->placed);
	im->tensors = calloc(im->record.n_tensors + 1u, sizeof *im->tensors);
	im->segments = calloc(im->record.n_segments + 1u, sizeof *im->segments);
	if (!im->meta || !im->placed || !im->tensors || !im->segments)
		return kb_fail(err, KB_ENOMEM, "no memory to open the image");
	return 0;
}

static int load_meta(void *ctx, struct kb_str key, struct kb_str value, struct kb_err *err)
{
	struct kb_image *im = ctx;
	if (im->n_meta == im->record.n_meta)
		return kb_fail(err, KB_EBAD, "more metadata than the image's record says (%u)", im->record.n_meta);
	struct kb_image_meta *m = &im->meta[im->n_meta];
	int r = kb_record_meta_decode(key, value.data, value.len, err, m);
	if (r)
		return r;
	if (m->place >= im->record.n_meta || im->placed[m->place])
		return kb_fail(err, KB_EBAD, "the record of metadata '%.*s' is damaged: place", (int)key.len, key.data);
	im->placed[m->place] = m;
	im->n_meta++;
	return 0;
}

static int load_segment(void *ctx, struct kb_str key, struct kb_str value, struct kb_err *err)
{
	struct kb_image *im = ctx;
	struct segment *s = &im->segments[im->n_segments];
	uint8_t want[4];
	size_t page = im->record.page_bytes, os_page = (size_t)sysconf(_SC_PAGESIZE);
	size_t align = page < os_page ? page : os_page; // LMDB's map begins on an operating system's page
	kb__image_db_index_key(im->n_segments, want);
	if (im->n_segments == im->record.n_segments || key.len != 4 || memcmp(key.data, want, 4) != 0)
		return kb_fail(err, KB_EBAD, "segment %u is missing, or there are too many", im->n_segments);
	if ((uintptr_t)value.data % align != PAGE_HEADER || value.len < 2 * page - PAGE_HEADER ||
		(value.len + PAGE_HEADER) % page != 0 || value.len > KB_MAX_VALUE_BYTES)
		return kb_fail(err, KB_EBAD, "segment %u is damaged: %zu bytes, or not on a page", im->n_segments, value.len);
	s->value = value;
	s->data = (const uint8_t *)value.data + page - PAGE_HEADER;
	s->len = value.len - (page - PAGE_HEADER);
	im->n_segments++;
	return 0;
}

static int load_tensor(void *ctx, struct kb_str key, struct kb_str value, struct kb_err *err)
{
	struct kb_image *im = ctx;
	if (im->n_tensors == im->record.n_tensors)
		return kb_fail(err, KB_EBAD, "more tensors than the image's record says (%u)", im->record.n_tensors);
	struct kb_image_tensor *t = &im->tensors[im->n_tensors];
	if (key.len > KB_MAX_TENSOR_NAME)
		return kb_fail(err, KB_EBAD, "a tensor's name has %zu bytes", key.len);
	int r = kb_record_tensor_decode(key, value.data, value.len, err, t);
	if (r)
		return r;
	uint64_t room = t->segment < im->n_segments ? im->segments[t->segment].len : 0;
	if (t->offset > room || t->bytes > room - t->offset)
		return kb_fail(err, KB_EBAD, "the record of tensor '%.*s' is damaged: it lies outside segment %u", (int)key.len,
			key.data, t->segment);
	im->n_tensors++;
	return 0;
}

static int load_hash(void *ctx, struct kb_str key, struct kb_str value, struct kb_err *err)
{
	struct kb_image *im = ctx;
	const uint8_t *k = (const uint8_t *)key.data;
	uint32_t index = key.len == 4 ? (uint32_t)k[0] << 24 | (uint32_t)k[1] << 16 | (uint32_t)k[2] << 8 | k[3] : 0;
	if (value.len != KB_HASH_BYTES)
		return kb_fail(err, KB_EBAD, "a hash record is damaged");
	if (key.len == 4 && index < im->n_segments)
		im->segments[index].hash = (const uint8_t *)value.data;
	else if (key.len == 5 && memcmp(key.data, "total", 5) == 0)
		memcpy(im->info.total, value.data, KB_HASH_BYTES);
	else
		return kb_fail(err, KB_EBAD, "a hash record is damaged");
	return 0;
}

static int load(struct kb_image *im, struct kb_err *err)
{
	static const struct {
		enum kb_image_table table;
		kb__image_visit *visit;
	} tables[] = {{KB_TABLE_META, load_meta}, {KB_TABLE_SEGMENT, load_segment}, {KB_TABLE_TENSOR, load_tensor},
		{KB_TABLE_HASH, load_hash}};
	int r = load_info(im, err);
	for (size_t i = 0; i < sizeof tables / sizeof tables[0] && !r; i++)
		r = kb__image_db_each(&im->db, tables[i].table, tables[i].visit, im, err);
	if (r)
		return r;
	if (im->n_meta != im->record.n_meta || im->n_tensors != im->record.n_tensors ||
		im->n_segments != im->record.n_segments)
		return kb_fail(err, KB_EBAD, "the image is incomplete: %u of %u keys, %u of %u tensors, %u of %u segments",
			im->n_meta, im->record.n_meta, im->n_tensors, im->record.n_tensors, im->n_segments, im->record.n_segments);
	for (uint32_t i = 0; i < im->n_segments; i++)
		if (!im->segments[i].hash)
			return kb_fail(err, KB_EBAD, "the hash of segment %u is missing", i);
	im->info.format = im->record.format;
	im->info.page_bytes = im->record.page_bytes;
	im->info.n_meta = im->n_meta;
	im->info.n_tensors = im->n_tensors;
	im->info.n_segments = im->n_segments;
	im->info.parameters = im->record.parameters;
	im->info.tensor_bytes = im->record.tensor_bytes;
	return 0;
}

int kb_image_open(const char *path, struct kb_err *err, struct kb_image **ret)
{
	struct kb_image *im = calloc(1, sizeof *im);
	if (!im)
		return kb_fail(err, KB_ENOMEM, "no memory to open %s", path);
	int r = check_pages(path, err, &im->info.file_bytes);
	if (!r)
		r = open_env(path, &im->db, err);
	if (!r)
		r = load(im, err);
	if (r) {
		kb_image_close(im);
		if (err)
			kb_err_wrap(err, "%s: ", path);
		return r;
	}
	*ret = im;
	return 0;
}

void kb_image_close(struct kb_image *im)
{
	if (!im)
		return;
	if (im->db.txn)
		mdb_txn_abort(im->db.txn);
	if (im->db.env)
		mdb_env_close(im->db.env);
	free(im->meta);
	free(im->placed);
	free(im->tensors);
	free(im->segments);
	free(im);
}

// --- looking up --------------------------------------------------------------

const struct kb_image_info *kb_image_info(const struct kb_image *im)
{
	return &im->info;
}

static int find_meta(void *ctx, const char *key, struct kb_meta_value *ret)
{
	const struct kb_image *im = ctx;
	struct kb_str want = {key, strlen(key)};
	uint32_t low = 0, high = im->n_meta;
	while (low < high) {
		uint32_t mid = low + (high - low) / 2;
		int order = compare_str(want, im->meta[mid].key);
		if (order == 0) {
			*ret = im->meta[mid].value;
			return 0;
		}
		if (order < 0)
			high = mid;
		else
			low = mid + 1;
	}
	return KB_ENOTFOUND;
}

struct kb_meta_source kb_image_meta_source(const struct kb_image *im)
{
	return (struct kb_meta_source){.ctx = (void *)(uintptr_t)im, .find = find_meta};
}

const struct kb_image_meta *kb_image_meta_at(const struct kb_image *im, uint32_t i)
{
	return i < im->n_meta ? im->placed[i] : NULL;
}

const struct kb_image_tensor *kb_image_tensor_at(const struct kb_image *im, uint32_t i)
{
	return i < im->n_tensors ? &im->tensors[i] : NULL;
}

int kb_image_tensor(const struct kb_image *im, const char *name, struct kb_image_tensor *ret)
{
	struct kb_str want = {name, strlen(name)};
	uint32_t low = 0, high = im->n_tensors;
	while (low < high) {
		uint32_t mid = low + (high - low) / 2;
		int order = compare_str(want, im->tensors[mid].name);
		if (order == 0) {
			*ret = im->tensors[mid];
			return 0;
		}
		if (order < 0)
			high = mid;
		else
			low = mid + 1;
	}
	return KB_ENOTFOUND;
}

int kb_image_segment(const struct kb_image *im, uint32_t i, const void **ret_bytes, uint64_t *ret_len)
{
	if (i >= im->n_segments)
		return KB_ENOTFOUND;
	*ret_bytes = im->segments[i].data;
	*ret_len = im->segments[i].len;
	return 0;
}

const void *kb_image_tensor_bytes(const struct kb_image *im, const struct kb_image_tensor *t)
{
	return im->segments[t->segment].data + t->offset;
}

// --- verifying ---------------------------------------------------------------

static int name_damage(const struct kb_image *im, uint32_t segment, struct kb_err *err)
{
	const struct kb_image_tensor *first = NULL;
	uint32_t damaged = 0;
	for (uint32_t i = 0; i < im->n_tensors; i++) {
		const struct kb_image_tensor *t = &im->tensors[i];
		if (t->segment != segment || kb_record_check(kb_image_tensor_bytes(im, t), t->bytes) == t->check)
			continue;
		first = first ? first : t;
		damaged++;
	}
	if (!first)
		return kb_fail(err, KB_ECORRUPT, "segment %u is damaged, between its tensors or in its hash", segment);
	if (damaged == 1)
		return kb_fail(
			err, KB_ECORRUPT, "segment %u is damaged: tensor '%.*s'", segment, (int)first->name.len, first->name.data);
	return kb_fail(err, KB_ECORRUPT, "segment %u is damaged: tensor '%.*s' and %u more", segment, (int)first->name.len,
		first->name.data, damaged - 1);
}

int kb_image_verify(const struct kb_image *im, const struct kb_progress *progress, struct kb_err *err)
{
	uint8_t hash[KB_HASH_BYTES];
	uint64_t total = 0, done = 0;
	for (uint32_t i = 0; i < im->n_segments; i++)
		total += im->segments[i].value.len;
	int r = kb__image_total(&im->db, &im->record, err, hash);
	if (r)
		return r;
	bool tables_hold = memcmp(hash, im->info.total, sizeof hash) == 0;
	for (uint32_t i = 0; i < im->n_segments; i++) {
		const struct segment *s = &im->segments[i];
		char what[32];
		snprintf(what, sizeof what, "segment %u", i);
		r = kb__image_sha256(s->value.data, s->value.len, progress, done, total, what, err, hash);
		if (r)
			return r;
		if (memcmp(hash, s->hash, sizeof hash) != 0)
			return name_damage(im, i, err);
		done += s->value.len;
	}
	if (!tables_hold)
		return kb_fail(err, KB_ECORRUPT, "metadata or the tensor table is damaged (their SHA-256 does not match)");
	return 0;
}
