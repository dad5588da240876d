#include "storage/seal.h"
#include "storage/fields.h"
#include "storage/seal_key.h"
#include <mbedtls/platform_util.h>
#include <nettle/sha2.h>
#include <stdlib.h>
#include <string.h>

struct kb_seal {
	kb_seal_sink sink;
	void *ctx;
	psa_key_id_t key;
	uint64_t chunk;
	uint8_t head_hash[32];
	size_t have;
	uint8_t plain[KB_SEAL_CHUNK], cipher[KB_SEAL_CHUNK + KB_SEAL_TAG];
};

bool kb_seal_is(const uint8_t *bytes, size_t len)
{
	return len >= 8 && memcmp(bytes, KB_SEAL_MAGIC, 8) == 0;
}

static int put_head(struct kb_seal *s, const struct kb_public_key *to, uint32_t n, struct kb_err *err)
{
	uint8_t key[KB_SEAL_KEY], head[KB_SEAL_HEAD_MAX] = KB_SEAL_MAGIC;
	struct sha256_ctx sha;
	size_t len = KB_SEAL_HEAD + (size_t)n * KB_SEAL_ROW;
	int r = psa_generate_random(key, sizeof key) == PSA_SUCCESS ? KB_OK : kb_fail(err, KB_EIO, "no random numbers");
	kb_field_put(head + 8, n, 4);
	for (uint32_t i = 0; i < n && r == KB_OK; i++)
		r = kb__seal_wrap(&to[i], key, err, head + KB_SEAL_HEAD + (size_t)i * KB_SEAL_ROW);
	r = r ? r : kb__seal_aes(key, err, &s->key);
	mbedtls_platform_zeroize(key, sizeof key);
	if (r)
		return r;
	sha256_init(&sha);
	sha256_update(&sha, len, head);
	sha256_digest(&sha, sizeof s->head_hash, s->head_hash);
	return s->sink(s->ctx, head, len, err);
}

/* see seal.h */
int kb_seal_begin(
	const struct kb_public_key *to, uint32_t n, kb_seal_sink sink, void *ctx, struct kb_err *err, struct kb_seal **ret)
{
	if (n == 0 || n > KB_SEAL_RECEIVERS_MAX)
		return kb_fail(err, KB_EARG, "a file is sealed for 1 to %u receivers", KB_SEAL_RECEIVERS_MAX);
	if (psa_crypto_init() != PSA_SUCCESS)
		return kb_fail(err, KB_EIO, "the cryptographic library failed");
	struct kb_seal *s = calloc(1, sizeof *s);
	if (!s)
		return kb_fail(err, KB_ENOMEM, "out of memory");
	s->sink = sink;
	s->ctx = ctx;
	int r = put_head(s, to, n, err);
	if (r) {
		kb_seal_destroy(s);
		return r;
	}
	*ret = s;
	return KB_OK;
}

static int put_chunk(struct kb_seal *s, bool is_last, struct kb_err *err)
{
	uint8_t nonce[12];
	size_t len = 0;
	kb__seal_nonce(s->chunk++, is_last, nonce);
	if (psa_aead_encrypt(s->key, PSA_ALG_GCM, nonce, sizeof nonce, s->head_hash, sizeof s->head_hash, s->plain, s->have,
			s->cipher, sizeof s->cipher, &len) != PSA_SUCCESS)
		return kb_fail(err, KB_EIO, "the cryptographic library failed");
	s->have = 0;
	return s->sink(s->ctx, s->cipher, len, err);
}

/* see seal.h */
int kb_seal_feed(struct kb_seal *s, const uint8_t *bytes, size_t len, struct kb_err *err)
{
	while (len) {
		if (s->have == KB_SEAL_CHUNK) { // more follows, so it is not the last one
			int r = put_chunk(s, false, err);
			if (r)
				return r;
		}
		size_t n = KB_SEAL_CHUNK - s->have < len ? KB_SEAL_CHUNK - s->have : len;
		memcpy(s->plain + s->have, bytes, n);
		s->have += n;
		bytes += n;
		len -= n;
	}
	return KB_OK;
}

/* see seal.h */
int kb_seal_end(struct kb_seal *s, struct kb_err *err)
{
	return put_chunk(s, true, err);
}

/* see seal.h */
void kb_seal_destroy(struct kb_seal *s)
{
	if (!s)
		return;
	psa_destroy_key(s->key);
	mbedtls_platform_zeroize(s->plain, sizeof s->plain);
	free(s);
}
