// The box's authority and the server's certificate. See daemon.h.
#include "base/hex.h"
#include "base/log.h"
#include "firmware/api/daemon.h"
#include "net/x509.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int read_file(const char *path, struct kb_buf *ret, struct kb_err *err)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return kb_fail(err, kb_err_from_errno(errno), "%s: %s", path, strerror(errno));
	int r = kb_buf_reserve(ret, KB_X509_PEM_MAX);
	ssize_t n = r ? 0 : read(fd, ret->data, KB_X509_PEM_MAX - 1);
	close(fd);
	if (r || n < 0)
		return kb_fail(err, KB_EIO, "%s cannot be read", path);
	ret->len = (size_t)n;
	return kb_buf_cstr(ret) ? 0 : kb_fail(err, KB_ENOMEM, "%s: out of memory", path);
}

// Whole or not at all: a new file, synced, renamed over the old one.
static int write_file(const char *dir, const char *name, const struct kb_buf *b, struct kb_err *err)
{
	char path[600], fresh[620];
	snprintf(path, sizeof path, "%s/%s", dir, name);
	snprintf(fresh, sizeof fresh, "%s.new", path);
	int fd = open(fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0)
		return kb_fail(err, kb_err_from_errno(errno), "%s: %s", fresh, strerror(errno));
	bool is_good = write(fd, b->data, b->len) == (ssize_t)b->len && fsync(fd) == 0;
	is_good = close(fd) == 0 && is_good;
	if (!is_good || rename(fresh, path))
		return kb_fail(err, KB_EIO, "%s: %s", path, strerror(errno));
	int d = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (d >= 0) {
		(void)fsync(d);
		close(d);
	}
	return 0;
}

static int read_pair(
	const char *dir, const char *noun, struct kb_buf *ret_key, struct kb_buf *ret_cert, struct kb_err *err)
{
	char key[600], cert[600];
	snprintf(key, sizeof key, "%s/%s.key", dir, noun);
	snprintf(cert, sizeof cert, "%s/%s.pem", dir, noun);
	int r = read_file(key, ret_key, err);
	return r ? r : read_file(cert, ret_cert, err);
}

// The key first: a certificate without its key is never there.
static int write_pair(
	const char *dir, const char *noun, const struct kb_buf *key, const struct kb_buf *cert, struct kb_err *err)
{
	char key_name[64], cert_name[64];
	snprintf(key_name, sizeof key_name, "%s.key", noun);
	snprintf(cert_name, sizeof cert_name, "%s.pem", noun);
	int r = write_file(dir, key_name, key, err);
	return r ? r : write_file(dir, cert_name, cert, err);
}

// localhost, the loopback addresses, this machine's name, the listening address, and --name. A machine's name that no
// certificate can carry is left out; a --name like that is refused.
static size_t names_of(const struct kb_daemon *d, const char *names[KB_X509_SERVER_NAMES_MAX], char host[256])
{
	size_t n = 0;
	names[n++] = "localhost";
	names[n++] = "127.0.0.1";
	names[n++] = "::1";
	if (gethostname(host, 255) == 0 && kb_x509_server_name_ok(host) && strcmp(host, "localhost") != 0)
		names[n++] = host;
	const struct kb_address *addresses[] = {&d->o.listen, &d->o.bearer};
	for (size_t i = 0; i < 2; i++) {
		const char *a = addresses[i]->host;
		if (kb_x509_server_name_ok(a) && strcmp(a, "0.0.0.0") != 0 && strcmp(a, "::") != 0 &&
			strcmp(a, "127.0.0.1") != 0 && strcmp(a, "::1") != 0)
			names[n++] = a;
	}
	for (uint32_t i = 0; i < d->o.n_names; i++)
		names[n++] = d->o.names[i];
	return n;
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
	char dir[512], host[256] = "";
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
	size_t n = names_of(d, names, host);
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
