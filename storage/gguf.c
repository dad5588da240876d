/* see gguf.h */
#include "storage/gguf.h"
#include "base/limits.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEFAULT_ALIGNMENT 32u
#define MAX_ALIGNMENT (1u << 20)
#define MIN_META_BYTES 13u   // an empty key, a type, one byte
#define MIN_TENSOR_BYTES 33u // a name of one byte, n_dims, one dimension, type, offset

// Reading position, and what is being read, for error texts.
struct cursor {
	const uint8_t *bytes;
	uint64_t len, file_size, at;
	struct kb_err *err;
	const char *table; // "metadata" or "tensor"; NULL in the header
	uint64_t index;    // in the table
	struct kb_str name;
};

static int fail(const struct cursor *c, int code, uint64_t at, const char *field, const char *format, ...)
	__attribute__((format(printf, 5, 6)));

// "tensor 12 'blk.1.ffn_up.weight', offset at byte 0x1f40: ..."
static int fail(const struct cursor *c, int code, uint64_t at, const char *field, const char *format, ...)
{
	char what[160] = "", text[KB_ERR_TEXT_MAX];
	int shown = c->name.len > 64 ? 64 : (int)c->name.len;
	va_list args;
	va_start(args, format);
	vsnprintf(text, sizeof text, format, args);
	va_end(args);
	if (c->table && c->name.data)
		snprintf(what, sizeof what, "%s %" PRIu64 " '%.*s', ", c->table, c->index, shown, c->name.data);
	else if (c->table)
		snprintf(what, sizeof what, "%s %" PRIu64 ", ", c->table, c->index);
	return kb_fail(c->err, code, "%s%s at byte 0x%" PRIx64 ": %s", what, field, at, text);
}

static int need(const struct cursor *c, uint64_t n, const char *field)
{
	if (n <= c->len - c->at)
		return 0;
	if (n <= c->file_size - c->at)
		return KB_EPARTIAL;
	return fail(c, KB_EBAD, c->at, field,
		"needs %" PRIu64 " bytes, but only %" PRIu64 " are left: the file is cut off or damaged", n,
		c->file_size - c->at);
}

static int read_uint(struct cursor *c, size_t n, const char *field, uint64_t *ret)
{
	uint64_t v = 0;
	int r = need(c, n, field);
	if (r)
		return r;
	for (size_t i = 0; i < n; i++)
		v |= (uint64_t)c->bytes[c->at + i] << (8 * i);
	c->at += n;
	*ret = v;
	return 0;
}

static int read_string(struct cursor *c, uint64_t max, const char *field, struct kb_str *ret)
{
	uint64_t n, start = c->at;
	int r = read_uint(c, 8, field, &n);
	if (r)
		return r;
	if (n > max)
		return fail(c, KB_ELIMIT, start, field, "a length of %" PRIu64 " bytes is over the limit of %" PRIu64, n, max);
	r = need(c, n, field);
	if (r)
		return r;
	*ret = (struct kb_str){(const char *)c->bytes + c->at, (size_t)n};
	c->at += n;
	return 0;
}

// Keys and tensor names: not empty, printable, so that they can be shown and be C strings.
static int read_name(struct cursor *c, uint64_t max, const char *field, struct kb_str *ret)
{
	uint64_t start = c->at;
	struct kb_str s = {0};
	int r = read_string(c, max, field, &s);
	if (r)
		return r;
	if (s.len == 0)
		return fail(c, KB_EBAD, start, field, "is empty");
	for (size_t i = 0; i < s.len; i++)
		if ((uint8_t)s.data[i] < 0x20 || s.data[i] == 0x7f)
			return fail(c, KB_EBAD, start + 8 + i, field, "holds the control character 0x%02x", (uint8_t)s.data[i]);
	*ret = s;
	return 0;
}

// --- metadata ----------------------------------------------------------------

// kb_meta_type has GGUF's numbers.
_Static_assert(KB_META_BOOL == 7 && KB_META_ARRAY == 9 && KB_META_F64 == 12, "GGUF's type numbers");

static bool type_of(uint64_t number, enum kb_meta_type *ret)
{
	if (number >= KB_META_TYPES)
		return false;
	*ret = (enum kb_meta_type)number;
	return true;
}

static uint32_t scalar_bytes(enum kb_meta_type type)
{
	switch (type) {
	case KB_META_U8:
	case KB_META_I8:
	case KB_META_BOOL:
		return 1;
	case KB_META_U16:
	case KB_META_I16:
		return 2;
	case KB_META_U32:
	case KB_META_I32:
	case KB_META_F32:
		return 4;
	case KB_META_U64:
	case KB_META_I64:
	case KB_META_F64:
		return 8;
	case KB_META_STRING:
	case KB_META_ARRAY:
	case KB_META_TYPES:
		break;
	}
	return 0;
}

static int read_elements(struct cursor *c, enum kb_meta_type type, uint64_t count)
{
	struct kb_str s;
	uint32_t size = scalar_bytes(type);
	int r = need(c, count * (size ? size : 8), "value"); // count is within its limit: no overflow
	if (r)
		return r;
	for (uint64_t i = 0; type == KB_META_STRING && i < count; i++) {
		r = read_string(c, KB_MAX_STRING_BYTES, "string", &s);
		if (r)
			return r;
	}
	for (uint64_t i = 0; type == KB_META_BOOL && i < count; i++)
		if (c->bytes[c->at + i] > 1)
			return fail(c, KB_EBAD, c->at + i, "value", "a bool is 0 or 1, not %u", c->bytes[c->at + i]);
	c->at += count * size;
	return 0;
}

static int read_value(struct cursor *c, struct kb_meta_value *ret)
{
	struct kb_meta_value v = {.count = 1};
	uint64_t number, start = c->at;
	int r = read_uint(c, 4, "type", &number);
	if (r)
		return r;
	if (!type_of(number, &v.type))
		return fail(c, KB_EBAD, start, "type", "%" PRIu64 " is no metadata type", number);
	if (v.type == KB_META_ARRAY) {
		v.is_array = true;
		start = c->at;
		r = read_uint(c, 4, "element type", &number);
		if (r)
			return r;
		if (!type_of(number, &v.type))
			return fail(c, KB_EBAD, start, "element type", "%" PRIu64 " is no metadata type", number);
		if (v.type == KB_META_ARRAY)
			return fail(c, KB_EUNSUPPORTED, start, "element type", "arrays of arrays are not supported");
		start = c->at;
		r = read_uint(c, 8, "count", &v.count);
		if (r)
			return r;
		if (v.count > KB_MAX_ARRAY)
			return fail(
				c, KB_ELIMIT, start, "count", "%" PRIu64 " elements are over the limit of %u", v.count, KB_MAX_ARRAY);
	}
	start = c->at;
	r = read_elements(c, v.type, v.count);
	if (r)
		return r;
	v.data = c->bytes + start;
	v.len = (size_t)(c->at - start);
	*ret = v;
	return 0;
}

static int read_meta(struct cursor *c, struct kb_gguf *g)
{
	c->table = "metadata";
	for (uint32_t i = 0; i < g->n_meta; i++) {
		struct kb_gguf_meta *m = &g->meta[i];
		c->index = i;
		c->name = (struct kb_str){0};
		int r = read_name(c, KB_MAX_META_KEY_BYTES, "key", &m->key);
		if (r)
			return r;
		c->name = m->key;
		uint64_t start = c->at;
		r = read_value(c, &m->value);
		if (r)
			return r;
		m->encoded = (struct kb_str){(const char *)c->bytes + start, (size_t)(c->at - start)};
		if (c->at > KB_MAX_HEAD_BYTES)
			return fail(
				c, KB_ELIMIT, start, "value", "ends past the limit of %u bytes for all metadata", KB_MAX_HEAD_BYTES);
	}
	return 0;
}

// --- order and duplicates ----------------------------------------------------

static int compare_str(struct kb_str a, struct kb_str b)
{
	size_t n = a.len < b.len ? a.len : b.len;
	int r = memcmp(a.data, b.data, n);
	return r ? r : (a.len > b.len) - (a.len < b.len);
}

static int by_key(const void *a, const void *b)
{
	const struct kb_gguf_meta *const *x = a, *const *y = b;
	return compare_str((*x)->key, (*y)->key);
}

static int by_name(const void *a, const void *b)
{
	const struct kb_gguf_tensor *const *x = a, *const *y = b;
	return compare_str((*x)->name, (*y)->name);
}

static int by_offset(const void *a, const void *b)
{
	const struct kb_gguf_tensor *const *x = a, *const *y = b;
	return ((*x)->offset > (*y)->offset) - ((*x)->offset < (*y)->offset);
}

// Where a name's field begins: names point into the bytes, after their length.
static uint64_t place_of(const struct cursor *c, struct kb_str s)
{
	return (uint64_t)((const uint8_t *)s.data - c->bytes) - 8;
}

static int index_meta(struct cursor *c, struct kb_gguf *g)
{
	for (uint32_t i = 0; i < g->n_meta; i++)
		g->meta_by_key[i] = &g->meta[i];
	if (g->n_meta)
		qsort(g->meta_by_key, g->n_meta, sizeof *g->meta_by_key, by_key);
	for (uint32_t i = 1; i < g->n_meta; i++) {
		const struct kb_gguf_meta *a = g->meta_by_key[i - 1], *b = g->meta_by_key[i];
		if (by_key(&a, &b) != 0)
			continue;
		c->index = (uint64_t)((a > b ? a : b) - g->meta);
		c->name = b->key;
		return fail(c, KB_EBAD, place_of(c, g->meta[c->index].key), "key", "comes twice");
	}
	return 0;
}

static int check_tensor_set(struct cursor *c, const struct kb_gguf *g)
{
	const struct kb_gguf_tensor **sorted = calloc(g->n_tensors ? g->n_tensors : 1, sizeof *sorted);
	int r = 0;
	if (!sorted)
		return kb_fail(c->err, KB_ENOMEM, "no memory for %u tensors", g->n_tensors);
	for (uint32_t i = 0; i < g->n_tensors; i++)
		sorted[i] = &g->tensors[i];
	if (g->n_tensors)
		qsort(sorted, g->n_tensors, sizeof *sorted, by_name);
	for (uint32_t i = 1; i < g->n_tensors && !r; i++) {
		const struct kb_gguf_tensor *a = sorted[i - 1], *b = sorted[i];
		if (by_name(&a, &b) != 0)
			continue;
		c->index = (uint64_t)((a > b ? a : b) - g->tensors);
		c->name = b->name;
		r = fail(c, KB_EBAD, place_of(c, g->tensors[c->index].name), "name", "comes twice");
	}
	if (g->n_tensors)
		qsort(sorted, g->n_tensors, sizeof *sorted, by_offset);
	for (uint32_t i = 1; i < g->n_tensors && !r; i++) {
		const struct kb_gguf_tensor *a = sorted[i - 1], *b = sorted[i];
		if (a->offset + a->bytes <= b->offset)
			continue;
		c->index = (uint64_t)(b - g->tensors);
		c->name = b->name;
		r = fail(c, KB_EBAD, b->offset, "data", "overlaps tensor '%.*s', which ends at 0x%" PRIx64, (int)a->name.len,
			a->name.data, a->offset + a->bytes);
	}
	free(sorted);
	return r;
}

// --- tensors -----------------------------------------------------------------

static int read_shape(struct cursor *c, struct kb_gguf_tensor *t)
{
	uint64_t n, rows = 1, start = c->at;
	int r = read_uint(c, 4, "n_dims", &n);
	if (r)
		return r;
	if (n < 1 || n > KB_GGUF_DIMS)
		return fail(c, KB_EBAD, start, "n_dims", "is %" PRIu64 ", not 1 to %d", n, KB_GGUF_DIMS);
	t->n_dims = (uint32_t)n;
	for (uint32_t i = 0; i < KB_GGUF_DIMS; i++)
		t->dims[i] = 1;
	for (uint32_t i = 0; i < t->n_dims; i++) {
		start = c->at;
		r = read_uint(c, 8, "dimension", &t->dims[i]);
		if (r)
			return r;
		if (t->dims[i] < 1 || t->dims[i] > INT32_MAX)
			return fail(c, KB_EBAD, start, "dimension", "%" PRIu64 " is not 1 to %d", t->dims[i], INT32_MAX);
		if (i > 0 && (__builtin_mul_overflow(rows, t->dims[i], &rows) || rows > INT32_MAX))
			return fail(c, KB_ELIMIT, start, "dimension", "more than %d rows", INT32_MAX);
	}
	t->cols = (uint32_t)t->dims[0];
	t->rows = (uint32_t)rows;
	return 0;
}

// The largest product: 2^31 rows x 2^31 columns x 4 bytes, below 2^64.
static int read_kind(struct cursor *c, struct kb_gguf_tensor *t)
{
	uint64_t type, start = c->at;
	int r = read_uint(c, 4, "type", &type);
	if (r)
		return r;
	t->kind = kb_ggml_find((uint32_t)type);
	if (!t->kind)
		return fail(c, KB_EUNSUPPORTED, start, "type",
			"weights of GGML type %" PRIu64 " are not supported; use a file in Q4_K_M, Q8_0 or F16", type);
	if (t->cols % t->kind->block_cols != 0)
		return fail(c, KB_EBAD, start, "type", "rows of %u values are no multiple of %s's block of %u", t->cols,
			t->kind->name, t->kind->block_cols);
	t->bytes = (uint64_t)t->rows * (t->cols / t->kind->block_cols) * t->kind->block_bytes;
	return 0;
}

static int read_tensors(struct cursor *c, struct kb_gguf *g)
{
	c->table = "tensor";
	for (uint32_t i = 0; i < g->n_tensors; i++) {
		struct kb_gguf_tensor *t = &g->tensors[i];
		c->index = i;
		c->name = (struct kb_str){0};
		int r = read_name(c, KB_MAX_TENSOR_NAME, "name", &t->name);
		if (r)
			return r;
		c->name = t->name;
		r = read_shape(c, t);
		if (r)
			return r;
		r = read_kind(c, t);
		if (r)
			return r;
		uint64_t start = c->at;
		r = read_uint(c, 8, "offset", &t->offset);
		if (r)
			return r;
		if (t->offset % g->alignment != 0)
			return fail(c, KB_EBAD, start, "offset", "0x%" PRIx64 " is not aligned to %u", t->offset, g->alignment);
	}
	return 0;
}

// Offsets become absolute here, when it is known where the data begins.
static int place_tensors(struct cursor *c, struct kb_gguf *g)
{
	uint64_t begin = (c->at + g->alignment - 1) / g->alignment * g->alignment;
	uint64_t room = begin < c->file_size ? c->file_size - begin : 0;
	g->data_offset = begin;
	for (uint32_t i = 0; i < g->n_tensors; i++) {
		struct kb_gguf_tensor *t = &g->tensors[i];
		c->index = i;
		c->name = t->name;
		if (t->offset > room || t->bytes > room - t->offset)
			return fail(c, KB_EBAD, begin, "data",
				"offset 0x%" PRIx64 " + size 0x%" PRIx64 " is past the end of the file (0x%" PRIx64
				" bytes): cut off or damaged",
				t->offset, t->bytes, c->file_size);
		t->offset += begin;
	}
	return check_tensor_set(c, g);
}

// --- the file ----------------------------------------------------------------

static int read_alignment(struct cursor *c, struct kb_gguf *g)
{
	static const char key[] = "general.alignment";
	struct kb_meta_source source = kb_gguf_meta_source(g);
	struct kb_meta_value v;
	uint64_t n;
	g->alignment = DEFAULT_ALIGNMENT;
	if (source.find(source.ctx, key, &v) != 0)
		return 0;
	c->name = (struct kb_str){key, sizeof key - 1};
	if (v.type != KB_META_U32 || kb_meta_u64(&source, key, &n) != 0)
		return fail(c, KB_EBAD, (uint64_t)(v.data - c->bytes), "value", "is not a u32");
	if (n < 8 || n > MAX_ALIGNMENT || (n & (n - 1)) != 0)
		return fail(c, KB_EBAD, (uint64_t)(v.data - c->bytes), "value",
			"%" PRIu64 " is not a power of two from 8 to %u", n, MAX_ALIGNMENT);
	g->alignment = (uint32_t)n;
	return 0;
}

static int read_count(struct cursor *c, const char *field, uint32_t limit, uint32_t min_bytes, uint32_t *ret)
{
	uint64_t n, start = c->at;
	int r = read_uint(c, 8, field, &n);
	if (r)
		return r;
	if (n > limit)
		return fail(c, KB_ELIMIT, start, field, "%" PRIu64 " is over the limit of %u", n, limit);
	if (n > (c->file_size - c->at) / min_bytes)
		return fail(c, KB_EBAD, start, field, "%" PRIu64 " do not fit a file of %" PRIu64 " bytes", n, c->file_size);
	*ret = (uint32_t)n;
	return 0;
}

static int read_header(struct cursor *c, struct kb_gguf *g)
{
	uint64_t magic, version;
	int r = read_uint(c, 4, "magic", &magic);
	if (r)
		return r;
	if (magic != 0x46554747)
		return fail(c, KB_EBAD, 0, "magic", "this is not a GGUF file");
	r = read_uint(c, 4, "version", &version);
	if (r)
		return r;
	if (version == 0x02000000 || version == 0x03000000)
		return fail(c, KB_EUNSUPPORTED, 4, "version", "a big-endian file; only little-endian ones are supported");
	if (version != 2 && version != 3)
		return fail(
			c, KB_EUNSUPPORTED, 4, "version", "GGUF version %" PRIu64 " is not supported, only 2 and 3", version);
	g->version = (uint32_t)version;
	r = read_count(c, "tensor count", KB_MAX_TENSORS, MIN_TENSOR_BYTES, &g->n_tensors);
	if (r)
		return r;
	return read_count(c, "metadata count", KB_MAX_META_KEYS, MIN_META_BYTES, &g->n_meta);
}

static int parse(struct cursor *c, struct kb_gguf *g)
{
	int r = read_header(c, g);
	if (r)
		return r;
	g->meta = calloc(g->n_meta + 1u, sizeof *g->meta);
	g->meta_by_key = calloc(g->n_meta + 1u, sizeof *g->meta_by_key);
	g->tensors = calloc(g->n_tensors + 1u, sizeof *g->tensors);
	if (!g->meta || !g->meta_by_key || !g->tensors)
		return kb_fail(c->err, KB_ENOMEM, "no memory for %u keys and %u tensors", g->n_meta, g->n_tensors);
	r = read_meta(c, g);
	if (r)
		return r;
	r = index_meta(c, g);
	if (r)
		return r;
	r = read_alignment(c, g);
	if (r)
		return r;
	r = read_tensors(c, g);
	if (r)
		return r;
	return place_tensors(c, g);
}

int kb_gguf_parse(const uint8_t *bytes, uint64_t len, uint64_t file_size, struct kb_err *err, struct kb_gguf *ret)
{
	struct cursor c = {.bytes = bytes, .len = len < file_size ? len : file_size, .file_size = file_size, .err = err};
	struct kb_gguf g = {0};
	int r = parse(&c, &g);
	if (r)
		kb_gguf_finish(&g);
	else
		*ret = g;
	return r;
}

void kb_gguf_finish(struct kb_gguf *g)
{
	free(g->meta);
	free(g->meta_by_key);
	free(g->tensors);
	*g = (struct kb_gguf){0};
}

int kb_gguf_value_parse(
	const uint8_t *bytes, uint64_t len, const char *what, struct kb_err *err, struct kb_meta_value *ret)
{
	struct cursor c = {.bytes = bytes, .len = len, .file_size = len, .err = err, .table = "metadata"};
	struct kb_meta_value v;
	c.name = (struct kb_str){what, strlen(what)};
	int r = read_value(&c, &v);
	if (r)
		return r;
	if (c.at != len)
		return fail(&c, KB_EBAD, c.at, "value", "%" PRIu64 " bytes too many", len - c.at);
	*ret = v;
	return 0;
}

static int find(void *ctx, const char *key, struct kb_meta_value *ret)
{
	const struct kb_gguf *g = ctx;
	struct kb_gguf_meta wanted = {.key = {key, strlen(key)}};
	const struct kb_gguf_meta *want = &wanted;
	const struct kb_gguf_meta **hit =
		g->n_meta ? bsearch(&want, g->meta_by_key, g->n_meta, sizeof *g->meta_by_key, by_key) : NULL;
	if (!hit)
		return KB_ENOTFOUND;
	*ret = (*hit)->value;
	return 0;
}

struct kb_meta_source kb_gguf_meta_source(const struct kb_gguf *g)
{
	return (struct kb_meta_source){.ctx = (void *)(uintptr_t)g, .find = find};
}
