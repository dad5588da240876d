/* see root_spec.h */
#include "firmware/ctl/root_spec.h"

#include "base/hex.h"
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <yyjson.h>

struct reader {
	struct kb_root_spec *spec;
	const char *names[KB_ROOT_KEYS_MAX]; // of the keys, in their order
	kb_root_spec_key key;
	void *ctx;
	struct kb_err *err;
};

static int find_key(const struct reader *r, const char *name)
{
	for (uint32_t i = 0; name && i < r->spec->root.n_keys; i++)
		if (strcmp(r->names[i], name) == 0)
			return (int)i;
	return -1;
}

static int read_fleet(struct reader *r, yyjson_val *v)
{
	size_t n = yyjson_get_len(v);
	if (!yyjson_is_str(v) || n == 0 || n > KB_ROOT_FLEET)
		return kb_fail(r->err, KB_EBAD, "fleet: a text of 1 to %u bytes is wanted", KB_ROOT_FLEET);
	memcpy(r->spec->fleet, yyjson_get_str(v), n);
	r->spec->root.fleet = r->spec->fleet;
	return KB_OK;
}

static int read_expires(struct reader *r, yyjson_val *v)
{
	struct tm day = {0};
	const char *text = yyjson_get_str(v), *end = text ? strptime(text, "%Y-%m-%d", &day) : NULL;
	time_t when = end && !*end ? timegm(&day) : -1;
	if (when <= 0)
		return kb_fail(r->err, KB_EBAD, "expires: a day like \"2036-01-31\" is wanted");
	r->spec->root.expires = (uint64_t)when;
	return KB_OK;
}

static int read_keys(struct reader *r, yyjson_val *v)
{
	struct kb_root *root = &r->spec->root;
	yyjson_obj_iter walk;
	yyjson_val *name;
	if (!yyjson_is_obj(v) || yyjson_obj_size(v) == 0 || yyjson_obj_size(v) > KB_ROOT_KEYS_MAX)
		return kb_fail(r->err, KB_EBAD, "keys: names and files of 1 to %u keys are wanted", KB_ROOT_KEYS_MAX);
	yyjson_obj_iter_init(v, &walk);
	while ((name = yyjson_obj_iter_next(&walk))) {
		const char *text = yyjson_get_str(name), *file = yyjson_get_str(yyjson_obj_iter_get_val(name));
		if (!file || find_key(r, text) >= 0)
			return kb_fail(r->err, KB_EBAD, "keys: %.64s: no file, or the name comes twice", text);
		r->names[root->n_keys] = text;
		int rc = r->key(r->ctx, file, r->err, &root->keys[root->n_keys]);
		if (rc != KB_OK)
			return rc;
		root->n_keys++;
	}
	return KB_OK;
}

static int read_test_keys(struct reader *r, yyjson_val *v)
{
	size_t i, n;
	yyjson_val *name;
	if (!yyjson_is_arr(v))
		return kb_fail(r->err, KB_EBAD, "test_keys: a list of names of keys is wanted");
	yyjson_arr_foreach(v, i, n, name)
	{
		int k = find_key(r, yyjson_get_str(name));
		if (k < 0)
			return kb_fail(r->err, KB_EBAD, "test_keys: there is no such key among keys");
		r->spec->root.is_test[k] = true;
	}
	return KB_OK;
}

static int read_role(struct reader *r, int role, yyjson_val *v)
{
	yyjson_val *threshold = yyjson_obj_get(v, "threshold"), *keys = yyjson_obj_get(v, "keys"), *name;
	struct kb_root *root = &r->spec->root;
	uint32_t seen = 0;
	size_t i, n;
	if (!yyjson_is_uint(threshold) || !yyjson_is_arr(keys) || yyjson_obj_size(v) != 2)
		return kb_fail(r->err, KB_EBAD, "roles: %s: threshold and keys are wanted", kb_role_names[role]);
	yyjson_arr_foreach(keys, i, n, name)
	{
		int k = find_key(r, yyjson_get_str(name));
		if (k < 0 || seen >> k & 1)
			return kb_fail(
				r->err, KB_EBAD, "roles: %s: a key that is not among keys, or comes twice", kb_role_names[role]);
		seen |= 1u << k;
		root->roles[role].key[root->roles[role].n++] = (uint8_t)k;
	}
	uint64_t t = yyjson_get_uint(threshold);
	if (t == 0 || t > root->roles[role].n)
		return kb_fail(r->err, KB_EBAD, "roles: %s: threshold %llu of %u keys", kb_role_names[role],
			(unsigned long long)t, root->roles[role].n);
	root->roles[role].threshold = (uint32_t)t;
	return KB_OK;
}

static int read_roles(struct reader *r, yyjson_val *v)
{
	yyjson_obj_iter walk;
	yyjson_val *name;
	if (!yyjson_is_obj(v))
		return kb_fail(r->err, KB_EBAD, "roles: an object is wanted");
	yyjson_obj_iter_init(v, &walk);
	while ((name = yyjson_obj_iter_next(&walk))) {
		int role = 0;
		while (role < KB_ROLES && strcmp(kb_role_names[role], yyjson_get_str(name)) != 0)
			role++;
		if (role == KB_ROLES || r->spec->root.roles[role].n)
			return kb_fail(
				r->err, KB_EBAD, "roles: %.32s: there is no such role, or it comes twice", yyjson_get_str(name));
		int rc = read_role(r, role, yyjson_obj_iter_get_val(name));
		if (rc != KB_OK)
			return rc;
	}
	return KB_OK;
}

static int read_revoked(struct reader *r, yyjson_val *v)
{
	size_t i, n;
	yyjson_val *text;
	if (!yyjson_is_arr(v) || yyjson_arr_size(v) > KB_ROOT_REVOKED_MAX)
		return kb_fail(r->err, KB_EBAD, "revoked: a list of at most %u hashes is wanted", KB_ROOT_REVOKED_MAX);
	yyjson_arr_foreach(v, i, n, text)
	{
		if (!yyjson_is_str(text) || kb_unhex(yyjson_get_str(text), r->spec->revoked + i * KB_KEY_ID, KB_KEY_ID))
			return kb_fail(r->err, KB_EBAD, "revoked: entry %zu is not 64 hexadecimal digits", i);
	}
	r->spec->root.revoked = r->spec->revoked;
	r->spec->root.n_revoked = (uint32_t)yyjson_arr_size(v);
	return KB_OK;
}

static const struct {
	const char *name;
	bool is_needed;
	int (*read)(struct reader *r, yyjson_val *v);
} members[] = {
	// in the order in which they are read: names of keys before those who use them
	{"fleet", true, read_fleet},
	{"expires", false, read_expires},
	{"keys", true, read_keys},
	{"test_keys", false, read_test_keys},
	{"roles", true, read_roles},
	{"revoked", false, read_revoked},
};
#define MEMBERS (sizeof members / sizeof *members)

static int read_members(struct reader *r, yyjson_val *object)
{
	size_t known = 0;
	for (size_t i = 0; i < MEMBERS; i++) {
		yyjson_val *v = yyjson_obj_get(object, members[i].name);
		int rc = v ? members[i].read(r, v) : KB_OK;
		if (!v && members[i].is_needed)
			return kb_fail(r->err, KB_EBAD, "%s is missing", members[i].name);
		if (rc != KB_OK)
			return rc;
		known += v != NULL;
	}
	return known == yyjson_obj_size(object)
			   ? KB_OK
			   : kb_fail(r->err, KB_EBAD, "there is something besides fleet, expires, keys, test_keys, roles, revoked");
}

/* see root_spec.h */
int kb_root_spec_read(
	const char *json, size_t len, kb_root_spec_key key, void *ctx, struct kb_err *err, struct kb_root_spec *ret)
{
	struct reader r = {.spec = ret, .key = key, .ctx = ctx, .err = err};
	yyjson_read_err why;
	yyjson_doc *doc = yyjson_read_opts((char *)(uintptr_t)json, len, 0, NULL, &why);
	memset(ret, 0, sizeof *ret);
	if (!doc)
		return kb_fail(err, KB_EBAD, "not JSON: at byte %zu: %s", why.pos, why.msg);
	int rc = yyjson_is_obj(yyjson_doc_get_root(doc)) ? read_members(&r, yyjson_doc_get_root(doc))
													 : kb_fail(err, KB_EBAD, "a JSON object is wanted");
	yyjson_doc_free(doc);
	return rc;
}
