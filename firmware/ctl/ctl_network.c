// kotobako network: where the box is, and where it is to be.
#include "firmware/ctl/box.h"
#include "firmware/ctl/text.h"
#include "site/network.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PATH_NETWORK "/admin/network"

static int call(const struct kb_ctl *ctl, const char *method, const char *body, yyjson_doc **ret)
{
	struct kb_http_client *c = NULL;
	int status = kb_ctl_either_open(ctl, &c, NULL);
	if (status == KB_CTL_OK)
		status = kb_ctl_call(c, method, PATH_NETWORK, body, ret);
	kb_http_client_destroy(c);
	return status;
}

static void print_row(const char *key, yyjson_val *v)
{
	const char *text = yyjson_get_str(v);
	if (!text)
		return;
	printf("%-12s", key);
	kb_ctl_text_line(text, strlen(text), 256);
	putchar('\n');
}

static void print(yyjson_val *o)
{
	yyjson_val *settings = yyjson_obj_get(o, "settings"), *v;
	size_t i, n;
	print_row("set", yyjson_obj_get(settings, "address"));
	print_row("gateway", yyjson_obj_get(settings, "gateway"));
	yyjson_arr_foreach(yyjson_obj_get(settings, "time"), i, n, v) print_row("time", v);
	print_row("name", yyjson_obj_get(o, "name"));
	yyjson_arr_foreach(yyjson_obj_get(o, "addresses"), i, n, v) print_row("is at", v);
}

static int show(yyjson_doc *doc, bool is_json)
{
	char *text = is_json ? yyjson_write(doc, YYJSON_WRITE_PRETTY_TWO_SPACES, NULL) : NULL;
	if (text)
		puts(text);
	else if (!is_json)
		print(yyjson_doc_get_root(doc));
	free(text);
	yyjson_doc_free(doc);
	return KB_CTL_OK;
}

static void add_times(yyjson_mut_doc *doc, yyjson_mut_val *list, const char *text)
{
	while (*text) {
		const size_t len = strcspn(text, ",");
		yyjson_mut_arr_add_strncpy(doc, list, text, len);
		text += len + (text[len] == ',');
	}
}

static bool is_none(const char *text)
{
	return strcmp(text, "none") == 0;
}

// The body for what the words say; what they say nothing of stays as `now` has it. free() it.
static char *body_of_words(const struct kb_ctl_args *args, yyjson_val *now)
{
	const struct kb_ctl_value *gateway = &args->option[KB_NETWORK_GATEWAY], *time = &args->option[KB_NETWORK_TIME],
							  *name = &args->option[KB_NETWORK_NAME];
	yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
	yyjson_mut_val *o = yyjson_mut_obj(doc), *times = yyjson_mut_arr(doc);
	yyjson_val *v;
	size_t i, n;
	yyjson_mut_doc_set_root(doc, o);
	yyjson_mut_obj_add_str(doc, o, "address", args->arg[1]);
	if (gateway->is_set && !is_none(gateway->text))
		yyjson_mut_obj_add_str(doc, o, "gateway", gateway->text);
	if (time->is_set && !is_none(time->text))
		add_times(doc, times, time->text);
	else if (!time->is_set)
		yyjson_arr_foreach(yyjson_obj_get(now, "time"), i, n, v)
			yyjson_mut_arr_add_str(doc, times, yyjson_get_str(v) ? yyjson_get_str(v) : "");
	yyjson_mut_obj_add_val(doc, o, "time", times);
	const char *old_name = yyjson_get_str(yyjson_obj_get(now, "name"));
	if (name->is_set ? !is_none(name->text) : old_name != NULL)
		yyjson_mut_obj_add_str(doc, o, "name", name->is_set ? name->text : old_name);
	char *text = yyjson_mut_write(doc, 0, NULL);
	yyjson_mut_doc_free(doc);
	return text;
}

static char *body_of_settings(const struct kb_site_network *s)
{
	char a[KB_SITE_ADDRESS_TEXT], subnet[2 * KB_SITE_ADDRESS_TEXT] = "dhcp";
	yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
	yyjson_mut_val *o = yyjson_mut_obj(doc), *times = yyjson_mut_arr(doc);
	yyjson_mut_doc_set_root(doc, o);
	if (s->is_fixed)
		snprintf(subnet, sizeof subnet, "%s/%u", kb_site_address_text(s->address, a), s->prefix);
	yyjson_mut_obj_add_strcpy(doc, o, "address", subnet);
	if (s->gateway)
		yyjson_mut_obj_add_strcpy(doc, o, "gateway", kb_site_address_text(s->gateway, a));
	for (uint32_t i = 0; i < s->n_times; i++)
		yyjson_mut_arr_add_strcpy(doc, times, kb_site_address_text(s->times[i], a));
	yyjson_mut_obj_add_val(doc, o, "time", times);
	if (s->name[0])
		yyjson_mut_obj_add_str(doc, o, "name", s->name);
	char *text = yyjson_mut_write(doc, 0, NULL);
	yyjson_mut_doc_free(doc);
	return text;
}

static int set(struct kb_ctl *ctl, const struct kb_ctl_args *args, yyjson_doc **ret)
{
	yyjson_doc *now = NULL;
	int status = call(ctl, "GET", NULL, &now);
	if (status)
		return status;
	char *body = body_of_words(args, yyjson_obj_get(yyjson_doc_get_root(now), "settings"));
	status = body ? call(ctl, "POST", body, ret) : kb_ctl_fail(KB_CTL_FAILED, "out of memory");
	free(body);
	yyjson_doc_free(now);
	return status;
}

static int load(struct kb_ctl *ctl, const char *path, yyjson_doc **ret)
{
	struct kb_buf text = {0};
	struct kb_site_network s;
	struct kb_err err = {0};
	int r = kb_ctl_read_file(path, &text, &err);
	if (r == 0 && (r = kb_site_network_parse((const char *)text.data, text.len, &err, &s)))
		kb_err_wrap(&err, "%s: ", path);
	kb_buf_finish(&text);
	if (r)
		return kb_ctl_fail(KB_CTL_FAILED, "%s", err.text);
	char *body = body_of_settings(&s);
	int status = body ? call(ctl, "POST", body, ret) : kb_ctl_fail(KB_CTL_FAILED, "out of memory");
	free(body);
	return status;
}

int kb_ctl_network(struct kb_ctl *ctl, const struct kb_ctl_args *args)
{
	yyjson_doc *doc = NULL;
	int status;
	if (args->n == 0)
		status = call(ctl, "GET", NULL, &doc);
	else if (args->n == 2 && strcmp(args->arg[0], "set") == 0)
		status = set(ctl, args, &doc);
	else if (args->n == 2 && strcmp(args->arg[0], "load") == 0)
		status = load(ctl, args->arg[1], &doc);
	else
		return kb_ctl_fail(KB_CTL_USAGE, "network wants nothing, set dhcp, set ADDRESS/PREFIX, or load FILE");
	return status ? status : show(doc, args->option[KB_NETWORK_JSON].is_set);
}
