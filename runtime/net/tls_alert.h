// An alert under the connection's keys, made by hand; see tls.c for why.
#pragma once
#include "base/buf.h"
#include "base/err.h"
#include <stdint.h>

#define KB_TLS_SECRET_LEN 32u // of the SHA-256 suites, which are the only ones we speak

enum kb_tls_cipher { KB_TLS_AES_128_GCM, KB_TLS_CHACHA20_POLY1305 };

// Appends the first record of that traffic secret (RFC 8446, 5.2 and 7.3): a fatal alert of that number (6.2).
KB_MUST_CHECK int kb_tls_put_alert(
	struct kb_buf *out, enum kb_tls_cipher cipher, const uint8_t secret[KB_TLS_SECRET_LEN], uint8_t alert);
