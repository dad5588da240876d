#include "storage/signature.h"
#include <nettle/sha2.h>
#include <psa/crypto.h>
#include <stdbool.h>
#include <string.h>

#define MAGIC KB_SIGNATURES_NONE
#define MAGIC_BYTES 8u
#define HEAD (KB_KEY_ID + 4u)

static const struct curve {
	enum kb_curve curve;
	uint16_t bits;
	size_t point_bytes, signature_bytes;
	psa_algorithm_t hash;
} curves[] = {
	{KB_CURVE_P256, 256, 65, 64, PSA_ALG_SHA_256},
	{KB_CURVE_P384, 384, 97, 96, PSA_ALG_SHA_384},
};

static const struct curve *find(enum kb_curve curve)
{
	for (size_t i = 0; i < sizeof curves / sizeof *curves; i++)
		if (curves[i].curve == curve)
			return &curves[i];
	return NULL;
}

/* see signature.h */
size_t kb_key_point_bytes(enum kb_curve curve)
{
	const struct curve *c = find(curve);
	return c ? c->point_bytes : 0;
}

/* see signature.h */
void kb_key_id(const struct kb_public_key *key, uint8_t ret[static KB_KEY_ID])
{
	const uint8_t number = (uint8_t)key->curve;
	struct sha256_ctx sha;
	sha256_init(&sha);
	sha256_update(&sha, 1, &number);
	sha256_update(&sha, kb_key_point_bytes(key->curve), key->point);
	sha256_digest(&sha, KB_KEY_ID, ret);
}

static bool is_zero(const uint8_t *bytes, size_t len)
{
	return len == 0 || (bytes[0] == 0 && memcmp(bytes, bytes + 1, len - 1) == 0);
}

/* see signature.h */
int kb_signatures_parse(const uint8_t *bytes, size_t len, struct kb_err *err, struct kb_signatures *ret)
{
	struct kb_signatures s = {0};
	if (len > KB_SIGNATURES_BYTES_MAX)
		return kb_fail(err, KB_ELIMIT, "signatures: %zu bytes, at most %u", len, KB_SIGNATURES_BYTES_MAX);
	if (len < MAGIC_BYTES || memcmp(bytes, MAGIC, MAGIC_BYTES) != 0)
		return kb_fail(err, KB_EBAD, "signatures: they do not begin as such");
	for (size_t at = MAGIC_BYTES; at < len && !is_zero(bytes + at, len - at);) {
		if (len - at < HEAD)
			return kb_fail(err, KB_EBAD, "signatures: cut at byte %zu", at);
		const uint8_t *head = bytes + at + KB_KEY_ID;
		uint32_t n = head[0] | (uint32_t)head[1] << 8, zero = head[2] | (uint32_t)head[3] << 8;
		if ((n != 64 && n != 96) || zero || n > len - at - HEAD)
			return kb_fail(err, KB_EBAD, "signatures: one of %u bytes at byte %zu", n, at);
		if (s.n == KB_SIGNATURES_MAX)
			return kb_fail(err, KB_ELIMIT, "signatures: more than %u", KB_SIGNATURES_MAX);
		s.list[s.n++] = (struct kb_signature){bytes + at, n, bytes + at + HEAD};
		at += HEAD + n;
	}
	*ret = s;
	return KB_OK;
}

/* see signature.h */
int kb_signatures_put(uint8_t *block, size_t room, const struct kb_signature *s, struct kb_err *err)
{
	struct kb_signatures have = {0};
	uint8_t made[KB_SIGNATURES_BYTES_MAX] = MAGIC;
	size_t at = MAGIC_BYTES;
	int rc = kb_signatures_parse(block, room, err, &have);
	if (rc != KB_OK)
		return rc;
	for (uint32_t i = 0; i <= have.n; i++) { // the new one comes last
		const struct kb_signature *from = i < have.n ? &have.list[i] : s;
		if (i < have.n && memcmp(from->key_id, s->key_id, KB_KEY_ID) == 0)
			continue;
		if (HEAD + from->len > sizeof made - at || at + HEAD + from->len > room)
			return kb_fail(err, KB_ELIMIT, "signatures: there is no room for one more (%zu bytes)", room);
		memcpy(made + at, from->key_id, KB_KEY_ID);
		made[at + KB_KEY_ID] = (uint8_t)from->len;
		memcpy(made + at + HEAD, from->bytes, from->len);
		at += HEAD + from->len;
	}
	memset(block, 0, room);
	memcpy(block, made, at);
	return KB_OK;
}

static bool hash_all(psa_algorithm_t alg, const char *domain, const uint8_t *bytes, size_t len,
	uint8_t ret[static PSA_HASH_MAX_SIZE], size_t *ret_len)
{
	psa_hash_operation_t op = PSA_HASH_OPERATION_INIT;
	bool ok = psa_hash_setup(&op, alg) == PSA_SUCCESS &&
			  psa_hash_update(&op, (const uint8_t *)domain, strlen(domain) + 1) == PSA_SUCCESS &&
			  psa_hash_update(&op, bytes, len) == PSA_SUCCESS &&
			  psa_hash_finish(&op, ret, PSA_HASH_MAX_SIZE, ret_len) == PSA_SUCCESS;
	psa_hash_abort(&op);
	return ok;
}

// 1: it is the key's signature, 0: it is not; -1: it could not be found out.
static int verify(
	const char *domain, const uint8_t *bytes, size_t len, const struct kb_signature *s, const struct kb_public_key *key)
{
	const struct curve *c = find(key->curve);
	uint8_t hash[PSA_HASH_MAX_SIZE];
	size_t hash_len;
	psa_key_id_t id = 0;
	psa_key_attributes_t a = PSA_KEY_ATTRIBUTES_INIT;
	if (!c || s->len != c->signature_bytes)
		return 0;
	if (psa_crypto_init() != PSA_SUCCESS || !hash_all(c->hash, domain, bytes, len, hash, &hash_len))
		return -1;
	psa_set_key_type(&a, PSA_KEY_TYPE_ECC_PUBLIC_KEY(PSA_ECC_FAMILY_SECP_R1));
	psa_set_key_bits(&a, c->bits);
	psa_set_key_usage_flags(&a, PSA_KEY_USAGE_VERIFY_HASH);
	psa_set_key_algorithm(&a, PSA_ALG_ECDSA(c->hash));
	psa_status_t r = psa_import_key(&a, key->point, c->point_bytes, &id);
	if (r == PSA_ERROR_INVALID_ARGUMENT)
		return 0; // no point of the curve
	if (r == PSA_SUCCESS)
		r = psa_verify_hash(id, PSA_ALG_ECDSA(c->hash), hash, hash_len, s->bytes, s->len);
	psa_destroy_key(id);
	return r == PSA_SUCCESS ? 1 : r == PSA_ERROR_INVALID_SIGNATURE || r == PSA_ERROR_INVALID_ARGUMENT ? 0 : -1;
}

// Whether a key of before `i` is the same one.
static bool is_repeated(const struct kb_public_key *keys, uint32_t i)
{
	uint8_t id[KB_KEY_ID], other[KB_KEY_ID];
	kb_key_id(&keys[i], id);
	for (uint32_t k = 0; k < i; k++) {
		kb_key_id(&keys[k], other);
		if (memcmp(id, other, KB_KEY_ID) == 0)
			return true;
	}
	return false;
}

/* see signature.h */
int kb_signatures_check(const char *domain, const uint8_t *bytes, size_t len, const struct kb_signatures *signatures,
	const struct kb_public_key *keys, uint32_t n_keys, uint32_t threshold, struct kb_err *err)
{
	uint32_t good = 0;
	if (threshold == 0 || threshold > n_keys)
		return kb_fail(err, KB_EARG, "signatures: %u of %u keys cannot be asked for", threshold, n_keys);
	for (uint32_t k = 0; k < n_keys; k++) {
		uint8_t id[KB_KEY_ID];
		bool has_signed = false;
		if (is_repeated(keys, k))
			continue;
		kb_key_id(&keys[k], id);
		for (uint32_t i = 0; i < signatures->n; i++) {
			const struct kb_signature *s = &signatures->list[i];
			if (memcmp(s->key_id, id, KB_KEY_ID) != 0)
				continue;
			int is_good = verify(domain, bytes, len, s, &keys[k]);
			if (is_good < 0)
				return kb_fail(err, KB_EIO, "signatures: the cryptographic library failed");
			if (!is_good)
				return kb_fail(err, KB_EBAD, "signatures: number %u is not one over these bytes", i + 1);
			has_signed = true;
		}
		good += has_signed;
	}
	if (good < threshold)
		return kb_fail(err, KB_EDENIED, "signatures: %u of keys that may sign this, %u are needed", good, threshold);
	return KB_OK;
}
