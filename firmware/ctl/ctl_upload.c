// kotobako model upload, os upload: a signed image over the network, in pieces (firmware/api/upload.c). What is cut
// goes on.
#include "base/clock.h"
#include "base/hex.h"
#include "firmware/ctl/box.h"
#include "firmware/ctl/ctl_image.h"
#include "firmware/ctl/ctl_install.h"
#include "firmware/ctl/progress.h"
#include "storage/verity.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PIECE_BYTES (4u << 20) // the box takes bodies of 8 MiB
#define TRIES 6u               // of one piece, seconds apart that double: a minute of a cable that is out

struct upload {
	const struct kb_ctl *ctl;
	int fd;
	uint64_t size, offset;
	char digest[2 * KB_VERITY_HASH + 1];
	bool is_system;
	struct kb_http_client *box;
	uint8_t *piece;
	struct kb_ctl_progress progress;
};

// The digest by which the upload is known, from what the image says of itself.
static int read_digest(struct upload *u, const char *path, struct kb_err *err)
{
	struct kb_bundle_head *h = NULL;
	struct kb_buf bytes = {0};
	struct kb_manifest m;
	struct stat st;
	uint8_t digest[KB_VERITY_HASH];
	int r = kb_ctl_image_open(path, O_RDONLY, err, &u->fd, &bytes, &h);
	r = r ? r : kb_manifest_parse(h->manifest.bytes, h->manifest.len, err, &m);
	if (r == 0) {
		kb_verity_digest(m.payload_bytes, m.payload_root, digest);
		kb_hex(digest, sizeof digest, u->digest);
		u->is_system = m.kind == KB_MANIFEST_OS;
	}
	kb_buf_finish(&bytes);
	free(h);
	if (r == 0 && fstat(u->fd, &st))
		r = kb_fail(err, KB_EIO, "%s: %s", path, strerror(errno));
	u->size = r == 0 ? (uint64_t)st.st_size : 0;
	return r;
}

// 409 may be that another upload is under way or that this one stands elsewhere; or that the box does not want the
// image.
static bool is_passing(yyjson_doc *doc)
{
	const char *code = yyjson_get_str(yyjson_obj_get(yyjson_obj_get(yyjson_doc_get_root(doc), "error"), "code"));
	return code && (strcmp(code, "busy") == 0 || strcmp(code, "wrong_offset") == 0);
}

// A call whose answer is an object. The status of HTTP, or a negative code where the box was not reached.
static int call(struct upload *u, const struct kb_http_call *what, yyjson_doc **ret_doc, struct kb_err *err)
{
	struct kb_http_reply reply;
	char text[KB_ERR_TEXT_MAX];
	*ret_doc = NULL;
	int r = kb_http_client_call(u->box, what, &reply, err);
	if (r == 0) {
		r = reply.status;
		*ret_doc = reply.body.data ? yyjson_read((const char *)reply.body.data, reply.body.len, 0) : NULL;
		if (r / 100 != 2) {
			kb_ctl_error_text(r, (const char *)reply.body.data, reply.body.len, text);
			kb_err_set(err, KB_EDENIED, "%s", text);
			if (r == 409 && !is_passing(*ret_doc))
				r = KB_EDENIED;
		}
	}
	kb_buf_finish(&reply.body);
	return r;
}

// Begins, or finds out how far it is.
static int ask_offset(struct upload *u, struct kb_err *err)
{
	char body[128];
	yyjson_doc *doc = NULL;
	int n =
		snprintf(body, sizeof body, "{\"digest\":\"%s\",\"system\":%s}", u->digest, u->is_system ? "true" : "false");
	const struct kb_http_call what = {.method = "POST",
		.path = "/admin/uploads",
		.body = body,
		.body_len = (size_t)n,
		.interrupt = &kb_ctl_interrupted};
	int status = call(u, &what, &doc, err);
	if (status == 200)
		u->offset = yyjson_get_uint(yyjson_obj_get(yyjson_doc_get_root(doc), "offset"));
	yyjson_doc_free(doc);
	if (status == 200 && u->offset >= u->size)
		return kb_fail(err, KB_EBAD, "the box says that it has %" PRIu64 " bytes of %" PRIu64, u->offset, u->size);
	return status;
}

// *ret_doc: what was installed, once it is.
static int send_piece(struct upload *u, yyjson_doc **ret_doc, struct kb_err *err)
{
	char path[96], headers[96];
	yyjson_doc *doc = NULL;
	uint64_t left = u->size - u->offset;
	size_t len = left < PIECE_BYTES ? (size_t)left : PIECE_BYTES;
	ssize_t n = pread(u->fd, u->piece, len, (off_t)u->offset);
	if (n <= 0 || (size_t)n != len)
		return kb_fail(err, KB_EARG, "reading the image: %s", n < 0 ? strerror(errno) : "it shrank");
	snprintf(path, sizeof path, "/admin/uploads/%s", u->digest);
	snprintf(headers, sizeof headers, "Upload-Offset: %" PRIu64 "\r\n%s", u->offset,
		len == left ? "Upload-Complete: ?1\r\n" : "");
	const struct kb_http_call what = {.method = "PATCH",
		.path = path,
		.body = u->piece,
		.body_len = len,
		.content_type = "application/partial-upload",
		.headers = headers,
		.interrupt = &kb_ctl_interrupted};
	int status = call(u, &what, &doc, err);
	yyjson_val *root = yyjson_doc_get_root(doc);
	if (status == 200 && yyjson_obj_get(root, "model")) {
		*ret_doc = doc;
		return status;
	}
	if (status == 200)
		u->offset = yyjson_get_uint(yyjson_obj_get(root, "offset"));
	yyjson_doc_free(doc);
	return status;
}

static bool may_help(int status)
{
	return status == KB_EIO || status == KB_ECLOSED || status == KB_ETIMEOUT || status == KB_EBUSY || status == 503 ||
		   status == 409 || status == 404;
}

// Until it is installed; a box that goes away is asked again where it stands.
static int send_all(struct upload *u, yyjson_doc **ret_doc, struct kb_err *err)
{
	unsigned failures = 0;
	bool knows_offset = false;
	int status = 200;
	while (!*ret_doc) {
		status = knows_offset ? send_piece(u, ret_doc, err) : ask_offset(u, err);
		if (kb_ctl_interrupted)
			return kb_fail(err, KB_ECANCELLED, "stopped");
		if (status == 200) {
			if (!knows_offset && u->offset && failures == 0)
				fprintf(stderr, "goes on at byte %" PRIu64 "\n", u->offset);
			knows_offset = true;
			failures = 0;
			kb_ctl_progress_step(&u->progress, u->offset, u->size, "uploading", kb_clock_ms());
			continue;
		}
		failures++;
		if (!may_help(status) || failures == TRIES)
			return status;
		knows_offset = false;
		usleep((1u << failures) * 500000);
	}
	return status;
}

static int upload(struct upload *u, const char *path, yyjson_doc **ret_doc)
{
	struct kb_err err = {0};
	int status = kb_ctl_box_open(u->ctl, &u->box);
	if (status)
		return status;
	u->piece = malloc(PIECE_BYTES);
	int r = u->piece ? read_digest(u, path, &err) : kb_fail(&err, KB_ENOMEM, "out of memory");
	if (r == 0) {
		kb_ctl_catch_interrupt(true);
		kb_ctl_progress_begin(&u->progress, stderr, kb_ctl_is_terminal(2), "uploading", kb_clock_ms());
		r = send_all(u, ret_doc, &err);
		kb_ctl_progress_end(&u->progress);
	}
	if (r == KB_ECANCELLED)
		return kb_ctl_fail(KB_CTL_INTERRUPTED, "stopped; the same command goes on where it was for ten minutes");
	if (r == 200)
		return KB_CTL_OK;
	bool is_unreached = r == KB_EIO || r == KB_ECLOSED || r == KB_ETIMEOUT;
	return kb_ctl_fail(is_unreached ? KB_CTL_UNREACHABLE : KB_CTL_FAILED, "%s", err.text);
}

int kb_ctl_upload(struct kb_ctl *ctl, const struct kb_ctl_args *args)
{
	struct upload u = {.ctl = ctl, .fd = -1};
	yyjson_doc *doc = NULL;
	int status = upload(&u, args->arg[1], &doc);
	yyjson_val *root = yyjson_doc_get_root(doc);
	const char *model = yyjson_get_str(yyjson_obj_get(root, "model"));
	const bool was_active = yyjson_get_bool(yyjson_obj_get(root, "was_active"));
	if (status == KB_CTL_OK && u.is_system && !was_active)
		printf("system version %" PRIu64 " is written and read back; the box restarts to try it (kotobako os status)\n",
			yyjson_get_uint(yyjson_obj_get(root, "version")));
	else if (status == KB_CTL_OK)
		printf("%s version %" PRIu64 " is %s\n", model ? model : "?", yyjson_get_uint(yyjson_obj_get(root, "version")),
			was_active ? "active already" : "installed and active");
	yyjson_doc_free(doc);
	kb_http_client_destroy(u.box);
	free(u.piece);
	if (u.fd >= 0)
		close(u.fd);
	return status;
}
