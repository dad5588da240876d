// TLS 1.3 over memory: the caller moves ciphertext between this and a socket, in an event loop or blocking.
// Only tls.c knows the TLS library. TLS 1.3 only, ALPN http/1.1, x25519 and secp256r1, ECDSA P-256 certificates,
// no session tickets, no early data, no renegotiation.
//
// Caveats: all calls of a process are made on one thread (mbedTLS 3.6 does not support more with TLS 1.3).
// A client's handshake is over before the server has judged the client's certificate: a refusal arrives as an
// error of the first kb_tls_read().
#pragma once
#include "base/buf.h"
#include "base/err.h"
#include "net/limits.h"
#include <stdbool.h>
#include <stdint.h>

#define KB_TLS_CLAIM_NAME "claim.kotobako.invalid" // a name that nobody has (RFC 6761, 6.4)
#define KB_FINGERPRINT_LEN 32u                     // SHA-256 of the certificate's DER

enum kb_tls_role {
	KB_TLS_SERVER_MUTUAL, // the client must show a certificate of ours
	KB_TLS_SERVER_ONLY,   // for the bearer-key listener: the client shows none
	KB_TLS_CLIENT,
	KB_TLS_CLIENT_CLAIM, // trusts whoever answers, for a claim (net/claim.h) alone: that proves who it was
};

struct kb_tls_peer {
	uint8_t fingerprint[KB_FINGERPRINT_LEN];
	char name[KB_TLS_NAME_MAX + 1]; // subject common name; "" where it has none
};

// PEM texts end with NUL and need not outlive the call that gets them.
struct kb_tls_options {
	enum kb_tls_role role;
	const char *ca_pem;             // whom we trust to certify the other side (unused by SERVER_ONLY)
	const char *cert_pem, *key_pem; // our own; both NULL for a client without one
	// SERVER_MUTUAL: whether a client without a certificate may come in to claim this box, now. It says so by asking
	// for KB_TLS_CLAIM_NAME (server name indication, RFC 6066); for all others a certificate is needed as ever. May be
	// NULL: never.
	bool (*may_claim)(void *ctx);
	// Called in the handshake for a peer whose certificate chain is right: false refuses it. May be NULL.
	bool (*is_allowed)(void *ctx, const struct kb_tls_peer *peer);
	void *ctx;
};

struct kb_tls_config; // credentials and policy, shared by connections
struct kb_tls;        // one connection

// Once, before anything else of runtime/net and before threads. Harmless when repeated.
KB_MUST_CHECK int kb_tls_init(struct kb_err *err);

KB_MUST_CHECK int kb_tls_config_create(const struct kb_tls_options *o, struct kb_tls_config **ret, struct kb_err *err);
// Its connections keep what they need of it until the last of them is destroyed. NULL is fine.
void kb_tls_config_destroy(struct kb_tls_config *c);

// host: what the server's certificate must name (a DNS name or an address); NULL on a server.
KB_MUST_CHECK int kb_tls_create(struct kb_tls_config *c, const char *host, struct kb_tls **ret, struct kb_err *err);
void kb_tls_destroy(struct kb_tls *t); // NULL is fine

// Ciphertext from the socket. KB_ELIMIT: more than KB_TLS_INPUT_MAX is waiting to be read; read first.
KB_MUST_CHECK int kb_tls_feed(struct kb_tls *t, const void *data, size_t len);
// The socket has ended: what cannot be completed any more fails with KB_ECLOSED.
void kb_tls_feed_end(struct kb_tls *t);
// Ciphertext for the socket: take from its front with kb_buf_consume(). Valid as long as t. Look after every call.
struct kb_buf *kb_tls_output(struct kb_tls *t);

// 0: done (calling again is harmless). KB_EPARTIAL: send the output, feed more. Else it failed: the text says why;
// send what the output holds (an alert) and drop the connection.
KB_MUST_CHECK int kb_tls_handshake(struct kb_tls *t, struct kb_err *err);
bool kb_tls_is_established(const struct kb_tls *t);
// On a server: the client has no certificate and may do nothing but claim the box.
bool kb_tls_is_claim(const struct kb_tls *t);
// Of the certificate that this side of the connection shows; zeros where it shows none.
void kb_tls_own_fingerprint(const struct kb_tls *t, uint8_t ret[KB_FINGERPRINT_LEN]);
// The other side after the handshake; zeros where it showed no certificate. Valid as long as t.
const struct kb_tls_peer *kb_tls_peer(const struct kb_tls *t);

// Plaintext. 0 with *ret_n > 0; KB_EPARTIAL: feed more; KB_ECLOSED: ended in order (close_notify) or the socket was
// cut (err's text says which: a cut answer is not a whole one). Repeat until it is not 0.
KB_MUST_CHECK int kb_tls_read(struct kb_tls *t, void *data, size_t size, size_t *ret_n, struct kb_err *err);
// All of it, or nothing: KB_ELIMIT when the output would pass KB_TLS_OUTPUT_MAX; send, then try again.
KB_MUST_CHECK int kb_tls_write(struct kb_tls *t, const void *data, size_t len, struct kb_err *err);
// Puts close_notify into the output.
void kb_tls_close(struct kb_tls *t);
