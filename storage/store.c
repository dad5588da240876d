#include "storage/store.h"
#include "storage/installed.h"
#include "storage/trust.h"
#include <stdlib.h>
#include <string.h>

/* see store.h */
int kb_store_is_signed(struct kb_state *state, struct kb_err *err, bool *ret)
{
	struct kb_buf root = {0};
	int r = state ? kb_trust_root(state, err, &root) : KB_ENOTFOUND;
	kb_buf_finish(&root);
	if (r != KB_OK && r != KB_ENOTFOUND)
		return r;
	*ret = r == KB_OK;
	return KB_OK;
}

struct collect {
	const char *models;
	struct kb_model_list list;
	struct kb_err *err;
};

static int add(void *ctx, const struct kb_installed *m)
{
	struct collect *c = ctx;
	if (m->kind != KB_MANIFEST_MODEL)
		return KB_OK;
	struct kb_model_entry *more = realloc(c->list.models, (c->list.n + 1) * sizeof *more);
	if (!more)
		return kb_fail(c->err, KB_ENOMEM, "out of memory");
	c->list.models = more;
	struct kb_model_entry *e = &more[c->list.n];
	*e = (struct kb_model_entry){.version = m->active.version, .previous = m->previous.version};
	memcpy(e->name, m->name, sizeof e->name);
	e->path = kb_installed_path(c->models, m->active.digest);
	if (!e->path)
		return kb_fail(c->err, KB_ENOMEM, "out of memory");
	c->list.n++;
	return KB_OK;
}

/* see store.h */
int kb_store_list(struct kb_state *state, const char *models, struct kb_err *err, struct kb_model_list *ret)
{
	struct collect c = {.models = models, .err = err};
	bool is_signed;
	int r = kb_store_is_signed(state, err, &is_signed);
	if (r != KB_OK)
		return r;
	if (!is_signed)
		return kb_models_list(models, err, ret);
	r = kb_installed_each(state, add, &c, err);
	for (uint32_t i = 0; r == KB_OK && i < c.list.n; i++) // not while the tables are being read
		kb_model_describe(&c.list.models[i]);
	if (r != KB_OK)
		kb_model_list_finish(&c.list);
	else
		*ret = c.list;
	return r;
}

/* see store.h */
int kb_store_find(struct kb_state *state, const char *models, const char *name, struct kb_err *err, char **ret_path)
{
	struct kb_installed m;
	bool is_signed;
	int r = kb_store_is_signed(state, err, &is_signed);
	if (r == KB_OK && !is_signed)
		return kb_model_find(models, name, err, ret_path);
	r = r ? r : kb_installed_get(state, name, err, &m);
	if (r == KB_OK && !(*ret_path = kb_installed_path(models, m.active.digest)))
		r = kb_fail(err, KB_ENOMEM, "out of memory");
	return r;
}
