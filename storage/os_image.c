#include "storage/os_image.h"
#include "storage/fields.h"
#include <inttypes.h>
#include <string.h>

#define MAGIC "KBOSIMG1"
#define MAGIC_BYTES 8u
#define BEGIN 16u                         // of the fields
#define PART_BYTES (8u + 8u + KB_OS_HASH) // offset, bytes, SHA-256
#define BOARD_MAX 64u
#define BYTES_MAX (UINT64_C(1) << 40) // far above any disk's slot, far below an overflow

const char *const kb_os_part_names[KB_OS_PARTS] = {"root", "kernel_a", "kernel_b"};

enum { TAG_BOARD = 1, TAG_VERSION = 3, TAG_PART = 5 }; // parts: 5, 7, 9

static bool is_board(const struct kb_str *s)
{
	for (size_t i = 0; i < s->len; i++)
		if (!strchr("abcdefghijklmnopqrstuvwxyz0123456789-_", s->data[i]) || !s->data[i])
			return false;
	return s->len > 0 && s->len <= BOARD_MAX;
}

static uint64_t round_up(uint64_t n)
{
	return (n + KB_OS_HEAD - 1) / KB_OS_HEAD * KB_OS_HEAD;
}

static int read_field(
	const struct kb_fields *walk, const struct kb_field *in, struct kb_err *err, struct kb_os_image *m)
{
	const uint32_t part = (in->tag - TAG_PART) / 2;
	if (in->tag == TAG_BOARD) {
		m->board = (struct kb_str){(const char *)in->value, in->len};
	} else if (in->tag == TAG_VERSION && in->len == 8) {
		m->version = kb_field_get(in->value, 8);
	} else if (in->tag >= TAG_PART && in->tag % 2 == 1 && part < KB_OS_PARTS && in->len == PART_BYTES) {
		m->part[part] = (struct kb_os_part){kb_field_get(in->value, 8), kb_field_get(in->value + 8, 8), in->value + 16};
	} else if (in->tag == TAG_VERSION || (in->tag % 2 == 1 && part < KB_OS_PARTS)) {
		return kb_fail(err, KB_EBAD, "system image: the field at byte %zu has %zu bytes", in->at, in->len);
	} else {
		return kb_fields_unknown(walk, in, err);
	}
	return KB_OK;
}

static int check(const struct kb_os_image *m, uint64_t payload_bytes, struct kb_err *err)
{
	uint64_t at = KB_OS_HEAD;
	if (!is_board(&m->board) || !m->version)
		return kb_fail(err, KB_EBAD, "system image: it does not say which board or version it is");
	for (int i = 0; i < KB_OS_PARTS; i++) {
		const struct kb_os_part *p = &m->part[i];
		if (p->bytes == 0 || p->bytes > BYTES_MAX || p->offset != at)
			return kb_fail(err, KB_EBAD, "system image: %s is missing or not where it must be", kb_os_part_names[i]);
		if (i != KB_OS_ROOT && p->bytes > KB_OS_KERNEL_MAX)
			return kb_fail(err, KB_EBAD, "system image: %s has %" PRIu64 " bytes, at most %u", kb_os_part_names[i],
				p->bytes, KB_OS_KERNEL_MAX);
		at = round_up(at + p->bytes);
	}
	const struct kb_os_part *last = &m->part[KB_OS_PARTS - 1];
	if (payload_bytes != last->offset + last->bytes)
		return kb_fail(err, KB_EBAD, "system image: %" PRIu64 " bytes, its parts say %" PRIu64, payload_bytes,
			last->offset + last->bytes);
	return KB_OK;
}

/* see os_image.h */
int kb_os_image_parse(
	const uint8_t block[static KB_OS_HEAD], uint64_t payload_bytes, struct kb_err *err, struct kb_os_image *ret)
{
	struct kb_os_image m = {0};
	struct kb_field in;
	int r;
	const uint64_t len = kb_field_get(block + MAGIC_BYTES, 4);
	if (memcmp(block, MAGIC, MAGIC_BYTES) != 0 || len > KB_OS_HEAD - BEGIN || kb_field_get(block + 12, 4))
		return kb_fail(err, KB_EBAD, "system image: it does not begin as one");
	struct kb_fields walk = {.what = "system image", .bytes = block, .len = BEGIN + (size_t)len, .at = BEGIN};
	while ((r = kb_fields_next(&walk, err, &in)) == KB_OK) {
		r = read_field(&walk, &in, err, &m);
		if (r)
			return r;
	}
	if (r != KB_ENOTFOUND)
		return r;
	r = check(&m, payload_bytes, err);
	if (r == KB_OK)
		*ret = m;
	return r;
}

static size_t put(uint8_t *at, uint32_t tag, size_t len)
{
	kb_field_put(at, tag, 2);
	kb_field_put(at + 2, 0, 2);
	kb_field_put(at + 4, len, 4);
	return KB_FIELD_HEAD;
}

/* see os_image.h */
int kb_os_image_write(struct kb_os_image *m, struct kb_err *err, uint8_t ret[static KB_OS_HEAD])
{
	uint64_t at = KB_OS_HEAD;
	uint8_t *p = ret + BEGIN;
	for (int i = 0; i < KB_OS_PARTS; i++) {
		m->part[i].offset = at;
		at = round_up(at + m->part[i].bytes);
	}
	const struct kb_os_part *last = &m->part[KB_OS_PARTS - 1];
	if (check(m, last->offset + last->bytes, err)) {
		err->code = KB_EARG;
		return KB_EARG;
	}
	memset(ret, 0, KB_OS_HEAD);
	memcpy(ret, MAGIC, MAGIC_BYTES);
	p += put(p, TAG_BOARD, m->board.len);
	memcpy(p, m->board.data, m->board.len);
	p += m->board.len;
	p += put(p, TAG_VERSION, 8);
	kb_field_put(p, m->version, 8);
	p += 8;
	for (int i = 0; i < KB_OS_PARTS; i++) {
		p += put(p, (uint32_t)(TAG_PART + 2 * i), PART_BYTES);
		kb_field_put(p, m->part[i].offset, 8);
		kb_field_put(p + 8, m->part[i].bytes, 8);
		memcpy(p + 16, m->part[i].sha256, KB_OS_HASH);
		p += PART_BYTES;
	}
	kb_field_put(ret + MAGIC_BYTES, (uint64_t)(p - ret) - BEGIN, 4);
	return KB_OK;
}
