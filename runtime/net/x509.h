// Certificates of the box: its own authority, the server's certificate, clients' certificates. All EC P-256 with
// SHA-256, PEM in and out, random 127-bit serials.
// The authority may not make further authorities (pathlen 0) and its use is limited to TLS servers and clients.
// It carries no name constraints: they must be critical (RFC 5280, 4.2.1.10), mbedTLS 3.6 refuses a critical one,
// and the box's names are the administrator's choice, later too. Clients trust it for this box alone.
#pragma once
#include "base/buf.h"
#include "base/err.h"
#include "net/tls.h"

// name: the authority's common name ("Kotobako box 3f2a...").
KB_MUST_CHECK int kb_x509_make_ca(
	const char *name, struct kb_buf *ret_key_pem, struct kb_buf *ret_cert_pem, struct kb_err *err);

struct kb_x509_ca {
	const char *key_pem, *cert_pem; // NUL-terminated, the caller's
};

// names: DNS names and IPv4/IPv6 addresses, at most KB_X509_SERVER_NAMES_MAX; KB_EARG for what is neither.
KB_MUST_CHECK int kb_x509_make_server(const struct kb_x509_ca *ca, const char *const *names, size_t n_names,
	struct kb_buf *ret_key_pem, struct kb_buf *ret_cert_pem, struct kb_err *err);

// The client's half of pairing: a fresh key and a signing request for it.
KB_MUST_CHECK int kb_x509_make_csr(
	const char *name, struct kb_buf *ret_key_pem, struct kb_buf *ret_csr_pem, struct kb_err *err);

// The box's half: a client certificate (clientAuth) for the request's key, under the name given here (1 to
// KB_TLS_NAME_MAX bytes of letters, digits, ".", "-", "_", "@", space), whatever the request says. The request's own
// signature is checked (the client holds the key); KB_EBAD / KB_EUNSUPPORTED for a request that is not P-256.
KB_MUST_CHECK int kb_x509_issue_client(const struct kb_x509_ca *ca, const char *csr_pem, const char *name,
	struct kb_buf *ret_cert_pem, uint8_t ret_fingerprint[KB_FINGERPRINT_LEN], char ret_serial[33], struct kb_err *err);

// SHA-256 of the (first) certificate's DER.
KB_MUST_CHECK int kb_x509_fingerprint(
	const char *cert_pem, uint8_t ret_fingerprint[KB_FINGERPRINT_LEN], struct kb_err *err);
// Whether the server certificate names all of names and ends later than 30 days from now.
bool kb_x509_server_fits(const char *cert_pem, const char *const *names, size_t n_names);

// Whether a server's certificate can carry it: a host name or an IPv4/IPv6 address.
bool kb_x509_server_name_ok(const char *name);

// Small helpers of the same library.
bool kb_x509_name_ok(const char *name);
void kb_sha256(const void *data, size_t len, uint8_t ret[32]);
KB_MUST_CHECK int kb_random(void *ret, size_t len, struct kb_err *err);
bool kb_equal_constant_time(const void *a, const void *b, size_t len);
void kb_wipe(struct kb_buf *b); // overwrites, then finishes
