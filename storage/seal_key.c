/* see seal_key.h */
#include "storage/seal_key.h"
#include <mbedtls/platform_util.h>
#include <string.h>

#define DOMAIN "kotobako seal 1" // with its NUL

static int failed(struct kb_err *err)
{
	return kb_fail(err, KB_EIO, "the cryptographic library failed");
}

/* see seal_key.h */
int kb__seal_aes(const uint8_t key[static KB_SEAL_KEY], struct kb_err *err, psa_key_id_t *ret)
{
	psa_key_attributes_t a = PSA_KEY_ATTRIBUTES_INIT;
	psa_set_key_type(&a, PSA_KEY_TYPE_AES);
	psa_set_key_bits(&a, 256);
	psa_set_key_usage_flags(&a, PSA_KEY_USAGE_ENCRYPT | PSA_KEY_USAGE_DECRYPT);
	psa_set_key_algorithm(&a, PSA_ALG_GCM);
	return psa_import_key(&a, key, KB_SEAL_KEY, ret) == PSA_SUCCESS ? KB_OK : failed(err);
}

/* see seal_key.h */
void kb__seal_nonce(uint64_t chunk, bool is_last, uint8_t ret[static 12])
{
	memset(ret, 0, 3);
	for (int i = 0; i < 8; i++)
		ret[3 + i] = (uint8_t)(chunk >> (56 - 8 * i));
	ret[11] = is_last;
}

// The key that wraps: from our secret and their point. Both points and the curve go into it.
static int derive(psa_key_id_t secret, const uint8_t *their_point, enum kb_curve curve, const uint8_t *ephemeral,
	const uint8_t *receiver, struct kb_err *err, psa_key_id_t *ret)
{
	const size_t point = kb_key_point_bytes(curve);
	uint8_t shared[48], info[sizeof DOMAIN + 1 + 2 * KB_KEY_POINT_MAX], key[KB_SEAL_KEY];
	size_t shared_len = 0, at = sizeof DOMAIN;
	psa_key_derivation_operation_t op = PSA_KEY_DERIVATION_OPERATION_INIT;
	memcpy(info, DOMAIN, sizeof DOMAIN);
	info[at++] = (uint8_t)curve;
	memcpy(info + at, ephemeral, point);
	memcpy(info + at + point, receiver, point);
	at += 2 * point;
	bool ok = psa_raw_key_agreement(PSA_ALG_ECDH, secret, their_point, point, shared, sizeof shared, &shared_len) ==
				  PSA_SUCCESS &&
			  psa_key_derivation_setup(&op, PSA_ALG_HKDF(PSA_ALG_SHA_256)) == PSA_SUCCESS &&
			  psa_key_derivation_input_bytes(&op, PSA_KEY_DERIVATION_INPUT_SALT, NULL, 0) == PSA_SUCCESS &&
			  psa_key_derivation_input_bytes(&op, PSA_KEY_DERIVATION_INPUT_SECRET, shared, shared_len) == PSA_SUCCESS &&
			  psa_key_derivation_input_bytes(&op, PSA_KEY_DERIVATION_INPUT_INFO, info, at) == PSA_SUCCESS &&
			  psa_key_derivation_output_bytes(&op, key, sizeof key) == PSA_SUCCESS;
	psa_key_derivation_abort(&op);
	int r = ok ? kb__seal_aes(key, err, ret) : failed(err);
	mbedtls_platform_zeroize(shared, sizeof shared);
	mbedtls_platform_zeroize(key, sizeof key);
	return r;
}

static const uint8_t zero_nonce[12]; // every wrapping key is used once

/* see seal_key.h */
int kb__seal_wrap(const struct kb_public_key *to, const uint8_t key[static KB_SEAL_KEY], struct kb_err *err,
	uint8_t ret_row[static KB_SEAL_ROW])
{
	psa_key_attributes_t a = PSA_KEY_ATTRIBUTES_INIT;
	psa_key_id_t ephemeral = 0, wrapping = 0;
	uint8_t row[KB_SEAL_ROW] = {0};
	size_t len = 0;
	psa_set_key_type(&a, PSA_KEY_TYPE_ECC_KEY_PAIR(PSA_ECC_FAMILY_SECP_R1));
	psa_set_key_bits(&a, to->curve == KB_CURVE_P256 ? 256 : 384);
	psa_set_key_usage_flags(&a, PSA_KEY_USAGE_DERIVE);
	psa_set_key_algorithm(&a, PSA_ALG_ECDH);
	kb_key_id(to, row + KB_ROW_ID);
	row[KB_ROW_CURVE] = (uint8_t)to->curve;
	bool ok = psa_generate_key(&a, &ephemeral) == PSA_SUCCESS &&
			  psa_export_public_key(ephemeral, row + KB_ROW_POINT, KB_KEY_POINT_MAX, &len) == PSA_SUCCESS;
	int r = ok ? derive(ephemeral, to->point, to->curve, row + KB_ROW_POINT, to->point, err, &wrapping) : failed(err);
	if (r == KB_OK && psa_aead_encrypt(wrapping, PSA_ALG_GCM, zero_nonce, sizeof zero_nonce, NULL, 0, key, KB_SEAL_KEY,
						  row + KB_ROW_WRAPPED, KB_SEAL_KEY + KB_SEAL_TAG, &len) != PSA_SUCCESS)
		r = failed(err);
	psa_destroy_key(ephemeral);
	psa_destroy_key(wrapping);
	if (r == KB_OK)
		memcpy(ret_row, row, sizeof row);
	return r;
}

/* see seal_key.h */
int kb__seal_unwrap(psa_key_id_t secret, const struct kb_public_key *own, const uint8_t row[static KB_SEAL_ROW],
	struct kb_err *err, uint8_t ret_key[static KB_SEAL_KEY])
{
	psa_key_id_t wrapping = 0;
	size_t len = 0;
	int r = row[KB_ROW_CURVE] == own->curve
				? derive(secret, row + KB_ROW_POINT, own->curve, row + KB_ROW_POINT, own->point, err, &wrapping)
				: KB_ECORRUPT;
	if (r != KB_OK || psa_aead_decrypt(wrapping, PSA_ALG_GCM, zero_nonce, sizeof zero_nonce, NULL, 0,
						  row + KB_ROW_WRAPPED, KB_SEAL_KEY + KB_SEAL_TAG, ret_key, KB_SEAL_KEY, &len) != PSA_SUCCESS)
		r = kb_fail(err, KB_ECORRUPT, "sealed file: the key for this receiver is damaged");
	psa_destroy_key(wrapping);
	return r;
}
