// For the admin socket and for administrators' clients: pairing, clients, bearer keys, status. Bodies are small JSON
// objects.
//   POST /admin/pair            {name, csr, admin} -> {name, certificate, ca, fingerprint, serial}
//   GET  /admin/clients         -> {clients: [{name, fingerprint, serial, created_s, revoked_s, has_bearer, is_admin}]}
//   POST /admin/clients/revoke  {name | fingerprint} -> {revoked: [fingerprint], cut: connections}
//   POST /admin/bearer          {name | fingerprint} -> {name, key}
//   GET  /admin/status          -> the daemon, its models and engines
//   POST /admin/reload          -> {models: [name]}
#include "base/clock.h"
#include "base/hex.h"
#include "base/log.h"
#include "firmware/api/conn.h"
#include "firmware/api/json.h"
#include "net/x509.h"

#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

// The body as an object, or NULL after answering.
static yyjson_doc *read_body(struct kb_conn *c)
{
	struct kb_err err;
	yyjson_doc *doc = kb_json_parse(c->http.body.data, c->http.body.len, &err);
	if (!doc) {
		kb_reply_error(c, 400, NULL, "", "%s", err.text);
	} else if (!yyjson_is_obj(yyjson_doc_get_root(doc))) {
		kb_reply_error(c, 400, NULL, "", "the body is not a JSON object");
		yyjson_doc_free(doc);
		doc = NULL;
	}
	return doc;
}

static const char *text_of(yyjson_doc *doc, const char *key)
{
	yyjson_val *v = yyjson_obj_get(yyjson_doc_get_root(doc), key);
	const char *text = yyjson_get_str(v);
	return text && strlen(text) == yyjson_get_len(v) ? text : NULL;
}

static int status_of(int code)
{
	return code == KB_EARG || code == KB_EBAD || code == KB_EUNSUPPORTED ? 400
		   : code == KB_EEXISTS                                          ? 409
		   : code == KB_ENOTFOUND                                        ? 404
		   : code == KB_EDENIED                                          ? 403
																		 : 500;
}

/* see conn.h */
bool kb_issue_client(
	struct kb_conn *c, const char *name, const char *csr, bool is_admin, struct kb_buf *ret_cert, struct kb_client *ret)
{
	struct kb_daemon *d = c->daemon;
	struct kb_err err;
	char fingerprint[65];
	struct kb_x509_ca ca = {kb_buf_cstr(&d->ca_key), kb_buf_cstr(&d->ca_cert)};
	*ret = (struct kb_client){.created_s = time(NULL), .is_admin = is_admin};
	int r = kb_x509_issue_client(&ca, csr, name, ret_cert, ret->fingerprint, ret->serial, &err);
	if (r == 0) {
		snprintf(ret->name, sizeof ret->name, "%s", name);
		r = kb_state_add_client(d->state, ret, &err);
	}
	if (r) {
		kb_reply_error(c, status_of(r), NULL, r == KB_EEXISTS || r == KB_EARG ? "name" : "csr", "%s", err.text);
		return false;
	}
	kb_hex(ret->fingerprint, 32, fingerprint);
	kb_info("admin", "paired \"%s\", fingerprint %.16s", ret->name, fingerprint);
	return true;
}

/* see json.h */
void kb_print_client(
	const struct kb_daemon *d, const struct kb_client *client, const struct kb_buf *cert, struct kb_json *j)
{
	char fingerprint[65];
	kb_hex(client->fingerprint, 32, fingerprint);
	kb_json_raw(j, "{\"name\":");
	kb_json_cstr(j, client->name);
	kb_json_raw(j, ",\"certificate\":");
	kb_json_str(j, (const char *)cert->data, cert->len);
	kb_json_raw(j, ",\"ca\":");
	kb_json_str(j, (const char *)d->ca_cert.data, d->ca_cert.len);
	kb_json_printf(j, ",\"fingerprint\":\"%s\",\"serial\":\"%s\"", fingerprint, client->serial);
}

static void pair(struct kb_conn *c, const char *name, const char *csr, bool is_admin)
{
	struct kb_buf cert = {0}, body = {0};
	struct kb_json j = {.out = &body};
	struct kb_client client;
	if (kb_issue_client(c, name, csr, is_admin, &cert, &client)) {
		kb_print_client(c->daemon, &client, &cert, &j);
		kb_json_raw(&j, "}");
		kb_reply_json(c, 200, &body, j.error);
	}
	kb_buf_finish(&cert);
}

void kb_handle_admin_pair(struct kb_conn *c)
{
	yyjson_doc *doc = kb_is_administrator(c) ? read_body(c) : NULL;
	if (!doc)
		return;
	const char *name = text_of(doc, "name"), *csr = text_of(doc, "csr");
	if (!name || !csr)
		kb_reply_error(c, 400, NULL, name ? "csr" : "name", "%s is required", name ? "csr" : "name");
	else if (strlen(csr) >= KB_X509_PEM_MAX)
		kb_reply_error(c, 413, NULL, "csr", "the signing request is too large");
	else
		pair(c, name, csr, yyjson_get_bool(yyjson_obj_get(yyjson_doc_get_root(doc), "admin")));
	yyjson_doc_free(doc);
}

static int print_client(void *ctx, const struct kb_client *client)
{
	struct kb_json *j = ctx;
	char fingerprint[65];
	kb_hex(client->fingerprint, 32, fingerprint);
	kb_json_raw(j, j->out->data[j->out->len - 1] == '[' ? "{\"name\":" : ",{\"name\":");
	kb_json_cstr(j, client->name);
	kb_json_printf(j,
		",\"fingerprint\":\"%s\",\"serial\":\"%s\",\"created_s\":%lld,\"revoked_s\":%lld,\"has_bearer\":%s,\"is_"
		"admin\":%s}",
		fingerprint, client->serial, (long long)client->created_s, (long long)client->revoked_s,
		client->has_bearer ? "true" : "false", client->is_admin ? "true" : "false");
	return j->error;
}

void kb_handle_admin_clients(struct kb_conn *c)
{
	struct kb_buf body = {0};
	struct kb_json j = {.out = &body};
	struct kb_err err;
	if (!kb_is_administrator(c))
		return;
	kb_json_raw(&j, "{\"clients\":[");
	int r = kb_state_each_client(c->daemon->state, print_client, &j, &err);
	kb_json_raw(&j, "]}");
	kb_reply_json(c, 200, &body, r ? r : j.error);
}

// The client that a body names; KB_ENOTFOUND after answering otherwise.
static int named_client(struct kb_conn *c, yyjson_doc *doc, struct kb_client *ret)
{
	const char *name = text_of(doc, "name"), *hex = text_of(doc, "fingerprint");
	uint8_t fingerprint[32];
	int r = KB_ENOTFOUND;
	if (!name && !hex) {
		kb_reply_error(c, 400, NULL, "name", "name or fingerprint is required");
		return KB_ENOTFOUND;
	}
	if (hex)
		r = kb_unhex(hex, fingerprint, 32) ? KB_ENOTFOUND : kb_state_get_client(c->daemon->state, fingerprint, ret);
	else
		r = kb_state_find_client(c->daemon->state, name, ret);
	if (r)
		kb_reply_error(c, 404, "client_not_found", hex ? "fingerprint" : "name", "there is no such client: %.64s",
			hex ? hex : name);
	return r;
}

// Cuts what the client has open, the one that asks excepted.
static int cut_all(struct kb_daemon *d, const uint8_t fingerprint[32])
{
	int n = 0;
	for (struct kb_conn *c = d->conns; c; c = c->next)
		if (c->has_client && c->state != KB_CONN_CLOSING && memcmp(c->client.fingerprint, fingerprint, 32) == 0) {
			kb_conn_cut(c);
			n++;
		}
	return n;
}

static int count_administrators(void *ctx, const struct kb_client *client)
{
	*(uint32_t *)ctx += client->is_admin && client->revoked_s == 0;
	return 0;
}

// Over the network nobody can shut out everybody: on a box without a shell only a factory reset would help. Answers.
static bool is_last_administrator(struct kb_conn *c, const struct kb_client *client)
{
	uint32_t n = 0;
	struct kb_err err;
	if (c->kind == KB_LISTEN_ADMIN || !client->is_admin || client->revoked_s ||
		kb_state_each_client(c->daemon->state, count_administrators, &n, &err) || n > 1)
		return false;
	kb_reply_error(
		c, 409, "last_administrator", "name", "\"%s\" is the only administrator: pair another one first", client->name);
	return true;
}

void kb_handle_admin_revoke(struct kb_conn *c)
{
	struct kb_client client;
	struct kb_err err;
	char fingerprint[65], body[160];
	yyjson_doc *doc = kb_is_administrator(c) ? read_body(c) : NULL;
	if (!doc)
		return;
	if (named_client(c, doc, &client) == 0 && !is_last_administrator(c, &client)) {
		int r = kb_state_revoke(c->daemon->state, client.fingerprint, time(NULL), &err);
		if (r) {
			kb_reply_error(c, status_of(r), NULL, "", "%s", err.text);
		} else {
			int n = cut_all(c->daemon, client.fingerprint);
			kb_hex(client.fingerprint, 32, fingerprint);
			kb_info("admin", "revoked \"%s\", %d connections cut", client.name, n);
			int len = snprintf(body, sizeof body, "{\"revoked\":[\"%s\"],\"cut\":%d}", fingerprint, n);
			kb_reply(c, 200, "application/json", body, (size_t)len);
		}
	}
	yyjson_doc_free(doc);
}

void kb_handle_admin_bearer(struct kb_conn *c)
{
	struct kb_client client;
	struct kb_err err;
	uint8_t secret[32], hash[32];
	char key[3 + 64 + 1] = "kb-";
	struct kb_buf body = {0};
	struct kb_json j = {.out = &body};
	yyjson_doc *doc = kb_is_administrator(c) ? read_body(c) : NULL;
	if (!doc)
		return;
	if (named_client(c, doc, &client) == 0) {
		int r = kb_random(secret, sizeof secret, &err);
		if (r == 0) {
			kb_hex(secret, sizeof secret, key + 3);
			kb_sha256(key, strlen(key), hash);
			r = kb_state_set_bearer(c->daemon->state, client.fingerprint, hash, &err);
		}
		if (r) {
			kb_reply_error(c, status_of(r), NULL, "name", "%s", err.text);
		} else {
			kb_info("admin", "made a bearer key for \"%s\"", client.name);
			kb_json_raw(&j, "{\"name\":");
			kb_json_cstr(&j, client.name);
			kb_json_printf(&j, ",\"key\":\"%s\"}", key);
			kb_reply(c, j.error ? 500 : 200, "application/json", body.data, body.len);
		}
	}
	kb_wipe(&body);
	memset(key, 0, sizeof key);
	yyjson_doc_free(doc);
}

static void print_engine(struct kb_json *j, const struct kb_engine *e)
{
	kb_json_raw(j, "{\"model\":");
	kb_json_cstr(j, e->model);
	kb_json_raw(j, ",\"state\":");
	kb_json_cstr(j, kb_engine_state_name(e));
	kb_json_printf(j, ",\"pid\":%d,\"requests\":%u", kb_engine_pid(e), e->n_jobs);
	if (e->state == KB_ENGINE_READY) {
		kb_json_raw(j, ",\"device\":");
		kb_json_cstr(j, e->device);
		kb_json_raw(j, ",\"arch\":");
		kb_json_cstr(j, e->arch);
		kb_json_printf(j,
			",\"context\":%u,\"kv_tokens\":%u,\"max_seqs\":%u,\"weight_bytes\":%llu,\"parameters\":%llu,\"load_ms\":%"
			"llu",
			e->context, e->kv_tokens, e->max_seqs, (unsigned long long)e->weight_bytes,
			(unsigned long long)e->parameters, (unsigned long long)(e->ready_ms - e->started_ms));
	}
	if (e->state == KB_ENGINE_LOADING && e->load_total)
		kb_json_printf(j, ",\"loaded\":%.3f", (double)e->load_done / (double)e->load_total);
	if (e->last_failure[0]) {
		kb_json_raw(j, ",\"last_failure\":");
		kb_json_cstr(j, e->last_failure);
	}
	kb_json_raw(j, "}");
}

static void print_models(struct kb_json *j, const struct kb_models *m)
{
	kb_json_raw(j, "\"models\":[");
	for (uint32_t i = 0; i < m->n; i++) {
		kb_json_raw(j, i ? "," : "");
		kb_json_cstr(j, m->row[i].name);
	}
	kb_json_raw(j, "]");
}

void kb_handle_admin_status(struct kb_conn *c)
{
	struct kb_daemon *d = c->daemon;
	struct kb_buf body = {0};
	struct kb_json j = {.out = &body};
	if (!kb_is_administrator(c))
		return;
	kb_models_scan(&d->models);
	kb_json_printf(&j, "{\"version\":\"" KB_VERSION "\",\"pid\":%d,\"uptime_s\":%llu,\"listen\":\"%s:%u\"",
		(int)getpid(), (unsigned long long)((kb_clock_ms() - d->started_ms) / 1000), d->o.listen.host,
		d->o.listen.port);
	if (d->o.bearer.port)
		kb_json_printf(&j, ",\"bearer\":\"%s:%u\"", d->o.bearer.host, d->o.bearer.port);
	kb_json_raw(&j, ",");
	kb_print_addresses(d, &j);
	if (kb_claim_may(d))
		kb_json_printf(&j, ",\"claim\":{\"code\":\"%s\",\"minutes_left\":%u}", d->claim_code, kb_claim_minutes_left(d));
	if (d->o.network) // there will be an address, soon after the start
		kb_json_raw(&j, ",\"keeps_network\":true");
	kb_json_printf(&j, ",\"connections\":%u,\"running\":%u,\"engine_restarts\":%llu,\"default_model\":", d->n_conns,
		d->n_running, (unsigned long long)d->metrics.engine_restarts);
	kb_json_cstr(&j, kb_pool_default(d));
	kb_json_raw(&j, ",");
	print_models(&j, &d->models);
	kb_json_raw(&j, ",\"engines\":[");
	const char *comma = "";
	for (uint32_t i = 0; i < KB_ENGINES_MAX; i++)
		if (d->engines[i].model[0]) {
			kb_json_raw(&j, comma);
			print_engine(&j, &d->engines[i]);
			comma = ",";
		}
	kb_json_raw(&j, "]}");
	kb_reply_json(c, 200, &body, j.error);
}

void kb_handle_admin_reload(struct kb_conn *c)
{
	struct kb_buf body = {0};
	struct kb_json j = {.out = &body};
	kb_pool_reload(c->daemon);
	kb_json_raw(&j, "{");
	print_models(&j, &c->daemon->models);
	kb_json_raw(&j, "}");
	kb_reply_json(c, 200, &body, j.error);
}
