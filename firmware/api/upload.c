// Signed images over the API, in pieces, so that an upload that was cut goes on where it was. After the IETF's draft on
// resumable uploads (draft-ietf-httpbis-resumable-upload): PATCH with Upload-Offset, the last piece with
// Upload-Complete.
//   POST   /admin/uploads         {digest, system} -> {digest, offset}; of the model, 64 hexadecimal digits; system:
//   true
//                                 where it is no model but a system (system.c)
//   GET    /admin/uploads/DIGEST  -> {digest, offset}
//   PATCH  /admin/uploads/DIGEST  Upload-Offset: N, Content-Type: application/partial-upload -> {digest, offset}
//                                 with Upload-Complete: ?1 -> {model, version, digest, was_active}
//   DELETE /admin/uploads/DIGEST  -> {}
// There is one at a time, as there is one install at a time. Signatures are checked on the loop's thread, where all
// calls of the cryptographic library are made; hashing and the disk's work are done on a worker thread.
#include "base/clock.h"
#include "base/hex.h"
#include "base/log.h"
#include "firmware/api/conn.h"
#include "firmware/api/json.h"
#include "firmware/api/receive.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HEAD_STEP 4096u // so that hardly anything of the payload is hashed on the loop's thread
#define DIGEST_CHARS (2 * KB_VERITY_HASH)

struct kb_upload {
	char digest[DIGEST_CHARS + 1]; // "": there is none
	struct kb_receiver *install;
	uint64_t offset; // bytes of the image taken
	bool is_busy;    // a worker thread has it
	uint64_t touched_ms;
};

// A piece on its way through a worker thread. Its connection may go away meanwhile; the piece is taken all the same.
struct piece {
	struct kb_task task; // first
	uv_work_t work;
	struct kb_daemon *daemon;
	struct kb_conn *conn; // NULL: it left
	struct kb_buf body;
	size_t at; // fed already
	bool is_last;
	int code;
	struct kb_err err;
	struct kb_received result;
};

static void drop(struct kb_upload *u)
{
	kb_receiver_destroy(u->install);
	*u = (struct kb_upload){0};
}

void kb_upload_tick(struct kb_daemon *d, uint64_t now_ms)
{
	struct kb_upload *u = d->upload;
	if (u && u->install && !u->is_busy && now_ms - u->touched_ms > kb_daemon_ms(d, KB_UPLOAD_IDLE_MS)) {
		kb_info("upload", "given up after %" PRIu64 " bytes: nothing came for too long", u->offset);
		drop(u);
	}
}

void kb_upload_finish(struct kb_daemon *d)
{
	if (d->upload)
		drop(d->upload);
	free(d->upload);
	d->upload = NULL;
}

static void reply_offset(struct kb_conn *c, const struct kb_upload *u)
{
	struct kb_buf body = {0};
	struct kb_json j = {.out = &body};
	kb_json_printf(&j, "{\"digest\":\"%s\",\"offset\":%" PRIu64 "}", u->digest, u->offset);
	kb_reply_json(c, 200, &body, j.error);
}

static int status_of(int code)
{
	return code == KB_EDENIED || code == KB_ENOTFOUND ? 409 // it is understood, and not for this box as it is
		   : code == KB_EBUSY                         ? 503
		   : code == KB_ENOSPACE                      ? 507
		   : code == KB_ENOMEM || code == KB_EIO      ? 500
													  : 422;
}

/* see conn.h */
bool kb_is_administrator(struct kb_conn *c)
{
	struct kb_client client;
	if (c->kind == KB_LISTEN_ADMIN)
		return true;
	if (c->has_client && kb_state_get_client(c->daemon->state, c->client.fingerprint, &client) == 0 && client.is_admin)
		return true;
	kb_reply_error(
		c, 403, "not_an_administrator", "", "this is for administrators; kotobako pair --admin makes a client one");
	return false;
}

static struct kb_upload *upload_of(struct kb_daemon *d)
{
	if (!d->upload)
		d->upload = calloc(1, sizeof *d->upload);
	return d->upload;
}

// The upload that the path names, or NULL after answering.
static struct kb_upload *named(struct kb_conn *c)
{
	static const char prefix[] = "/admin/uploads/";
	struct kb_str path = kb_http_path(&c->http);
	struct kb_upload *u = upload_of(c->daemon);
	if (!kb_is_administrator(c))
		return NULL;
	path.data += sizeof prefix - 1;
	path.len -= sizeof prefix - 1;
	if (!u || !u->install || path.len != DIGEST_CHARS || memcmp(path.data, u->digest, DIGEST_CHARS) != 0) {
		kb_reply_error(
			c, 404, "upload_not_found", "digest", "no such upload is under way; POST /admin/uploads begins one");
		return NULL;
	}
	if (u->is_busy) {
		kb_reply_error(c, 503, "busy", "", "a piece of this upload is being worked on");
		return NULL;
	}
	u->touched_ms = kb_clock_ms();
	return u;
}

static void begin(struct kb_conn *c, const char *digest, bool is_system)
{
	struct kb_daemon *d = c->daemon;
	struct kb_upload *u = upload_of(d);
	struct kb_err err;
	if (u && u->install && strcmp(u->digest, digest) == 0 && !u->is_busy) { // goes on
		u->touched_ms = kb_clock_ms();
		reply_offset(c, u);
		return;
	}
	if (u && u->install && (u->is_busy || kb_clock_ms() - u->touched_ms < kb_daemon_ms(d, KB_UPLOAD_TAKE_OVER_MS))) {
		kb_reply_error(c, 409, "busy", "", "another upload is under way");
		return;
	}
	if (u)
		drop(u);
	int r = u ? kb_receiver_begin(d, is_system, &err, &u->install) : kb_fail(&err, KB_ENOMEM, "out of memory");
	if (r) {
		kb_reply_error(c, status_of(r), NULL, "", "%s", err.text);
		return;
	}
	snprintf(u->digest, sizeof u->digest, "%s", digest);
	u->touched_ms = kb_clock_ms();
	reply_offset(c, u);
}

void kb_handle_upload_begin(struct kb_conn *c)
{
	struct kb_err err;
	uint8_t digest[KB_VERITY_HASH];
	if (!kb_is_administrator(c))
		return;
	yyjson_doc *doc = kb_json_parse(c->http.body.data, c->http.body.len, &err);
	const char *text = yyjson_get_str(yyjson_obj_get(yyjson_doc_get_root(doc), "digest"));
	if (!text || kb_unhex(text, digest, sizeof digest))
		kb_reply_error(c, 400, NULL, "digest", "digest is required: 64 hexadecimal digits, the model's");
	else
		begin(c, text, yyjson_get_bool(yyjson_obj_get(yyjson_doc_get_root(doc), "system")));
	yyjson_doc_free(doc);
}

void kb_handle_upload_offset(struct kb_conn *c)
{
	struct kb_upload *u = named(c);
	if (u)
		reply_offset(c, u);
}

void kb_handle_upload_cancel(struct kb_conn *c)
{
	struct kb_upload *u = named(c);
	if (!u)
		return;
	drop(u);
	kb_reply(c, 200, "application/json", "{}", 2);
}

// --- pieces ----------------------------------------------------------------------------------------

// The head of the image, in small pieces, up to where signatures and manifest are proven.
static void feed_head(struct piece *p)
{
	struct kb_upload *u = p->daemon->upload;
	while (p->code == KB_OK && p->at < p->body.len && !kb_receiver_is_proven(u->install)) {
		size_t left = p->body.len - p->at, n = left < HEAD_STEP ? left : HEAD_STEP;
		p->code = kb_receiver_feed(u->install, p->body.data + p->at, n, &p->err);
		p->at += n;
	}
}

static void on_work(uv_work_t *work)
{
	struct piece *p = work->data;
	struct kb_upload *u = p->daemon->upload;
	if (p->code == KB_OK)
		p->code = kb_receiver_feed(u->install, p->body.data + p->at, p->body.len - p->at, &p->err);
	if (p->code == KB_EEXISTS || (p->code == KB_OK && p->is_last))
		p->code = kb_receiver_finish(u->install, &p->err, &p->result);
	else
		p->is_last = false;
}

static void reply_installed(struct kb_conn *c, const struct kb_received *r)
{
	struct kb_buf body = {0};
	struct kb_json j = {.out = &body};
	char digest[DIGEST_CHARS + 1];
	kb_hex(r->digest, sizeof r->digest, digest);
	kb_json_raw(&j, "{\"model\":");
	kb_json_cstr(&j, r->name);
	kb_json_printf(&j, ",\"version\":%" PRIu64 ",\"digest\":\"%s\",\"was_active\":%s}", r->version, digest,
		r->was_active ? "true" : "false");
	kb_reply_json(c, 200, &body, j.error);
}

static void on_worked(uv_work_t *work, int status)
{
	struct piece *p = work->data;
	struct kb_daemon *d = p->daemon;
	struct kb_upload *u = d->upload;
	struct kb_conn *c = p->conn;
	const bool was_installed = p->code == KB_OK && p->result.name[0];
	(void)status;
	u->is_busy = false;
	u->touched_ms = kb_clock_ms();
	u->offset += p->code == KB_OK ? p->body.len : 0;
	if (c)
		kb_conn_end(c);
	if (c && p->code)
		kb_reply_error(c, status_of(p->code), NULL, "", "%s", p->err.text);
	else if (c && was_installed)
		reply_installed(c, &p->result);
	else if (c)
		reply_offset(c, u);
	if (p->code || was_installed)
		drop(u);
	if (was_installed && !d->is_stopping) {
		kb_info("upload", "%s version %" PRIu64 " is in its place", p->result.name, p->result.version);
		kb_pool_reload(d);
	}
	kb_buf_finish(&p->body);
	free(p);
}

static void on_cancel(struct kb_task *t)
{
	((struct piece *)t)->conn = NULL;
}

static bool wants_end(const struct kb_conn *c)
{
	struct kb_str v;
	return kb_http_header(&c->http, "upload-complete", &v) && v.len == 2 && memcmp(v.data, "?1", 2) == 0;
}

// The offset that the client says, or UINT64_MAX.
static uint64_t said_offset(const struct kb_conn *c)
{
	struct kb_str v;
	uint64_t n = 0;
	if (!kb_http_header(&c->http, "upload-offset", &v) || v.len == 0 || v.len > 18)
		return UINT64_MAX;
	for (size_t i = 0; i < v.len; i++) {
		if (v.data[i] < '0' || v.data[i] > '9')
			return UINT64_MAX;
		n = n * 10 + (uint64_t)(v.data[i] - '0');
	}
	return n;
}

void kb_handle_upload_piece(struct kb_conn *c)
{
	struct kb_upload *u = named(c);
	struct piece *p = NULL;
	if (!u)
		return;
	uint64_t offset = said_offset(c);
	if (offset != u->offset) {
		kb_reply_error(c, 409, "wrong_offset", "upload-offset",
			"the upload stands at %" PRIu64 ": GET says so, and PATCH goes on from there", u->offset);
		return;
	}
	p = calloc(1, sizeof *p);
	if (!p) {
		kb_reply_error(c, 503, NULL, "", "out of memory");
		return;
	}
	p->task.cancel = on_cancel;
	p->work.data = p;
	p->daemon = c->daemon;
	p->is_last = wants_end(c);
	p->body = c->http.body; // the connection gets a new one with its next request
	c->http.body = (struct kb_buf){.max = p->body.max};
	p->conn = c;
	feed_head(p);
	u->is_busy = true;
	if (uv_queue_work(&c->daemon->loop, &p->work, on_work, on_worked)) {
		u->is_busy = false;
		kb_buf_finish(&p->body);
		free(p);
		kb_reply_error(c, 503, NULL, "", "out of memory");
		return;
	}
	kb_conn_begin(c, &p->task);
}
