// A blocking HTTP/1.1 client for the command line: over TLS to a box, or over the admin unix socket without TLS.
// One request at a time; the connection is kept and opened anew when the other side has closed it.
#pragma once
#include "base/buf.h"
#include "base/err.h"
#include "base/meta.h"
#include "net/tls.h"
#include <signal.h>
#include <stdint.h>

struct kb_http_client;

struct kb_http_target {
	const char *unix_path; // the admin socket; or NULL and:
	const char *host;      // DNS name or address, also what the certificate must name
	uint16_t port;
	const char *ca_pem, *cert_pem, *key_pem; // cert and key may be NULL (bearer listener)
	bool is_claim;      // nobody vouches for the box yet (net/claim.h): ca_pem, cert_pem and key_pem are NULL
	const char *bearer; // sent as Authorization: Bearer; may be NULL
};

struct kb_http_call {
	const char *method, *path; // "GET", "/v1/models"
	const void *body;          // NULL: none
	size_t body_len;
	const char *content_type; // NULL: application/json
	const char *headers;      // further lines, each with its CR LF; NULL: none
	int connect_ms;           // 0: 5,000. Connecting and TLS handshake
	int idle_ms;              // 0: 600,000. Longest silence while waiting for (more of) the answer
	// Looked at at least every 100 ms and whenever a signal interrupts: non-zero ends the call with KB_ECANCELLED and
	// closes the connection (the box then cancels the request). May be NULL.
	const volatile sig_atomic_t *interrupt;
	// Gets a 2xx answer's body as it arrives; non-zero ends the call with that value. May be NULL: the body is
	// collected in reply->body. Bodies of other statuses are always collected.
	int (*on_body)(void *ctx, const char *data, size_t len);
	void *ctx;
};

struct kb_http_reply {
	int status;           // 200 ...
	int retry_after_s;    // -1: no such header
	char request_id[64];  // x-request-id, "" where absent
	uint64_t range_total; // of a part (RFC 9110, 14.4: Content-Range): bytes of the whole; 0 where it is not said
	struct kb_buf body;   // the caller's: kb_buf_finish()
};

// Copies the target. Does not connect yet.
KB_MUST_CHECK int kb_http_client_create(
	const struct kb_http_target *target, struct kb_http_client **ret, struct kb_err *err);
void kb_http_client_destroy(struct kb_http_client *c); // NULL is fine

// Who answered the last call, while its connection is open; zeros else.
const struct kb_tls_peer *kb_http_client_peer(const struct kb_http_client *c);

// 0 for any complete answer, whatever its status. *ret_reply is always initialised, so that it can be finished.
// KB_EDENIED: the box refused this client's certificate, or its certificate is not what ca_pem vouches for.
KB_MUST_CHECK int kb_http_client_call(
	struct kb_http_client *c, const struct kb_http_call *call, struct kb_http_reply *ret_reply, struct kb_err *err);

// Server-sent events out of body pieces: zero-initialise, feed pieces, on_data gets each event's data (without
// "data: ", NUL-terminated, valid during the call); comments are skipped. Non-zero from on_data is returned.
struct kb_sse_reader {
	struct kb_buf line, data;
};
KB_MUST_CHECK int kb_sse_feed(struct kb_sse_reader *r, const char *data, size_t len,
	int (*on_data)(void *ctx, const char *data, size_t len), void *ctx);
void kb_sse_finish(struct kb_sse_reader *r);
