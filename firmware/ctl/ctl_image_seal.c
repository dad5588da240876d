// kotobako image seal|unseal: the coat that only a fleet's boxes can take off (storage/seal.h).
#include "base/clock.h"
#include "firmware/ctl/ctl_image.h"
#include "firmware/ctl/progress.h"
#include "firmware/ctl/sign.h"
#include "net/x509.h"
#include "storage/partial.h"
#include "storage/seal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define READ_BYTES (1u << 20)

// From one file into another that appears whole or not at all.
struct pass {
	int in;
	uint64_t done, size;
	struct kb_partial out;
	struct kb_seal *seal; // one of these
	struct kb_unseal *unseal;
	struct kb_ctl_progress progress;
	const char *what;
};

static int write_out(void *ctx, const uint8_t *bytes, size_t len, struct kb_err *err)
{
	struct pass *p = ctx;
	while (len) {
		ssize_t n = write(p->out.fd, bytes, len);
		if (n < 0 && errno != EINTR)
			return kb_fail(err, kb_err_from_errno(errno), "writing %s: %s", p->out.path, strerror(errno));
		bytes += n > 0 ? n : 0;
		len -= n > 0 ? (size_t)n : 0;
	}
	return KB_OK;
}

static int open_files(struct pass *p, const char *in, const char *out, struct kb_err *err)
{
	struct stat st;
	p->in = open(in, O_RDONLY | O_CLOEXEC);
	if (p->in < 0 || fstat(p->in, &st))
		return kb_fail(err, kb_err_from_errno(errno), "%s: %s", in, strerror(errno));
	p->size = (uint64_t)st.st_size;
	return kb_partial_create(out, err, &p->out);
}

static int pump(struct pass *p, struct kb_err *err)
{
	uint8_t *piece = malloc(READ_BYTES);
	ssize_t n = 1;
	int r = piece ? KB_OK : kb_fail(err, KB_ENOMEM, "out of memory");
	while (r == KB_OK && n != 0) {
		n = read(p->in, piece, READ_BYTES);
		if (kb_ctl_interrupted)
			r = kb_fail(err, KB_ECANCELLED, "stopped");
		else if (n < 0 && errno != EINTR)
			r = kb_fail(err, KB_EIO, "reading: %s", strerror(errno));
		else if (n > 0)
			r = p->seal ? kb_seal_feed(p->seal, piece, (size_t)n, err)
						: kb_unseal_feed(p->unseal, piece, (size_t)n, err);
		p->done += n > 0 ? (uint64_t)n : 0;
		kb_ctl_progress_step(&p->progress, p->done, p->size, p->what, kb_clock_ms());
	}
	free(piece);
	if (r == KB_OK)
		r = p->seal ? kb_seal_end(p->seal, err) : kb_unseal_end(p->unseal, err);
	return r ? r : kb_partial_commit(&p->out, false, err);
}

static int run(struct pass *p, const struct kb_ctl_args *args, int r, struct kb_err *err)
{
	kb_ctl_catch_interrupt(true);
	kb_ctl_progress_begin(&p->progress, stderr, kb_ctl_is_terminal(2), p->what, kb_clock_ms());
	r = r ? r : pump(p, err);
	kb_ctl_progress_end(&p->progress);
	kb_partial_abandon(&p->out);
	kb_seal_destroy(p->seal);
	kb_unseal_destroy(p->unseal);
	if (p->in >= 0)
		close(p->in);
	if (r == KB_ECANCELLED)
		return kb_ctl_fail(KB_CTL_INTERRUPTED, "stopped; nothing was kept");
	if (r)
		return kb_ctl_fail(KB_CTL_FAILED, "%s: %s", args->arg[1], err->text);
	return KB_CTL_OK;
}

// "A.pub,B.pub"
static int read_receivers(const char *list, struct kb_public_key *ret, uint32_t *ret_n, struct kb_err *err)
{
	char *copy = strdup(list), *rest = copy, *path;
	int r = copy ? KB_OK : kb_fail(err, KB_ENOMEM, "out of memory");
	*ret_n = 0;
	while (r == KB_OK && (path = strsep(&rest, ","))) {
		if (*ret_n == KB_SEAL_RECEIVERS_MAX)
			r = kb_fail(err, KB_ELIMIT, "more than %u receivers", KB_SEAL_RECEIVERS_MAX);
		else
			r = kb_ctl_public_key(path, err, &ret[(*ret_n)++]);
	}
	free(copy);
	return r;
}

int kb_ctl_image_seal(struct kb_ctl *ctl, const struct kb_ctl_args *args)
{
	struct kb_public_key to[KB_SEAL_RECEIVERS_MAX];
	struct pass p = {.in = -1, .out = {.fd = -1}, .what = "sealing"};
	struct kb_err err = {0};
	uint32_t n = 0;
	(void)ctl;
	if (!args->option[KB_IMAGE_TO].is_set)
		return kb_ctl_fail(KB_CTL_USAGE, "image seal wants --to KEY.pub: whose boxes may read it");
	int r = read_receivers(args->option[KB_IMAGE_TO].text, to, &n, &err);
	r = r ? r : open_files(&p, args->arg[1], args->arg[2], &err);
	r = r ? r : kb_seal_begin(to, n, write_out, &p, &err, &p.seal);
	int status = run(&p, args, r, &err);
	if (status == KB_CTL_OK)
		printf("%s: sealed for %u receiver%s\n", args->arg[2], n, n == 1 ? "" : "s");
	return status;
}

int kb_ctl_image_unseal(struct kb_ctl *ctl, const struct kb_ctl_args *args)
{
	struct pass p = {.in = -1, .out = {.fd = -1}, .what = "opening"};
	struct kb_buf pem = {0};
	struct kb_err err = {0};
	(void)ctl;
	if (!args->option[KB_SIGN_KEY].is_set)
		return kb_ctl_fail(KB_CTL_USAGE, "image unseal wants --key KEY.pem: a receiver's private key");
	int r = kb_ctl_read_file(args->option[KB_SIGN_KEY].text, &pem, &err);
	r = r ? r : open_files(&p, args->arg[1], args->arg[2], &err);
	r = r ? r : kb_unseal_begin((const char *)pem.data, write_out, &p, &err, &p.unseal);
	kb_wipe(&pem);
	return run(&p, args, r, &err);
}
