// Monotonic time.
#pragma once
#include <stdint.h>

uint64_t kb_clock_ns(void);
static inline uint64_t kb_clock_ms(void)
{
	return kb_clock_ns() / 1000000;
}
