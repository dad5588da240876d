// The box's network, for administrators (runtime/site/network.h has what the words mean):
//   GET  /admin/network  -> {settings: {address, gateway, time, name}, name, addresses}
//   POST /admin/network  {address, gateway, time: [...], name} -> the same; what is left out is as if it was never set
// The daemon keeps the settings; kotobako-net, as root, makes them so within a second.
#include "site/network.h"
#include "base/log.h"
#include "firmware/api/conn.h"
#include "firmware/api/file.h"
#include "firmware/api/json.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

static int load(const char *path, struct kb_site_network *ret, struct kb_err *err)
{
	struct kb_buf text = {0};
	*ret = (struct kb_site_network){0};
	int r = kb_file_read(path, KB_SITE_NETWORK_MAX + 2, &text, err);
	if (r == 0)
		r = kb_site_network_parse((const char *)text.data, text.len, err, ret);
	kb_buf_finish(&text);
	return r == KB_ENOTFOUND ? 0 : r;
}

static void print_settings(struct kb_json *j, const struct kb_site_network *n)
{
	char a[KB_SITE_ADDRESS_TEXT];
	if (n->is_fixed)
		kb_json_printf(j, "{\"address\":\"%s/%u\"", kb_site_address_text(n->address, a), n->prefix);
	else
		kb_json_raw(j, "{\"address\":\"dhcp\"");
	if (n->gateway)
		kb_json_printf(j, ",\"gateway\":\"%s\"", kb_site_address_text(n->gateway, a));
	kb_json_raw(j, ",\"time\":[");
	for (uint32_t i = 0; i < n->n_times; i++)
		kb_json_printf(j, "%s\"%s\"", i ? "," : "", kb_site_address_text(n->times[i], a));
	kb_json_raw(j, "]");
	if (n->name[0])
		kb_json_printf(j, ",\"name\":\"%s\"", n->name);
	kb_json_raw(j, "}");
}

static void answer(struct kb_conn *c, const struct kb_site_network *n)
{
	struct kb_buf body = {0};
	struct kb_json j = {.out = &body};
	char name[256] = "";
	if (gethostname(name, sizeof name - 1))
		name[0] = 0;
	kb_json_raw(&j, "{\"settings\":");
	print_settings(&j, n);
	kb_json_raw(&j, ",\"name\":");
	kb_json_cstr(&j, name);
	kb_json_raw(&j, ",");
	kb_print_addresses(c->daemon, &j);
	kb_json_raw(&j, "}");
	kb_reply_json(c, 200, &body, j.error);
}

// One row of the settings from a member of the body; false: answered.
static bool take(struct kb_conn *c, struct kb_site_network *n, const char *key, yyjson_val *v)
{
	struct kb_err err;
	const char *text = yyjson_get_str(v);
	if (!text || strlen(text) != yyjson_get_len(v))
		kb_reply_error(c, 400, NULL, key, "%s: it wants text", key);
	else if (kb_site_network_set(n, key, text, &err))
		kb_reply_error(c, 400, NULL, key, "%s", err.text);
	else
		return true;
	return false;
}

static bool take_all(struct kb_conn *c, struct kb_site_network *n, yyjson_val *root)
{
	static const char *const keys[] = {"address", "gateway", "name"};
	yyjson_val *times = yyjson_obj_get(root, "time"), *v;
	size_t i, max;
	struct kb_err err;
	for (i = 0; i < sizeof keys / sizeof *keys; i++)
		if ((v = yyjson_obj_get(root, keys[i])) && !take(c, n, keys[i], v))
			return false;
	if (times && !yyjson_is_arr(times)) {
		kb_reply_error(c, 400, NULL, "time", "time: it wants a list of addresses");
		return false;
	}
	yyjson_arr_foreach(times, i, max, v)
	{
		if (!take(c, n, "time", v))
			return false;
	}
	if (kb_site_network_check(n, &err) == 0)
		return true;
	kb_reply_error(c, 400, NULL, "address", "%s", err.text);
	return false;
}

// The network is ours to set only where kotobako-net looks at what we keep.
static bool may(struct kb_conn *c)
{
	if (!kb_is_administrator(c))
		return false;
	if (c->daemon->o.network)
		return true;
	kb_reply_error(c, 404, NULL, "", "this machine's network is not set by kotobako");
	return false;
}

void kb_handle_network(struct kb_conn *c)
{
	struct kb_site_network n;
	struct kb_err err;
	if (!may(c))
		return;
	if (load(c->daemon->o.network, &n, &err))
		kb_warn("network", "%s: %s", c->daemon->o.network, err.text); // and DHCP is what counts then
	answer(c, &n);
}

void kb_handle_network_set(struct kb_conn *c)
{
	struct kb_site_network n = {0};
	struct kb_buf text = {0};
	struct kb_err err;
	if (!may(c))
		return;
	yyjson_doc *doc = kb_json_parse(c->http.body.data, c->http.body.len, &err);
	yyjson_val *root = yyjson_doc_get_root(doc);
	if (!yyjson_is_obj(root))
		kb_reply_error(c, 400, NULL, "", "%s", doc ? "the body is not a JSON object" : err.text);
	else if (take_all(c, &n, root)) {
		int r = kb_site_network_format(&n, &text) ? kb_fail(&err, KB_ENOMEM, "out of memory") : 0;
		r = r ? r : kb_file_replace(c->daemon->o.network, &text, &err);
		if (r) {
			kb_reply_error(c, 500, NULL, "", "%s", err.text);
		} else {
			kb_info("network", "set: %.*s", (int)strcspn(kb_buf_cstr(&text), "\n"), kb_buf_cstr(&text));
			answer(c, &n);
		}
	}
	kb_buf_finish(&text);
	yyjson_doc_free(doc);
}
