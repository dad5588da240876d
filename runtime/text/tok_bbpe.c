// Byte-level BPE. Tokens are written in GPT-2's byte alphabet (printable bytes stand for themselves, the others for
// U+0100 on, in order); merges are pairs of tokens by rank. Source: github.com/openai/gpt-2, src/encoder.py.
#include "text/tok_internal.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#define MERGES_MAX (1u << 22)

static bool stands_for_itself(unsigned byte)
{
	return (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
}

// code point -> byte, or -1
static int byte_of(int32_t code)
{
	if (code >= 0 && code < 256)
		return stands_for_itself((unsigned)code) ? code : -1;
	int32_t k = code - 256;
	for (unsigned byte = 0; k >= 0 && byte < 256; byte++)
		if (!stands_for_itself(byte) && k-- == 0)
			return (int)byte;
	return -1;
}

// Bytes of a text in the alphabet; false: it has other characters. out has room for s.len bytes.
static bool decode_alphabet(struct kb_str s, const int16_t *table, uint8_t *out, size_t *ret_len)
{
	size_t n = 0;
	for (size_t at = 0; at < s.len;) {
		utf8proc_int32_t code;
		utf8proc_ssize_t used =
			utf8proc_iterate((const utf8proc_uint8_t *)s.data + at, (utf8proc_ssize_t)(s.len - at), &code);
		if (used < 1 || code >= 512 || table[code] < 0)
			return false;
		out[n++] = (uint8_t)table[code];
		at += (size_t)used;
	}
	*ret_len = n;
	return true;
}

static int load_pieces(struct kb_tok *t, const int16_t *table)
{
	size_t total = 1, used = 0;
	for (uint32_t i = 0; i < t->n; i++)
		total += t->raw[i].len;
	t->pool = malloc(total);
	if (!t->pool)
		return KB_ENOMEM;
	for (uint32_t i = 0; i < t->n; i++) {
		size_t len;
		bool is_plain = t->type[i] == KB__CONTROL || t->type[i] == KB__USER || t->type[i] == KB__UNKNOWN;
		t->piece[i] = t->raw[i];
		if (is_plain || !decode_alphabet(t->raw[i], table, t->pool + used, &len))
			continue;
		t->piece[i] = (struct kb_str){(const char *)t->pool + used, len};
		used += len;
	}
	return kb__tok_index(t);
}

static uint64_t pair_hash(uint32_t left, uint32_t right)
{
	uint32_t pair[2] = {left, right};
	return kb__hash(pair, sizeof pair);
}

static const struct kb__merge *find_merge(const struct kb_tok *t, uint32_t left, uint32_t right)
{
	for (uint64_t h = pair_hash(left, right);; h++) {
		uint32_t slot = t->by_pair.slots[h & t->by_pair.mask];
		if (!slot)
			return NULL;
		const struct kb__merge *m = &t->merges[slot - 1];
		if (m->left == left && m->right == right)
			return m;
	}
}

// "left right" in the alphabet; a merge whose parts or result are not tokens is left out.
static bool parse_merge(
	const struct kb_tok *t, const int16_t *table, struct kb_str s, uint8_t *bytes, struct kb__merge *m)
{
	const char *space = s.len > 1 ? memchr(s.data + 1, ' ', s.len - 1) : NULL;
	size_t left_len, right_len;
	if (!space)
		return false;
	size_t cut = (size_t)(space - s.data);
	if (!decode_alphabet((struct kb_str){s.data, cut}, table, bytes, &left_len) ||
		!decode_alphabet((struct kb_str){space + 1, s.len - cut - 1}, table, bytes + left_len, &right_len))
		return false;
	m->left = kb__tok_lookup(t, (const char *)bytes, left_len);
	m->right = kb__tok_lookup(t, (const char *)bytes + left_len, right_len);
	m->result = kb__tok_lookup(t, (const char *)bytes, left_len + right_len);
	return m->left != KB_TOK_NONE && m->right != KB_TOK_NONE && m->result != KB_TOK_NONE &&
		   kb__tok_is_text(t, m->result);
}

static int load_merges(struct kb_tok *t, const struct kb_meta_source *meta, const int16_t *table, struct kb_err *err)
{
	struct kb_meta_value v;
	struct kb_str s;
	size_t cursor = 0;
	if (meta->find(meta->ctx, "tokenizer.ggml.merges", &v) || !v.is_array || v.type != KB_META_STRING ||
		v.count > MERGES_MAX)
		return kb_fail(err, KB_EBAD, "tokenizer.ggml.merges is missing, not a list of strings, or too long");
	t->merges = malloc((v.count + 1) * sizeof *t->merges);
	uint8_t *bytes = malloc(v.len + 1);
	int r = t->merges && bytes ? kb__map_init(&t->by_pair, (uint32_t)v.count) : KB_ENOMEM;
	for (uint32_t rank = 0; r == 0 && kb_meta_array_next_str(&v, &cursor, &s); rank++) {
		struct kb__merge m = {.rank = rank};
		if (!parse_merge(t, table, s, bytes, &m) || find_merge(t, m.left, m.right))
			continue;
		uint64_t h = pair_hash(m.left, m.right);
		while (t->by_pair.slots[h & t->by_pair.mask])
			h++;
		t->merges[t->n_merges++] = m;
		t->by_pair.slots[h & t->by_pair.mask] = t->n_merges;
	}
	free(bytes);
	return r ? kb_fail(err, r, "no memory for %llu merges", (unsigned long long)v.count) : 0;
}

int kb__bbpe_load(struct kb_tok *t, const struct kb_meta_source *meta, struct kb_err *err)
{
	struct kb_str pre;
	int16_t table[512];
	if (kb_meta_str(meta, "tokenizer.ggml.pre", &pre))
		return kb_fail(err, KB_EUNSUPPORTED, "tokenizer.ggml.pre is missing: how to cut text is not known");
	t->pretok = kb_pretok_find(pre);
	if (!t->pretok)
		return kb_fail(err, KB_EUNSUPPORTED, "pre-tokenizer '%.*s' (tokenizer.ggml.pre) is not built in",
			(int)(pre.len < 64 ? pre.len : 64), pre.data);
	t->add_bos = kb_pretok_adds_bos(t->pretok);
	for (int i = 0; i < 512; i++)
		table[i] = (int16_t)byte_of(i);
	if (load_pieces(t, table))
		return kb_fail(err, KB_ENOMEM, "no memory for the tokens' texts");
	for (int i = 0; i < 256; i++) {
		char byte = (char)i;
		t->byte_id[i] = kb__tok_lookup(t, &byte, 1);
		if (t->byte_id[i] != KB_TOK_NONE && !kb__tok_is_text(t, t->byte_id[i]))
			t->byte_id[i] = KB_TOK_NONE;
	}
	return load_merges(t, meta, table, err);
}

static bool pair_of_tokens(const struct kb_tok *t, const struct kb__work *w, const struct kb__symbol *a,
	const struct kb__symbol *b, double *ret_cost, uint32_t *ret_id)
{
	(void)w;
	const struct kb__merge *m = find_merge(t, a->id, b->id);
	if (!m)
		return false;
	*ret_cost = m->rank;
	*ret_id = m->result;
	return true;
}

static int encode_piece(const struct kb_tok *t, struct kb__work *w, const char *text, size_t len)
{
	if (len > 1 && kb_pretok_ignores_merges(t->pretok)) {
		uint32_t id = kb__tok_lookup(t, text, len);
		if (id != KB_TOK_NONE && kb__tok_is_text(t, id))
			return kb__emit(w, id);
	}
	w->text = text;
	w->n_symbols = len;
	for (size_t i = 0; i < len; i++)
		w->symbols[i] = (struct kb__symbol){.prev = i ? (uint32_t)i - 1 : UINT32_MAX,
			.next = i + 1 < len ? (uint32_t)i + 1 : UINT32_MAX,
			.at = (uint32_t)i,
			.len = 1,
			.id = t->byte_id[(uint8_t)text[i]]};
	int r = kb__merge(t, w, pair_of_tokens);
	for (uint32_t i = 0; r == 0 && i != UINT32_MAX; i = w->symbols[i].next)
		if (w->symbols[i].id != KB_TOK_NONE || t->unk != KB_TOK_NONE)
			r = kb__emit(w, w->symbols[i].id != KB_TOK_NONE ? w->symbols[i].id : t->unk);
	return r;
}

int kb__bbpe_encode(const struct kb_tok *t, struct kb__work *w, const char *text, size_t len)
{
	struct kb_char *chars = malloc((len + 1) * sizeof *chars);
	uint32_t *ends = malloc(2 * (len + 1) * sizeof *ends);
	w->symbols = malloc((len + 1) * sizeof *w->symbols);
	int r = chars && ends && w->symbols ? 0 : KB_ENOMEM;
	if (r == 0) {
		size_t n = kb_pretok_chars(text, len, chars);
		size_t pieces = kb_pretok_split(t->pretok, chars, n, ends, ends + len + 1);
		uint32_t begin = 0;
		for (size_t i = 0; r == 0 && i < pieces; i++) {
			uint32_t end = chars[ends[i]].at;
			r = encode_piece(t, w, text + begin, end - begin);
			begin = end;
		}
	}
	free(w->symbols);
	w->symbols = NULL;
	free(ends);
	free(chars);
	return r;
}
