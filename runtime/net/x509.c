// Certificates. See x509.h.
#include "net/x509.h"
#include "base/hex.h"

#include <arpa/inet.h>
#include <mbedtls/asn1write.h>
#include <mbedtls/ecp.h>
#include <mbedtls/error.h>
#include <mbedtls/md.h>
#include <mbedtls/oid.h>
#include <mbedtls/pem.h>
#include <mbedtls/pk.h>
#include <mbedtls/platform_util.h>
#include <mbedtls/psa_util.h>
#include <mbedtls/x509_crt.h>
#include <mbedtls/x509_csr.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define SERIAL_LEN 16
#define CA_YEARS 20
#define LEAF_YEARS 10
#define DN_MAX (KB_TLS_NAME_MAX + 32)
// Where the clock is wrong (no battery), "not before" must not lie in the future of other machines' clocks.
#define NOT_BEFORE "20250101000000"

static int fail_with(struct kb_err *err, int code, const char *what, int r)
{
	char text[160];
	mbedtls_strerror(r, text, sizeof text);
	return kb_fail(err, code, "%s: %s", what, text);
}

bool kb_x509_name_ok(const char *name)
{
	size_t len = strlen(name);
	static const char also[] = ".-_@ ";
	if (len == 0 || len > KB_TLS_NAME_MAX || name[0] == ' ' || name[len - 1] == ' ')
		return false;
	for (const char *c = name; *c; c++) {
		bool is_alnum = (*c >= '0' && *c <= '9') || (*c >= 'a' && *c <= 'z') || (*c >= 'A' && *c <= 'Z');
		if (!is_alnum && !strchr(also, *c))
			return false;
	}
	return true;
}

static int make_key(mbedtls_pk_context *key, struct kb_buf *ret_pem, struct kb_err *err)
{
	unsigned char pem[1024];
	int r = mbedtls_pk_setup(key, mbedtls_pk_info_from_type(MBEDTLS_PK_ECKEY));
	if (r == 0)
		r = mbedtls_ecp_gen_key(
			MBEDTLS_ECP_DP_SECP256R1, mbedtls_pk_ec(*key), mbedtls_psa_get_random, MBEDTLS_PSA_RANDOM_STATE);
	if (r == 0)
		r = mbedtls_pk_write_key_pem(key, pem, sizeof pem);
	if (r)
		return fail_with(err, KB_EIO, "making a key", r);
	r = kb_buf_puts(ret_pem, (const char *)pem);
	mbedtls_platform_zeroize(pem, sizeof pem);
	if (r == 0 && !kb_buf_cstr(ret_pem))
		r = KB_ENOMEM;
	return r ? kb_fail(err, r, "making a key: out of memory") : 0;
}

// What distinguishes the three kinds of certificates.
struct kind {
	bool is_ca;
	int years;
	unsigned key_usage;
	bool for_server, for_client;
	const mbedtls_x509_san_list *names;
};

static int set_dates(mbedtls_x509write_cert *w, int years)
{
	char end[16];
	time_t now = time(NULL);
	struct tm t;
	gmtime_r(&now, &t);
	if (t.tm_year < 125) // an empty clock: count from 2025
		t.tm_year = 125;
	snprintf(end, sizeof end, "%04u0101000000", (unsigned)(t.tm_year + 1901 + years) % 10000u);
	return mbedtls_x509write_crt_set_validity(w, NOT_BEFORE, end);
}

static int set_usages(mbedtls_x509write_cert *w, const struct kind *k)
{
	mbedtls_asn1_sequence server = {
		.buf = {MBEDTLS_ASN1_OID, sizeof MBEDTLS_OID_SERVER_AUTH - 1, (unsigned char *)MBEDTLS_OID_SERVER_AUTH}};
	mbedtls_asn1_sequence client = {
		.buf = {MBEDTLS_ASN1_OID, sizeof MBEDTLS_OID_CLIENT_AUTH - 1, (unsigned char *)MBEDTLS_OID_CLIENT_AUTH}};
	if (k->for_server && k->for_client)
		server.next = &client;
	int r = mbedtls_x509write_crt_set_basic_constraints(w, k->is_ca, k->is_ca ? 0 : -1);
	if (r == 0)
		r = mbedtls_x509write_crt_set_key_usage(w, k->key_usage);
	if (r == 0)
		r = mbedtls_x509write_crt_set_ext_key_usage(w, k->for_server ? &server : &client);
	if (r == 0)
		r = mbedtls_x509write_crt_set_subject_key_identifier(w);
	if (r == 0)
		r = mbedtls_x509write_crt_set_authority_key_identifier(w);
	if (r == 0 && k->names)
		r = mbedtls_x509write_crt_set_subject_alternative_name(w, k->names);
	return r;
}

// A certificate for subject_key, signed by issuer_key. DNs are "CN=...".
static int write_certificate(const struct kind *k, mbedtls_pk_context *subject_key, const char *subject,
	mbedtls_pk_context *issuer_key, const char *issuer, uint8_t serial[SERIAL_LEN], struct kb_buf *ret_pem,
	struct kb_err *err)
{
	unsigned char pem[4096];
	mbedtls_x509write_cert w;
	int r = kb_random(serial, SERIAL_LEN, err);
	if (r)
		return r;
	serial[0] = (uint8_t)((serial[0] & 0x7f) | 0x40); // positive, and always 16 bytes long
	mbedtls_x509write_crt_init(&w);
	mbedtls_x509write_crt_set_version(&w, MBEDTLS_X509_CRT_VERSION_3);
	mbedtls_x509write_crt_set_md_alg(&w, MBEDTLS_MD_SHA256);
	mbedtls_x509write_crt_set_subject_key(&w, subject_key);
	mbedtls_x509write_crt_set_issuer_key(&w, issuer_key);
	r = mbedtls_x509write_crt_set_subject_name(&w, subject);
	if (r == 0)
		r = mbedtls_x509write_crt_set_issuer_name(&w, issuer);
	if (r == 0)
		r = mbedtls_x509write_crt_set_serial_raw(&w, serial, SERIAL_LEN);
	if (r == 0)
		r = set_dates(&w, k->years);
	if (r == 0)
		r = set_usages(&w, k);
	if (r == 0)
		r = mbedtls_x509write_crt_pem(&w, pem, sizeof pem, mbedtls_psa_get_random, MBEDTLS_PSA_RANDOM_STATE);
	mbedtls_x509write_crt_free(&w);
	if (r)
		return fail_with(err, KB_EIO, "making a certificate", r);
	if (kb_buf_puts(ret_pem, (const char *)pem) || !kb_buf_cstr(ret_pem))
		return kb_fail(err, KB_ENOMEM, "making a certificate: out of memory");
	return 0;
}

int kb_x509_make_ca(const char *name, struct kb_buf *ret_key_pem, struct kb_buf *ret_cert_pem, struct kb_err *err)
{
	char dn[DN_MAX];
	uint8_t serial[SERIAL_LEN];
	struct kind k = {.is_ca = true,
		.years = CA_YEARS,
		.key_usage = MBEDTLS_X509_KU_KEY_CERT_SIGN,
		.for_server = true,
		.for_client = true};
	if (!kb_x509_name_ok(name))
		return kb_fail(err, KB_EARG, "\"%s\" cannot name an authority", name);
	snprintf(dn, sizeof dn, "CN=%s", name);
	mbedtls_pk_context key;
	mbedtls_pk_init(&key);
	int r = make_key(&key, ret_key_pem, err);
	if (r == 0)
		r = write_certificate(&k, &key, dn, &key, dn, serial, ret_cert_pem, err);
	mbedtls_pk_free(&key);
	return r;
}

// The authority, read from PEM.
struct issuer {
	mbedtls_pk_context key;
	mbedtls_x509_crt cert;
	char dn[256];
};

static int issuer_open(struct issuer *i, const struct kb_x509_ca *ca, struct kb_err *err)
{
	mbedtls_pk_init(&i->key);
	mbedtls_x509_crt_init(&i->cert);
	int r = mbedtls_pk_parse_key(&i->key, (const unsigned char *)ca->key_pem, strlen(ca->key_pem) + 1, NULL, 0,
		mbedtls_psa_get_random, MBEDTLS_PSA_RANDOM_STATE);
	if (r)
		return fail_with(err, KB_ECORRUPT, "reading the authority's key", r);
	r = mbedtls_x509_crt_parse(&i->cert, (const unsigned char *)ca->cert_pem, strlen(ca->cert_pem) + 1);
	if (r)
		return fail_with(err, KB_ECORRUPT, "reading the authority's certificate", r);
	if (mbedtls_pk_check_pair(&i->cert.pk, &i->key, mbedtls_psa_get_random, MBEDTLS_PSA_RANDOM_STATE))
		return kb_fail(err, KB_ECORRUPT, "the authority's key and certificate do not belong together");
	r = mbedtls_x509_dn_gets(i->dn, sizeof i->dn, &i->cert.subject);
	return r < 0 ? fail_with(err, KB_ECORRUPT, "reading the authority's name", r) : 0;
}

static void issuer_close(struct issuer *i)
{
	mbedtls_pk_free(&i->key);
	mbedtls_x509_crt_free(&i->cert);
}

static bool dns_name_ok(const char *name)
{
	size_t len = strlen(name);
	if (len == 0 || len > 253)
		return false;
	for (const char *c = name; *c; c++) {
		bool is_alnum = (*c >= '0' && *c <= '9') || (*c >= 'a' && *c <= 'z') || (*c >= 'A' && *c <= 'Z');
		if (!is_alnum && *c != '-' && *c != '.' && *c != '_')
			return false;
	}
	return name[0] != '.' && name[0] != '-';
}

// Address bytes (4 or 16) of an address, else 0.
static size_t parse_address(const char *name, unsigned char ret[16])
{
	if (inet_pton(AF_INET, name, ret) == 1)
		return 4;
	return inet_pton(AF_INET6, name, ret) == 1 ? 16 : 0;
}

bool kb_x509_server_name_ok(const char *name)
{
	unsigned char address[16];
	return parse_address(name, address) > 0 || dns_name_ok(name);
}

struct name_list {
	mbedtls_x509_san_list node[KB_X509_SERVER_NAMES_MAX];
	unsigned char address[KB_X509_SERVER_NAMES_MAX][16];
};

static int fill_names(struct name_list *l, const char *const *names, size_t n, struct kb_err *err)
{
	if (n == 0 || n > KB_X509_SERVER_NAMES_MAX)
		return kb_fail(err, KB_EARG, "a server has 1 to %u names, not %zu", KB_X509_SERVER_NAMES_MAX, n);
	memset(l, 0, sizeof *l);
	for (size_t i = 0; i < n; i++) {
		mbedtls_x509_subject_alternative_name *san = &l->node[i].node;
		size_t len = parse_address(names[i], l->address[i]);
		if (len == 0 && !dns_name_ok(names[i]))
			return kb_fail(err, KB_EARG, "\"%s\" is neither a host name nor an address", names[i]);
		san->type = len ? MBEDTLS_X509_SAN_IP_ADDRESS : MBEDTLS_X509_SAN_DNS_NAME;
		san->san.unstructured_name.tag = MBEDTLS_ASN1_OCTET_STRING;
		san->san.unstructured_name.p = len ? l->address[i] : (unsigned char *)names[i];
		san->san.unstructured_name.len = len ? len : strlen(names[i]);
		l->node[i].next = i + 1 < n ? &l->node[i + 1] : NULL;
	}
	return 0;
}

int kb_x509_make_server(const struct kb_x509_ca *ca, const char *const *names, size_t n_names,
	struct kb_buf *ret_key_pem, struct kb_buf *ret_cert_pem, struct kb_err *err)
{
	struct name_list list;
	uint8_t serial[SERIAL_LEN];
	int r = fill_names(&list, names, n_names, err);
	if (r)
		return r;
	struct kind k = {
		.years = LEAF_YEARS, .key_usage = MBEDTLS_X509_KU_DIGITAL_SIGNATURE, .for_server = true, .names = list.node};
	struct issuer issuer;
	mbedtls_pk_context key;
	mbedtls_pk_init(&key);
	r = issuer_open(&issuer, ca, err);
	if (r == 0)
		r = make_key(&key, ret_key_pem, err);
	if (r == 0)
		r = write_certificate(&k, &key, "CN=Kotobako server", &issuer.key, issuer.dn, serial, ret_cert_pem, err);
	mbedtls_pk_free(&key);
	issuer_close(&issuer);
	return r;
}

int kb_x509_make_csr(const char *name, struct kb_buf *ret_key_pem, struct kb_buf *ret_csr_pem, struct kb_err *err)
{
	char dn[DN_MAX];
	unsigned char pem[2048];
	if (!kb_x509_name_ok(name))
		return kb_fail(err, KB_EARG,
			"\"%s\" cannot be a client's name: letters, digits, '.', '-', '_', '@' and space, %u at most", name,
			KB_TLS_NAME_MAX);
	snprintf(dn, sizeof dn, "CN=%s", name);
	mbedtls_pk_context key;
	mbedtls_x509write_csr w;
	mbedtls_pk_init(&key);
	mbedtls_x509write_csr_init(&w);
	int r = make_key(&key, ret_key_pem, err);
	if (r == 0) {
		mbedtls_x509write_csr_set_md_alg(&w, MBEDTLS_MD_SHA256);
		mbedtls_x509write_csr_set_key(&w, &key);
		r = mbedtls_x509write_csr_set_subject_name(&w, dn);
		if (r == 0)
			r = mbedtls_x509write_csr_pem(&w, pem, sizeof pem, mbedtls_psa_get_random, MBEDTLS_PSA_RANDOM_STATE);
		if (r)
			r = fail_with(err, KB_EIO, "making a signing request", r);
		else if (kb_buf_puts(ret_csr_pem, (const char *)pem) || !kb_buf_cstr(ret_csr_pem))
			r = kb_fail(err, KB_ENOMEM, "making a signing request: out of memory");
	}
	mbedtls_x509write_csr_free(&w);
	mbedtls_pk_free(&key);
	return r;
}

// The request is a P-256 key's own: its signature over the request holds.
static int check_csr(mbedtls_x509_csr *csr, struct kb_err *err)
{
	unsigned char hash[MBEDTLS_MD_MAX_SIZE];
	if (!mbedtls_pk_can_do(&csr->pk, MBEDTLS_PK_ECDSA) ||
		mbedtls_pk_ec(csr->pk)->MBEDTLS_PRIVATE(grp).id != MBEDTLS_ECP_DP_SECP256R1)
		return kb_fail(err, KB_EUNSUPPORTED, "the signing request's key is not EC P-256");
	const mbedtls_md_info_t *md = mbedtls_md_info_from_type(csr->MBEDTLS_PRIVATE(sig_md));
	if (!md || mbedtls_md_get_type(md) != MBEDTLS_MD_SHA256)
		return kb_fail(err, KB_EUNSUPPORTED, "the signing request is not signed with SHA-256");
	if (mbedtls_md(md, csr->cri.p, csr->cri.len, hash) ||
		mbedtls_pk_verify(&csr->pk, MBEDTLS_MD_SHA256, hash, mbedtls_md_get_size(md), csr->MBEDTLS_PRIVATE(sig).p,
			csr->MBEDTLS_PRIVATE(sig).len))
		return kb_fail(err, KB_EBAD, "the signing request's signature is wrong");
	return 0;
}

int kb_x509_issue_client(const struct kb_x509_ca *ca, const char *csr_pem, const char *name,
	struct kb_buf *ret_cert_pem, uint8_t ret_fingerprint[KB_FINGERPRINT_LEN], char ret_serial[33], struct kb_err *err)
{
	char dn[DN_MAX];
	uint8_t serial[SERIAL_LEN];
	struct kind k = {.years = LEAF_YEARS, .key_usage = MBEDTLS_X509_KU_DIGITAL_SIGNATURE, .for_client = true};
	if (!kb_x509_name_ok(name))
		return kb_fail(
			err, KB_EARG, "a client's name is 1 to %u letters, digits, '.', '-', '_', '@' or spaces", KB_TLS_NAME_MAX);
	snprintf(dn, sizeof dn, "CN=%s", name);
	struct issuer issuer;
	mbedtls_x509_csr csr;
	mbedtls_x509_csr_init(&csr);
	int r = issuer_open(&issuer, ca, err);
	if (r == 0) {
		int p = mbedtls_x509_csr_parse(&csr, (const unsigned char *)csr_pem, strlen(csr_pem) + 1);
		r = p ? fail_with(err, KB_EBAD, "reading the signing request", p) : check_csr(&csr, err);
	}
	if (r == 0)
		r = write_certificate(&k, &csr.pk, dn, &issuer.key, issuer.dn, serial, ret_cert_pem, err);
	if (r == 0)
		r = kb_x509_fingerprint(kb_buf_cstr(ret_cert_pem), ret_fingerprint, err);
	if (r == 0)
		kb_hex(serial, SERIAL_LEN, ret_serial);
	mbedtls_x509_csr_free(&csr);
	issuer_close(&issuer);
	return r;
}

int kb_x509_fingerprint(const char *cert_pem, uint8_t ret_fingerprint[KB_FINGERPRINT_LEN], struct kb_err *err)
{
	mbedtls_x509_crt crt;
	mbedtls_x509_crt_init(&crt);
	int r = mbedtls_x509_crt_parse(&crt, (const unsigned char *)cert_pem, strlen(cert_pem) + 1);
	if (r == 0)
		kb_sha256(crt.raw.p, crt.raw.len, ret_fingerprint);
	mbedtls_x509_crt_free(&crt);
	return r ? fail_with(err, KB_EBAD, "reading a certificate", r) : 0;
}

static bool names_one(const mbedtls_x509_crt *crt, const char *name)
{
	unsigned char address[16];
	size_t len = parse_address(name, address);
	for (const mbedtls_x509_sequence *s = &crt->subject_alt_names; s; s = s->next) {
		unsigned tag = s->buf.tag & MBEDTLS_ASN1_TAG_VALUE_MASK;
		if (len && tag == MBEDTLS_X509_SAN_IP_ADDRESS && s->buf.len == len && memcmp(s->buf.p, address, len) == 0)
			return true;
		if (!len && tag == MBEDTLS_X509_SAN_DNS_NAME && s->buf.len == strlen(name) &&
			memcmp(s->buf.p, name, s->buf.len) == 0)
			return true;
	}
	return false;
}

bool kb_x509_server_fits(const char *cert_pem, const char *const *names, size_t n_names)
{
	mbedtls_x509_crt crt;
	mbedtls_x509_crt_init(&crt);
	bool fits = mbedtls_x509_crt_parse(&crt, (const unsigned char *)cert_pem, strlen(cert_pem) + 1) == 0;
	if (fits) {
		struct tm end = {.tm_year = crt.valid_to.year - 1900,
			.tm_mon = crt.valid_to.mon - 1,
			.tm_mday = crt.valid_to.day,
			.tm_hour = crt.valid_to.hour};
		fits = timegm(&end) - time(NULL) > 30 * 24 * 3600;
	}
	for (size_t i = 0; fits && i < n_names; i++)
		fits = names_one(&crt, names[i]);
	mbedtls_x509_crt_free(&crt);
	return fits;
}
