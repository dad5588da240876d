/* The conversation; see answer.h */
#include "firmware/ctl/answer.h"

#include <stdlib.h>
#include <string.h>
#include <yyjson.h>

static void turn_finish(struct kb_ctl_turn *t)
{
	free(t->role);
	free(t->content);
}

/* see answer.h */
int kb_ctl_talk_add(struct kb_ctl_talk *t, const char *role, const char *content)
{
	if (t->n >= KB_CTL_TURNS_MAX)
		return KB_ELIMIT;
	struct kb_ctl_turn *more = realloc(t->turns, (t->n + 1) * sizeof *more);
	if (!more)
		return KB_ENOMEM;
	t->turns = more;
	struct kb_ctl_turn turn = {strdup(role), strdup(content)};
	if (!turn.role || !turn.content) {
		turn_finish(&turn);
		return KB_ENOMEM;
	}
	t->turns[t->n++] = turn;
	return 0;
}

static bool has_system(const struct kb_ctl_talk *t)
{
	return t->n > 0 && strcmp(t->turns[0].role, "system") == 0;
}

/* see answer.h */
int kb_ctl_talk_set_system(struct kb_ctl_talk *t, const char *content)
{
	bool is_wanted = content && content[0], is_there = has_system(t);
	if (!is_there && !is_wanted)
		return 0;
	if (!is_there) {
		int r = kb_ctl_talk_add(t, "system", content);
		if (r)
			return r;
		struct kb_ctl_turn turn = t->turns[t->n - 1];
		memmove(t->turns + 1, t->turns, (t->n - 1) * sizeof turn);
		t->turns[0] = turn;
		return 0;
	}
	if (!is_wanted) {
		turn_finish(&t->turns[0]);
		memmove(t->turns, t->turns + 1, (t->n - 1) * sizeof *t->turns);
		t->n--;
		return 0;
	}
	char *copy = strdup(content);
	if (!copy)
		return KB_ENOMEM;
	free(t->turns[0].content);
	t->turns[0].content = copy;
	return 0;
}

void kb_ctl_talk_drop_last(struct kb_ctl_talk *t)
{
	if (t->n > 0)
		turn_finish(&t->turns[--t->n]);
}

void kb_ctl_talk_clear(struct kb_ctl_talk *t)
{
	uint32_t keep = has_system(t);
	while (t->n > keep)
		kb_ctl_talk_drop_last(t);
}

void kb_ctl_talk_finish(struct kb_ctl_talk *t)
{
	while (t->n > 0)
		kb_ctl_talk_drop_last(t);
	free(t->turns);
	*t = (struct kb_ctl_talk){0};
}

/* see answer.h */
int kb_ctl_talk_save(const struct kb_ctl_talk *t, const char *model, struct kb_buf *out)
{
	yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
	yyjson_mut_val *root = yyjson_mut_obj(doc);
	yyjson_mut_doc_set_root(doc, root);
	if (model)
		yyjson_mut_obj_add_str(doc, root, "model", model);
	yyjson_mut_val *list = yyjson_mut_obj_add_arr(doc, root, "messages");
	for (uint32_t i = 0; i < t->n; i++) {
		yyjson_mut_val *m = yyjson_mut_arr_add_obj(doc, list);
		yyjson_mut_obj_add_str(doc, m, "role", t->turns[i].role);
		yyjson_mut_obj_add_str(doc, m, "content", t->turns[i].content);
	}
	size_t len;
	char *text = yyjson_mut_write(doc, YYJSON_WRITE_PRETTY_TWO_SPACES | YYJSON_WRITE_NEWLINE_AT_END, &len);
	yyjson_mut_doc_free(doc);
	int r = text ? kb_buf_append(out, text, len) : KB_ENOMEM;
	free(text);
	return r;
}

static int load_messages(struct kb_ctl_talk *t, yyjson_val *list, struct kb_err *err)
{
	size_t i, n;
	yyjson_val *m;
	if (!yyjson_is_arr(list))
		return kb_fail(err, KB_EBAD, "there is no list \"messages\"");
	yyjson_arr_foreach(list, i, n, m)
	{
		const char *role = yyjson_get_str(yyjson_obj_get(m, "role"));
		yyjson_val *content = yyjson_obj_get(m, "content");
		const char *text = yyjson_get_str(content);
		if (!role || !text || strlen(text) != yyjson_get_len(content))
			return kb_fail(err, KB_EBAD, "message %zu wants a text \"role\" and a text \"content\"", i + 1);
		bool is_system = strcmp(role, "system") == 0;
		if (!is_system && strcmp(role, "user") != 0 && strcmp(role, "assistant") != 0)
			return kb_fail(err, KB_EBAD, "message %zu: the role is none of system, user, assistant", i + 1);
		if (is_system && i > 0)
			return kb_fail(err, KB_EBAD, "message %zu: the system message comes first", i + 1);
		int r = kb_ctl_talk_add(t, role, text);
		if (r)
			return kb_fail(err, r, "message %zu: %s", i + 1, kb_err_message(r));
	}
	return 0;
}

/* see answer.h */
int kb_ctl_talk_load(struct kb_ctl_talk *t, const char *text, size_t len, char **ret_model, struct kb_err *err)
{
	yyjson_read_err bad;
	struct kb_ctl_talk loaded = {0};
	char *model = NULL;
	yyjson_doc *doc = yyjson_read_opts((char *)(uintptr_t)text, len, 0, NULL, &bad);
	if (!doc)
		return kb_fail(err, KB_EBAD, "no JSON: %s at byte %zu", bad.msg, bad.pos);
	yyjson_val *root = yyjson_doc_get_root(doc);
	int r = load_messages(&loaded, yyjson_obj_get(root, "messages"), err);
	const char *name = yyjson_get_str(yyjson_obj_get(root, "model"));
	if (r == 0 && name && !(model = strdup(name)))
		r = kb_fail(err, KB_ENOMEM, "out of memory");
	yyjson_doc_free(doc);
	if (r) {
		kb_ctl_talk_finish(&loaded);
		return r;
	}
	kb_ctl_talk_finish(t);
	*t = loaded;
	*ret_model = model;
	return 0;
}
