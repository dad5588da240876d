// kotobako pair, clients, revoke, bearer: who may use the box. All but the key's making is the daemon's work, asked
// for over its admin socket, which only the state directory's owner can reach, or over TLS by an administrator's
// client.
#include "firmware/ctl/box.h"
#include "firmware/ctl/client_files.h"
#include "firmware/ctl/text.h"
#include "net/x509.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

// DHCP asks five seconds around whether an address is free; the daemon looks every five.
enum { ADDRESS_WAIT_MS = 20000, ADDRESS_LOOK_MS = 500 };

// {"name": name, "csr": csr, "admin": true}; csr may be NULL. free() it.
static char *pair_body(const char *name, const char *csr, bool is_admin)
{
	yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
	yyjson_mut_val *o = yyjson_mut_obj(doc);
	yyjson_mut_doc_set_root(doc, o);
	yyjson_mut_obj_add_str(doc, o, "name", name);
	if (csr)
		yyjson_mut_obj_add_str(doc, o, "csr", csr);
	if (is_admin)
		yyjson_mut_obj_add_bool(doc, o, "admin", true);
	char *text = yyjson_mut_write(doc, 0, NULL);
	yyjson_mut_doc_free(doc);
	return text;
}

// An administrator's client makes another one, into another directory, at the box that it is paired with.
static bool is_elsewhere(const struct kb_ctl *ctl, const char *directory)
{
	return !ctl->has_state && ctl->has_client && kb_ctl_is_paired(ctl->client) && strcmp(directory, ctl->client) != 0;
}

// The daemon's part, then the files.
static int certify(const struct kb_ctl *ctl, const char *directory, const char *name, const struct kb_ctl_where *where,
	const char *key, const char *csr, bool is_admin)
{
	struct kb_http_client *admin = NULL;
	yyjson_doc *doc = NULL;
	char *body = pair_body(name, csr, is_admin);
	int status = !body                          ? kb_ctl_fail(KB_CTL_FAILED, "out of memory")
				 : is_elsewhere(ctl, directory) ? kb_ctl_box_open(ctl, &admin)
												: kb_ctl_admin_open(ctl, &admin);
	if (status == 0)
		status = kb_ctl_call(admin, "POST", "/admin/pair", body, &doc);
	kb_http_client_destroy(admin);
	free(body);
	if (status == 0)
		status = kb_ctl_keep_client(directory, name, where, key, yyjson_doc_get_root(doc));
	yyjson_doc_free(doc);
	return status;
}

// The daemon's status; where it keeps the machine's network, once there is an address or it takes too long.
static int status_with_address(const struct kb_ctl *ctl, yyjson_doc **ret)
{
	for (int left_ms = ADDRESS_WAIT_MS;; left_ms -= ADDRESS_LOOK_MS) {
		struct kb_http_client *admin = NULL;
		int status = kb_ctl_admin_open(ctl, &admin);
		if (status == 0)
			status = kb_ctl_call(admin, "GET", "/admin/status", NULL, ret);
		kb_http_client_destroy(admin);
		yyjson_val *root = yyjson_doc_get_root(*ret);
		if (status || left_ms <= 0 || !yyjson_get_bool(yyjson_obj_get(root, "keeps_network")) ||
			yyjson_arr_size(yyjson_obj_get(root, "addresses")) > 0)
			return status;
		yyjson_doc_free(*ret);
		*ret = NULL;
		nanosleep(&(struct timespec){.tv_nsec = ADDRESS_LOOK_MS * 1000000L}, NULL);
	}
}

// Where the daemon says that it listens, as seen from this machine: "ADDRESS:PORT", an IPv6 address without brackets.
static int where_it_listens(const struct kb_ctl *ctl, struct kb_ctl_where *ret)
{
	yyjson_doc *doc = NULL;
	int status = status_with_address(ctl, &doc);
	if (status)
		return status;
	const char *listen = yyjson_get_str(yyjson_obj_get(yyjson_doc_get_root(doc), "listen"));
	const char *address = yyjson_get_str(yyjson_arr_get_first(yyjson_obj_get(yyjson_doc_get_root(doc), "addresses")));
	const char *colon = listen ? strrchr(listen, ':') : NULL;
	size_t len = colon ? (size_t)(colon - listen) : 0;
	unsigned long port = colon ? strtoul(colon + 1, NULL, 10) : 0;
	if (len > 0 && len < sizeof ret->host && port > 0 && port <= 65535) {
		snprintf(ret->host, sizeof ret->host, "%.*s", (int)len, listen);
		ret->port = (uint16_t)port;
	}
	bool is_any = strcmp(ret->host, "0.0.0.0") == 0 || strcmp(ret->host, "::") == 0;
	if (is_any && address && strlen(address) < sizeof ret->host) {
		snprintf(ret->host, sizeof ret->host, "%s", address);
	} else if (is_any) {
		snprintf(ret->host, sizeof ret->host, strchr(ret->host, ':') ? "::1" : "127.0.0.1");
		fprintf(stderr, "for a client on another machine give --box NAME, as the box's certificate has it\n");
	}
	yyjson_doc_free(doc);
	return KB_CTL_OK;
}

int kb_ctl_pair(struct kb_ctl *ctl, const struct kb_ctl_args *args)
{
	char own_name[65];
	const char *name = args->option[KB_PAIR_NAME].text;
	const char *directory = args->option[KB_PAIR_OUT].is_set ? args->option[KB_PAIR_OUT].text : ctl->client;
	struct kb_err err = {0};
	struct kb_ctl_where where = {"127.0.0.1", KB_CTL_PORT};
	struct kb_buf key = {0}, csr = {0};
	kb_ctl_client_name(own_name, sizeof own_name);
	if (!name)
		name = own_name;
	if (!kb_x509_name_ok(name))
		return kb_ctl_fail(KB_CTL_USAGE, "--name %s: a client's name is 1 to %u letters, digits, . - _ @ or spaces",
			name, KB_TLS_NAME_MAX);
	if (ctl->box && kb_ctl_parse_box(ctl->box, where.host, sizeof where.host, &where.port))
		return kb_ctl_fail(KB_CTL_USAGE, "--box %s: it wants HOST or HOST:PORT", ctl->box);
	if (kb_ctl_is_paired(directory) && !args->option[KB_PAIR_REPLACE].is_set)
		return kb_ctl_fail(KB_CTL_FAILED,
			"%s holds a client's certificate already (--replace replaces it, --out goes elsewhere)", directory);
	int status = KB_CTL_OK, r = 0;
	if (is_elsewhere(ctl, directory) && kb_ctl_box_where(ctl, &where, &err))
		status = kb_ctl_fail(KB_CTL_FAILED, "%s", err.text);
	else if (!is_elsewhere(ctl, directory) && !ctl->box)
		status = where_it_listens(ctl, &where);
	if (status)
		return status;
	r = kb_tls_init(&err);
	if (r == 0)
		r = kb_ctl_make_directory(directory, &err);
	if (r == 0)
		r = kb_x509_make_csr(name, &key, &csr, &err);
	status = KB_CTL_FAILED;
	if (r == 0 && kb_buf_cstr(&key) && kb_buf_cstr(&csr))
		status = certify(ctl, directory, name, &where, (const char *)key.data, (const char *)csr.data,
			args->option[KB_PAIR_ADMIN].is_set);
	else
		kb_ctl_fail(status, "%s", r ? err.text : "out of memory");
	kb_wipe(&key);
	kb_buf_finish(&csr);
	return status;
}

static int admin_call(struct kb_ctl *ctl, const char *method, const char *path, const char *name, yyjson_doc **ret)
{
	struct kb_http_client *admin = NULL;
	char *body = name ? pair_body(name, NULL, false) : NULL;
	if (name && !body)
		return kb_ctl_fail(KB_CTL_FAILED, "out of memory, or the name is not UTF-8");
	int status = kb_ctl_either_open(ctl, &admin, NULL);
	if (status == 0)
		status = kb_ctl_call(admin, method, path, body, ret);
	kb_http_client_destroy(admin);
	free(body);
	return status;
}

static const char *day(int64_t seconds, char ret[static 32])
{
	struct tm tm;
	time_t t = (time_t)seconds;
	if (seconds <= 0 || !gmtime_r(&t, &tm) || strftime(ret, 32, "%Y-%m-%d", &tm) == 0)
		snprintf(ret, 32, "-");
	return ret;
}

static int64_t number(yyjson_val *object, const char *key)
{
	return yyjson_get_sint(yyjson_obj_get(object, key));
}

int kb_ctl_clients(struct kb_ctl *ctl, const struct kb_ctl_args *args)
{
	yyjson_doc *doc = NULL;
	int status = admin_call(ctl, "GET", "/admin/clients", NULL, &doc);
	if (status)
		return status;
	yyjson_val *list = yyjson_obj_get(yyjson_doc_get_root(doc), "clients"), *c;
	if (args->option[KB_CLIENTS_JSON].is_set) {
		char *text = yyjson_val_write(list, YYJSON_WRITE_PRETTY_TWO_SPACES, NULL);
		puts(text ? text : "[]");
		free(text);
	} else {
		size_t i, n;
		char created[32], revoked[32];
		yyjson_arr_foreach(list, i, n, c)
		{
			const char *name = yyjson_get_str(yyjson_obj_get(c, "name"));
			const char *fingerprint = yyjson_get_str(yyjson_obj_get(c, "fingerprint"));
			bool is_revoked = number(c, "revoked_s") > 0;
			printf("%-32s %.16s  paired %s%s%s%s%s\n", name && kb_x509_name_ok(name) ? name : "?",
				fingerprint && strspn(fingerprint, "0123456789abcdef") == 64 ? fingerprint : "?",
				day(number(c, "created_s"), created), is_revoked ? "  revoked " : "",
				is_revoked ? day(number(c, "revoked_s"), revoked) : "",
				yyjson_get_bool(yyjson_obj_get(c, "has_bearer")) ? "  bearer key" : "",
				yyjson_get_bool(yyjson_obj_get(c, "is_admin")) ? "  administrator" : "");
		}
	}
	yyjson_doc_free(doc);
	return KB_CTL_OK;
}

int kb_ctl_revoke(struct kb_ctl *ctl, const struct kb_ctl_args *args)
{
	yyjson_doc *doc = NULL;
	int status = admin_call(ctl, "POST", "/admin/clients/revoke", args->arg[0], &doc);
	if (status)
		return status;
	yyjson_doc_free(doc);
	printf("revoked \"%s\": its certificate and bearer key are refused from now on\n", args->arg[0]);
	return KB_CTL_OK;
}

int kb_ctl_bearer(struct kb_ctl *ctl, const struct kb_ctl_args *args)
{
	yyjson_doc *doc = NULL;
	int status = admin_call(ctl, "POST", "/admin/bearer", args->arg[0], &doc);
	if (status)
		return status;
	yyjson_val *root = yyjson_doc_get_root(doc);
	const char *key = yyjson_get_str(yyjson_obj_get(root, "key"));
	if (key) {
		puts(key);
		fprintf(stderr, "Keep it: it is stored nowhere and shown this once. It replaces an earlier key of \"%s\".\n",
			args->arg[0]);
	} else {
		status = kb_ctl_fail(KB_CTL_FAILED, "the daemon's answer lacks the key: do both programs belong together?");
	}
	yyjson_doc_free(doc);
	return status;
}
