// kotobako catalog build|sign|show: what is current in a fleet, as its keepers say it; install|show on a box.
#include "base/hex.h"
#include "base/limits.h"
#include "firmware/ctl/action.h"
#include "firmware/ctl/chain_file.h"
#include "firmware/ctl/ctl_image.h"
#include "firmware/ctl/sign.h"
#include "storage/box_catalog.h"
#include "storage/trust.h"
#include "storage/verity.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

// Of the signatures: room for all that may sign, so that each signs without moving anything.
#define ROOM (8u + KB_SIGNATURES_MAX * (KB_KEY_ID + 4u + KB_SIGNATURE_MAX))

// --- build -----------------------------------------------------------------------------------------

// An image's place in the catalog, with what it points to.
struct entry {
	char name[KB_MAX_MODEL_NAME + 1];
	uint8_t digest[KB_VERITY_HASH];
	struct kb_catalog_image image;
};

static int read_entry(const char *path, struct kb_err *err, struct entry *ret)
{
	struct kb_bundle_head *h = NULL;
	struct kb_buf bytes = {0};
	struct kb_manifest m;
	int fd = -1, r = kb_ctl_image_open(path, O_RDONLY, err, &fd, &bytes, &h);
	r = r ? r : kb_manifest_parse(h->manifest.bytes, h->manifest.len, err, &m);
	if (r == 0) {
		memcpy(ret->name, m.model.data, m.model.len);
		kb_verity_digest(m.payload_bytes, m.payload_root, ret->digest);
		ret->image = (struct kb_catalog_image){
			.model = {ret->name, m.model.len}, .version = m.version, .digest = ret->digest, .bytes = m.payload_bytes};
	}
	if (fd >= 0)
		close(fd);
	kb_buf_finish(&bytes);
	free(h);
	return r;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct entry *)a)->name, ((const struct entry *)b)->name);
}

static int read_entries(const struct kb_ctl_args *args, struct kb_err *err, struct entry *list, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++) {
		int r = read_entry(args->arg[2 + i], err, &list[i]);
		if (r)
			return r;
	}
	qsort(list, n, sizeof *list, by_name);
	for (uint32_t i = 0; i < n; i++) {
		list[i].image.model.data = list[i].name; // they have moved
		list[i].image.digest = list[i].digest;
		if (i && strcmp(list[i].name, list[i - 1].name) == 0)
			return kb_fail(err, KB_EARG, "two images of %s: a catalog lists the current one", list[i].name);
	}
	return KB_OK;
}

static int put_together(const struct kb_ctl_args *args, const struct entry *list, uint32_t n, struct kb_err *err)
{
	static const uint8_t no_signatures[ROOM] = KB_SIGNATURES_NONE;
	struct kb_catalog_file *f = calloc(1, sizeof *f);
	struct kb_catalog_image *images = calloc(n + 1, sizeof *images);
	struct kb_buf roots = {0}, catalog = {0}, file = {0};
	struct kb_root newest;
	int r = f && images ? KB_OK : kb_fail(err, KB_ENOMEM, "out of memory");
	r = r ? r : kb_ctl_chain_read(args->option[KB_CATALOG_ROOTS].text, err, &roots, &f->chain);
	r = r ? r : kb_chain_check(&f->chain, true, err);
	r = r ? r : kb_root_parse(f->chain.roots[f->chain.n - 1].bytes, f->chain.roots[f->chain.n - 1].len, err, &newest);
	if (r == 0) {
		for (uint32_t i = 0; i < n; i++)
			images[i] = list[i].image;
		r = kb_catalog_write(
			newest.fleet, args->option[KB_CATALOG_VERSION].count, kb_ctl_now(), images, n, err, &catalog);
	}
	if (r == 0) {
		f->catalog = (struct kb_signed){catalog.data, no_signatures, catalog.len, ROOM};
		r = kb_catalog_file_write(f, err, &file);
	}
	r = r ? r : kb_ctl_write_file(args->arg[1], file.data, file.len, 0644, err);
	kb_buf_finish(&roots);
	kb_buf_finish(&catalog);
	kb_buf_finish(&file);
	free(images);
	free(f);
	return r;
}

static int build(struct kb_ctl *ctl, const struct kb_ctl_args *args)
{
	const uint32_t n = (uint32_t)args->n - 2;
	struct entry *list = calloc(n + 1, sizeof *list);
	struct kb_err err = {0};
	(void)ctl;
	int r = list ? KB_OK : kb_fail(&err, KB_ENOMEM, "out of memory");
	if (r == 0 && (!args->option[KB_CATALOG_ROOTS].is_set || !args->option[KB_CATALOG_VERSION].is_set))
		r = kb_fail(&err, KB_EARG, "--roots and --version are wanted");
	r = r ? r : read_entries(args, &err, list, n);
	r = r ? r : put_together(args, list, n, &err);
	free(list);
	if (r)
		return kb_ctl_fail(r == KB_EARG ? KB_CTL_USAGE : KB_CTL_FAILED, "%s", err.text);
	printf("%s: catalog %" PRIu64 " of %u images, to be signed (kotobako catalog sign)\n", args->arg[1],
		args->option[KB_CATALOG_VERSION].count, n);
	return KB_CTL_OK;
}

// --- sign ------------------------------------------------------------------------------------------

static int read_file(const char *path, struct kb_err *err, struct kb_buf *ret_bytes, struct kb_catalog_file **ret)
{
	struct kb_catalog_file *f = calloc(1, sizeof *f);
	int r = f ? kb_ctl_read_file(path, ret_bytes, err) : kb_fail(err, KB_ENOMEM, "out of memory");
	if (r == 0 && kb_catalog_file_parse(ret_bytes->data, ret_bytes->len, err, f)) {
		r = err->code;
		kb_err_wrap(err, "%s: ", path);
	}
	if (r)
		free(f);
	else
		*ret = f;
	return r;
}

// Whether its own newest root finds enough signatures.
static int is_complete(const struct kb_catalog_file *f, struct kb_err *err)
{
	const struct kb_signed *newest = &f->chain.roots[f->chain.n - 1];
	struct kb_signatures signatures;
	struct kb_root root;
	int r = kb_root_parse(newest->bytes, newest->len, err, &root);
	r = r ? r : kb_signatures_parse(f->catalog.signatures, f->catalog.signatures_len, err, &signatures);
	return r ? r
			 : kb_root_signed(
				   &root, KB_ROLE_CATALOG, KB_DOMAIN_CATALOG, f->catalog.bytes, f->catalog.len, &signatures, true, err);
}

static int sign(struct kb_ctl *ctl, const struct kb_ctl_args *args)
{
	struct kb_catalog_file *f = NULL;
	struct kb_buf bytes = {0};
	struct kb_ctl_signature made;
	struct kb_err err = {0};
	(void)ctl;
	if (read_file(args->arg[1], &err, &bytes, &f)) {
		kb_buf_finish(&bytes);
		return kb_ctl_fail(KB_CTL_FAILED, "%s", err.text);
	}
	int status = kb_ctl_sign(args->option, KB_DOMAIN_CATALOG, &f->catalog, &made);
	if (status == KB_CTL_OK && made.is_made) {
		uint8_t *block = bytes.data + (f->catalog.signatures - bytes.data);
		int r = kb_signatures_put(block, f->catalog.signatures_len,
			&(struct kb_signature){.key_id = made.id, .len = made.len, .bytes = made.raw}, &err);
		r = r ? r : kb_ctl_write_file(args->arg[1], bytes.data, bytes.len, 0644, &err);
		if (r)
			status = kb_ctl_fail(KB_CTL_FAILED, "%s", err.text);
		else if (is_complete(f, &err))
			printf("%s: signed, not yet by all that its newest root wants: %s\n", args->arg[1], err.text);
		else
			printf("%s: signed, and complete\n", args->arg[1]);
	}
	kb_buf_finish(&bytes);
	free(f);
	return status;
}

// --- show, install ---------------------------------------------------------------------------------

static void print(const struct kb_catalog *c)
{
	struct kb_catalog_image image;
	char hex[2 * KB_MANIFEST_HASH + 1], day[16];
	printf(
		"catalog %" PRIu64 ", fleet %.16s, made %s\n", c->version, (const char *)c->fleet, kb_ctl_day(c->created, day));
	for (size_t at = 0; kb_catalog_next(c, &at, &image);) {
		kb_hex(image.digest, KB_MANIFEST_HASH, hex);
		printf("  %-*.*s version %-6" PRIu64 " %12" PRIu64 " bytes  sha256:%s\n", 24, (int)image.model.len,
			image.model.data, image.version, image.bytes, hex);
	}
}

static int show_file(const char *path, struct kb_err *err)
{
	struct kb_catalog_file *f = NULL;
	struct kb_catalog c;
	struct kb_buf bytes = {0};
	int r = read_file(path, err, &bytes, &f);
	r = r ? r : kb_catalog_parse(f->catalog.bytes, f->catalog.len, err, &c);
	if (r == 0) {
		print(&c);
		r = is_complete(f, err);
		if (r)
			kb_err_wrap(err, "%s: ", path);
	}
	kb_buf_finish(&bytes);
	free(f);
	return r;
}

static int show_own(const struct kb_ctl *ctl, struct kb_err *err)
{
	struct kb_state *state = NULL;
	struct kb_buf bytes = {0};
	struct kb_catalog c;
	uint64_t now_s = 0;
	int r = kb_ctl_state(ctl, true, err, &state);
	if (r == 0 && !state)
		r = kb_fail(err, KB_ENOTFOUND, "there is no box in %s", ctl->state);
	r = r ? r : kb_box_catalog_get(state, err, &bytes, &c);
	r = r ? r : kb_trust_now(state, (uint64_t)time(NULL), err, &now_s);
	if (r == 0) {
		print(&c);
		if (now_s > c.created && now_s - c.created > KB_CATALOG_OLD_S)
			fprintf(stderr, "note: it is %" PRIu64 " days old; whoever brings updates may be keeping newer ones back\n",
				(now_s - c.created) / 86400);
	}
	kb_state_close(state);
	kb_buf_finish(&bytes);
	return r;
}

static int show(struct kb_ctl *ctl, const struct kb_ctl_args *args)
{
	struct kb_err err = {0};
	int r = args->n > 1 ? show_file(args->arg[1], &err) : show_own(ctl, &err);
	return r ? kb_ctl_fail(KB_CTL_FAILED, "%s", err.text) : KB_CTL_OK;
}

static int install(struct kb_ctl *ctl, const struct kb_ctl_args *args)
{
	struct kb_state *state = NULL;
	struct kb_buf bytes = {0};
	struct kb_err err = {0};
	uint64_t version = 0, now_s = 0;
	int r = kb_ctl_read_file(args->arg[1], &bytes, &err);
	if (r == 0 && bytes.len > KB_CATALOG_FILE_MAX)
		r = kb_fail(&err, KB_ELIMIT, "%s: too large for a catalog", args->arg[1]);
	r = r ? r : kb_ctl_state(ctl, false, &err, &state);
	r = r ? r : kb_trust_now(state, (uint64_t)time(NULL), &err, &now_s);
	r = r ? r : kb_box_catalog_accept(state, bytes.data, bytes.len, KB_ALLOW_TEST_KEYS, now_s, &err, &version);
	kb_state_close(state);
	kb_buf_finish(&bytes);
	if (r && r != KB_EEXISTS)
		return kb_ctl_fail(KB_CTL_FAILED, "%s: %s", args->arg[1], err.text);
	printf("catalog %" PRIu64 " is %s\n", version, r ? "here already" : "accepted");
	return KB_CTL_OK;
}

static const struct kb_ctl_action actions[] = {
	{"build", 1, KB_CATALOG_ARGS_MAX, KB_OPTION(KB_CATALOG_ROOTS) | KB_OPTION(KB_CATALOG_VERSION), build},
	{"sign", 1, 1, KB_SIGN_TAKES, sign},
	{"show", 0, 1, 0, show},
	{"install", 1, 1, 0, install},
	{0},
};

int kb_ctl_catalog(struct kb_ctl *ctl, const struct kb_ctl_args *args)
{
	return kb_ctl_act("catalog", actions, ctl, args);
}
