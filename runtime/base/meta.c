#include "base/meta.h"

#include <string.h>

static const size_t scalar_size[KB_META_TYPES] = {
	[KB_META_U8] = 1,
	[KB_META_I8] = 1,
	[KB_META_U16] = 2,
	[KB_META_I16] = 2,
	[KB_META_U32] = 4,
	[KB_META_I32] = 4,
	[KB_META_F32] = 4,
	[KB_META_BOOL] = 1,
	[KB_META_U64] = 8,
	[KB_META_I64] = 8,
	[KB_META_F64] = 8,
};

static uint64_t load_le(const uint8_t *p, size_t n)
{
	uint64_t v = 0;
	for (size_t i = 0; i < n; i++)
		v |= (uint64_t)p[i] << (8 * i);
	return v;
}

static bool is_float(enum kb_meta_type t)
{
	return t == KB_META_F32 || t == KB_META_F64;
}

static int64_t element_i64(enum kb_meta_type type, const uint8_t *p)
{
	size_t n = scalar_size[type];
	uint64_t v = load_le(p, n);
	bool is_signed = type == KB_META_I8 || type == KB_META_I16 || type == KB_META_I32 || type == KB_META_I64;
	if (is_signed && n > 0 && n < 8 && v >> (8 * n - 1))
		v |= ~UINT64_C(0) << (8 * n);
	return (int64_t)v;
}

static double element_f64(enum kb_meta_type type, const uint8_t *p)
{
	if (type == KB_META_F32) {
		uint32_t bits = (uint32_t)load_le(p, 4);
		float f;
		memcpy(&f, &bits, 4);
		return (double)f;
	}
	if (type == KB_META_F64) {
		uint64_t bits = load_le(p, 8);
		double d;
		memcpy(&d, &bits, 8);
		return d;
	}
	if (type == KB_META_U64)
		return (double)load_le(p, 8);
	return (double)element_i64(type, p);
}

static int find_scalar(const struct kb_meta_source *m, const char *key, struct kb_meta_value *v)
{
	int r = m->find(m->ctx, key, v);
	if (r)
		return r;
	return v->is_array ? KB_EBAD : 0;
}

int kb_meta_u64(const struct kb_meta_source *m, const char *key, uint64_t *ret)
{
	struct kb_meta_value v;
	int r = find_scalar(m, key, &v);
	if (r)
		return r;
	if (v.type == KB_META_STRING || is_float(v.type))
		return KB_EBAD;
	int64_t x = element_i64(v.type, v.data);
	if (x < 0 && v.type != KB_META_U64)
		return KB_EBAD;
	*ret = (uint64_t)x;
	return 0;
}

int kb_meta_f64(const struct kb_meta_source *m, const char *key, double *ret)
{
	struct kb_meta_value v;
	int r = find_scalar(m, key, &v);
	if (r)
		return r;
	if (v.type == KB_META_STRING || v.type == KB_META_BOOL)
		return KB_EBAD;
	*ret = element_f64(v.type, v.data);
	return 0;
}

int kb_meta_bool(const struct kb_meta_source *m, const char *key, bool *ret)
{
	struct kb_meta_value v;
	int r = find_scalar(m, key, &v);
	if (r)
		return r;
	if (v.type != KB_META_BOOL)
		return KB_EBAD;
	*ret = v.data[0] != 0;
	return 0;
}

int kb_meta_str(const struct kb_meta_source *m, const char *key, struct kb_str *ret)
{
	struct kb_meta_value v;
	size_t cursor = 0;
	int r = find_scalar(m, key, &v);
	if (r)
		return r;
	if (v.type != KB_META_STRING || !kb_meta_array_next_str(&v, &cursor, ret))
		return KB_EBAD;
	return 0;
}

double kb_meta_array_f64(const struct kb_meta_value *v, uint64_t i)
{
	return element_f64(v->type, v->data + i * scalar_size[v->type]);
}

int64_t kb_meta_array_i64(const struct kb_meta_value *v, uint64_t i)
{
	return element_i64(v->type, v->data + i * scalar_size[v->type]);
}

bool kb_meta_array_next_str(const struct kb_meta_value *v, size_t *cursor, struct kb_str *ret)
{
	if (*cursor > v->len || v->len - *cursor < 8)
		return false;
	uint64_t n = load_le(v->data + *cursor, 8);
	if (n > v->len - *cursor - 8)
		return false;
	*ret = (struct kb_str){(const char *)v->data + *cursor + 8, (size_t)n};
	*cursor += 8 + (size_t)n;
	return true;
}
