#include "storage/manifest.h"
#include "storage/fields.h"
#include "storage/models.h"
#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <utf8proc.h>

#define MAGIC "KBMANIF1"
#define MAGIC_BYTES 8u

const char *const kb_manifest_kind_names[KB_MANIFEST_KINDS] = {"model", "adapter", "os"};

/* see manifest.h */
enum kb_role kb_manifest_role(const struct kb_manifest *m)
{
	return m->kind == KB_MANIFEST_OS ? KB_ROLE_OS : KB_ROLE_MODEL;
}

/* see manifest.h */
const char *kb_manifest_domain(enum kb_role role)
{
	return role == KB_ROLE_OS ? KB_DOMAIN_OS : KB_DOMAIN_MODEL;
}

enum type { NUMBER, TEXT, HASH };

// The format: tags, once and for all. Odd tags must be understood, even ones may be passed over.
static const struct field {
	uint16_t tag;
	enum type type;
	bool is_required;
	size_t offset;
	const char *name;
} fields[] = {
	{1, TEXT, true, offsetof(struct kb_manifest, model), "model"},
	{3, NUMBER, true, offsetof(struct kb_manifest, version), "version"},
	{5, NUMBER, true, offsetof(struct kb_manifest, kind), "kind"},
	{7, NUMBER, true, offsetof(struct kb_manifest, created), "created"},
	{8, TEXT, true, offsetof(struct kb_manifest, family), "family"},
	{10, TEXT, true, offsetof(struct kb_manifest, licence), "licence"},
	{12, TEXT, false, offsetof(struct kb_manifest, origin), "origin"},
	{14, TEXT, false, offsetof(struct kb_manifest, recipe), "recipe"},
	{16, TEXT, false, offsetof(struct kb_manifest, quality), "quality"},
	{17, NUMBER, true, offsetof(struct kb_manifest, min_firmware), "min_firmware"},
	{19, NUMBER, true, offsetof(struct kb_manifest, device_memory), "device_memory"},
	{21, NUMBER, true, offsetof(struct kb_manifest, payload_bytes), "payload_bytes"},
	{23, HASH, true, offsetof(struct kb_manifest, payload_root), "payload_root"},
	{25, HASH, false, offsetof(struct kb_manifest, base), "base"},
	{27, NUMBER, false, offsetof(struct kb_manifest, floor), "floor"},
};
#define FIELDS (sizeof fields / sizeof *fields)

static bool is_plain_text(const uint8_t *p, size_t len)
{
	while (len) {
		utf8proc_int32_t c;
		utf8proc_ssize_t n = utf8proc_iterate(p, (utf8proc_ssize_t)len, &c);
		if (n <= 0 || c < 0x20 || (c >= 0x7f && c < 0xa0))
			return false;
		p += n;
		len -= (size_t)n;
	}
	return true;
}

// What must hold between fields, of parsed and of written manifests alike. NULL: it does.
static const char *wrong(const struct kb_manifest *m)
{
	char name[KB_MAX_MODEL_NAME + 1] = {0};
	if (m->model.len > KB_MAX_MODEL_NAME)
		return "model: not the name of a model";
	memcpy(name, m->model.data, m->model.len);
	if (strlen(name) != m->model.len || !kb_model_name_valid(name))
		return "model: not the name of a model";
	if (m->version == 0 || m->version > INT64_MAX)
		return "version: it counts from 1";
	if (m->kind >= KB_MANIFEST_KINDS)
		return "kind: unknown";
	if (m->payload_bytes == 0 || m->payload_bytes > INT64_MAX)
		return "payload_bytes: not the size of a file";
	if ((m->base != NULL) != (m->kind == KB_MANIFEST_ADAPTER))
		return "base: adapters have one, others have none";
	if (m->floor && (m->kind != KB_MANIFEST_OS || m->floor > m->version))
		return "floor: systems may have one, at most their own version";
	return NULL;
}

static int read_value(const struct field *f, const struct kb_field *in, struct kb_err *err, struct kb_manifest *m)
{
	void *to = (uint8_t *)m + f->offset;
	const size_t len = in->len, at = in->at;
	if ((f->type == NUMBER && len != 8) || (f->type == HASH && len != KB_MANIFEST_HASH) || (f->type == TEXT && !len))
		return kb_fail(err, KB_EBAD, "manifest: %s at byte %zu has %zu bytes", f->name, at, len);
	if (f->type == TEXT && len > KB_MANIFEST_TEXT_MAX)
		return kb_fail(
			err, KB_ELIMIT, "manifest: %s at byte %zu: %zu bytes, at most %u", f->name, at, len, KB_MANIFEST_TEXT_MAX);
	if (f->type == TEXT && !is_plain_text(in->value, len))
		return kb_fail(err, KB_EBAD, "manifest: %s at byte %zu is no plain text", f->name, at);
	if (f->type == NUMBER && !f->is_required &&
		!kb_field_get(in->value, 8)) // what is 0 is left out: one way to write it
		return kb_fail(err, KB_EBAD, "manifest: %s at byte %zu is 0", f->name, at);
	if (f->type == NUMBER)
		*(uint64_t *)to = kb_field_get(in->value, 8);
	else if (f->type == HASH)
		*(const uint8_t **)to = in->value;
	else
		*(struct kb_str *)to = (struct kb_str){(const char *)in->value, len};
	return KB_OK;
}

static const struct field *find(uint32_t tag)
{
	for (size_t i = 0; i < FIELDS; i++)
		if (fields[i].tag == tag)
			return &fields[i];
	return NULL;
}

/* see manifest.h */
int kb_manifest_parse(const uint8_t *bytes, size_t len, struct kb_err *err, struct kb_manifest *ret)
{
	struct kb_manifest m = {0};
	bool seen[FIELDS] = {0};
	struct kb_field in;
	int rc;
	if (len > KB_MANIFEST_MAX)
		return kb_fail(err, KB_ELIMIT, "manifest: %zu bytes, at most %u", len, KB_MANIFEST_MAX);
	if (len < MAGIC_BYTES || memcmp(bytes, MAGIC, MAGIC_BYTES) != 0)
		return kb_fail(err, KB_EBAD, "manifest: it does not begin as one");
	struct kb_fields walk = {.what = "manifest", .bytes = bytes, .len = len, .at = MAGIC_BYTES};
	while ((rc = kb_fields_next(&walk, err, &in)) == KB_OK) {
		const struct field *f = find(in.tag);
		rc = f ? read_value(f, &in, err, &m) : kb_fields_unknown(&walk, &in, err);
		if (rc != KB_OK)
			return rc;
		if (f)
			seen[f - fields] = true;
	}
	if (rc != KB_ENOTFOUND)
		return rc;
	for (size_t i = 0; i < FIELDS; i++)
		if (fields[i].is_required && !seen[i])
			return kb_fail(err, KB_EBAD, "manifest: %s is missing", fields[i].name);
	const char *why = wrong(&m);
	if (why)
		return kb_fail(err, KB_EBAD, "manifest: %s", why);
	*ret = m;
	return KB_OK;
}

/* see manifest.h */
int kb_manifest_write(
	const struct kb_manifest *m, size_t capacity, struct kb_err *err, uint8_t *ret_bytes, size_t *ret_len)
{
	size_t at = MAGIC_BYTES;
	const char *why = m->model.data ? wrong(m) : "model: missing";
	if (why)
		return kb_fail(err, KB_EARG, "manifest: %s", why);
	if (capacity < MAGIC_BYTES)
		return kb_fail(err, KB_ELIMIT, "manifest: no room");
	memcpy(ret_bytes, MAGIC, MAGIC_BYTES);
	for (size_t i = 0; i < FIELDS; i++) {
		const struct field *f = &fields[i];
		const void *from = (const uint8_t *)m + f->offset;
		const struct kb_str *text = from;
		const uint8_t *hash = f->type == HASH ? *(const uint8_t *const *)from : NULL;
		const bool has_number = f->is_required || (f->type == NUMBER && *(const uint64_t *)from);
		size_t n = f->type == NUMBER ? (has_number ? 8 : 0) : f->type == TEXT ? text->len : hash ? KB_MANIFEST_HASH : 0;
		if (!n && f->is_required)
			return kb_fail(err, KB_EARG, "manifest: %s: missing", f->name);
		if (!n)
			continue;
		if (f->type == TEXT && (n > KB_MANIFEST_TEXT_MAX || !is_plain_text((const uint8_t *)text->data, n)))
			return kb_fail(err, KB_EARG, "manifest: %s: too long, or no plain text", f->name);
		if (n + KB_FIELD_HEAD > capacity - at)
			return kb_fail(err, KB_ELIMIT, "manifest: more than %zu bytes", capacity);
		kb_field_put(ret_bytes + at, f->tag, 2);
		kb_field_put(ret_bytes + at + 2, 0, 2);
		kb_field_put(ret_bytes + at + 4, n, 4);
		at += KB_FIELD_HEAD;
		if (f->type == NUMBER)
			kb_field_put(ret_bytes + at, *(const uint64_t *)from, 8);
		else
			memcpy(ret_bytes + at, f->type == TEXT ? (const uint8_t *)text->data : hash, n);
		at += n;
	}
	*ret_len = at;
	return KB_OK;
}
