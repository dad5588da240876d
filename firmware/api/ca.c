// The box's authority and the server's certificate. See daemon.h.
#include "base/hex.h"
#include "base/log.h"
#include "firmware/api/daemon.h"
#include "firmware/api/file.h"
#include "net/x509.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

static int read_pair(
	const char *dir, const char *noun, struct kb_buf *ret_key, struct kb_buf *ret_cert, struct kb_err *err)
{
	char key[600], cert[600];
	snprintf(key, sizeof key, "%s/%s.key", dir, noun);
	snprintf(cert, sizeof cert, "%s/%s.pem", dir, noun);
	int r = kb_file_read(key, KB_X509_PEM_MAX, ret_key, err);
	return r ? r : kb_file_read(cert, KB_X509_PEM_MAX, ret_cert, err);
}

// The key first: a certificate without its key is never there.
static int write_pair(
	const char *dir, const char *noun, const struct kb_buf *key, const struct kb_buf *cert, struct kb_err *err)
{
	char key_path[600], cert_path[600];
	snprintf(key_path, sizeof key_path, "%s/%s.key", dir, noun);
	snprintf(cert_path, sizeof cert_path, "%s/%s.pem", dir, noun);
	int r = kb_file_replace(key_path, key, err);
	return r ? r : kb_file_replace(cert_path, cert, err);
}

static int make_authority(struct kb_daemon *d, const char *dir, struct kb_err *err)
{
	char name[64] = "Kotobako box ", serial[9];
	uint8_t random[4];
	int r = kb_random(random, sizeof random, err);
	if (r)
		return r;
	kb_hex(random, sizeof random, serial);
	strncat(name, serial, sizeof name - strlen(name) - 1);
	kb_buf_finish(&d->ca_key);
	kb_buf_finish(&d->ca_cert);
	r = kb_x509_make_ca(name, &d->ca_key, &d->ca_cert, err);
	if (r == 0)
		r = write_pair(dir, "ca", &d->ca_key, &d->ca_cert, err);
	if (r == 0)
		kb_info("ca", "made the authority \"%s\"", name);
	return r;
}

int kb_ca_open(struct kb_daemon *d, struct kb_buf *ret_server_key, struct kb_buf *ret_server_cert, struct kb_err *err)
{
	char dir[512];
	const char *names[KB_X509_SERVER_NAMES_MAX];
	snprintf(dir, sizeof dir, "%s/ca", d->o.state_dir);
	if (mkdir(dir, 0700) && errno != EEXIST)
		return kb_fail(err, kb_err_from_errno(errno), "%s: %s", dir, strerror(errno));
	int r = read_pair(dir, "ca", &d->ca_key, &d->ca_cert, err);
	bool is_new = r == KB_ENOTFOUND;
	if (is_new)
		r = make_authority(d, dir, err);
	if (r)
		return r;
	kb_names_collect(d, &d->names);
	const size_t n = d->names.n;
	for (size_t i = 0; i < n; i++)
		names[i] = d->names.text[i];
	r = read_pair(dir, "server", ret_server_key, ret_server_cert, err);
	if (r && r != KB_ENOTFOUND)
		return r;
	if (r == 0 && !is_new && kb_x509_server_fits(kb_buf_cstr(ret_server_cert), names, n))
		return 0;
	kb_wipe(ret_server_key);
	kb_buf_finish(ret_server_cert);
	struct kb_x509_ca ca = {kb_buf_cstr(&d->ca_key), kb_buf_cstr(&d->ca_cert)};
	r = kb_x509_make_server(&ca, names, n, ret_server_key, ret_server_cert, err);
	if (r == 0)
		r = write_pair(dir, "server", ret_server_key, ret_server_cert, err);
	if (r == 0)
		kb_info("ca", "made the server's certificate for %zu names", n);
	return r;
}
