/* see claim.h */
#include "net/claim.h"
#include "net/x509.h"

#include <mbedtls/ecjpake.h>
#include <mbedtls/md.h>
#include <mbedtls/platform_util.h>
#include <mbedtls/psa_util.h>
#include <stdlib.h>
#include <string.h>

struct kb_claim {
	mbedtls_ecjpake_context ecjpake;
	uint8_t secret[MBEDTLS_MD_MAX_SIZE];
	size_t secret_len; // 0: not known yet
};

static const char refused[] = "the other side does not know the code, or something stands between";

int kb_claim_create(bool is_box, const char *code, struct kb_claim **ret, struct kb_err *err)
{
	struct kb_claim *c = calloc(1, sizeof *c);
	if (!c)
		return kb_fail(err, KB_ENOMEM, "out of memory");
	mbedtls_ecjpake_init(&c->ecjpake);
	if (mbedtls_ecjpake_setup(&c->ecjpake, is_box ? MBEDTLS_ECJPAKE_SERVER : MBEDTLS_ECJPAKE_CLIENT, MBEDTLS_MD_SHA256,
			MBEDTLS_ECP_DP_SECP256R1, (const unsigned char *)code, strlen(code))) {
		kb_claim_destroy(c);
		return kb_fail(err, KB_EARG, "a claim wants a code");
	}
	*ret = c;
	return 0;
}

void kb_claim_destroy(struct kb_claim *c)
{
	if (!c)
		return;
	mbedtls_ecjpake_free(&c->ecjpake);
	mbedtls_platform_zeroize(c, sizeof *c);
	free(c);
}

typedef int writer(mbedtls_ecjpake_context *, unsigned char *, size_t, size_t *, mbedtls_f_rng_t *, void *);

static int write_round(struct kb_claim *c, writer *write, struct kb_buf *ret, struct kb_err *err)
{
	unsigned char message[KB_CLAIM_MESSAGE_MAX];
	size_t len = 0;
	if (write(&c->ecjpake, message, sizeof message, &len, mbedtls_psa_get_random, MBEDTLS_PSA_RANDOM_STATE))
		return kb_fail(err, KB_EARG, "a claim's messages are made in their order, once");
	return kb_buf_append(ret, message, len) ? kb_fail(err, KB_ENOMEM, "out of memory") : 0;
}

int kb_claim_write_one(struct kb_claim *c, struct kb_buf *ret, struct kb_err *err)
{
	return write_round(c, mbedtls_ecjpake_write_round_one, ret, err);
}

int kb_claim_write_two(struct kb_claim *c, struct kb_buf *ret, struct kb_err *err)
{
	return write_round(c, mbedtls_ecjpake_write_round_two, ret, err);
}

int kb_claim_read_one(struct kb_claim *c, const void *data, size_t len, struct kb_err *err)
{
	return mbedtls_ecjpake_read_round_one(&c->ecjpake, data, len) ? kb_fail(err, KB_EBAD, "it is no first message") : 0;
}

int kb_claim_read_two(struct kb_claim *c, const void *data, size_t len, struct kb_err *err)
{
	return mbedtls_ecjpake_read_round_two(&c->ecjpake, data, len) ? kb_fail(err, KB_EBAD, "it is no second message")
																  : 0;
}

static int add_text(mbedtls_md_context_t *md, const char *text)
{
	uint8_t hash[32]; // of each text by itself, so that no two pairs of texts are the same bytes
	kb_sha256(text, strlen(text), hash);
	return mbedtls_md_hmac_update(md, hash, sizeof hash);
}

int kb_claim_prove(struct kb_claim *c, bool of_box, const uint8_t certificate[KB_FINGERPRINT_LEN], const char *first,
	const char *second, uint8_t ret[KB_CLAIM_PROOF], struct kb_err *err)
{
	const char *label = of_box ? "kotobako claim: the box 1" : "kotobako claim: the client 1";
	mbedtls_md_context_t md;
	if (c->secret_len == 0 && mbedtls_ecjpake_derive_secret(&c->ecjpake, c->secret, sizeof c->secret, &c->secret_len,
								  mbedtls_psa_get_random, MBEDTLS_PSA_RANDOM_STATE))
		return kb_fail(err, KB_EDENIED, "%s", refused);
	mbedtls_md_init(&md);
	int r = mbedtls_md_setup(&md, mbedtls_md_info_from_type(MBEDTLS_MD_SHA256), 1);
	r = r ? r : mbedtls_md_hmac_starts(&md, c->secret, c->secret_len);
	r = r ? r : add_text(&md, label);
	r = r ? r : mbedtls_md_hmac_update(&md, certificate, KB_FINGERPRINT_LEN);
	r = r ? r : add_text(&md, first);
	r = r ? r : add_text(&md, second);
	r = r ? r : mbedtls_md_hmac_finish(&md, ret);
	mbedtls_md_free(&md);
	return r ? kb_fail(err, KB_ENOMEM, "proving a claim: status %d", r) : 0;
}

int kb_claim_code_clean(const char *text, char ret[KB_CLAIM_DIGITS + 1])
{
	size_t n = 0;
	for (; *text; text++) {
		if (strchr(" -\t\r\n", *text))
			continue;
		if (*text < '0' || *text > '9' || n == KB_CLAIM_DIGITS)
			return KB_EARG;
		ret[n++] = *text;
	}
	ret[n] = 0;
	return n == KB_CLAIM_DIGITS ? 0 : KB_EARG;
}

int kb_claim_code_make(char ret[KB_CLAIM_DIGITS + 1], struct kb_err *err)
{
	const uint32_t codes = 100000000;
	uint32_t number;
	do { // what is beyond the last whole multiple would make some codes likelier
		int r = kb_random(&number, sizeof number, err);
		if (r)
			return r;
	} while (number >= UINT32_MAX / codes * codes);
	for (size_t i = KB_CLAIM_DIGITS; i-- > 0; number /= 10)
		ret[i] = (char)('0' + number % 10);
	ret[KB_CLAIM_DIGITS] = 0;
	return 0;
}
