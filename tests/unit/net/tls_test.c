// TLS over memory: both sides in one process; certificates judged by OpenSSL's command as well as by us.
#include "base/hex.h"
#include "harness/kt.h"
#include "net/tls.h"
#include "net/x509.h"
#include <stdio.h>

struct pki {
	struct kb_buf ca_key, ca, server_key, server, client_key, client, other_ca_key, other_ca, other_key, other;
	uint8_t fingerprint[32];
};

static const char *const names[] = {"localhost", "127.0.0.1", "::1", "box.example"};
#define TEXT(b) ((const char *)(b).data)

static void pair(const struct kb_buf *ca_key, const struct kb_buf *ca, struct kb_buf *key, struct kb_buf *cert,
	uint8_t fingerprint[32])
{
	struct kb_err err;
	struct kb_buf csr = {0};
	char serial[33];
	struct kb_x509_ca authority = {TEXT(*ca_key), TEXT(*ca)};
	assert_int_equal(kb_x509_make_csr("ann's", key, &csr, &err), KB_EARG);
	assert_int_equal(kb_x509_make_csr("ann@desk-1", key, &csr, &err), 0);
	assert_int_equal(kb_x509_issue_client(&authority, TEXT(csr), "ann", cert, fingerprint, serial, &err), 0);
	assert_int_equal(strlen(serial), 32);
	kb_buf_finish(&csr);
}

static int make_pki(void **state)
{
	struct kb_err err;
	struct pki *p = calloc(1, sizeof *p);
	uint8_t ignored[32];
	assert_int_equal(kb_tls_init(&err), 0);
	assert_int_equal(kb_x509_make_ca("Kotobako test", &p->ca_key, &p->ca, &err), 0);
	assert_int_equal(kb_x509_make_ca("Kotobako test", &p->other_ca_key, &p->other_ca, &err), 0);
	struct kb_x509_ca ca = {TEXT(p->ca_key), TEXT(p->ca)};
	assert_int_equal(kb_x509_make_server(&ca, names, 4, &p->server_key, &p->server, &err), 0);
	pair(&p->ca_key, &p->ca, &p->client_key, &p->client, p->fingerprint);
	pair(&p->other_ca_key, &p->other_ca, &p->other_key, &p->other, ignored);
	*state = p;
	return 0;
}

static int drop_pki(void **state)
{
	struct pki *p = *state;
	struct kb_buf *all[] = {&p->ca_key, &p->ca, &p->server_key, &p->server, &p->client_key, &p->client,
		&p->other_ca_key, &p->other_ca, &p->other_key, &p->other};
	for (size_t i = 0; i < sizeof all / sizeof *all; i++)
		kb_wipe(all[i]);
	free(p);
	return 0;
}

// A client and a server with wires between them.
struct duo {
	struct kb_tls_config *cc, *sc;
	struct kb_tls *c, *s;
	struct kb_err ce, se;
	int asked;
	bool allow;
	struct kb_tls_peer seen;
};

static bool judge(void *ctx, const struct kb_tls_peer *peer)
{
	struct duo *d = ctx;
	d->asked++;
	d->seen = *peer;
	return d->allow;
}

static void open_duo(struct duo *d, enum kb_tls_role role, const struct pki *p, const struct kb_buf *cert,
	const struct kb_buf *key, const char *host)
{
	struct kb_err err;
	struct kb_tls_options so = {.role = role,
		.ca_pem = TEXT(p->ca),
		.cert_pem = TEXT(p->server),
		.key_pem = TEXT(p->server_key),
		.is_allowed = judge,
		.ctx = d};
	struct kb_tls_options co = {.role = KB_TLS_CLIENT,
		.ca_pem = TEXT(p->ca),
		.cert_pem = cert ? TEXT(*cert) : NULL,
		.key_pem = key ? TEXT(*key) : NULL};
	assert_int_equal(kb_tls_config_create(&so, &d->sc, &err), 0);
	assert_int_equal(kb_tls_config_create(&co, &d->cc, &err), 0);
	assert_int_equal(kb_tls_create(d->sc, NULL, &d->s, &err), 0);
	assert_int_equal(kb_tls_create(d->cc, host, &d->c, &err), 0);
}

static void close_duo(struct duo *d)
{
	kb_tls_destroy(d->c);
	kb_tls_destroy(d->s);
	kb_tls_config_destroy(d->cc);
	kb_tls_config_destroy(d->sc);
}

// Moves what one has to send into the other, at most step bytes a time.
static bool carry(struct kb_tls *from, struct kb_tls *to, size_t step)
{
	struct kb_buf *out = kb_tls_output(from);
	size_t n = out->len < step ? out->len : step;
	if (n == 0)
		return false;
	assert_int_equal(kb_tls_feed(to, out->data, n), 0);
	kb_buf_consume(out, n);
	return true;
}

// Runs both handshakes to their end; the server's result counts, the client's follows from it.
static int handshake(struct duo *d, size_t step, int *ret_client)
{
	int rc = KB_EPARTIAL, rs = KB_EPARTIAL;
	for (int i = 0; i < 100000; i++) {
		if (rc == KB_EPARTIAL)
			rc = kb_tls_handshake(d->c, &d->ce);
		bool moved = carry(d->c, d->s, step);
		if (rs == KB_EPARTIAL)
			rs = kb_tls_handshake(d->s, &d->se);
		moved |= carry(d->s, d->c, step);
		if (!moved && i > 2)
			break;
	}
	*ret_client = rc;
	return rs;
}

static void pairs_and_talks(void **state)
{
	struct pki *p = *state;
	struct duo d = {.allow = true};
	int rc;
	open_duo(&d, KB_TLS_SERVER_MUTUAL, p, &p->client, &p->client_key, "127.0.0.1");
	assert_int_equal(handshake(&d, 1, &rc), 0); // byte by byte
	assert_int_equal(rc, 0);
	assert_int_equal(d.asked, 1);
	assert_memory_equal(d.seen.fingerprint, p->fingerprint, 32);
	assert_memory_equal(kb_tls_peer(d.s)->fingerprint, p->fingerprint, 32);
	assert_string_equal(kb_tls_peer(d.s)->name, "ann"); // the name given at pairing, not the request's

	static uint8_t sent[100000], got[100000];
	for (size_t i = 0; i < sizeof sent; i++)
		sent[i] = (uint8_t)(i * 7 + (i >> 8));
	assert_int_equal(kb_tls_write(d.s, sent, sizeof sent, NULL), 0);
	size_t n = 0, have = 0;
	while (have < sizeof got) {
		int r = kb_tls_read(d.c, got + have, sizeof got - have, &n, NULL);
		if (r == 0)
			have += n;
		else
			assert_true(r == KB_EPARTIAL && carry(d.s, d.c, 5000));
	}
	assert_memory_equal(sent, got, sizeof sent);

	kb_tls_close(d.s);
	while (carry(d.s, d.c, 5000))
		;
	assert_int_equal(kb_tls_read(d.c, got, sizeof got, &n, &d.ce), KB_ECLOSED);
	assert_string_equal(d.ce.text, "closed by the other side");
	close_duo(&d);
}

static void tells_a_cut_from_an_end(void **state)
{
	struct pki *p = *state;
	struct duo d = {.allow = true};
	int rc;
	size_t n;
	char byte;
	open_duo(&d, KB_TLS_SERVER_MUTUAL, p, &p->client, &p->client_key, "localhost");
	assert_int_equal(handshake(&d, 16384, &rc), 0);
	assert_int_equal(kb_tls_read(d.c, &byte, 1, &n, &d.ce), KB_EPARTIAL);
	kb_tls_feed_end(d.c);
	assert_int_equal(kb_tls_read(d.c, &byte, 1, &n, &d.ce), KB_ECLOSED);
	assert_string_equal(d.ce.text, "the connection was cut");
	close_duo(&d);
}

// Every client that must not come in, and every server that must not be believed.
static void refuses(void **state)
{
	struct pki *p = *state;
	const struct {
		const char *what, *host;
		const struct kb_buf *cert, *key;
		bool allow;
		int server, client;
	} rows[] = {
		{"no certificate", "localhost", NULL, NULL, true, KB_EDENIED, 0},
		{"another box's", "localhost", &p->other, &p->other_key, true, KB_EDENIED, 0},
		{"revoked", "localhost", &p->client, &p->client_key, false, KB_EDENIED, 0},
		{"a server's certificate", "localhost", &p->server, &p->server_key, true, KB_EDENIED, 0},
		{"the authority itself", "localhost", &p->ca, &p->ca_key, true, KB_EDENIED, 0},
		{"wrong server name", "elsewhere.example", &p->client, &p->client_key, true, KB_EDENIED, KB_EDENIED},
		{"wrong server address", "127.0.0.2", &p->client, &p->client_key, true, KB_EDENIED, KB_EDENIED},
	};
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		struct duo d = {.allow = rows[i].allow};
		int rc;
		size_t n;
		char byte;
		print_message("# %s\n", rows[i].what);
		open_duo(&d, KB_TLS_SERVER_MUTUAL, p, rows[i].cert, rows[i].key, rows[i].host);
		int rs = handshake(&d, 16384, &rc);
		print_message("#   server: %s; client: %s\n", d.se.text, d.ce.text);
		assert_int_equal(rs, rows[i].server);
		assert_int_equal(rc, rows[i].client);
		assert_false(kb_tls_is_established(d.s));
		if (rc == 0) { // the client learns it with its first read
			assert_int_equal(kb_tls_read(d.c, &byte, 1, &n, &d.ce), KB_EDENIED);
			assert_string_equal(d.ce.text, "the box refused this client in the TLS handshake: pair it (again)");
		}
		assert_int_equal(kb_tls_write(d.s, "x", 1, NULL), KB_ECLOSED);
		close_duo(&d);
	}
}

static void bearer_listener_wants_none(void **state)
{
	struct pki *p = *state;
	struct duo d = {.allow = true};
	int rc;
	open_duo(&d, KB_TLS_SERVER_ONLY, p, NULL, NULL, "::1");
	assert_int_equal(handshake(&d, 16384, &rc), 0);
	assert_int_equal(rc, 0);
	assert_int_equal(d.asked, 0);
	assert_string_equal(kb_tls_peer(d.s)->name, "");
	close_duo(&d);
}

static void output_has_a_ceiling(void **state)
{
	struct pki *p = *state;
	struct duo d = {.allow = true};
	static uint8_t block[65536];
	int rc, r = 0, written = 0;
	open_duo(&d, KB_TLS_SERVER_MUTUAL, p, &p->client, &p->client_key, "localhost");
	assert_int_equal(handshake(&d, 16384, &rc), 0);
	while ((r = kb_tls_write(d.s, block, sizeof block, NULL)) == 0)
		written++;
	assert_int_equal(r, KB_ELIMIT);
	assert_in_range(written, 6, 8);
	assert_in_range(kb_tls_output(d.s)->len, 1, KB_TLS_OUTPUT_MAX);
	r = 0;
	while (r == 0)
		r = kb_tls_feed(d.s, block, 10000);
	assert_int_equal(r, KB_ELIMIT);
	close_duo(&d);
}

// Garbage, and a real hello with each byte of its first 400 damaged, never hangs or crashes the server.
static void survives_garbage(void **state)
{
	struct pki *p = *state;
	struct duo d = {.allow = true};
	uint8_t hello[2048];
	open_duo(&d, KB_TLS_SERVER_MUTUAL, p, NULL, NULL, "localhost");
	assert_int_equal(kb_tls_handshake(d.c, NULL), KB_EPARTIAL);
	size_t len = kb_tls_output(d.c)->len;
	assert_in_range(len, 100, sizeof hello);
	memcpy(hello, kb_tls_output(d.c)->data, len);
	for (size_t i = 0; i < len && i < 400; i++) {
		kb_tls_destroy(d.s);
		assert_int_equal(kb_tls_create(d.sc, NULL, &d.s, NULL), 0);
		hello[i] ^= 0x55;
		assert_int_equal(kb_tls_feed(d.s, hello, len), 0);
		kb_tls_feed_end(d.s);
		int r = kb_tls_handshake(d.s, &d.se);
		assert_true(r != 0 && r != KB_EPARTIAL);
		hello[i] ^= 0x55;
	}
	close_duo(&d);
}

static void put_file(const char *dir, const char *name, const struct kb_buf *b)
{
	char path[512];
	snprintf(path, sizeof path, "%s/%s", dir, name);
	FILE *f = fopen(path, "w");
	assert_non_null(f);
	assert_int_equal(fwrite(b->data, 1, b->len, f), b->len);
	assert_int_equal(fclose(f), 0);
}

// OpenSSL, in its strict mode, believes the same chains; and refuses each for the other's purpose.
static void openssl_agrees(void **state)
{
	struct pki *p = *state;
	const char *dir = getenv("KB_TMP");
	if (!dir) {
		print_message("# KB_TMP is not set: run by tests/run.sh\n");
		skip();
	}
	put_file(dir, "ca.pem", &p->ca);
	put_file(dir, "server.pem", &p->server);
	put_file(dir, "client.pem", &p->client);
	put_file(dir, "other.pem", &p->other);
	const struct {
		const char *arguments;
		bool holds;
	} rows[] = {
		{"-purpose sslserver -verify_hostname localhost server.pem", true},
		{"-purpose sslserver -verify_hostname box.example server.pem", true},
		{"-purpose sslserver -verify_ip 127.0.0.1 server.pem", true},
		{"-purpose sslserver -verify_ip ::1 server.pem", true},
		{"-purpose sslserver -verify_ip 127.0.0.2 server.pem", false},
		{"-purpose sslserver -verify_hostname example server.pem", false},
		{"-purpose sslclient client.pem", true},
		{"-purpose sslclient server.pem", false},
		{"-purpose sslserver client.pem", false},
		{"-purpose sslclient other.pem", false},
	};
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		char command[1024];
		snprintf(command, sizeof command, "cd '%s' && openssl verify -x509_strict -CAfile ca.pem %s >/dev/null 2>&1",
			dir, rows[i].arguments);
		print_message("# openssl verify %s\n", rows[i].arguments);
		assert_int_equal(system(command) == 0, rows[i].holds);
	}
}

static void signing_requests_are_checked(void **state)
{
	struct pki *p = *state;
	struct kb_x509_ca ca = {TEXT(p->ca_key), TEXT(p->ca)};
	struct kb_buf key = {0}, csr = {0}, cert = {0};
	struct kb_err err;
	uint8_t fingerprint[32];
	char serial[33];
	assert_int_equal(kb_x509_make_csr("eve", &key, &csr, &err), 0);
	assert_int_equal(kb_x509_issue_client(&ca, "nonsense", "eve", &cert, fingerprint, serial, &err), KB_EBAD);
	assert_int_equal(kb_x509_issue_client(&ca, TEXT(csr), "", &cert, fingerprint, serial, &err), KB_EARG);
	assert_int_equal(kb_x509_issue_client(&ca, TEXT(csr), "e,O=v", &cert, fingerprint, serial, &err), KB_EARG);
	// One bit of the signature (the last base64 group before the end) flipped.
	char *end = strstr((char *)csr.data, "\n-----END");
	assert_non_null(end);
	end[-12] = end[-12] == 'A' ? 'B' : 'A';
	int r = kb_x509_issue_client(&ca, TEXT(csr), "eve", &cert, fingerprint, serial, &err);
	assert_true(r == KB_EBAD);
	assert_int_equal(cert.len, 0);
	// Not P-256: made by OpenSSL.
	const char *dir = getenv("KB_TMP");
	char command[1024], pem[4096] = "";
	snprintf(command, sizeof command,
		"cd '%s' && openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:secp384r1 -nodes -keyout k -subj /CN=x "
		"2>/dev/null",
		dir ? dir : ".");
	FILE *f = dir ? popen(command, "r") : NULL;
	if (f) {
		size_t n = fread(pem, 1, sizeof pem - 1, f);
		pem[n] = 0;
		pclose(f);
		assert_int_equal(kb_x509_issue_client(&ca, pem, "eve", &cert, fingerprint, serial, &err), KB_EUNSUPPORTED);
	}
	kb_wipe(&key);
	kb_buf_finish(&csr);
	kb_buf_finish(&cert);
}

static void server_certificate_is_renewed_when_names_change(void **state)
{
	struct pki *p = *state;
	const char *const more[] = {"localhost", "new.example"};
	const char *const bad[] = {"a b"};
	struct kb_x509_ca ca = {TEXT(p->ca_key), TEXT(p->ca)};
	struct kb_buf key = {0}, cert = {0};
	struct kb_err err;
	assert_true(kb_x509_server_fits(TEXT(p->server), names, 4));
	assert_false(kb_x509_server_fits(TEXT(p->server), more, 2));
	assert_int_equal(kb_x509_make_server(&ca, bad, 1, &key, &cert, &err), KB_EARG);
	assert_non_null(strstr(err.text, "a b"));
}

static void hash_matches_fips_180(void **state)
{
	(void)state;
	uint8_t hash[32], back[32];
	char text[65];
	kb_sha256("abc", 3, hash); // FIPS 180-2, B.1
	kb_hex(hash, 32, text);
	assert_string_equal(text, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
	assert_int_equal(kb_unhex(text, back, 32), 0);
	assert_memory_equal(hash, back, 32);
	assert_true(kb_equal_constant_time(hash, back, 32));
	back[31] ^= 1;
	assert_false(kb_equal_constant_time(hash, back, 32));
	assert_int_equal(kb_unhex("zz", back, 1), KB_EBAD);
	assert_int_equal(kb_unhex("000", back, 1), KB_EBAD);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(pairs_and_talks),
		cmocka_unit_test(tells_a_cut_from_an_end),
		cmocka_unit_test(refuses),
		cmocka_unit_test(bearer_listener_wants_none),
		cmocka_unit_test(output_has_a_ceiling),
		cmocka_unit_test(survives_garbage),
		cmocka_unit_test(openssl_agrees),
		cmocka_unit_test(signing_requests_are_checked),
		cmocka_unit_test(server_certificate_is_renewed_when_names_change),
		cmocka_unit_test(hash_matches_fips_180),
	};
	return cmocka_run_group_tests_name("net/tls", tests, make_pki, drop_pki);
}
