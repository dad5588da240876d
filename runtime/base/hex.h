// Bytes as hexadecimal digits.
#pragma once
#include "base/err.h"
#include <stddef.h>
#include <stdint.h>

void kb_hex(const uint8_t *data, size_t len, char *ret);                // 2 * len lower-case digits and NUL
KB_MUST_CHECK int kb_unhex(const char *text, uint8_t *ret, size_t len); // exactly 2 * len digits, else KB_EBAD
