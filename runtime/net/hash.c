// SHA-256, randomness, hexadecimal, constant-time comparison. See x509.h.
#include "net/x509.h"

#include <mbedtls/platform_util.h>
#include <mbedtls/sha256.h>
#include <psa/crypto.h>
#include <string.h>

void kb_sha256(const void *data, size_t len, uint8_t ret[32])
{
	// Fails only where a hardware accelerator does; there is none below this library's own C code.
	if (mbedtls_sha256(data, len, ret, 0))
		memset(ret, 0, 32);
}

int kb_random(void *ret, size_t len, struct kb_err *err)
{
	psa_status_t s = psa_generate_random(ret, len);
	return s == PSA_SUCCESS ? 0 : kb_fail(err, KB_EIO, "no random bytes: status %d", (int)s);
}

void kb_hex(const uint8_t *data, size_t len, char *ret)
{
	for (size_t i = 0; i < len; i++) {
		ret[2 * i] = "0123456789abcdef"[data[i] >> 4];
		ret[2 * i + 1] = "0123456789abcdef"[data[i] & 15];
	}
	ret[2 * len] = 0;
}

static int nibble(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

int kb_unhex(const char *text, uint8_t *ret, size_t len)
{
	if (strlen(text) != 2 * len)
		return KB_EBAD;
	for (size_t i = 0; i < 2 * len; i++)
		if (nibble(text[i]) < 0)
			return KB_EBAD;
	for (size_t i = 0; i < len; i++)
		ret[i] = (uint8_t)(nibble(text[2 * i]) << 4 | nibble(text[2 * i + 1]));
	return 0;
}

bool kb_equal_constant_time(const void *a, const void *b, size_t len)
{
	const volatile uint8_t *x = a, *y = b;
	uint8_t difference = 0;
	for (size_t i = 0; i < len; i++)
		difference |= (uint8_t)(x[i] ^ y[i]);
	return difference == 0;
}

void kb_wipe(struct kb_buf *b)
{
	if (b->data)
		mbedtls_platform_zeroize(b->data, b->cap);
	kb_buf_finish(b);
}
