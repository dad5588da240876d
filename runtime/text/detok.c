#include "text/detok.h"

#include <string.h>

static const char replacement[] = "\xef\xbf\xbd"; // U+FFFD

// Bytes of the character that begins with lead; 0: nothing does.
static unsigned char_len(uint8_t lead)
{
	return lead < 0x80                    ? 1
		   : lead >= 0xc2 && lead <= 0xdf ? 2
		   : (lead & 0xf0) == 0xe0        ? 3
		   : lead >= 0xf0 && lead <= 0xf4 ? 4
										  : 0;
}

// Can byte come second after lead? (RFC 3629, section 4: no overlong forms, surrogates or codes above U+10FFFF.)
static bool may_follow(uint8_t lead, uint8_t byte)
{
	if (byte < 0x80 || byte > 0xbf)
		return false;
	return !(lead == 0xe0 && byte < 0xa0) && !(lead == 0xed && byte > 0x9f) && !(lead == 0xf0 && byte < 0x90) &&
		   !(lead == 0xf4 && byte > 0x8f);
}

static int push_byte(struct kb_detok *d, uint8_t byte, struct kb_buf *out)
{
	int r;
	if (d->n_pending) {
		bool fits = d->n_pending == 1 ? may_follow(d->pending[0], byte) : (byte & 0xc0) == 0x80;
		if (!fits) { // what was begun cannot be finished
			d->n_pending = 0;
			if ((r = kb_buf_append(out, replacement, 3)))
				return r;
		}
	}
	if (!d->n_pending && !char_len(byte))
		return kb_buf_append(out, replacement, 3);
	d->pending[d->n_pending++] = byte;
	if (d->n_pending < char_len(d->pending[0]))
		return 0;
	r = kb_buf_append(out, d->pending, d->n_pending);
	d->n_pending = 0;
	return r;
}

int kb_detok_push(struct kb_detok *d, const struct kb_tok *t, uint32_t id, struct kb_buf *out)
{
	if (kb_tok_is_control(t, id))
		return 0;
	struct kb_str s = kb_tok_piece(t, id);
	bool drops_space = !d->started && !d->after_text && kb_tok_adds_space(t) && s.len && s.data[0] == ' ';
	d->started = true;
	for (size_t i = drops_space; i < s.len; i++) {
		int r = push_byte(d, (uint8_t)s.data[i], out);
		if (r)
			return r;
	}
	return 0;
}

int kb_detok_flush(struct kb_detok *d, struct kb_buf *out)
{
	int r = d->n_pending ? kb_buf_append(out, replacement, 3) : 0;
	d->n_pending = 0;
	return r;
}
