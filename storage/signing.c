#include "storage/signing.h"
#include <mbedtls/pk.h>
#include <mbedtls/platform_util.h>
#include <mbedtls/psa_util.h>
#include <psa/crypto.h>
#include <stdlib.h>
#include <string.h>

#define PEM_MAX 1024u // of an EC key

struct kb_signer {
	psa_key_id_t id;
	psa_algorithm_t alg;
	struct kb_public_key key;
};

static psa_algorithm_t hash_of(enum kb_curve curve)
{
	return curve == KB_CURVE_P256 ? PSA_ALG_SHA_256 : PSA_ALG_SHA_384;
}

static enum kb_curve curve_of(size_t bits)
{
	return bits == 256 ? KB_CURVE_P256 : bits == 384 ? KB_CURVE_P384 : 0;
}

static int ready(struct kb_err *err)
{
	return psa_crypto_init() == PSA_SUCCESS ? KB_OK : kb_fail(err, KB_EIO, "the cryptographic library failed");
}

static int put_pem(struct kb_buf *to, int (*write)(const mbedtls_pk_context *, unsigned char *, size_t),
	const mbedtls_pk_context *pk, struct kb_err *err)
{
	unsigned char text[PEM_MAX];
	int rc = write(pk, text, sizeof text);
	if (rc == 0)
		rc = kb_buf_puts(to, (const char *)text) || !kb_buf_cstr(to);
	mbedtls_platform_zeroize(text, sizeof text);
	return rc ? kb_fail(err, KB_ENOMEM, "out of memory") : KB_OK;
}

static int write_private(const mbedtls_pk_context *pk, unsigned char *text, size_t size)
{
	return mbedtls_pk_write_key_pem(pk, text, size);
}

static int write_public(const mbedtls_pk_context *pk, unsigned char *text, size_t size)
{
	return mbedtls_pk_write_pubkey_pem(pk, text, size);
}

/* see signing.h */
int kb_key_new(enum kb_curve curve, struct kb_err *err, struct kb_buf *ret_private_pem, struct kb_buf *ret_public_pem)
{
	psa_key_attributes_t a = PSA_KEY_ATTRIBUTES_INIT;
	psa_key_id_t id = 0;
	mbedtls_pk_context pk;
	int rc = ready(err);
	if (rc != KB_OK)
		return rc;
	psa_set_key_type(&a, PSA_KEY_TYPE_ECC_KEY_PAIR(PSA_ECC_FAMILY_SECP_R1));
	psa_set_key_bits(&a, curve == KB_CURVE_P256 ? 256 : 384);
	psa_set_key_usage_flags(&a, PSA_KEY_USAGE_SIGN_HASH | PSA_KEY_USAGE_EXPORT);
	psa_set_key_algorithm(&a, PSA_ALG_ECDSA(hash_of(curve)));
	mbedtls_pk_init(&pk);
	if (psa_generate_key(&a, &id) != PSA_SUCCESS || mbedtls_pk_copy_from_psa(id, &pk))
		rc = kb_fail(err, KB_EIO, "the cryptographic library could not make a key");
	if (rc == KB_OK)
		rc = put_pem(ret_private_pem, write_private, &pk, err);
	if (rc == KB_OK)
		rc = put_pem(ret_public_pem, write_public, &pk, err);
	mbedtls_pk_free(&pk);
	psa_destroy_key(id);
	return rc;
}

// Imports what `pk` holds and reads its point. `usage` 0: a public key.
static int import(const mbedtls_pk_context *pk, psa_key_usage_t usage, struct kb_err *err, struct kb_signer *s)
{
	psa_key_attributes_t a = PSA_KEY_ATTRIBUTES_INIT;
	size_t len;
	enum kb_curve curve = curve_of(mbedtls_pk_get_bitlen(pk));
	if (!mbedtls_pk_can_do(pk, MBEDTLS_PK_ECDSA) || !curve ||
		mbedtls_pk_get_psa_attributes(pk, usage ? usage : PSA_KEY_USAGE_VERIFY_HASH, &a))
		return kb_fail(err, KB_EUNSUPPORTED, "the key is not one of P-256 or P-384");
	if (PSA_KEY_TYPE_ECC_GET_FAMILY(psa_get_key_type(&a)) != PSA_ECC_FAMILY_SECP_R1)
		return kb_fail(err, KB_EUNSUPPORTED, "the key is of another curve than P-256 or P-384");
	s->alg = PSA_ALG_DETERMINISTIC_ECDSA(hash_of(curve));
	psa_set_key_algorithm(&a, s->alg);
	s->key.curve = curve;
	if (mbedtls_pk_import_into_psa(pk, &a, &s->id) ||
		psa_export_public_key(s->id, s->key.point, sizeof s->key.point, &len) != PSA_SUCCESS)
		return kb_fail(err, KB_EBAD, "the cryptographic library does not take the key");
	return KB_OK;
}

/* see signing.h */
int kb_signer_open(const char *pem, struct kb_err *err, struct kb_signer **ret)
{
	mbedtls_pk_context pk;
	int rc = ready(err);
	struct kb_signer *s = rc == KB_OK ? calloc(1, sizeof *s) : NULL;
	if (rc != KB_OK || !s)
		return rc == KB_OK ? kb_fail(err, KB_ENOMEM, "out of memory") : rc;
	mbedtls_pk_init(&pk);
	if (mbedtls_pk_parse_key(&pk, (const unsigned char *)pem, strlen(pem) + 1, NULL, 0, mbedtls_psa_get_random,
			MBEDTLS_PSA_RANDOM_STATE))
		rc = kb_fail(err, KB_EBAD, "not a private key in PEM without a password");
	else
		rc = import(&pk, PSA_KEY_USAGE_SIGN_HASH, err, s);
	mbedtls_pk_free(&pk);
	if (rc != KB_OK) {
		kb_signer_close(s);
		return rc;
	}
	*ret = s;
	return KB_OK;
}

/* see signing.h */
void kb_signer_close(struct kb_signer *s)
{
	if (!s)
		return;
	psa_destroy_key(s->id);
	free(s);
}

/* see signing.h */
const struct kb_public_key *kb_signer_key(const struct kb_signer *s)
{
	return &s->key;
}

/* see signing.h */
int kb_signer_sign(const struct kb_signer *s, const char *domain, const uint8_t *bytes, size_t len, struct kb_err *err,
	uint8_t ret[static KB_SIGNATURE_MAX], size_t *ret_len)
{
	uint8_t hash[PSA_HASH_MAX_SIZE];
	size_t hash_len;
	psa_hash_operation_t op = PSA_HASH_OPERATION_INIT;
	bool ok = psa_hash_setup(&op, hash_of(s->key.curve)) == PSA_SUCCESS &&
			  psa_hash_update(&op, (const uint8_t *)domain, strlen(domain) + 1) == PSA_SUCCESS &&
			  psa_hash_update(&op, bytes, len) == PSA_SUCCESS &&
			  psa_hash_finish(&op, hash, sizeof hash, &hash_len) == PSA_SUCCESS &&
			  psa_sign_hash(s->id, s->alg, hash, hash_len, ret, KB_SIGNATURE_MAX, ret_len) == PSA_SUCCESS;
	psa_hash_abort(&op);
	return ok ? KB_OK : kb_fail(err, KB_EIO, "the cryptographic library could not sign");
}

/* see signing.h */
int kb_public_key_read(const char *pem, struct kb_err *err, struct kb_public_key *ret)
{
	mbedtls_pk_context pk;
	struct kb_signer s = {0};
	int rc = ready(err);
	if (rc != KB_OK)
		return rc;
	mbedtls_pk_init(&pk);
	if (mbedtls_pk_parse_public_key(&pk, (const unsigned char *)pem, strlen(pem) + 1))
		rc = kb_fail(err, KB_EBAD, "not a public key in PEM");
	else
		rc = import(&pk, 0, err, &s);
	mbedtls_pk_free(&pk);
	psa_destroy_key(s.id);
	if (rc == KB_OK)
		*ret = s.key;
	return rc;
}

/* see signing.h */
int kb_signature_from_der(const struct kb_public_key *key, const uint8_t *der, size_t len, struct kb_err *err,
	uint8_t ret[static KB_SIGNATURE_MAX], size_t *ret_len)
{
	size_t bits = key->curve == KB_CURVE_P256 ? 256 : 384;
	if (mbedtls_ecdsa_der_to_raw(bits, der, len, ret, KB_SIGNATURE_MAX, ret_len))
		return kb_fail(err, KB_EBAD, "not an ECDSA signature in DER");
	return KB_OK;
}
