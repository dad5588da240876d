// GET /v1/models and /v1/models/{id}.
#include "base/hex.h"
#include "firmware/api/conn.h"
#include "firmware/api/json.h"

#include <string.h>

static void put_model(struct kb_json *j, const struct kb_model *m)
{
	char digest[2 * KB_MANIFEST_HASH + 1];
	kb_json_raw(j, "{\"id\":");
	kb_json_cstr(j, m->name);
	kb_json_printf(j, ",\"object\":\"model\",\"created\":%lld,\"owned_by\":\"kotobako\"", (long long)m->created_s);
	if (m->version) { // a signed one: which
		kb_hex(m->digest, sizeof m->digest, digest);
		kb_json_printf(j, ",\"version\":%llu,\"digest\":\"%s\"", (unsigned long long)m->version, digest);
	}
	kb_json_raw(j, "}");
}

static void one(struct kb_conn *c, const char *name)
{
	struct kb_buf body = {0};
	struct kb_json j = {.out = &body};
	const struct kb_model *m = kb_models_find(&c->daemon->models, (struct kb_str){name, strlen(name)});
	if (!m) {
		kb_reply_error(c, 404, "model_not_found", "model", "the model %.64s is not installed", name);
		return;
	}
	put_model(&j, m);
	kb_reply_json(c, 200, &body, j.error);
}

void kb_handle_models(struct kb_conn *c)
{
	static const char prefix[] = "/v1/models/";
	struct kb_str path = kb_http_path(&c->http);
	struct kb_buf body = {0};
	struct kb_json j = {.out = &body};
	char name[KB_HTTP_URL_MAX + 1];
	kb_models_scan(&c->daemon->models);
	if (path.len >= sizeof prefix - 1) {
		struct kb_str rest = {path.data + sizeof prefix - 1, path.len - (sizeof prefix - 1)};
		if (kb_http_unescape(rest, name, sizeof name))
			kb_reply_error(c, 400, NULL, "model", "the model's name has a broken escape");
		else
			one(c, name);
		return;
	}
	kb_json_raw(&j, "{\"object\":\"list\",\"data\":[");
	for (uint32_t i = 0; i < c->daemon->models.n; i++) {
		if (i)
			kb_json_raw(&j, ",");
		put_model(&j, &c->daemon->models.row[i]);
	}
	kb_json_raw(&j, "]}");
	kb_reply_json(c, 200, &body, j.error);
}
