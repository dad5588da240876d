// See limiter.h.
#include "firmware/api/limiter.h"

#include <string.h>

// The client's row; else a free one or the longest quiet one; NULL when every row has something running.
static struct kb_limiter_row *row_of(struct kb_limiter *l, const uint8_t client[32], uint64_t now_ms)
{
	struct kb_limiter_row *best = NULL;
	for (uint32_t i = 0; i < KB_LIMITER_ROWS; i++) {
		struct kb_limiter_row *r = &l->rows[i];
		if (r->is_used && memcmp(r->client, client, 32) == 0)
			return r;
		if (r->is_used && r->running)
			continue;
		if (!best || (best->is_used && (!r->is_used || r->seen_ms < best->seen_ms)))
			best = r;
	}
	if (best) {
		*best = (struct kb_limiter_row){.is_used = true, .tokens = 2.0 * l->rate, .seen_ms = now_ms};
		memcpy(best->client, client, 32);
	}
	return best;
}

int kb_limiter_take(struct kb_limiter *l, const uint8_t client[32], uint64_t now_ms)
{
	if (l->rate == 0)
		return 0;
	struct kb_limiter_row *r = row_of(l, client, now_ms);
	if (!r)
		return 1;
	r->tokens += (double)(now_ms - r->seen_ms) / 1000.0 * l->rate;
	if (r->tokens > 2.0 * l->rate)
		r->tokens = 2.0 * l->rate;
	r->seen_ms = now_ms;
	if (r->tokens < 1)
		return 1 + (int)((1 - r->tokens) / l->rate);
	r->tokens -= 1;
	return 0;
}

bool kb_limiter_enter(struct kb_limiter *l, const uint8_t client[32], uint64_t now_ms)
{
	struct kb_limiter_row *r = row_of(l, client, now_ms);
	if (!r || (l->running_max && r->running >= l->running_max))
		return false;
	r->running++;
	return true;
}

void kb_limiter_leave(struct kb_limiter *l, const uint8_t client[32])
{
	for (uint32_t i = 0; i < KB_LIMITER_ROWS; i++)
		if (l->rows[i].is_used && l->rows[i].running && memcmp(l->rows[i].client, client, 32) == 0)
			l->rows[i].running--;
}
