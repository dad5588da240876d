#include "storage/fields.h"
#include <inttypes.h>

/* see fields.h */
uint64_t kb_field_get(const uint8_t *p, size_t bytes)
{
	uint64_t v = 0;
	while (bytes-- > 0)
		v = v << 8 | p[bytes];
	return v;
}

/* see fields.h */
void kb_field_put(uint8_t *p, uint64_t v, size_t bytes)
{
	for (size_t i = 0; i < bytes; i++)
		p[i] = (uint8_t)(v >> 8 * i);
}

/* see fields.h */
int kb_fields_next(struct kb_fields *f, struct kb_err *err, struct kb_field *ret)
{
	if (f->at == f->len)
		return KB_ENOTFOUND;
	if (f->len - f->at < KB_FIELD_HEAD)
		return kb_fail(err, KB_EBAD, "%s: cut at byte %zu", f->what, f->at);
	const uint8_t *head = f->bytes + f->at;
	struct kb_field field = {.tag = (uint32_t)kb_field_get(head, 2),
		.at = f->at,
		.value = head + KB_FIELD_HEAD,
		.len = (size_t)kb_field_get(head + 4, 4)};
	if (kb_field_get(head + 2, 2) != 0 || field.len > f->len - f->at - KB_FIELD_HEAD)
		return kb_fail(err, KB_EBAD, "%s: field %" PRIu32 " at byte %zu does not fit", f->what, field.tag, f->at);
	if (field.tag <= f->last)
		return kb_fail(
			err, KB_EBAD, "%s: field %" PRIu32 " at byte %zu comes twice or too late", f->what, field.tag, f->at);
	f->last = field.tag;
	f->at += KB_FIELD_HEAD + field.len;
	*ret = field;
	return KB_OK;
}

/* see fields.h */
int kb_fields_unknown(const struct kb_fields *f, const struct kb_field *field, struct kb_err *err)
{
	if (field->tag % 2 == 0)
		return KB_OK;
	return kb_fail(err, KB_EUNSUPPORTED,
		"%s: field %" PRIu32 " at byte %zu is not known here: it needs a newer firmware", f->what, field->tag,
		field->at);
}
