// The other side: the box over mutual TLS, with what `kotobako pair` wrote, or the daemon's admin socket.
#pragma once
#include "firmware/ctl/ctl.h"
#include <yyjson.h>

// The files of a client directory.
#define KB_CTL_CERT "cert.pem"
#define KB_CTL_KEY "key.pem"
#define KB_CTL_CA "ca.pem"
#define KB_CTL_BOX "box.json"

struct kb_ctl_where {
	char host[256];
	uint16_t port;
};

// Where the box is: --box, else the client directory's box.json. KB_ENOTFOUND: not paired.
KB_MUST_CHECK int kb_ctl_box_where(const struct kb_ctl *ctl, struct kb_ctl_where *ret, struct kb_err *err);

// These print what went wrong and return the exit status. *ret is destroyed by the caller.
KB_MUST_CHECK int kb_ctl_box_open(const struct kb_ctl *ctl, struct kb_http_client **ret);
KB_MUST_CHECK int kb_ctl_admin_open(const struct kb_ctl *ctl, struct kb_http_client **ret);
// The admin socket where it is meant (--state) or there; else the box as this client sees it. *ret_is_admin may be
// NULL.
KB_MUST_CHECK int kb_ctl_either_open(const struct kb_ctl *ctl, struct kb_http_client **ret, bool *ret_is_admin);
// A whole JSON answer; body may be NULL. *ret_doc: yyjson_doc_free().
KB_MUST_CHECK int kb_ctl_call(
	struct kb_http_client *c, const char *method, const char *path, const char *body, yyjson_doc **ret_doc);
// The same with the longest silence that is waited through, for calls that take a model's time.
KB_MUST_CHECK int kb_ctl_call_within(struct kb_http_client *c, const char *method, const char *path, const char *body,
	int idle_ms, yyjson_doc **ret_doc);

// Pure: the message of an error body in OpenAI's or the admin socket's shape, cleaned for a terminal; what the
// status means where the body says nothing. ret is always a text.
void kb_ctl_error_text(int status, const char *body, size_t len, char ret[static KB_ERR_TEXT_MAX]);
// Prints the failure of a call (code and err, or a status outside 2xx) and returns the exit status.
int kb_ctl_call_failed(int code, const struct kb_err *err, const struct kb_http_reply *reply);
