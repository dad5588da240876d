/* see record.h */
#include "storage/record.h"
#include "base/limits.h"
#include "storage/gguf.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "records are copied as they are");

int kb_record_info_decode(const void *bytes, uint64_t len, struct kb_err *err, struct kb_record_info *ret)
{
	struct kb_record_info r = {0};
	if (len < 16 || memcmp(bytes, KB_IMAGE_MAGIC, 8) != 0)
		return kb_fail(err, KB_EBAD, "this is not a model image (no Kotobako record in it)");
	memcpy(&r, bytes, len < sizeof r ? len : sizeof r);
	if (r.format > KB_IMAGE_FORMAT)
		return kb_fail(err, KB_EUNSUPPORTED,
			"this image was made by a newer Kotobako (format %u; this one reads %u): update Kotobako, or import the "
			"model again",
			r.format, KB_IMAGE_FORMAT);
	if (r.format != KB_IMAGE_FORMAT || len != sizeof r)
		return kb_fail(err, KB_EBAD, "the image's own record is damaged (format %u, %llu bytes)", r.format,
			(unsigned long long)len);
	if (r.n_meta > KB_MAX_META_KEYS || r.n_tensors > KB_MAX_TENSORS || r.n_segments > KB_MAX_SEGMENTS)
		return kb_fail(err, KB_ELIMIT, "the image claims %u keys, %u tensors, %u segments: over the limits", r.n_meta,
			r.n_tensors, r.n_segments);
	*ret = r;
	return 0;
}

uint64_t kb_record_tensor_bytes(enum kb_format format, uint32_t rows, uint32_t cols)
{
	if (rows == 1)
		return format == KB_FMT_F32 ? (uint64_t)cols * 4 : 0;
	return kb_format_bytes(format, rows, cols);
}

static const char *shape_fault(const struct kb_record_tensor *r)
{
	uint64_t rows = 1;
	if (r->format >= KB_FMTS)
		return "unknown format";
	if (!kb_ggml_find(r->source))
		return "unknown source kind";
	if (r->n_dims < 1 || r->n_dims > 4 || r->rows < 1 || r->rows > INT32_MAX || r->cols < 1 || r->cols > INT32_MAX)
		return "impossible shape";
	for (uint32_t i = 1; i < 4; i++)
		if (r->dims[i] < 1 || __builtin_mul_overflow(rows, r->dims[i], &rows) || (i >= r->n_dims && r->dims[i] != 1))
			return "impossible dimensions";
	if (r->dims[0] != r->cols || rows != r->rows)
		return "dimensions and rows disagree";
	if (r->bytes == 0 || r->bytes != kb_record_tensor_bytes((enum kb_format)r->format, r->rows, r->cols))
		return "wrong size";
	if (r->bytes > KB_MAX_VALUE_BYTES || r->offset > KB_MAX_VALUE_BYTES || r->offset % KB_TENSOR_ALIGN != 0)
		return "impossible offset";
	if (r->segment >= KB_MAX_SEGMENTS)
		return "impossible segment";
	if (r->is_exact > 1 || !(r->rms_error >= 0) || isinf(r->rms_error))
		return "impossible error figure";
	return NULL;
}

int kb_record_tensor_decode(
	struct kb_str name, const void *bytes, uint64_t len, struct kb_err *err, struct kb_image_tensor *ret)
{
	struct kb_record_tensor r;
	const char *fault = "wrong length";
	if (len == sizeof r) {
		memcpy(&r, bytes, sizeof r);
		fault = shape_fault(&r);
	}
	if (fault)
		return kb_fail(err, KB_EBAD, "the record of tensor '%.*s' is damaged: %s",
			(int)(name.len > 127 ? 127 : name.len), name.data, fault);
	*ret = (struct kb_image_tensor){
		.name = name,
		.format = (enum kb_format)r.format,
		.source = kb_ggml_find(r.source),
		.n_dims = r.n_dims,
		.dims = {r.dims[0], r.dims[1], r.dims[2], r.dims[3]},
		.rows = r.rows,
		.cols = r.cols,
		.segment = r.segment,
		.offset = r.offset,
		.bytes = r.bytes,
		.is_exact = r.is_exact,
		.rms_error = r.rms_error,
		.check = r.check,
	};
	return 0;
}

int kb_record_meta_decode(
	struct kb_str key, const void *bytes, uint64_t len, struct kb_err *err, struct kb_image_meta *ret)
{
	struct kb_image_meta m = {.key = key};
	char name[KB_MAX_META_KEY_BYTES + 1];
	if (key.len == 0 || key.len > KB_MAX_META_KEY_BYTES || len < 4)
		return kb_fail(err, KB_EBAD, "a metadata record is damaged (key of %zu bytes)", key.len);
	snprintf(name, sizeof name, "%.*s", (int)key.len, key.data);
	memcpy(&m.place, bytes, 4);
	m.encoded = (struct kb_str){(const char *)bytes + 4, (size_t)(len - 4)};
	int r = kb_gguf_value_parse((const uint8_t *)bytes + 4, len - 4, name, err, &m.value);
	if (r)
		return r;
	*ret = m;
	return 0;
}

uint64_t kb_record_check(const void *bytes, uint64_t len)
{
	const uint8_t *p = bytes;
	uint64_t h = len * UINT64_C(0x9e3779b97f4a7c15), word;
	for (; len >= 8; len -= 8, p += 8) {
		memcpy(&word, p, 8);
		h = (h ^ word) * UINT64_C(0x9e3779b97f4a7c15);
		h ^= h >> 32;
	}
	for (; len; len--, p++)
		h = (h ^ *p) * UINT64_C(0x100000001b3);
	return h;
}
