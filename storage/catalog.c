#include "storage/catalog.h"
#include "storage/fields.h"
#include "storage/models.h"
#include <string.h>

#define MAGIC "KBCATAL1"
#define FILE_MAGIC "KBCATFI1"
#define MAGIC_BYTES 8u
#define FILE_HEAD 16u                                // magic, u32 roots, u32 zero
#define IMAGE_HEAD (8u + 8u + KB_MANIFEST_HASH + 4u) // version, bytes, digest, u32 length of the name
enum { FLEET = 1, VERSION = 3, CREATED = 5, IMAGES = 7 };

static int compare(struct kb_str a, struct kb_str b)
{
	int c = memcmp(a.data, b.data, a.len < b.len ? a.len : b.len);
	return c ? c : a.len < b.len ? -1 : a.len > b.len;
}

static bool is_model(struct kb_str s)
{
	char name[KB_MAX_MODEL_NAME + 1] = {0};
	if (s.len == 0 || s.len > KB_MAX_MODEL_NAME)
		return false;
	memcpy(name, s.data, s.len);
	return strlen(name) == s.len && kb_model_name_valid(name);
}

/* see catalog.h */
bool kb_catalog_next(const struct kb_catalog *c, size_t *at, struct kb_catalog_image *ret)
{
	if (*at >= c->images_len)
		return false;
	const uint8_t *p = c->images + *at;
	ret->version = kb_field_get(p, 8);
	ret->bytes = kb_field_get(p + 8, 8);
	ret->digest = p + 16;
	ret->model = (struct kb_str){(const char *)p + IMAGE_HEAD, kb_field_get(p + 16 + KB_MANIFEST_HASH, 4)};
	*at += IMAGE_HEAD + ret->model.len;
	return true;
}

/* see catalog.h */
bool kb_catalog_find(const struct kb_catalog *c, struct kb_str model, struct kb_catalog_image *ret)
{
	for (size_t at = 0; kb_catalog_next(c, &at, ret);)
		if (compare(ret->model, model) == 0)
			return true;
	return false;
}

static int check_images(const struct kb_field *in, struct kb_err *err, struct kb_catalog *c)
{
	struct kb_str before = {0};
	c->images = in->value;
	c->images_len = in->len;
	for (size_t at = 0; at < in->len; c->n++) {
		struct kb_catalog_image image;
		const size_t left = in->len - at;
		if (left < IMAGE_HEAD || left - IMAGE_HEAD < kb_field_get(in->value + at + 16 + KB_MANIFEST_HASH, 4) ||
			!kb_catalog_next(c, &at, &image))
			return kb_fail(err, KB_EBAD, "catalog: an image is cut at byte %zu", in->at + KB_FIELD_HEAD + at);
		if (!is_model(image.model) || image.version == 0 || image.version > INT64_MAX || image.bytes == 0 ||
			image.bytes > INT64_MAX)
			return kb_fail(err, KB_EBAD, "catalog: the image before byte %zu is none", in->at + KB_FIELD_HEAD + at);
		if (before.len && compare(before, image.model) >= 0)
			return kb_fail(
				err, KB_EBAD, "catalog: the image before byte %zu is out of order", in->at + KB_FIELD_HEAD + at);
		if (c->n == KB_CATALOG_IMAGES_MAX)
			return kb_fail(err, KB_ELIMIT, "catalog: more than %u images", KB_CATALOG_IMAGES_MAX);
		before = image.model;
	}
	return KB_OK;
}

static int read_field(const struct kb_fields *walk, const struct kb_field *in, struct kb_err *err, struct kb_catalog *c)
{
	const bool is_number = in->tag == VERSION || in->tag == CREATED;
	if ((is_number && in->len != 8) || (in->tag == FLEET && in->len != KB_ROOT_FLEET))
		return kb_fail(err, KB_EBAD, "catalog: the field at byte %zu has %zu bytes", in->at, in->len);
	switch (in->tag) {
	case FLEET:
		c->fleet = in->value;
		return KB_OK;
	case VERSION:
		c->version = kb_field_get(in->value, 8);
		return KB_OK;
	case CREATED:
		c->created = kb_field_get(in->value, 8);
		return KB_OK;
	case IMAGES:
		return check_images(in, err, c);
	default:
		return kb_fields_unknown(walk, in, err);
	}
}

/* see catalog.h */
int kb_catalog_parse(const uint8_t *bytes, size_t len, struct kb_err *err, struct kb_catalog *ret)
{
	struct kb_catalog c = {0};
	struct kb_field in;
	int rc;
	if (len > KB_CATALOG_MAX)
		return kb_fail(err, KB_ELIMIT, "catalog: %zu bytes, at most %u", len, KB_CATALOG_MAX);
	if (len < MAGIC_BYTES || memcmp(bytes, MAGIC, MAGIC_BYTES) != 0)
		return kb_fail(err, KB_EBAD, "catalog: it does not begin as one");
	struct kb_fields walk = {.what = "catalog", .bytes = bytes, .len = len, .at = MAGIC_BYTES};
	while ((rc = kb_fields_next(&walk, err, &in)) == KB_OK) {
		rc = read_field(&walk, &in, err, &c);
		if (rc)
			return rc;
	}
	if (rc != KB_ENOTFOUND)
		return rc;
	if (!c.fleet || c.version == 0 || c.version > INT64_MAX || !c.created || !c.images)
		return kb_fail(err, KB_EBAD, "catalog: fleet, version, created or images are missing");
	*ret = c;
	return KB_OK;
}

static int put(struct kb_buf *b, uint32_t tag, const void *value, size_t len)
{
	uint8_t head[KB_FIELD_HEAD] = {0};
	kb_field_put(head, tag, 2);
	kb_field_put(head + 4, len, 4);
	int r = kb_buf_append(b, head, sizeof head);
	return r ? r : kb_buf_append(b, value, len);
}

static int put_images(struct kb_buf *b, const struct kb_catalog_image *images, uint32_t n)
{
	struct kb_buf list = {0};
	int r = KB_OK;
	for (uint32_t i = 0; r == KB_OK && i < n; i++) {
		uint8_t head[IMAGE_HEAD];
		kb_field_put(head, images[i].version, 8);
		kb_field_put(head + 8, images[i].bytes, 8);
		memcpy(head + 16, images[i].digest, KB_MANIFEST_HASH);
		kb_field_put(head + 16 + KB_MANIFEST_HASH, images[i].model.len, 4);
		r = kb_buf_append(&list, head, sizeof head);
		r = r ? r : kb_buf_append(&list, images[i].model.data, images[i].model.len);
	}
	r = r ? r : put(b, IMAGES, list.len ? list.data : (const uint8_t *)"", list.len);
	kb_buf_finish(&list);
	return r;
}

/* see catalog.h */
int kb_catalog_write(const uint8_t fleet[static KB_ROOT_FLEET], uint64_t version, uint64_t created,
	const struct kb_catalog_image *images, uint32_t n, struct kb_err *err, struct kb_buf *ret)
{
	uint8_t number[2][8];
	struct kb_catalog again;
	const size_t begin = ret->len;
	kb_field_put(number[0], version, 8);
	kb_field_put(number[1], created, 8);
	int r = kb_buf_append(ret, MAGIC, MAGIC_BYTES);
	r = r ? r : put(ret, FLEET, fleet, KB_ROOT_FLEET);
	r = r ? r : put(ret, VERSION, number[0], 8);
	r = r ? r : put(ret, CREATED, number[1], 8);
	r = r ? r : put_images(ret, images, n);
	if (r)
		return kb_fail(err, KB_ENOMEM, "out of memory");
	r = kb_catalog_parse(ret->data + begin, ret->len - begin, err, &again);
	return r == KB_EBAD ? KB_EARG : r;
}

/* see catalog.h */
int kb_catalog_file_parse(const uint8_t *bytes, size_t len, struct kb_err *err, struct kb_catalog_file *ret)
{
	static const char what[] = "the catalog's file";
	size_t at = FILE_HEAD;
	if (len < FILE_HEAD || memcmp(bytes, FILE_MAGIC, MAGIC_BYTES) != 0 || kb_field_get(bytes + 12, 4))
		return kb_fail(err, KB_EBAD, "this is no file with a catalog");
	int rc = kb_chain_take(bytes, len, &at, kb_field_get(bytes + 8, 4), what, err, &ret->chain);
	rc = rc ? rc : kb_signed_parse(bytes, len, &at, KB_CATALOG_MAX, what, err, &ret->catalog);
	if (rc != KB_OK)
		return rc;
	return at == len ? KB_OK : kb_fail(err, KB_EBAD, "there is something behind the catalog, at byte %zu", at);
}

/* see catalog.h */
int kb_catalog_file_write(const struct kb_catalog_file *f, struct kb_err *err, struct kb_buf *ret)
{
	uint8_t head[FILE_HEAD] = FILE_MAGIC;
	kb_field_put(head + 8, f->chain.n, 4);
	if (kb_buf_append(ret, head, sizeof head))
		return kb_fail(err, KB_ENOMEM, "out of memory");
	for (uint32_t i = 0; i < f->chain.n; i++) {
		int rc = kb_signed_write(&f->chain.roots[i], err, ret);
		if (rc)
			return rc;
	}
	return kb_signed_write(&f->catalog, err, ret);
}
