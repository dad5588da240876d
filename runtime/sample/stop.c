/* see stop.h */
#include "sample/stop.h"

#include <stdlib.h>
#include <string.h>

static int add(struct kb_stops *s, struct kb_str string, struct kb_err *err)
{
	if (string.len == 0)
		return 0;
	if (s->n == KB_STOPS_MAX)
		return kb_fail(err, KB_EARG, "more than %u stop strings", KB_STOPS_MAX);
	if (string.len > KB_STOP_BYTES_MAX)
		return kb_fail(err, KB_EARG, "a stop string of %zu bytes; the most is %u", string.len, KB_STOP_BYTES_MAX);
	struct kb_stop *stop = &s->stop[s->n];
	*stop = (struct kb_stop){.len = (uint16_t)string.len};
	stop->text = malloc(string.len);
	stop->fail = calloc(string.len, sizeof *stop->fail);
	s->n++;
	if (!stop->text || !stop->fail)
		return kb_fail(err, KB_ENOMEM, "no memory for stop strings");
	memcpy(stop->text, string.data, string.len);
	uint16_t k = 0;
	for (uint16_t i = 1; i < stop->len; i++) {
		while (k > 0 && stop->text[k] != stop->text[i])
			k = stop->fail[k - 1];
		k = (uint16_t)(k + (stop->text[k] == stop->text[i]));
		stop->fail[i] = k;
	}
	return 0;
}

int kb_stops_init(struct kb_stops *s, const struct kb_str *strings, uint32_t n, struct kb_err *err)
{
	*s = (struct kb_stops){0};
	for (uint32_t i = 0; i < n; i++) {
		int e = add(s, strings[i], err);
		if (e) {
			kb_stops_finish(s);
			return e;
		}
	}
	return 0;
}

void kb_stops_finish(struct kb_stops *s)
{
	for (uint32_t i = 0; i < s->n; i++) {
		free(s->stop[i].text);
		free(s->stop[i].fail);
	}
	kb_buf_finish(&s->held);
	*s = (struct kb_stops){0};
}

// Takes one byte. Returns the length of the longest stop string that it completes, or 0.
static uint16_t advance(struct kb_stops *s, uint8_t byte)
{
	uint16_t longest = 0;
	for (uint32_t i = 0; i < s->n; i++) {
		struct kb_stop *stop = &s->stop[i];
		while (stop->matched > 0 && stop->text[stop->matched] != byte)
			stop->matched = stop->fail[stop->matched - 1];
		stop->matched = (uint16_t)(stop->matched + (stop->text[stop->matched] == byte));
		if (stop->matched == stop->len && stop->len > longest)
			longest = stop->len;
	}
	return longest;
}

int kb_stops_push(struct kb_stops *s, struct kb_str piece, struct kb_buf *out, bool *ret_stopped)
{
	if (s->is_stopped) {
		*ret_stopped = true;
		return 0;
	}
	size_t i = s->held.len, keep = 0;
	int e = kb_buf_append(&s->held, piece.data, piece.len);
	if (!e)
		e = kb_buf_reserve(out, s->held.len);
	if (e)
		return e;
	for (; i < s->held.len && !s->is_stopped; i++) {
		keep = advance(s, s->held.data[i]);
		s->is_stopped = keep > 0;
	}
	size_t end = i; // of the stop string, or of the text
	for (uint32_t n = 0; n < s->n && !s->is_stopped; n++)
		keep = s->stop[n].matched > keep ? s->stop[n].matched : keep;
	e = kb_buf_append(out, s->held.data, end - keep);
	kb_buf_consume(&s->held, s->is_stopped ? s->held.len : end - keep);
	*ret_stopped = s->is_stopped;
	return e;
}

int kb_stops_flush(struct kb_stops *s, struct kb_buf *out)
{
	int e = kb_buf_append(out, s->held.data, s->held.len);
	if (!e)
		kb_buf_consume(&s->held, s->held.len);
	return e;
}
