/* see box.h */
#include "firmware/ctl/box.h"

#include "firmware/ctl/text.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CALL_IDLE_MS 30000 // of a call that the daemon answers by itself

static int read_in(const char *directory, const char *name, struct kb_buf *ret, struct kb_err *err)
{
	char *path = kb_ctl_path(directory, name);
	int r = path ? kb_ctl_read_file(path, ret, err) : kb_fail(err, KB_ENOMEM, "out of memory");
	free(path);
	return r;
}

/* see box.h */
int kb_ctl_box_where(const struct kb_ctl *ctl, struct kb_ctl_where *ret, struct kb_err *err)
{
	struct kb_ctl_where w;
	if (ctl->box) {
		if (kb_ctl_parse_box(ctl->box, w.host, sizeof w.host, &w.port))
			return kb_fail(err, KB_EARG, "--box %s: it wants HOST or HOST:PORT", ctl->box);
		*ret = w;
		return 0;
	}
	struct kb_buf text = {0};
	int r = read_in(ctl->client, KB_CTL_BOX, &text, err);
	if (r == KB_ENOTFOUND)
		return kb_fail(err, r, "this client is not paired with a box: %s/%s is missing (kotobako pair makes it)",
			ctl->client, KB_CTL_BOX);
	if (r)
		return r;
	yyjson_doc *doc = yyjson_read((const char *)text.data, text.len, 0);
	yyjson_val *root = yyjson_doc_get_root(doc);
	const char *host = yyjson_get_str(yyjson_obj_get(root, "host"));
	uint64_t port = yyjson_get_uint(yyjson_obj_get(root, "port"));
	if (!host || !host[0] || strlen(host) >= sizeof w.host || port == 0 || port > 65535) {
		r = kb_fail(err, KB_EBAD, "%s/%s: wants \"host\" and \"port\"", ctl->client, KB_CTL_BOX);
	} else {
		memcpy(w.host, host, strlen(host) + 1);
		w.port = (uint16_t)port;
		*ret = w;
	}
	yyjson_doc_free(doc);
	kb_buf_finish(&text);
	return r;
}

int kb_ctl_box_open(const struct kb_ctl *ctl, struct kb_http_client **ret)
{
	struct kb_err err = {0};
	struct kb_ctl_where where;
	struct kb_buf ca = {0}, cert = {0}, key = {0};
	if (kb_ctl_box_where(ctl, &where, &err))
		return kb_ctl_fail(err.code == KB_EARG ? KB_CTL_USAGE : KB_CTL_UNREACHABLE, "%s", err.text);
	int r = kb_tls_init(&err);
	if (r == 0)
		r = read_in(ctl->client, KB_CTL_CA, &ca, &err);
	if (r == 0)
		r = read_in(ctl->client, KB_CTL_CERT, &cert, &err);
	if (r == 0)
		r = read_in(ctl->client, KB_CTL_KEY, &key, &err);
	if (r == 0) {
		struct kb_http_target target = {.host = where.host,
			.port = where.port,
			.ca_pem = (const char *)ca.data,
			.cert_pem = (const char *)cert.data,
			.key_pem = (const char *)key.data};
		r = kb_http_client_create(&target, ret, &err);
	}
	if (key.data)
		explicit_bzero(key.data, key.len);
	kb_buf_finish(&ca);
	kb_buf_finish(&cert);
	kb_buf_finish(&key);
	return r ? kb_ctl_fail(KB_CTL_UNREACHABLE, "%s (kotobako pair writes %s anew)", err.text, ctl->client) : KB_CTL_OK;
}

int kb_ctl_admin_open(const struct kb_ctl *ctl, struct kb_http_client **ret)
{
	struct kb_err err = {0};
	char *path = kb_ctl_path(ctl->state, "admin.sock");
	int r = path ? kb_tls_init(&err) : kb_fail(&err, KB_ENOMEM, "out of memory");
	if (r == 0)
		r = kb_http_client_create(&(struct kb_http_target){.unix_path = path}, ret, &err);
	free(path);
	return r ? kb_ctl_fail(KB_CTL_FAILED, "%s", err.text) : KB_CTL_OK;
}

static bool wants_admin(const struct kb_ctl *ctl)
{
	if (ctl->has_state)
		return true;
	if (ctl->has_client || ctl->box)
		return false;
	char *path = kb_ctl_path(ctl->state, "admin.sock");
	bool exists = path && access(path, F_OK) == 0;
	free(path);
	return exists;
}

/* see box.h */
int kb_ctl_either_open(const struct kb_ctl *ctl, struct kb_http_client **ret, bool *ret_is_admin)
{
	const bool is_admin = wants_admin(ctl);
	if (ret_is_admin)
		*ret_is_admin = is_admin;
	return is_admin ? kb_ctl_admin_open(ctl, ret) : kb_ctl_box_open(ctl, ret);
}

static const char *status_meaning(int status)
{
	static const struct {
		int status;
		const char *text;
	} rows[] = {
		{401, "the box wants a certificate or key that it knows"},
		{403, "this client may not do that"},
		{404, "the box does not know that"},
		{409, "it exists already"},
		{413, "the request is too large"},
		{429, "too many requests; try again later"},
		{503, "the box is busy or still loading; try again later"},
	};
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
		if (rows[i].status == status)
			return rows[i].text;
	return status >= 500 ? "the box failed" : "the box refused the request";
}

void kb_ctl_error_text(int status, const char *body, size_t len, char ret[static KB_ERR_TEXT_MAX])
{
	yyjson_doc *doc = body ? yyjson_read(body, len, 0) : NULL;
	yyjson_val *root = yyjson_doc_get_root(doc), *error = yyjson_obj_get(root, "error");
	yyjson_val *message = yyjson_is_str(error) ? error : yyjson_obj_get(error ? error : root, "message");
	struct kb_buf clean = {0};
	if (!yyjson_is_str(message) || yyjson_get_len(message) == 0 ||
		kb_ctl_text_clean(&clean, yyjson_get_str(message), yyjson_get_len(message)) || !kb_buf_cstr(&clean))
		snprintf(ret, KB_ERR_TEXT_MAX, "%s (HTTP status %d)", status_meaning(status), status);
	else
		snprintf(ret, KB_ERR_TEXT_MAX, "%s", (const char *)clean.data);
	kb_buf_finish(&clean);
	yyjson_doc_free(doc);
}

int kb_ctl_call_failed(int code, const struct kb_err *err, const struct kb_http_reply *reply)
{
	if (code == KB_ECANCELLED)
		return kb_ctl_fail(KB_CTL_INTERRUPTED, "stopped");
	if (code)
		return kb_ctl_fail(reply->status ? KB_CTL_FAILED : KB_CTL_UNREACHABLE, "%s", err->text);
	char text[KB_ERR_TEXT_MAX];
	kb_ctl_error_text(reply->status, (const char *)reply->body.data, reply->body.len, text);
	if (reply->request_id[0])
		return kb_ctl_fail(KB_CTL_FAILED, "%s [request %s]", text, reply->request_id);
	return kb_ctl_fail(KB_CTL_FAILED, "%s", text);
}

int kb_ctl_call(struct kb_http_client *c, const char *method, const char *path, const char *body, yyjson_doc **ret_doc)
{
	return kb_ctl_call_within(c, method, path, body, CALL_IDLE_MS, ret_doc);
}

int kb_ctl_call_within(
	struct kb_http_client *c, const char *method, const char *path, const char *body, int idle_ms, yyjson_doc **ret_doc)
{
	struct kb_err err = {0};
	struct kb_http_reply reply;
	struct kb_http_call call = {.method = method,
		.path = path,
		.body = body,
		.body_len = body ? strlen(body) : 0,
		.idle_ms = idle_ms,
		.interrupt = &kb_ctl_interrupted};
	int status = KB_CTL_OK, r = kb_http_client_call(c, &call, &reply, &err);
	if (r || reply.status < 200 || reply.status > 299) {
		status = kb_ctl_call_failed(r, &err, &reply);
	} else {
		*ret_doc = yyjson_read((const char *)reply.body.data, reply.body.len, 0);
		if (!*ret_doc)
			status = kb_ctl_fail(KB_CTL_FAILED, "the answer to %s is no JSON", path);
	}
	kb_buf_finish(&reply.body);
	return status;
}
