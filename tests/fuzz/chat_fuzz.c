// Chat templates and conversations from outside. Input: a byte for the frame (255: the one whose template follows),
// then turns: u8 role (or its length where above 3, and the role), u8 length, content; the rest is the template.
#include "text/chat.h"

#include <stdlib.h>
#include <string.h>

#define TURNS 24

struct source {
	uint8_t *value;
	size_t len;
};

static int find(void *ctx, const char *key, struct kb_meta_value *ret)
{
	struct source *s = ctx;
	if (strcmp(key, "tokenizer.chat_template") != 0)
		return KB_ENOTFOUND;
	*ret = (struct kb_meta_value){KB_META_STRING, false, 1, s->value, s->len};
	return 0;
}

static const struct kb_chat_frame *frame_of(uint8_t which, const uint8_t *template, size_t len)
{
	const struct kb_chat_frame *f = NULL;
	const uint64_t size = len;
	size_t n = 0;
	if (which != 255) {
		while (kb_chat_at(n))
			n++;
		return kb_chat_at(which % n);
	}
	struct source s = {malloc(8 + len), 8 + len};
	if (!s.value)
		return NULL;
	memcpy(s.value, &size, 8);
	if (len)
		memcpy(s.value + 8, template, len);
	const struct kb_meta_source meta = {&s, find};
	if (kb_chat_find(&meta, NULL, &f))
		f = NULL;
	free(s.value);
	return f;
}

// Untrusted spans lie within contents, in order; trusted ones do not point there.
static void check(const struct kb_span *spans, size_t n, const uint8_t *data, size_t size)
{
	for (size_t i = 0; i < n; i++) {
		const uint8_t *p = (const uint8_t *)spans[i].data;
		bool is_input = p >= data && p < data + size;
		if (!spans[i].len || spans[i].trusted == is_input || (is_input && spans[i].len > (size_t)(data + size - p)))
			abort();
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char *const roles[] = {"system", "user", "assistant", "developer"};
	struct kb_chat_turn turns[TURNS];
	struct kb_span spans[6 * TURNS + 8];
	struct kb_err err = {0};
	size_t at = 1, n = 0, n_spans;
	if (!size)
		return 0;
	while (n < TURNS && size - at >= 2) {
		struct kb_chat_turn *t = &turns[n];
		if (data[at] <= 3) {
			t->role = (struct kb_str){roles[data[at]], strlen(roles[data[at]])};
			at++;
		} else {
			size_t len = data[at] < size - at ? data[at] : size - at - 1;
			t->role = (struct kb_str){(const char *)data + at + 1, len};
			at += 1 + len;
		}
		if (at == size)
			break;
		size_t len = data[at] < size - at ? data[at] : size - at - 1;
		t->content = (struct kb_str){(const char *)data + at + 1, len};
		at += 1 + len;
		n++;
	}
	const struct kb_chat_frame *f = frame_of(data[0], data + at, size - at);
	if (f && kb_chat_bound(n) <= sizeof spans / sizeof *spans) {
		int r = kb_chat_render(f, turns, n, spans, kb_chat_bound(n), &err, &n_spans);
		if (r == KB_ELIMIT || (r && !err.text[0]))
			abort(); // the bound is a promise, and so is the reason
		if (r == 0)
			check(spans, n_spans, data, size);
	}
	return 0;
}
