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
