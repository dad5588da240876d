// kotobako image sign|inspect, and the table of all that is done with signed images.
#include "firmware/ctl/ctl_image.h"
#include "base/hex.h"
#include "firmware/ctl/chain_file.h"
#include "firmware/ctl/progress.h"
#include "firmware/ctl/sign.h"
#include "firmware/ctl/text.h"
#include "storage/verity.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <yyjson.h>

/* see ctl_image.h */
int kb_ctl_image_open(const char *path, int flags, struct kb_err *err, int *ret_fd, struct kb_buf *ret_bytes,
	struct kb_bundle_head **ret_head)
{
	struct kb_bundle_head *h = calloc(1, sizeof *h);
	int fd = h ? open(path, flags | O_CLOEXEC) : -1;
	int r = h ? KB_OK : kb_fail(err, KB_ENOMEM, "out of memory");
	if (r == 0 && fd < 0)
		r = kb_fail(err, kb_err_from_errno(errno), "%s: %s", path, strerror(errno));
	if (r == 0) {
		r = kb_bundle_head_read(fd, err, ret_bytes, h);
		if (r)
			kb_err_wrap(err, "%s: ", path);
	}
	if (r) {
		if (fd >= 0)
			close(fd);
		free(h);
		return r;
	}
	*ret_fd = fd;
	*ret_head = h;
	return KB_OK;
}

/* see ctl_image.h */
int kb_ctl_image_role(const struct kb_bundle_head *h, struct kb_err *err, enum kb_role *ret)
{
	struct kb_manifest m;
	int r = kb_manifest_parse(h->manifest.bytes, h->manifest.len, err, &m);
	if (r == 0)
		*ret = kb_manifest_role(&m);
	return r;
}

// Whether its own newest root finds enough signatures; the answer is for the one who signs, no box relies on it.
static int is_complete(const struct kb_bundle_head *h, struct kb_err *err)
{
	const struct kb_signed *newest = &h->chain.roots[h->chain.n - 1];
	struct kb_signatures signatures;
	struct kb_root root;
	int r = kb_root_parse(newest->bytes, newest->len, err, &root);
	r = r ? r : kb_signatures_parse(h->manifest.signatures, h->manifest.signatures_len, err, &signatures);
	enum kb_role role = KB_ROLE_MODEL;
	r = r ? r : kb_ctl_image_role(h, err, &role);
	return r ? r
			 : kb_root_signed(
				   &root, role, kb_manifest_domain(role), h->manifest.bytes, h->manifest.len, &signatures, true, err);
}

static int put(const char *path, const struct kb_ctl_signature *made, int fd)
{
	struct kb_bundle_head *h = NULL;
	struct kb_buf bytes = {0};
	struct kb_err err = {0};
	int again = -1;
	int r =
		kb_bundle_head_sign(fd, &(struct kb_signature){.key_id = made->id, .len = made->len, .bytes = made->raw}, &err);
	r = r ? r : kb_ctl_image_open(path, O_RDONLY, &err, &again, &bytes, &h);
	if (r)
		return kb_ctl_fail(KB_CTL_FAILED, "%s: %s", path, err.text);
	if (is_complete(h, &err))
		printf("%s: signed, not yet by all that its newest root wants: %s\n", path, err.text);
	else
		printf("%s: signed, and complete\n", path);
	close(again);
	kb_buf_finish(&bytes);
	free(h);
	return KB_CTL_OK;
}

static int sign(struct kb_ctl *ctl, const struct kb_ctl_args *args)
{
	struct kb_bundle_head *h = NULL;
	struct kb_buf bytes = {0};
	struct kb_ctl_signature made = {0};
	struct kb_err err = {0};
	int fd = -1, flags = args->option[KB_SIGN_EXPORT].is_set ? O_RDONLY : O_RDWR;
	(void)ctl;
	enum kb_role role;
	if (kb_ctl_image_open(args->arg[1], flags, &err, &fd, &bytes, &h))
		return kb_ctl_fail(KB_CTL_FAILED, "%s", err.text);
	int status = kb_ctl_image_role(h, &err, &role)
					 ? kb_ctl_fail(KB_CTL_FAILED, "%s: %s", args->arg[1], err.text)
					 : kb_ctl_sign(args->option, kb_manifest_domain(role), &h->manifest, &made);
	if (status == KB_CTL_OK && made.is_made)
		status = put(args->arg[1], &made, fd);
	close(fd);
	kb_buf_finish(&bytes);
	free(h);
	return status;
}

// --- inspect ---------------------------------------------------------------------------------------

enum shown { TEXT, NUMBER, BYTES, DAY };
static const struct {
	const char *name;
	enum shown type;
	size_t offset;
} rows[] = {
	{"model", TEXT, offsetof(struct kb_manifest, model)},
	{"version", NUMBER, offsetof(struct kb_manifest, version)},
	{"created", DAY, offsetof(struct kb_manifest, created)},
	{"family", TEXT, offsetof(struct kb_manifest, family)},
	{"licence", TEXT, offsetof(struct kb_manifest, licence)},
	{"origin", TEXT, offsetof(struct kb_manifest, origin)},
	{"recipe", TEXT, offsetof(struct kb_manifest, recipe)},
	{"quality", TEXT, offsetof(struct kb_manifest, quality)},
	{"min_firmware", NUMBER, offsetof(struct kb_manifest, min_firmware)},
	{"device_memory", BYTES, offsetof(struct kb_manifest, device_memory)},
	{"floor", NUMBER, offsetof(struct kb_manifest, floor)},
	{"payload_bytes", BYTES, offsetof(struct kb_manifest, payload_bytes)},
};
#define ROWS (sizeof rows / sizeof *rows)
#define SHOWN_BYTES 200u // of a text, on a terminal

static void print_manifest(const struct kb_manifest *m)
{
	char text[16];
	printf("%-14s %s\n", "kind", kb_manifest_kind_names[m->kind]);
	for (size_t i = 0; i < ROWS; i++) {
		const void *p = (const uint8_t *)m + rows[i].offset;
		const struct kb_str *s = p;
		const uint64_t n = rows[i].type == TEXT ? 0 : *(const uint64_t *)p;
		if (rows[i].type == TEXT && !s->len)
			continue;
		printf("%-14s ", rows[i].name);
		if (rows[i].type == TEXT)
			kb_ctl_text_line(s->data, s->len, SHOWN_BYTES);
		else
			printf("%" PRIu64, n);
		if (rows[i].type == BYTES)
			printf(" (%s)", kb_ctl_bytes(n, text));
		else if (rows[i].type == DAY)
			printf(" (%s)", kb_ctl_day(n, text));
		putchar('\n');
	}
}

static void print_hashes(const struct kb_manifest *m, const uint8_t digest[static KB_VERITY_HASH])
{
	char hex[2 * KB_VERITY_HASH + 1];
	kb_hex(digest, KB_VERITY_HASH, hex);
	printf("%-14s sha256:%s\n", "digest", hex);
	if (m->base) {
		kb_hex(m->base, KB_MANIFEST_HASH, hex);
		printf("%-14s sha256:%s\n", "base", hex);
	}
}

static int print_roots(const struct kb_bundle_head *h, struct kb_err *err)
{
	struct kb_signatures s;
	struct kb_root root;
	for (uint32_t i = 0; i < h->chain.n; i++) {
		const struct kb_signed *r = &h->chain.roots[i];
		int rc = kb_root_parse(r->bytes, r->len, err, &root);
		rc = rc ? rc : kb_signatures_parse(r->signatures, r->signatures_len, err, &s);
		if (rc)
			return rc;
		kb_ctl_root_print(&root, &s);
	}
	return KB_OK;
}

static int inspect_text(
	const struct kb_bundle_head *h, const struct kb_manifest *m, const struct kb_signatures *s, struct kb_err *err)
{
	uint8_t digest[KB_VERITY_HASH];
	char hex[2 * KB_KEY_ID + 1];
	kb_verity_digest(m->payload_bytes, m->payload_root, digest);
	print_manifest(m);
	print_hashes(m, digest);
	for (uint32_t i = 0; i < s->n; i++) {
		kb_hex(s->list[i].key_id, KB_KEY_ID, hex);
		printf("%-14s %s\n", "signed by", hex);
	}
	return print_roots(h, err);
}

static int inspect_json(const struct kb_bundle_head *h, const struct kb_manifest *m, const struct kb_signatures *s)
{
	yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
	yyjson_mut_val *o = yyjson_mut_obj(doc);
	uint8_t digest[KB_VERITY_HASH];
	char hex[2 * KB_VERITY_HASH + 1];
	yyjson_mut_doc_set_root(doc, o);
	yyjson_mut_obj_add_str(doc, o, "kind", kb_manifest_kind_names[m->kind]);
	for (size_t i = 0; i < ROWS; i++) {
		const void *p = (const uint8_t *)m + rows[i].offset;
		const struct kb_str *text = p;
		if (rows[i].type != TEXT)
			yyjson_mut_obj_add_uint(doc, o, rows[i].name, *(const uint64_t *)p);
		else if (text->len)
			yyjson_mut_obj_add_strncpy(doc, o, rows[i].name, text->data, text->len);
	}
	kb_verity_digest(m->payload_bytes, m->payload_root, digest);
	kb_hex(digest, sizeof digest, hex);
	yyjson_mut_obj_add_strcpy(doc, o, "digest", hex);
	if (m->base) {
		kb_hex(m->base, KB_MANIFEST_HASH, hex);
		yyjson_mut_obj_add_strcpy(doc, o, "base", hex);
	}
	yyjson_mut_obj_add_uint(doc, o, "roots", h->chain.n);
	yyjson_mut_val *signers = yyjson_mut_obj_add_arr(doc, o, "signed_by");
	for (uint32_t i = 0; i < s->n; i++) {
		kb_hex(s->list[i].key_id, KB_KEY_ID, hex);
		yyjson_mut_arr_add_strcpy(doc, signers, hex);
	}
	char *text = yyjson_mut_write(doc, YYJSON_WRITE_PRETTY, NULL);
	yyjson_mut_doc_free(doc);
	if (!text)
		return KB_ENOMEM;
	puts(text);
	free(text);
	return KB_OK;
}

static int inspect(struct kb_ctl *ctl, const struct kb_ctl_args *args)
{
	struct kb_bundle_head *h = NULL;
	struct kb_buf bytes = {0};
	struct kb_signatures s;
	struct kb_manifest m;
	struct kb_err err = {0};
	int fd = -1;
	(void)ctl;
	if (kb_ctl_image_open(args->arg[1], O_RDONLY, &err, &fd, &bytes, &h))
		return kb_ctl_fail(KB_CTL_FAILED, "%s", err.text);
	int r = kb_manifest_parse(h->manifest.bytes, h->manifest.len, &err, &m);
	r = r ? r : kb_signatures_parse(h->manifest.signatures, h->manifest.signatures_len, &err, &s);
	if (r == 0)
		r = args->option[KB_IMAGE_JSON].is_set ? inspect_json(h, &m, &s) : inspect_text(h, &m, &s, &err);
	close(fd);
	kb_buf_finish(&bytes);
	free(h);
	if (r)
		return kb_ctl_fail(KB_CTL_FAILED, "%s: %s", args->arg[1], err.text[0] ? err.text : kb_err_message(r));
	fprintf(stderr, "this is what it says of itself: nothing was proven (kotobako image verify)\n");
	return KB_CTL_OK;
}

#define BUILD_OPTIONS                                                                             \
	(KB_OPTION(KB_IMAGE_ROOTS) | KB_OPTION(KB_IMAGE_MODEL) | KB_OPTION(KB_IMAGE_VERSION) |        \
		KB_OPTION(KB_IMAGE_LICENCE) | KB_OPTION(KB_IMAGE_ORIGIN) | KB_OPTION(KB_IMAGE_RECIPE) |   \
		KB_OPTION(KB_IMAGE_QUALITY) | KB_OPTION(KB_IMAGE_FIRMWARE) | KB_OPTION(KB_IMAGE_MEMORY) | \
		KB_OPTION(KB_IMAGE_BASE) | KB_OPTION(KB_IMAGE_REPLACE))

static const struct kb_ctl_action actions[] = {
	{"build", 2, 2, BUILD_OPTIONS, kb_ctl_image_build},
	{"sign", 1, 1, KB_SIGN_TAKES, sign},
	{"verify", 1, 1, KB_OPTION(KB_IMAGE_ROOTS), kb_ctl_image_verify},
	{"seal", 2, 2, KB_OPTION(KB_IMAGE_TO), kb_ctl_image_seal},
	{"unseal", 2, 2, KB_OPTION(KB_SIGN_KEY), kb_ctl_image_unseal},
	{"diff", 3, 3, KB_OPTION(KB_IMAGE_REPLACE), kb_ctl_image_diff},
	{"fetch", 2, 2, KB_OPTION(KB_IMAGE_CA), kb_ctl_image_fetch},
	{"serve", 0, 1, KB_OPTION(KB_IMAGE_LISTEN), kb_ctl_image_serve},
	{"inspect", 1, 1, KB_OPTION(KB_IMAGE_JSON), inspect},
	{0},
};

int kb_ctl_image(struct kb_ctl *ctl, const struct kb_ctl_args *args)
{
	return kb_ctl_act("image", actions, ctl, args);
}
