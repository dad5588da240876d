// TLS by mbedTLS 3.6: the only file that sees its ssl half. See tls.h.
#include "net/tls.h"
#include "net/tls_alert.h"
#include "net/x509.h"

#include <mbedtls/error.h>
#include <mbedtls/pk.h>
#include <mbedtls/platform_util.h>
#include <mbedtls/psa_util.h>
#include <mbedtls/ssl.h>
#include <mbedtls/ssl_ciphersuites.h>
#include <mbedtls/version.h>
#include <mbedtls/x509_crt.h>
#include <psa/crypto.h>
#include <stdlib.h>
#include <string.h>

// 3.6.0 to 3.6.5 let a man in the middle skip client authentication where TLS 1.2 is on too (CVE-2026-34873); we
// only do 1.3, and ask for the fixed library all the same.
#if MBEDTLS_VERSION_NUMBER < 0x03060600 || MBEDTLS_VERSION_NUMBER >= 0x04000000
#error "mbedTLS 3.6.6 or a later 3.6 is needed"
#endif

struct kb_tls_config {
	mbedtls_ssl_config conf;
	mbedtls_x509_crt ca, cert;
	mbedtls_pk_context key;
	enum kb_tls_role role;
	unsigned n_users; // connections, and whoever made it
	bool (*is_allowed)(void *ctx, const struct kb_tls_peer *peer);
	bool (*may_claim)(void *ctx);
	void *ctx;
};

struct kb_tls {
	mbedtls_ssl_context ssl;
	struct kb_tls_config *config;
	struct kb_buf in, out;
	size_t in_head; // bytes of in already read
	bool is_ended, is_failed, has_read, has_secret, is_claim;
	uint8_t secret[KB_TLS_SECRET_LEN]; // of what the server sends after the handshake; wiped when that is over
	struct kb_tls_peer peer;
};

static const int suites[] = {
	MBEDTLS_TLS1_3_AES_128_GCM_SHA256,
	MBEDTLS_TLS1_3_CHACHA20_POLY1305_SHA256,
	0,
};
static const uint16_t groups[] = {
	MBEDTLS_SSL_IANA_TLS_GROUP_X25519,
	MBEDTLS_SSL_IANA_TLS_GROUP_SECP256R1,
	MBEDTLS_SSL_IANA_TLS_GROUP_NONE,
};
static const uint16_t signatures[] = {MBEDTLS_TLS1_3_SIG_ECDSA_SECP256R1_SHA256, MBEDTLS_TLS1_3_SIG_NONE};
static const char *protocols[] = {"http/1.1", NULL};

static int fail_with(struct kb_err *err, int code, const char *what, int r)
{
	char text[160];
	mbedtls_strerror(r, text, sizeof text);
	return kb_fail(err, code, "%s: %s", what, text);
}

int kb_tls_init(struct kb_err *err)
{
	psa_status_t s = psa_crypto_init();
	if (s != PSA_SUCCESS)
		return kb_fail(err, KB_EIO, "starting the crypto library: status %d (no source of randomness?)", (int)s);
	return 0;
}

static void peer_from_certificate(const mbedtls_x509_crt *crt, struct kb_tls_peer *ret)
{
	memset(ret, 0, sizeof *ret);
	kb_sha256(crt->raw.p, crt->raw.len, ret->fingerprint);
	for (const mbedtls_x509_name *n = &crt->subject; n; n = n->next) {
		static const uint8_t common_name[] = {0x55, 0x04, 0x03}; // 2.5.4.3
		if (n->oid.len != sizeof common_name || memcmp(n->oid.p, common_name, sizeof common_name) != 0)
			continue;
		size_t len = n->val.len < KB_TLS_NAME_MAX ? n->val.len : KB_TLS_NAME_MAX;
		for (size_t i = 0; i < len; i++)
			ret->name[i] = n->val.p[i] < 0x20 || n->val.p[i] == 0x7f ? '?' : (char)n->val.p[i];
		break;
	}
}

static bool is_client(enum kb_tls_role role)
{
	return role == KB_TLS_CLIENT || role == KB_TLS_CLIENT_CLAIM;
}

// A certificate is asked for by whoever may answer for it: the name alone changes nothing while the box may not be
// claimed.
static int on_server_name(void *ctx, mbedtls_ssl_context *ssl, const unsigned char *name, size_t len)
{
	const struct kb_tls_config *c = ctx;
	struct kb_tls *t = mbedtls_ssl_get_user_data_p(ssl);
	if (len == strlen(KB_TLS_CLAIM_NAME) && memcmp(name, KB_TLS_CLAIM_NAME, len) == 0 && c->may_claim &&
		c->may_claim(c->ctx)) {
		t->is_claim = true;
		mbedtls_ssl_set_hs_authmode(ssl, MBEDTLS_SSL_VERIFY_NONE);
	}
	return 0;
}

static int verify(void *ctx, mbedtls_x509_crt *crt, int depth, uint32_t *flags)
{
	const struct kb_tls_config *c = ctx;
	// A box whose clock battery is empty must not lock everybody out: what counts is the table of clients.
	if (c->role == KB_TLS_SERVER_MUTUAL)
		*flags &= ~(uint32_t)MBEDTLS_X509_BADCERT_FUTURE;
	if (depth != 0 || *flags != 0 || !c->is_allowed)
		return 0;
	struct kb_tls_peer peer;
	peer_from_certificate(crt, &peer);
	if (!c->is_allowed(c->ctx, &peer))
		*flags |= MBEDTLS_X509_BADCERT_REVOKED;
	return 0;
}

static int load_credentials(struct kb_tls_config *c, const struct kb_tls_options *o, struct kb_err *err)
{
	int r;
	if (o->ca_pem) {
		r = mbedtls_x509_crt_parse(&c->ca, (const unsigned char *)o->ca_pem, strlen(o->ca_pem) + 1);
		if (r)
			return fail_with(err, KB_EBAD, "reading the authority's certificate", r);
		mbedtls_ssl_conf_ca_chain(&c->conf, &c->ca, NULL);
	} else if (o->role != KB_TLS_SERVER_ONLY && o->role != KB_TLS_CLIENT_CLAIM) {
		return kb_fail(err, KB_EARG, "TLS needs the authority's certificate");
	}
	if (!o->cert_pem || !o->key_pem)
		return is_client(o->role) ? 0 : kb_fail(err, KB_EARG, "a TLS server needs a certificate and its key");
	r = mbedtls_x509_crt_parse(&c->cert, (const unsigned char *)o->cert_pem, strlen(o->cert_pem) + 1);
	if (r)
		return fail_with(err, KB_EBAD, "reading the certificate", r);
	r = mbedtls_pk_parse_key(&c->key, (const unsigned char *)o->key_pem, strlen(o->key_pem) + 1, NULL, 0,
		mbedtls_psa_get_random, MBEDTLS_PSA_RANDOM_STATE);
	if (r)
		return fail_with(err, KB_EBAD, "reading the private key", r);
	if (mbedtls_pk_check_pair(&c->cert.pk, &c->key, mbedtls_psa_get_random, MBEDTLS_PSA_RANDOM_STATE))
		return kb_fail(err, KB_EBAD, "the certificate and the private key do not belong together");
	r = mbedtls_ssl_conf_own_cert(&c->conf, &c->cert, &c->key);
	return r ? fail_with(err, KB_EBAD, "using the certificate", r) : 0;
}

static int configure(struct kb_tls_config *c, const struct kb_tls_options *o, struct kb_err *err)
{
	mbedtls_ssl_config *conf = &c->conf;
	int endpoint = is_client(o->role) ? MBEDTLS_SSL_IS_CLIENT : MBEDTLS_SSL_IS_SERVER;
	int r = mbedtls_ssl_config_defaults(conf, endpoint, MBEDTLS_SSL_TRANSPORT_STREAM, MBEDTLS_SSL_PRESET_DEFAULT);
	if (r)
		return fail_with(err, KB_ENOMEM, "setting up TLS", r);
	mbedtls_ssl_conf_min_tls_version(conf, MBEDTLS_SSL_VERSION_TLS1_3);
	mbedtls_ssl_conf_max_tls_version(conf, MBEDTLS_SSL_VERSION_TLS1_3);
	mbedtls_ssl_conf_tls13_key_exchange_modes(conf, MBEDTLS_SSL_TLS1_3_KEY_EXCHANGE_MODE_EPHEMERAL);
	mbedtls_ssl_conf_ciphersuites(conf, suites);
	mbedtls_ssl_conf_groups(conf, groups);
	mbedtls_ssl_conf_sig_algs(conf, signatures);
	mbedtls_ssl_conf_rng(conf, mbedtls_psa_get_random, MBEDTLS_PSA_RANDOM_STATE);
	// REQUIRED, never OPTIONAL: optional verification is easy to forget to look at.
	const bool needs_none = o->role == KB_TLS_SERVER_ONLY || o->role == KB_TLS_CLIENT_CLAIM;
	mbedtls_ssl_conf_authmode(conf, needs_none ? MBEDTLS_SSL_VERIFY_NONE : MBEDTLS_SSL_VERIFY_REQUIRED);
	if (o->role == KB_TLS_SERVER_MUTUAL)
		mbedtls_ssl_conf_sni(conf, on_server_name, c);
	mbedtls_ssl_conf_verify(conf, verify, c);
	if (is_client(o->role))
		mbedtls_ssl_conf_session_tickets(conf, MBEDTLS_SSL_SESSION_TICKETS_DISABLED);
	r = mbedtls_ssl_conf_alpn_protocols(conf, protocols);
	return r ? fail_with(err, KB_EARG, "setting up ALPN", r) : load_credentials(c, o, err);
}

int kb_tls_config_create(const struct kb_tls_options *o, struct kb_tls_config **ret, struct kb_err *err)
{
	struct kb_tls_config *c = calloc(1, sizeof *c);
	if (!c)
		return kb_fail(err, KB_ENOMEM, "setting up TLS: out of memory");
	c->role = o->role;
	c->n_users = 1;
	c->is_allowed = o->is_allowed;
	c->may_claim = o->may_claim;
	c->ctx = o->ctx;
	mbedtls_ssl_config_init(&c->conf);
	mbedtls_x509_crt_init(&c->ca);
	mbedtls_x509_crt_init(&c->cert);
	mbedtls_pk_init(&c->key);
	int r = kb_tls_init(err);
	if (r == 0)
		r = configure(c, o, err);
	if (r) {
		kb_tls_config_destroy(c);
		return r;
	}
	*ret = c;
	return 0;
}

void kb_tls_config_destroy(struct kb_tls_config *c)
{
	if (!c || --c->n_users > 0)
		return;
	mbedtls_ssl_config_free(&c->conf);
	mbedtls_x509_crt_free(&c->ca);
	mbedtls_x509_crt_free(&c->cert);
	mbedtls_pk_free(&c->key);
	free(c);
}

static int take_input(void *ctx, unsigned char *data, size_t size)
{
	struct kb_tls *t = ctx;
	size_t n = t->in.len - t->in_head;
	if (n == 0)
		return t->is_ended ? 0 : MBEDTLS_ERR_SSL_WANT_READ;
	n = n < size ? n : size;
	memcpy(data, t->in.data + t->in_head, n);
	t->in_head += n;
	if (t->in_head == t->in.len)
		t->in_head = t->in.len = 0;
	return (int)n;
}

static int put_output(void *ctx, const unsigned char *data, size_t len)
{
	struct kb_tls *t = ctx;
	// The ceiling is kept by kb_tls_write(); handshake messages and alerts are small and always fit.
	return kb_buf_append(&t->out, data, len) ? MBEDTLS_ERR_SSL_ALLOC_FAILED : (int)len;
}

static void on_secret(void *ctx, mbedtls_ssl_key_export_type type, const unsigned char *secret, size_t len,
	const unsigned char client_random[32], const unsigned char server_random[32], mbedtls_tls_prf_types prf)
{
	struct kb_tls *t = ctx;
	(void)client_random, (void)server_random, (void)prf;
	if (type != MBEDTLS_SSL_KEY_EXPORT_TLS1_3_SERVER_APPLICATION_TRAFFIC_SECRET || len != sizeof t->secret)
		return;
	memcpy(t->secret, secret, len);
	t->has_secret = true;
}

int kb_tls_create(struct kb_tls_config *c, const char *host, struct kb_tls **ret, struct kb_err *err)
{
	struct kb_tls *t = calloc(1, sizeof *t);
	if (!t)
		return kb_fail(err, KB_ENOMEM, "opening a TLS connection: out of memory");
	t->config = c;
	c->n_users++;
	mbedtls_ssl_init(&t->ssl);
	int r = mbedtls_ssl_setup(&t->ssl, &c->conf);
	mbedtls_ssl_set_user_data_p(&t->ssl, t);
	if (r == 0 && is_client(c->role))
		r = mbedtls_ssl_set_hostname(&t->ssl, c->role == KB_TLS_CLIENT ? host : KB_TLS_CLAIM_NAME);
	if (r) {
		kb_tls_destroy(t);
		return fail_with(err, KB_ENOMEM, "opening a TLS connection", r);
	}
	mbedtls_ssl_set_bio(&t->ssl, t, put_output, take_input, NULL);
	if (c->role == KB_TLS_SERVER_MUTUAL)
		mbedtls_ssl_set_export_keys_cb(&t->ssl, on_secret, t);
	*ret = t;
	return 0;
}

void kb_tls_destroy(struct kb_tls *t)
{
	if (!t)
		return;
	mbedtls_ssl_free(&t->ssl);
	kb_tls_config_destroy(t->config);
	kb_buf_finish(&t->in);
	kb_buf_finish(&t->out);
	mbedtls_platform_zeroize(t->secret, sizeof t->secret);
	free(t);
}

int kb_tls_feed(struct kb_tls *t, const void *data, size_t len)
{
	if (len > KB_TLS_INPUT_MAX || t->in.len - t->in_head > KB_TLS_INPUT_MAX - len)
		return KB_ELIMIT;
	kb_buf_consume(&t->in, t->in_head);
	t->in_head = 0;
	return kb_buf_append(&t->in, data, len);
}

void kb_tls_feed_end(struct kb_tls *t)
{
	t->is_ended = true;
}

struct kb_buf *kb_tls_output(struct kb_tls *t)
{
	return &t->out;
}

// Why the library gave up, for a person.
static int explain(struct kb_tls *t, int r, struct kb_err *err)
{
	uint32_t flags = mbedtls_ssl_get_verify_result(&t->ssl);
	const bool is_ours = is_client(t->config->role); // this side is the client's
	static const char refused_us[] = "the box refused this client in the TLS handshake: pair it (again)";
	static const char gave_up[] = "the client gave up the TLS handshake (does it trust the box's authority?)";
	t->is_failed = true;
	switch (r) {
	case MBEDTLS_ERR_SSL_CONN_EOF:
		return kb_fail(err, KB_ECLOSED, "the connection was cut");
	case MBEDTLS_ERR_SSL_PEER_CLOSE_NOTIFY:
		return kb_fail(err, KB_ECLOSED, "closed by the other side");
	case MBEDTLS_ERR_SSL_INVALID_MAC:
		// The other side's alert about our certificate may come under keys that we do not expect at that moment
		// (mbedTLS 3.6 does so): it can only be told by its place, the first thing to come.
		if (is_ours ? t->has_read || !mbedtls_ssl_is_handshake_over(&t->ssl) : mbedtls_ssl_is_handshake_over(&t->ssl))
			return fail_with(err, KB_EBAD, "TLS", r);
		return kb_fail(err, KB_EDENIED, "%s", is_ours ? refused_us : gave_up);
	case MBEDTLS_ERR_SSL_BAD_CERTIFICATE:
		return kb_fail(err, KB_EDENIED, "the other side's certificate is not one for this use");
	case MBEDTLS_ERR_SSL_NO_CLIENT_CERTIFICATE:
		return kb_fail(err, KB_EDENIED, "the client showed no certificate");
	case MBEDTLS_ERR_SSL_FATAL_ALERT_MESSAGE:
		return kb_fail(err, KB_EDENIED, "%s", is_ours ? refused_us : gave_up);
	case MBEDTLS_ERR_X509_CERT_VERIFY_FAILED: {
		char why[160] = "";
		if (!is_ours && flags == MBEDTLS_X509_BADCERT_REVOKED)
			return kb_fail(err, KB_EDENIED, "the client is not paired, or was revoked");
		mbedtls_x509_crt_verify_info(why, sizeof why, "", flags);
		for (char *c = why; *c; c++)
			*c = *c == '\n' ? ';' : *c;
		return kb_fail(err, KB_EDENIED, "the other side's certificate is refused: %s", why);
	}
	default:
		return fail_with(err, KB_EBAD, "TLS", r);
	}
}

// The alert that says what is wrong with a client's certificate (RFC 8446, 6.2); 0: it was something else.
static uint8_t alert_of(const struct kb_tls *t, int r)
{
	switch (r) {
	case MBEDTLS_ERR_SSL_NO_CLIENT_CERTIFICATE:
		return 116; // certificate_required
	case MBEDTLS_ERR_SSL_BAD_CERTIFICATE:
		return MBEDTLS_SSL_ALERT_MSG_UNSUPPORTED_CERT;
	case MBEDTLS_ERR_X509_CERT_VERIFY_FAILED:
		return mbedtls_ssl_get_verify_result(&t->ssl) & MBEDTLS_X509_BADCERT_NOT_TRUSTED
				   ? MBEDTLS_SSL_ALERT_MSG_UNKNOWN_CA
				   : MBEDTLS_SSL_ALERT_MSG_CERT_REVOKED;
	default:
		return 0;
	}
}

// mbedTLS 3.6 sends the alert about a client's certificate under the handshake's keys, when the client already reads
// with the connection's: clients report a broken record instead of the reason. Ours takes its place.
static void replace_alert(struct kb_tls *t, int r, size_t out_len)
{
	// Before the end of the handshake the library tells the suite by no function.
	const mbedtls_ssl_session *session = t->ssl.MBEDTLS_PRIVATE(session_negotiate);
	int suite = session ? session->MBEDTLS_PRIVATE(ciphersuite) : 0;
	uint8_t alert = alert_of(t, r);
	if (alert == 0)
		return;
	t->out.len = out_len;
	if (kb_tls_put_alert(&t->out,
			suite == MBEDTLS_TLS1_3_AES_128_GCM_SHA256 ? KB_TLS_AES_128_GCM : KB_TLS_CHACHA20_POLY1305, t->secret,
			alert))
		t->out.len = out_len; // then the end of the connection has to say it
}

int kb_tls_handshake(struct kb_tls *t, struct kb_err *err)
{
	if (t->is_failed)
		return kb_fail(err, KB_ECLOSED, "the TLS handshake has failed");
	if (mbedtls_ssl_is_handshake_over(&t->ssl))
		return 0;
	size_t out_len = t->out.len;
	bool had_secret = t->has_secret; // before this call: what it sends is an alert
	int r = mbedtls_ssl_handshake(&t->ssl);
	if (r == MBEDTLS_ERR_SSL_WANT_READ || r == MBEDTLS_ERR_SSL_WANT_WRITE)
		return KB_EPARTIAL;
	if (r && had_secret)
		replace_alert(t, r, out_len);
	mbedtls_platform_zeroize(t->secret, sizeof t->secret);
	if (r)
		return explain(t, r, err);
	const mbedtls_x509_crt *crt = mbedtls_ssl_get_peer_cert(&t->ssl);
	if (crt)
		peer_from_certificate(crt, &t->peer);
	return 0;
}

bool kb_tls_is_established(const struct kb_tls *t)
{
	return !t->is_failed && mbedtls_ssl_is_handshake_over((mbedtls_ssl_context *)&t->ssl);
}

bool kb_tls_is_claim(const struct kb_tls *t)
{
	return t->is_claim;
}

void kb_tls_own_fingerprint(const struct kb_tls *t, uint8_t ret[KB_FINGERPRINT_LEN])
{
	const mbedtls_x509_crt *crt = &t->config->cert;
	memset(ret, 0, KB_FINGERPRINT_LEN);
	if (crt->raw.p)
		kb_sha256(crt->raw.p, crt->raw.len, ret);
}

const struct kb_tls_peer *kb_tls_peer(const struct kb_tls *t)
{
	return &t->peer;
}

int kb_tls_read(struct kb_tls *t, void *data, size_t size, size_t *ret_n, struct kb_err *err)
{
	if (t->is_failed)
		return kb_fail(err, KB_ECLOSED, "the TLS connection has ended");
	for (;;) {
		int r = mbedtls_ssl_read(&t->ssl, data, size);
		if (r > 0) {
			*ret_n = (size_t)r;
			t->has_read = true;
			return 0;
		}
		if (r == MBEDTLS_ERR_SSL_RECEIVED_NEW_SESSION_TICKET)
			continue; // we never resume
		if (r == MBEDTLS_ERR_SSL_WANT_READ || r == MBEDTLS_ERR_SSL_WANT_WRITE)
			return KB_EPARTIAL;
		return explain(t, r == 0 ? MBEDTLS_ERR_SSL_CONN_EOF : r, err);
	}
}

int kb_tls_write(struct kb_tls *t, const void *data, size_t len, struct kb_err *err)
{
	// 22: header, content type and tag of a record; a few records of slack for what the library adds.
	size_t records = len / KB_TLS_RECORD_MAX + 2;
	if (t->is_failed)
		return kb_fail(err, KB_ECLOSED, "the TLS connection has ended");
	if (len > KB_TLS_OUTPUT_MAX || t->out.len + len + records * 22 > KB_TLS_OUTPUT_MAX)
		return KB_ELIMIT;
	for (const unsigned char *p = data; len > 0;) {
		int r = mbedtls_ssl_write(&t->ssl, p, len);
		if (r == MBEDTLS_ERR_SSL_WANT_READ || r == MBEDTLS_ERR_SSL_WANT_WRITE)
			return kb_fail(err, KB_EARG, "TLS: written before the handshake was over");
		if (r < 0)
			return explain(t, r, err);
		p += r;
		len -= (size_t)r;
	}
	return 0;
}

void kb_tls_close(struct kb_tls *t)
{
	if (!t->is_failed && mbedtls_ssl_is_handshake_over(&t->ssl))
		(void)mbedtls_ssl_close_notify(&t->ssl);
}
