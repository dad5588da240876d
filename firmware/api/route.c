// Which function answers what, and who may ask. See conn.h.
#include "base/clock.h"
#include "base/hex.h"
#include "base/log.h"
#include "firmware/api/conn.h"
#include "net/x509.h"

#include <stdio.h>
#include <string.h>

#define ON_API (1u << KB_LISTEN_MUTUAL | 1u << KB_LISTEN_BEARER)
#define ON_ADMIN (1u << KB_LISTEN_ADMIN)
#define ON_CLAIM (1u << KB_LISTEN_CLAIM)
#define ON_ADMINS (ON_ADMIN | 1u << KB_LISTEN_MUTUAL) // kb_is_administrator() asks who it is

static const struct route {
	const char *method, *path; // a path that ends in "/" takes one more segment
	unsigned where;
	enum kb_endpoint endpoint;
	bool has_body; // of JSON
	void (*handle)(struct kb_conn *c);
} routes[] = {
	{"GET", "/v1/models", ON_API, KB_ENDPOINT_MODELS, false, kb_handle_models},
	{"GET", "/v1/models/", ON_API, KB_ENDPOINT_MODELS, false, kb_handle_models},
	{"POST", "/v1/chat/completions", ON_API, KB_ENDPOINT_CHAT, true, kb_handle_chat},
	{"POST", "/v1/completions", ON_API | ON_ADMIN, KB_ENDPOINT_COMPLETIONS, true, kb_handle_completions},
	{"GET", "/healthz", ON_API | ON_ADMIN, KB_ENDPOINT_HEALTH, false, kb_handle_health},
	{"GET", "/metrics", ON_API | ON_ADMIN, KB_ENDPOINT_METRICS, false, kb_handle_metrics},
	{"POST", "/claim/begin", ON_CLAIM, KB_ENDPOINT_ADMIN, true, kb_handle_claim_begin},
	{"POST", "/claim/finish", ON_CLAIM, KB_ENDPOINT_ADMIN, true, kb_handle_claim_finish},
	{"POST", "/admin/pair", ON_ADMINS, KB_ENDPOINT_ADMIN, true, kb_handle_admin_pair},
	{"GET", "/admin/clients", ON_ADMINS, KB_ENDPOINT_ADMIN, false, kb_handle_admin_clients},
	{"POST", "/admin/clients/revoke", ON_ADMINS, KB_ENDPOINT_ADMIN, true, kb_handle_admin_revoke},
	{"POST", "/admin/bearer", ON_ADMINS, KB_ENDPOINT_ADMIN, true, kb_handle_admin_bearer},
	{"GET", "/admin/status", ON_ADMINS, KB_ENDPOINT_ADMIN, false, kb_handle_admin_status},
	{"POST", "/admin/reload", ON_ADMIN, KB_ENDPOINT_ADMIN, false, kb_handle_admin_reload},
	{"GET", "/admin/system", ON_ADMINS, KB_ENDPOINT_ADMIN, false, kb_handle_system},
	{"POST", "/admin/system/rollback", ON_ADMINS, KB_ENDPOINT_ADMIN, false, kb_handle_system_rollback},
	{"GET", "/admin/network", ON_ADMINS, KB_ENDPOINT_ADMIN, false, kb_handle_network},
	{"POST", "/admin/network", ON_ADMINS, KB_ENDPOINT_ADMIN, true, kb_handle_network_set},
	{"POST", "/admin/uploads", ON_ADMINS, KB_ENDPOINT_ADMIN, true, kb_handle_upload_begin},
	{"GET", "/admin/uploads/", ON_ADMINS, KB_ENDPOINT_ADMIN, false, kb_handle_upload_offset},
	{"PATCH", "/admin/uploads/", ON_ADMINS, KB_ENDPOINT_ADMIN, false, kb_handle_upload_piece},
	{"DELETE", "/admin/uploads/", ON_ADMINS, KB_ENDPOINT_ADMIN, false, kb_handle_upload_cancel},
};

static bool is_path(const struct route *r, struct kb_str path)
{
	size_t len = strlen(r->path);
	if (r->path[len - 1] == '/')
		return path.len > len && memcmp(path.data, r->path, len) == 0 && !memchr(path.data + len, '/', path.len - len);
	return path.len == len && memcmp(path.data, r->path, len) == 0;
}

static const struct route *find(const struct kb_conn *c, bool any_method)
{
	struct kb_str path = kb_http_path(&c->http);
	const char *method = kb_http_method(&c->http);
	for (size_t i = 0; i < sizeof routes / sizeof *routes; i++)
		if ((routes[i].where >> c->kind & 1) && is_path(&routes[i], path) &&
			(any_method || strcmp(routes[i].method, method) == 0))
			return &routes[i];
	return NULL;
}

// The bearer listener: "Authorization: Bearer KEY" of a client that is not revoked.
static bool check_bearer(struct kb_conn *c)
{
	struct kb_str v;
	uint8_t hash[32];
	struct kb_client client;
	c->has_client = false;
	if (!kb_http_header(&c->http, "authorization", &v) || v.len < 8 || strncasecmp(v.data, "bearer ", 7) != 0)
		return false;
	while (v.len > 7 && v.data[7] == ' ') {
		v.data++;
		v.len--;
	}
	kb_sha256(v.data + 7, v.len - 7, hash);
	if (kb_state_find_bearer(c->daemon->state, hash, &client) ||
		!kb_equal_constant_time(hash, client.bearer_hash, sizeof hash))
		return false;
	memcpy(c->client.fingerprint, client.fingerprint, sizeof client.fingerprint);
	snprintf(c->client.name, sizeof c->client.name, "%s", client.name);
	c->has_client = true;
	return true;
}

static bool is_json(const struct kb_conn *c)
{
	struct kb_str v;
	static const char json[] = "application/json";
	if (!kb_http_header(&c->http, "content-type", &v) || v.len < sizeof json - 1 ||
		strncasecmp(v.data, json, sizeof json - 1) != 0)
		return false;
	return v.len == sizeof json - 1 || v.data[sizeof json - 1] == ';' || v.data[sizeof json - 1] == ' ';
}

bool kb_route_head(struct kb_conn *c)
{
	const struct route *r = find(c, false), *other = find(c, true);
	struct kb_problem p;
	struct kb_str path = kb_http_path(&c->http);
	int wait_s;
	c->endpoint = r ? (int)r->endpoint : KB_ENDPOINT_OTHER;
	if (c->kind == KB_LISTEN_BEARER && !check_bearer(c))
		kb_problem_set(
			&p, 401, "invalid_api_key", "", "this listener wants Authorization: Bearer with a key of a paired client");
	else if (!other)
		kb_problem_set(
			&p, 404, "not_found", "", "there is nothing at %.*s", (int)(path.len < 100 ? path.len : 100), path.data);
	else if (!r) // param carries what is allowed
		kb_problem_set(&p, 405, "method_not_allowed", other->method, "%.*s wants %s",
			(int)(path.len < 100 ? path.len : 100), path.data, other->method);
	else if (r->has_body && !is_json(c))
		kb_problem_set(&p, 415, NULL, "", "the body must be sent as Content-Type: application/json");
	else if (c->kind != KB_LISTEN_ADMIN &&
			 (wait_s = kb_limiter_take(&c->daemon->limiter, c->client.fingerprint, kb_clock_ms())) > 0) {
		kb_problem_set(
			&p, 429, "rate_limit_exceeded", "", "too many requests from this client; try again in %d s", wait_s);
		p.retry_after_s = wait_s;
	} else {
		return true;
	}
	kb_reply_problem(c, &p);
	return false;
}

void kb_route_run(struct kb_conn *c)
{
	const struct route *r = find(c, false);
	r->handle(c);
}

void kb_route_log(struct kb_conn *c)
{
	struct kb_metrics *m = &c->daemon->metrics;
	char who[9] = "-";
	if (c->status < 100 || c->status > 599)
		return;
	m->requests[c->endpoint][c->status / 100]++;
	if (c->has_client)
		kb_hex(c->client.fingerprint, 4, who);
	double seconds = (double)(kb_clock_ms() - c->begun_ms) / 1000;
	bool is_text = c->endpoint == KB_ENDPOINT_CHAT || c->endpoint == KB_ENDPOINT_COMPLETIONS;
	if (is_text && c->status == 200)
		kb_histogram_add(&m->request_s, seconds);
	struct kb_str path = c->endpoint == KB_ENDPOINT_OTHER ? (struct kb_str){"-", 1} : kb_http_path(&c->http);
	kb_log(is_text || c->endpoint == KB_ENDPOINT_ADMIN ? KB_LOG_INFO : KB_LOG_DEBUG, "api",
		"%s client %s %.*s %d %.3f s", c->request_id, who, (int)(path.len < 100 ? path.len : 100), path.data, c->status,
		seconds);
}
