// kotobako status: what the daemon says of itself.
#include "firmware/ctl/box.h"
#include "firmware/ctl/text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void print_value(yyjson_val *v)
{
	char *text = yyjson_is_str(v) ? NULL : yyjson_val_write(v, 0, NULL);
	struct kb_buf clean = {0};
	const char *s = text ? text : yyjson_get_str(v);
	if (s && kb_ctl_text_clean(&clean, s, strlen(s)) == 0)
		printf("%.*s\n", (int)clean.len, clean.data ? (const char *)clean.data : "");
	kb_buf_finish(&clean);
	free(text);
}

// Every leaf on a line of its own, with the keys that lead to it.
static void print_tree(const char *prefix, yyjson_val *v, int depth)
{
	size_t i, n;
	yyjson_val *key, *value;
	char name[128];
	if (depth > 4 || (!yyjson_is_obj(v) && !yyjson_is_arr(v))) {
		printf("%-28s ", prefix);
		print_value(v);
		return;
	}
	if (yyjson_is_obj(v)) {
		yyjson_obj_foreach(v, i, n, key, value)
		{
			snprintf(name, sizeof name, "%s%s%s", prefix, prefix[0] ? "." : "", yyjson_get_str(key));
			print_tree(name, value, depth + 1);
		}
		return;
	}
	yyjson_arr_foreach(v, i, n, value)
	{
		snprintf(name, sizeof name, "%s[%zu]", prefix, i);
		print_tree(name, value, depth + 1);
	}
}

int kb_ctl_status(struct kb_ctl *ctl, const struct kb_ctl_args *args)
{
	struct kb_http_client *c = NULL;
	yyjson_doc *doc = NULL;
	bool is_admin = false;
	int status = kb_ctl_either_open(ctl, &c, &is_admin);
	if (status == 0)
		status = kb_ctl_call(c, "GET", is_admin ? "/admin/status" : "/healthz", NULL, &doc);
	kb_http_client_destroy(c);
	if (status)
		return status;
	if (args->option[KB_STATUS_JSON].is_set) {
		char *text = yyjson_write(doc, YYJSON_WRITE_PRETTY_TWO_SPACES, NULL);
		puts(text ? text : "{}");
		free(text);
	} else {
		print_tree("", yyjson_doc_get_root(doc), 0);
	}
	yyjson_doc_free(doc);
	return KB_CTL_OK;
}
