// A client's share: generations at once, and requests a second (token bucket with room for two seconds). Pure.
#pragma once
#include "firmware/api/limits.h"
#include <stdbool.h>
#include <stdint.h>

struct kb_limiter_row {
	uint8_t client[32];
	bool is_used;
	uint32_t running;
	double tokens;
	uint64_t seen_ms;
};

struct kb_limiter {
	uint32_t rate, running_max; // requests a second, generations at once; 0: no limit
	struct kb_limiter_row rows[KB_LIMITER_ROWS];
};

// 0, or the seconds after which to try again.
int kb_limiter_take(struct kb_limiter *l, const uint8_t client[32], uint64_t now_ms);
// False: too many at once. Each true is ended by kb_limiter_leave().
bool kb_limiter_enter(struct kb_limiter *l, const uint8_t client[32], uint64_t now_ms);
void kb_limiter_leave(struct kb_limiter *l, const uint8_t client[32]);
