// Control tokens out of the text, then the kind's own encoding of what lies between.
#include "text/tok_internal.h"

#include <stdlib.h>
#include <string.h>

// A place where special tokens begin, and the longest of them not yet refused.
struct match {
	uint32_t at, len, id;
};

struct text {
	char *data;
	uint32_t len;
	uint32_t *trusted_to; // per span: [begin, end) pairs of trusted stretches
	size_t n_trusted;
};

int kb__emit(struct kb__work *w, uint32_t id)
{
	if (w->n_ids == w->cap)
		return KB_ELIMIT;
	w->ids[w->n_ids++] = id;
	return 0;
}

static int text_init(struct text *x, const struct kb_span *spans, size_t n_spans)
{
	size_t len = 0;
	for (size_t i = 0; i < n_spans; i++) {
		if (spans[i].len > KB_TOK_TEXT_MAX - len)
			return KB_ELIMIT;
		len += spans[i].len;
	}
	x->data = malloc(len + 1);
	x->trusted_to = malloc((2 * n_spans + 1) * sizeof *x->trusted_to);
	if (!x->data || !x->trusted_to)
		return KB_ENOMEM;
	for (size_t i = 0; i < n_spans; i++) {
		if (spans[i].len)
			memcpy(x->data + x->len, spans[i].data, spans[i].len);
		uint32_t end = x->len + (uint32_t)spans[i].len;
		if (spans[i].trusted && x->n_trusted && x->trusted_to[2 * x->n_trusted - 1] == x->len) {
			x->trusted_to[2 * x->n_trusted - 1] = end;
		} else if (spans[i].trusted) {
			x->trusted_to[2 * x->n_trusted] = x->len;
			x->trusted_to[2 * x->n_trusted + 1] = end;
			x->n_trusted++;
		}
		x->len = end;
	}
	return 0;
}

static bool is_trusted(const struct text *x, uint32_t at, uint32_t len)
{
	size_t low = 0, high = x->n_trusted;
	while (low < high) { // the first stretch that ends after `at`
		size_t mid = (low + high) / 2;
		if (x->trusted_to[2 * mid + 1] > at)
			high = mid;
		else
			low = mid + 1;
	}
	return low < x->n_trusted && x->trusted_to[2 * low] <= at && x->trusted_to[2 * low + 1] >= at + len;
}

// Narrows [*lo, *hi) of t->special, which agree in their first depth bytes, to those whose next byte is this one.
static void narrow(const struct kb_tok *t, uint32_t depth, uint8_t byte, uint32_t *lo, uint32_t *hi)
{
	uint32_t bound[2];
	for (int last = 0; last < 2; last++) {
		uint32_t low = last ? bound[0] : *lo, high = *hi;
		while (low < high) {
			uint32_t mid = low + (high - low) / 2;
			struct kb_str s = t->raw[t->special[mid]];
			int next = s.len > depth ? (uint8_t)s.data[depth] : -1;
			if (next < byte + last)
				low = mid + 1;
			else
				high = mid;
		}
		bound[last] = low;
	}
	*lo = bound[0];
	*hi = bound[1];
}

// The longest special token at m->at that is shorter than limit; false: none.
static bool match_here(const struct kb_tok *t, const struct text *x, size_t limit, struct match *m)
{
	uint8_t byte = (uint8_t)x->data[m->at];
	uint32_t lo = t->special_begin[byte], hi = t->special_begin[byte + 1], left = x->len - m->at;
	bool found = false;
	for (uint32_t depth = 1; lo < hi && depth < limit; depth++) {
		uint32_t id = t->special[lo];
		if (t->raw[id].len == depth && (t->type[id] == KB__USER || is_trusted(x, m->at, depth))) {
			m->len = depth;
			m->id = id;
			found = true;
		}
		if (depth == left)
			break;
		narrow(t, depth, (uint8_t)x->data[m->at + depth], &lo, &hi);
	}
	return found;
}

static int find_matches(const struct kb_tok *t, const struct text *x, struct kb_buf *matches)
{
	int r = 0;
	for (uint32_t at = 0; r == 0 && at < x->len; at++) {
		struct match m = {.at = at};
		if (match_here(t, x, SIZE_MAX, &m))
			r = kb_buf_append(matches, &m, sizeof m);
	}
	return r;
}

// Longer tokens win over shorter ones that overlap them, wherever they begin; the leftmost among equals: what
// llama.cpp's search for one token after the other, longest first, comes to. One entry for each place, so that a text
// of a million newlines (Gemma has tokens of 1 to 31) costs one walk for each length. taken: 0 for each byte of
// the text. Returns how many are kept, in order.
static size_t choose(const struct kb_tok *t, const struct text *x, struct match *m, size_t n, uint8_t *taken)
{
	enum { FREE, TAKEN, BEGIN };
	for (uint32_t i = 0; i < t->n_special_lens && n; i++) {
		uint32_t len = t->special_lens[i];
		size_t left = 0;
		for (size_t k = 0; k < n; k++) {
			struct match c = m[k];
			if (taken[c.at] == TAKEN)
				continue; // within another
			if (taken[c.at] == FREE && c.len == len && taken[c.at + len - 1] == FREE) {
				memset(taken + c.at, TAKEN, len); // no shorter one is in between: they come later
				taken[c.at] = BEGIN;
			} else if (taken[c.at] == FREE && c.len == len && !match_here(t, x, len, &c)) {
				continue;
			}
			m[left++] = c;
		}
		n = left;
	}
	return n;
}

static int encode_between(const struct kb_tok *t, struct kb__work *w, const char *text, size_t len)
{
	if (!len)
		return 0;
	return t->is_bbpe ? kb__bbpe_encode(t, w, text, len) : kb__spbpe_encode(t, w, text, len);
}

static int encode_text(const struct kb_tok *t, struct kb__work *w, const struct text *x)
{
	struct kb_buf found = {0};
	uint8_t *taken = NULL;
	uint32_t at = 0;
	int r = find_matches(t, x, &found);
	struct match *m = (struct match *)(void *)found.data;
	size_t n = found.len / sizeof *m;
	if (r == 0 && n) {
		taken = calloc(x->len, 1);
		r = taken ? 0 : KB_ENOMEM;
		n = taken ? choose(t, x, m, n, taken) : 0;
	}
	for (size_t i = 0; r == 0 && i < n; i++) {
		r = encode_between(t, w, x->data + at, m[i].at - at);
		if (r == 0)
			r = kb__emit(w, m[i].id);
		at = m[i].at + m[i].len;
	}
	if (r == 0)
		r = encode_between(t, w, x->data + at, x->len - at);
	free(taken);
	kb_buf_finish(&found);
	return r;
}

int kb_tok_encode(const struct kb_tok *t, const struct kb_span *spans, size_t n_spans, unsigned flags, uint32_t *ids,
	size_t cap, size_t *ret_n)
{
	struct kb__work w = {.ids = ids, .cap = cap};
	struct text x = {0};
	int r = text_init(&x, spans, n_spans);
	if (r == 0 && (flags & KB_TOK_BOS) && t->add_bos)
		r = kb__emit(&w, t->bos);
	if (r == 0)
		r = encode_text(t, &w, &x);
	if (r == 0 && (flags & KB_TOK_BOS) && t->add_eos && t->eos != KB_TOK_NONE)
		r = kb__emit(&w, t->eos);
	if (r == 0)
		*ret_n = w.n_ids;
	kb_buf_finish(&w.heap);
	free(x.data);
	free(x.trusted_to);
	return r;
}

// --- merging -------------------------------------------------------------------

static bool goes_before(const struct kb__candidate *a, const struct kb__candidate *b)
{
	return a->cost < b->cost || (a->cost == b->cost && a->left < b->left);
}

static int heap_push(struct kb_buf *heap, const struct kb__candidate *c)
{
	int r = kb_buf_append(heap, c, sizeof *c);
	if (r)
		return r;
	struct kb__candidate *h = (struct kb__candidate *)(void *)heap->data;
	size_t i = heap->len / sizeof *h - 1;
	while (i && goes_before(c, &h[(i - 1) / 2])) {
		h[i] = h[(i - 1) / 2];
		i = (i - 1) / 2;
	}
	h[i] = *c;
	return 0;
}

static struct kb__candidate heap_pop(struct kb_buf *heap)
{
	struct kb__candidate *h = (struct kb__candidate *)(void *)heap->data;
	struct kb__candidate top = h[0];
	size_t n = heap->len / sizeof *h - 1, i = 0;
	struct kb__candidate last = h[n];
	heap->len -= sizeof *h;
	for (;;) {
		size_t child = 2 * i + 1;
		if (child >= n)
			break;
		if (child + 1 < n && goes_before(&h[child + 1], &h[child]))
			child++;
		if (!goes_before(&h[child], &last))
			break;
		h[i] = h[child];
		i = child;
	}
	if (n)
		h[i] = last;
	return top;
}

static int consider(const struct kb_tok *t, struct kb__work *w, kb__pair *pair, uint32_t left, uint32_t right)
{
	struct kb__candidate c = {.left = left, .right = right};
	if (left == UINT32_MAX || right == UINT32_MAX)
		return 0;
	const struct kb__symbol *a = &w->symbols[left], *b = &w->symbols[right];
	if (!pair(t, w, a, b, &c.cost, &c.id))
		return 0;
	c.len = a->len + b->len;
	return heap_push(&w->heap, &c);
}

int kb__merge(const struct kb_tok *t, struct kb__work *w, kb__pair *pair)
{
	int r = 0;
	w->heap.len = 0;
	for (size_t i = 1; r == 0 && i < w->n_symbols; i++)
		r = consider(t, w, pair, (uint32_t)i - 1, (uint32_t)i);
	while (r == 0 && w->heap.len) {
		struct kb__candidate c = heap_pop(&w->heap);
		struct kb__symbol *a = &w->symbols[c.left], *b = &w->symbols[c.right];
		if (!a->len || !b->len || a->next != c.right || a->len + b->len != c.len)
			continue; // one of the two has merged otherwise since
		a->len = c.len;
		a->id = c.id;
		a->next = b->next;
		b->len = 0;
		if (b->next != UINT32_MAX)
			w->symbols[b->next].prev = c.left;
		r = consider(t, w, pair, a->prev, c.left);
		if (r == 0)
			r = consider(t, w, pair, c.left, a->next);
	}
	return r;
}
