// SentencePiece BPE as in Llama 2 and Gemma: characters merge by the score of what they become, the highest first,
// the leftmost among equals; what is no token in the end falls back to byte tokens. Spaces are U+2581.
// Source: github.com/google/sentencepiece, src/bpe_model.cc.
#include "text/tok_internal.h"

#include <stdlib.h>
#include <string.h>

#define SPACE "\xe2\x96\x81" // U+2581

static int hex(char c)
{
	return c >= '0' && c <= '9'   ? c - '0'
		   : c >= 'A' && c <= 'F' ? c - 'A' + 10
		   : c >= 'a' && c <= 'f' ? c - 'a' + 10
								  : -1;
}

// "<0x0A>"
static int byte_token(struct kb_str s)
{
	if (s.len != 6 || memcmp(s.data, "<0x", 3) != 0 || s.data[5] != '>' || hex(s.data[3]) < 0 || hex(s.data[4]) < 0)
		return -1;
	return hex(s.data[3]) * 16 + hex(s.data[4]);
}

static struct kb_str unescape(struct kb_str s, uint8_t *out)
{
	size_t n = 0;
	for (size_t i = 0; i < s.len;) {
		if (s.len - i >= 3 && memcmp(s.data + i, SPACE, 3) == 0) {
			out[n++] = ' ';
			i += 3;
		} else {
			out[n++] = (uint8_t)s.data[i++];
		}
	}
	return (struct kb_str){(const char *)out, n};
}

static int load_scores(struct kb_tok *t, const struct kb_meta_source *meta, struct kb_err *err)
{
	struct kb_meta_value v;
	if (meta->find(meta->ctx, "tokenizer.ggml.scores", &v) || !v.is_array || v.type != KB_META_F32 || v.count != t->n)
		return kb_fail(err, KB_EBAD, "tokenizer.ggml.scores does not have one f32 for each of %u tokens", t->n);
	t->score = malloc(t->n * sizeof *t->score);
	if (!t->score)
		return kb_fail(err, KB_ENOMEM, "no memory for %u scores", t->n);
	for (uint32_t i = 0; i < t->n; i++) {
		t->score[i] = (float)kb_meta_array_f64(&v, i);
		if (t->score[i] != t->score[i])
			return kb_fail(err, KB_EBAD, "tokenizer.ggml.scores: entry %u is not a number", i);
	}
	return 0;
}

int kb__spbpe_load(struct kb_tok *t, const struct kb_meta_source *meta, struct kb_err *err)
{
	size_t total = 1, used = 0;
	int r = load_scores(t, meta, err);
	if (r)
		return r;
	for (uint32_t i = 0; i < t->n; i++)
		total += t->raw[i].len;
	t->pool = malloc(total);
	if (!t->pool || kb__tok_index(t))
		return kb_fail(err, KB_ENOMEM, "no memory for the tokens' texts");
	for (uint32_t i = 0; i < t->n; i++) {
		int byte = t->type[i] == KB__BYTE ? byte_token(t->raw[i]) : -1;
		if (byte >= 0) {
			t->pool[used] = (uint8_t)byte;
			t->piece[i] = (struct kb_str){(const char *)t->pool + used, 1};
			t->byte_id[byte] = i;
		} else {
			t->piece[i] = unescape(t->raw[i], t->pool + used);
		}
		used += t->piece[i].len;
	}
	t->add_bos = true; // the kind's defaults where the file says nothing
	t->add_space = true;
	return 0;
}

static bool pair_of_text(const struct kb_tok *t, const struct kb__work *w, const struct kb__symbol *a,
	const struct kb__symbol *b, double *ret_cost, uint32_t *ret_id)
{
	uint32_t id = kb__tok_lookup(t, w->text + a->at, a->len + b->len);
	if (id == KB_TOK_NONE || !kb__tok_is_text(t, id))
		return false;
	*ret_cost = -(double)t->score[id];
	*ret_id = id;
	return true;
}

static uint32_t char_len(const char *text, size_t left)
{
	static const uint8_t by_lead[16] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 3, 4};
	size_t n = by_lead[(uint8_t)text[0] >> 4];
	return (uint32_t)(n < left ? n : left);
}

static int emit_symbol(const struct kb_tok *t, struct kb__work *w, const struct kb__symbol *s)
{
	uint32_t id = kb__tok_lookup(t, w->text + s->at, s->len);
	if (id != KB_TOK_NONE && kb__tok_is_text(t, id))
		return kb__emit(w, id);
	for (uint32_t i = 0; i < s->len; i++) {
		id = t->byte_id[(uint8_t)w->text[s->at + i]];
		int r = id != KB_TOK_NONE || t->unk != KB_TOK_NONE ? kb__emit(w, id != KB_TOK_NONE ? id : t->unk) : 0;
		if (r)
			return r;
	}
	return 0;
}

// ret: room for 3 * (len + 1) bytes.
static size_t escape(const struct kb_tok *t, const char *text, size_t len, char *ret)
{
	size_t n = 0;
	for (size_t i = 0; i < len + t->add_space; i++) {
		char c = i < t->add_space ? ' ' : text[i - t->add_space];
		if (c == ' ') {
			memcpy(ret + n, SPACE, 3);
			n += 3;
		} else {
			ret[n++] = c;
		}
	}
	return n;
}

int kb__spbpe_encode(const struct kb_tok *t, struct kb__work *w, const char *text, size_t len)
{
	char *escaped = malloc(3 * (len + 1));
	size_t n = escaped ? escape(t, text, len, escaped) : 0, count = 0;
	// One symbol a character, but a stray lead byte takes bytes of the U+2581 after it: up to one a byte.
	w->symbols = malloc((n + 1) * sizeof *w->symbols);
	int r = escaped && w->symbols ? 0 : KB_ENOMEM;
	if (r == 0) {
		w->text = escaped;
		for (size_t at = 0; at < n; count++) {
			uint32_t k = char_len(escaped + at, n - at);
			w->symbols[count] = (struct kb__symbol){.prev = count ? (uint32_t)count - 1 : UINT32_MAX,
				.next = (uint32_t)count + 1,
				.at = (uint32_t)at,
				.len = k};
			at += k;
		}
		w->symbols[count - 1].next = UINT32_MAX;
		w->n_symbols = count;
		r = kb__merge(t, w, pair_of_text);
		for (uint32_t i = 0; r == 0 && i != UINT32_MAX; i = w->symbols[i].next)
			r = emit_symbol(t, w, &w->symbols[i]);
	}
	free(w->symbols);
	w->symbols = NULL;
	free(escaped);
	return r;
}
