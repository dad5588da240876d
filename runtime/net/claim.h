// Claiming a box by a code that its screen shows: EC-JPAKE (RFC 8236 on P-256, as mbedTLS encodes it for TLS:
// draft-cragie-tls-ecjpake-01) proves to each side that the other knows the code, without giving it away: who listens
// or stands between cannot try codes, only guess once a try. What follows from it authenticates the client's signing
// request to the box and the box's certificates to the client, together with the certificate that the TLS connection
// showed; so a man in the middle, who has two connections with two certificates, is found out.
//
//   client                                   box
//   one                          ──────────►
//                                ◄──────────  one, two
//   two, request, proof of it    ──────────►
//                                ◄──────────  certificate, authority, proof of them
// Proofs are HMAC-SHA-256 under the common secret over a label, the TLS certificate's fingerprint and what is proven.
#pragma once
#include "base/buf.h"
#include "base/err.h"
#include "net/tls.h"

#define KB_CLAIM_DIGITS 8u         // of the code: with KB_CLAIM_TRIES tries a guess is right once in 20 million
#define KB_CLAIM_MESSAGE_MAX 1024u // bytes of one message; round one has 330
#define KB_CLAIM_PROOF 32u

struct kb_claim; // one attempt of one side; good for one use

// code: KB_CLAIM_DIGITS digits (see kb_claim_code_clean).
KB_MUST_CHECK int kb_claim_create(bool is_box, const char *code, struct kb_claim **ret, struct kb_err *err);
void kb_claim_destroy(struct kb_claim *c); // NULL is fine

// In the order above: the client writes one; the box reads one, writes one and two; and so on. KB_EBAD: a message that
// is none.
KB_MUST_CHECK int kb_claim_write_one(struct kb_claim *c, struct kb_buf *ret, struct kb_err *err);
KB_MUST_CHECK int kb_claim_read_one(struct kb_claim *c, const void *data, size_t len, struct kb_err *err);
KB_MUST_CHECK int kb_claim_write_two(struct kb_claim *c, struct kb_buf *ret, struct kb_err *err);
KB_MUST_CHECK int kb_claim_read_two(struct kb_claim *c, const void *data, size_t len, struct kb_err *err);
// Once both rounds are done: the proof that the box (of_box) or the client makes of two texts. certificate: fingerprint
// of the server's certificate on this side's connection.
KB_MUST_CHECK int kb_claim_prove(struct kb_claim *c, bool of_box, const uint8_t certificate[KB_FINGERPRINT_LEN],
	const char *first, const char *second, uint8_t ret[KB_CLAIM_PROOF], struct kb_err *err);

// Pure: digits of text without blanks and dashes; KB_EARG where it is no code.
KB_MUST_CHECK int kb_claim_code_clean(const char *text, char ret[KB_CLAIM_DIGITS + 1]);
// A fresh code, every one as likely.
KB_MUST_CHECK int kb_claim_code_make(char ret[KB_CLAIM_DIGITS + 1], struct kb_err *err);
