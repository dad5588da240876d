// Private keys: made, read from PEM files (PKCS#8 or SEC 1, as openssl writes them), used to sign what signature.h
// checks. Signing is deterministic (RFC 6979): the same key and bytes give the same signature.
#pragma once
#include "base/buf.h"
#include "storage/signature.h"
#include <stdbool.h>

struct kb_signer;

// Both as PEM, NUL-terminated, not counted. Wipe the private one after use.
KB_MUST_CHECK int kb_key_new(
	enum kb_curve curve, struct kb_err *err, struct kb_buf *ret_private_pem, struct kb_buf *ret_public_pem);

// pem: NUL-terminated. KB_EBAD: no such key. KB_EUNSUPPORTED: of another kind.
KB_MUST_CHECK int kb_signer_open(const char *pem, struct kb_err *err, struct kb_signer **ret);
void kb_signer_close(struct kb_signer *s); // NULL is fine
const struct kb_public_key *kb_signer_key(const struct kb_signer *s);
// r and s over domain, NUL, bytes.
KB_MUST_CHECK int kb_signer_sign(const struct kb_signer *s, const char *domain, const uint8_t *bytes, size_t len,
	struct kb_err *err, uint8_t ret[static KB_SIGNATURE_MAX], size_t *ret_len);

// A public key from PEM (SubjectPublicKeyInfo); errors as for signer_open.
KB_MUST_CHECK int kb_public_key_read(const char *pem, struct kb_err *err, struct kb_public_key *ret);
// r and s of a signature in DER, as openssl makes it. KB_EBAD.
KB_MUST_CHECK int kb_signature_from_der(const struct kb_public_key *key, const uint8_t *der, size_t len,
	struct kb_err *err, uint8_t ret[static KB_SIGNATURE_MAX], size_t *ret_len);
