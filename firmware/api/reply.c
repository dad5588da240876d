// Answers: whole ones, errors in OpenAI's shape, event streams. See conn.h.
#include "base/log.h"
#include "firmware/api/conn.h"
#include "firmware/api/json.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static void put_head(struct kb_conn *c, struct kb_http_head *head)
{
	head->request_id = c->request_id[0] ? c->request_id : NULL;
	head->is_close = head->is_close || !c->http.is_done || !c->http.is_keep_alive || c->http.ll.http_minor == 0 ||
					 c->daemon->is_stopping;
	if (!c->http.is_done) // the rest of the request is not read: no further one can be understood
		c->http.is_keep_alive = false;
	c->status = head->status;
	c->is_head_written = true;
	if (kb_http_put_head(&c->out, head))
		kb_conn_cut(c);
}

static void whole(struct kb_conn *c, struct kb_http_head *head, const void *body, size_t len)
{
	head->content_length = (int64_t)len;
	put_head(c, head);
	if (c->state == KB_CONN_CLOSING)
		return;
	if (kb_buf_append(&c->out, body, len)) {
		kb_conn_cut(c);
		return;
	}
	kb_conn_done(c);
}

void kb_reply(struct kb_conn *c, int status, const char *content_type, const void *body, size_t len)
{
	whole(c, &(struct kb_http_head){.status = status, .content_type = content_type}, body, len);
}

int kb_problem_print(const struct kb_problem *p, struct kb_buf *out)
{
	struct kb_json j = {.out = out};
	kb_json_raw(&j, "{\"error\":{\"message\":");
	kb_json_cstr(&j, p->text);
	kb_json_raw(&j, ",\"type\":");
	kb_json_cstr(&j, p->type);
	kb_json_raw(&j, ",\"param\":");
	if (p->param[0])
		kb_json_cstr(&j, p->param);
	else
		kb_json_raw(&j, "null");
	kb_json_raw(&j, ",\"code\":");
	if (p->code)
		kb_json_cstr(&j, p->code);
	else
		kb_json_raw(&j, "null");
	kb_json_raw(&j, "}}");
	return j.error;
}

// Which methods a path knows, for 405.
static const char *allowed(const struct kb_problem *p)
{
	return p->status == 405 ? p->param[0] ? p->param : "GET" : NULL;
}

void kb_reply_problem(struct kb_conn *c, const struct kb_problem *p)
{
	struct kb_buf body = {0};
	struct kb_problem shown = *p;
	struct kb_http_head head = {.status = p->status,
		.content_type = "application/json",
		.allow = allowed(p),
		.retry_after_s = p->retry_after_s};
	if (p->status == 405) // param carries the methods
		shown.param[0] = 0;
	if (kb_problem_print(&shown, &body))
		kb_conn_cut(c);
	else
		whole(c, &head, body.data, body.len);
	kb_buf_finish(&body);
}

void kb_reply_error(struct kb_conn *c, int status, const char *code, const char *param, const char *format, ...)
{
	char text[KB_ERR_TEXT_MAX];
	struct kb_problem p;
	va_list args;
	va_start(args, format);
	vsnprintf(text, sizeof text, format, args);
	va_end(args);
	kb_problem_set(&p, status, code, param, "%s", text);
	kb_reply_problem(c, &p);
}

void kb_reply_json(struct kb_conn *c, int status, struct kb_buf *body, int error)
{
	if (error)
		kb_reply_error(c, 500, NULL, "", "the answer could not be made: %s", kb_err_message(error));
	else
		kb_reply(c, status, "application/json", body->data, body->len);
	kb_buf_finish(body);
}

bool kb_reply_stream_begin(struct kb_conn *c)
{
	c->is_chunked = c->http.ll.http_minor == 1;
	put_head(c, &(struct kb_http_head){.status = 200,
					.content_type = "text/event-stream; charset=utf-8",
					.content_length = -1,
					.is_chunked = c->is_chunked});
	return c->state != KB_CONN_CLOSING;
}

bool kb_reply_stream_put(struct kb_conn *c, const void *data, size_t len)
{
	int r = c->is_chunked ? kb_http_put_chunk(&c->out, data, len) : kb_buf_append(&c->out, data, len);
	if (r == 0)
		kb_conn_flush(c);
	if (c->state == KB_CONN_CLOSING)
		return false;
	if (r || kb_conn_pending(c) > KB_STREAM_HIGH_WATER) {
		c->daemon->metrics.slow_readers++;
		kb_info("api", "%s: the client does not read its stream; cut", c->request_id);
		kb_conn_cut(c);
		return false;
	}
	return true;
}

void kb_reply_stream_end(struct kb_conn *c)
{
	if (c->is_chunked && kb_http_put_last_chunk(&c->out)) {
		kb_conn_cut(c);
		return;
	}
	kb_conn_done(c);
}
