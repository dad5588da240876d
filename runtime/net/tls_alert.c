// See tls_alert.h.
#include "net/tls_alert.h"

#include <mbedtls/chachapoly.h>
#include <mbedtls/gcm.h>
#include <mbedtls/md.h>
#include <mbedtls/platform_util.h>
#include <string.h>

enum { FATAL = 2, TYPE_ALERT = 21, TYPE_APPLICATION_DATA = 23, TAG = 16, IV = 12 };

// HKDF-Expand-Label(secret, label, "", len) with SHA-256 and len <= 32: one block of HKDF's expansion.
static int expand(const uint8_t *secret, const char *label, uint8_t *ret, size_t len)
{
	uint8_t info[32] = {0, (uint8_t)len}, block[32];
	size_t n = 6 + strlen(label);
	info[2] = (uint8_t)n;
	memcpy(info + 3, "tls13 ", 6);
	memcpy(info + 9, label, n - 6);
	info[3 + n] = 0;     // no context
	info[3 + n + 1] = 1; // the first block
	int r =
		mbedtls_md_hmac(mbedtls_md_info_from_type(MBEDTLS_MD_SHA256), secret, KB_TLS_SECRET_LEN, info, n + 5, block);
	memcpy(ret, block, len);
	mbedtls_platform_zeroize(block, sizeof block);
	return r;
}

static int seal(enum kb_tls_cipher cipher, const uint8_t *key, const uint8_t *iv, const uint8_t *head,
	const uint8_t *text, size_t len, uint8_t *ret)
{
	int r;
	if (cipher == KB_TLS_AES_128_GCM) {
		mbedtls_gcm_context gcm;
		mbedtls_gcm_init(&gcm);
		r = mbedtls_gcm_setkey(&gcm, MBEDTLS_CIPHER_ID_AES, key, 128);
		if (r == 0)
			r = mbedtls_gcm_crypt_and_tag(&gcm, MBEDTLS_GCM_ENCRYPT, len, iv, IV, head, 5, text, ret, TAG, ret + len);
		mbedtls_gcm_free(&gcm);
		return r;
	}
	mbedtls_chachapoly_context poly;
	mbedtls_chachapoly_init(&poly);
	r = mbedtls_chachapoly_setkey(&poly, key);
	if (r == 0)
		r = mbedtls_chachapoly_encrypt_and_tag(&poly, len, iv, head, 5, text, ret, ret + len);
	mbedtls_chachapoly_free(&poly);
	return r;
}

int kb_tls_put_alert(
	struct kb_buf *out, enum kb_tls_cipher cipher, const uint8_t secret[KB_TLS_SECRET_LEN], uint8_t alert)
{
	uint8_t key[32], iv[IV];
	const uint8_t text[3] = {FATAL, alert, TYPE_ALERT};
	uint8_t record[5 + sizeof text + TAG] = {TYPE_APPLICATION_DATA, 3, 3, 0, sizeof text + TAG};
	int r = expand(secret, "key", key, cipher == KB_TLS_AES_128_GCM ? 16 : 32);
	if (r == 0)
		r = expand(secret, "iv", iv, IV); // the first record's number is 0: the nonce is the IV itself
	if (r == 0)
		r = seal(cipher, key, iv, record, text, sizeof text, record + 5);
	mbedtls_platform_zeroize(key, sizeof key);
	return r ? KB_EIO : kb_buf_append(out, record, sizeof record);
}
