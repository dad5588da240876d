// The reading half of seal.h.
#include "storage/fields.h"
#include "storage/seal.h"
#include "storage/seal_key.h"
#include <inttypes.h>
#include <mbedtls/pk.h>
#include <mbedtls/platform_util.h>
#include <mbedtls/psa_util.h>
#include <nettle/sha2.h>
#include <stdlib.h>
#include <string.h>

#define CIPHER_CHUNK (KB_SEAL_CHUNK + KB_SEAL_TAG)

struct kb_unseal {
	kb_seal_sink sink;
	void *ctx;
	psa_key_id_t secret, key; // key: 0 until the header was read
	struct kb_public_key own;
	uint64_t chunk;
	uint8_t head_hash[32];
	size_t have, need; // of in: the header's, then a chunk's
	struct kb_err failed;
	uint8_t in[CIPHER_CHUNK], plain[KB_SEAL_CHUNK];
};
_Static_assert(CIPHER_CHUNK >= KB_SEAL_HEAD_MAX, "the header is collected where chunks are");

// The private key, for agreeing on keys only.
static int import(struct kb_unseal *u, const char *pem, struct kb_err *err)
{
	psa_key_attributes_t a = PSA_KEY_ATTRIBUTES_INIT;
	mbedtls_pk_context pk;
	size_t len = 0;
	int r = KB_OK;
	mbedtls_pk_init(&pk);
	if (mbedtls_pk_parse_key(&pk, (const unsigned char *)pem, strlen(pem) + 1, NULL, 0, mbedtls_psa_get_random,
			MBEDTLS_PSA_RANDOM_STATE))
		r = kb_fail(err, KB_EBAD, "not a private key in PEM without a password");
	size_t bits = r ? 0 : mbedtls_pk_get_bitlen(&pk);
	u->own.curve = bits == 256 ? KB_CURVE_P256 : bits == 384 ? KB_CURVE_P384 : 0;
	if (r == KB_OK && (!u->own.curve || mbedtls_pk_get_psa_attributes(&pk, PSA_KEY_USAGE_DERIVE, &a) ||
						  PSA_KEY_TYPE_ECC_GET_FAMILY(psa_get_key_type(&a)) != PSA_ECC_FAMILY_SECP_R1))
		r = kb_fail(err, KB_EUNSUPPORTED, "the key is not one of P-256 or P-384");
	psa_set_key_algorithm(&a, PSA_ALG_ECDH);
	if (r == KB_OK && (mbedtls_pk_import_into_psa(&pk, &a, &u->secret) ||
						  psa_export_public_key(u->secret, u->own.point, sizeof u->own.point, &len) != PSA_SUCCESS))
		r = kb_fail(err, KB_EBAD, "the cryptographic library does not take the key");
	mbedtls_pk_free(&pk);
	return r;
}

/* see seal.h */
int kb_unseal_begin(const char *pem, kb_seal_sink sink, void *ctx, struct kb_err *err, struct kb_unseal **ret)
{
	if (psa_crypto_init() != PSA_SUCCESS)
		return kb_fail(err, KB_EIO, "the cryptographic library failed");
	struct kb_unseal *u = calloc(1, sizeof *u);
	if (!u)
		return kb_fail(err, KB_ENOMEM, "out of memory");
	u->sink = sink;
	u->ctx = ctx;
	u->need = KB_SEAL_HEAD;
	int r = import(u, pem, err);
	if (r) {
		kb_unseal_destroy(u);
		return r;
	}
	*ret = u;
	return KB_OK;
}

/* see seal.h */
void kb_unseal_destroy(struct kb_unseal *u)
{
	if (!u)
		return;
	psa_destroy_key(u->secret);
	psa_destroy_key(u->key);
	mbedtls_platform_zeroize(u->plain, sizeof u->plain);
	free(u);
}

// The fixed part says how long the rest is; then the row for this key is looked for.
static int take_head(struct kb_unseal *u, struct kb_err *err)
{
	uint8_t id[KB_KEY_ID], key[KB_SEAL_KEY];
	struct sha256_ctx sha;
	const uint64_t n = kb_field_get(u->in + 8, 4);
	if (!kb_seal_is(u->in, u->have) || n == 0 || n > KB_SEAL_RECEIVERS_MAX || kb_field_get(u->in + 12, 4))
		return kb_fail(err, KB_EBAD, "this is no sealed file, or one from the future");
	if (u->need == KB_SEAL_HEAD) {
		u->need += (size_t)n * KB_SEAL_ROW;
		return KB_OK;
	}
	kb_key_id(&u->own, id);
	const uint8_t *row = NULL;
	for (uint64_t i = 0; i < n && !row; i++)
		if (memcmp(u->in + KB_SEAL_HEAD + i * KB_SEAL_ROW + KB_ROW_ID, id, sizeof id) == 0)
			row = u->in + KB_SEAL_HEAD + i * KB_SEAL_ROW;
	if (!row)
		return kb_fail(err, KB_EDENIED, "it is sealed for %" PRIu64 " receivers, and this key is none of them", n);
	int r = kb__seal_unwrap(u->secret, &u->own, row, err, key);
	r = r ? r : kb__seal_aes(key, err, &u->key);
	mbedtls_platform_zeroize(key, sizeof key);
	sha256_init(&sha);
	sha256_update(&sha, u->have, u->in);
	sha256_digest(&sha, sizeof u->head_hash, u->head_hash);
	u->have = 0;
	u->need = CIPHER_CHUNK;
	return r;
}

static int take_chunk(struct kb_unseal *u, bool is_last, struct kb_err *err)
{
	uint8_t nonce[12];
	size_t len = 0;
	kb__seal_nonce(u->chunk, is_last, nonce);
	if (u->have < KB_SEAL_TAG ||
		psa_aead_decrypt(u->key, PSA_ALG_GCM, nonce, sizeof nonce, u->head_hash, sizeof u->head_hash, u->in, u->have,
			u->plain, sizeof u->plain, &len) != PSA_SUCCESS)
		return kb_fail(err, KB_ECORRUPT, "sealed file: chunk %" PRIu64 " is not what was sealed%s", u->chunk,
			is_last ? ", or the file was cut behind it" : "");
	u->chunk++;
	u->have = 0;
	return len ? u->sink(u->ctx, u->plain, len, err) : KB_OK;
}

static int feed(struct kb_unseal *u, const uint8_t *bytes, size_t len, struct kb_err *err)
{
	while (len) {
		int r = KB_OK;
		if (u->key && u->have == u->need) // more follows, so it is not the last one
			r = take_chunk(u, false, err);
		if (r)
			return r;
		size_t n = u->need - u->have < len ? u->need - u->have : len;
		memcpy(u->in + u->have, bytes, n);
		u->have += n;
		bytes += n;
		len -= n;
		while (r == KB_OK && !u->key && u->have == u->need)
			r = take_head(u, err);
		if (r)
			return r;
	}
	return KB_OK;
}

static int fail_for_good(struct kb_unseal *u, int r, struct kb_err *err)
{
	if (r)
		u->failed.code = r;
	if (r && err)
		*err = u->failed;
	return r;
}

/* see seal.h */
int kb_unseal_feed(struct kb_unseal *u, const uint8_t *bytes, size_t len, struct kb_err *err)
{
	return fail_for_good(u, u->failed.code ? u->failed.code : feed(u, bytes, len, &u->failed), err);
}

/* see seal.h */
int kb_unseal_end(struct kb_unseal *u, struct kb_err *err)
{
	int r = u->failed.code;
	if (!r && !u->key)
		r = kb_fail(&u->failed, KB_EBAD, "sealed file: it ends within its header");
	else if (!r)
		r = take_chunk(u, true, &u->failed);
	return fail_for_good(u, r, err);
}
