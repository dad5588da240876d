// kotobako os status|rollback: of this box, or of the one that this client is paired with.
#include "firmware/ctl/box.h"
#include "firmware/ctl/chain_file.h"
#include "firmware/ctl/ctl_os.h"
#include "firmware/ctl/text.h"
#include "storage/os_install.h"
#include "storage/os_report.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define PATH_STATUS "/admin/system"
#define PATH_ROLLBACK "/admin/system/rollback"

// Where there are slots the box is here; else it is the other side of a network.
static bool is_here(const struct kb_ctl *ctl, const struct kb_ctl_args *args)
{
	return args->option[KB_OS_BOOT].is_set || ctl->has_state || access(KB_OS_BOOT_FILE, F_OK) == 0;
}

static int ask_box(const struct kb_ctl *ctl, const char *method, const char *path, yyjson_doc **ret)
{
	struct kb_http_client *box = NULL;
	int status = kb_ctl_box_open(ctl, &box);
	if (status == KB_CTL_OK)
		status = kb_ctl_call(box, method, path, NULL, ret);
	kb_http_client_destroy(box);
	return status;
}

static int report(struct kb_ctl *ctl, const struct kb_ctl_args *args, yyjson_doc **ret)
{
	struct kb_os_boot boot = {0};
	struct kb_os_state s = {0};
	struct kb_state *state;
	struct kb_buf text = {0};
	if (!is_here(ctl, args))
		return ask_box(ctl, "GET", PATH_STATUS, ret);
	int status = kb_ctl_os_open(ctl, args, &state, &boot, &s);
	if (status)
		return status;
	kb_state_close(state);
	if (kb_os_report(&s, &boot, &text) || !(*ret = yyjson_read((const char *)text.data, text.len, 0)))
		status = kb_ctl_fail(KB_CTL_FAILED, "out of memory");
	kb_buf_finish(&text);
	return status;
}

static void print_line(yyjson_val *v)
{
	const char *text = yyjson_get_str(v);
	kb_ctl_text_line(text ? text : "?", text ? strlen(text) : 1, KB_OS_REASON_MAX);
}

static void print(yyjson_val *o)
{
	yyjson_val *slot, *failed = yyjson_obj_get(o, "last_failed");
	size_t i, n;
	char day[16];
	printf("version %" PRIu64 " for ", yyjson_get_uint(yyjson_obj_get(o, "version")));
	print_line(yyjson_obj_get(o, "board"));
	printf(" runs, from slot ");
	print_line(yyjson_obj_get(o, "slot"));
	putchar('\n');
	yyjson_arr_foreach(yyjson_obj_get(o, "slots"), i, n, slot)
	{
		printf("slot ");
		print_line(yyjson_obj_get(slot, "slot"));
		printf("      ");
		print_line(yyjson_obj_get(slot, "state"));
		if (yyjson_get_uint(yyjson_obj_get(slot, "version")))
			printf(", version %" PRIu64, yyjson_get_uint(yyjson_obj_get(slot, "version")));
		puts(yyjson_get_bool(yyjson_obj_get(slot, "starts_by_itself")) ? ", starts by itself" : "");
	}
	if (yyjson_get_uint(yyjson_obj_get(o, "floor")))
		printf("floor       version %" PRIu64 "\n", yyjson_get_uint(yyjson_obj_get(o, "floor")));
	if (failed) {
		printf("last failed version %" PRIu64 ", %s: ", yyjson_get_uint(yyjson_obj_get(failed, "version")),
			kb_ctl_day(yyjson_get_uint(yyjson_obj_get(failed, "time_s")), day));
		print_line(yyjson_obj_get(failed, "reason"));
		putchar('\n');
	}
}

int kb_ctl_os_status(struct kb_ctl *ctl, const struct kb_ctl_args *args)
{
	yyjson_doc *doc = NULL;
	int status = report(ctl, args, &doc);
	if (status == KB_CTL_OK && args->option[KB_OS_JSON].is_set) {
		char *text = yyjson_write(doc, YYJSON_WRITE_PRETTY, NULL);
		if (text)
			puts(text);
		free(text);
	} else if (status == KB_CTL_OK) {
		print(yyjson_doc_get_root(doc));
	}
	yyjson_doc_free(doc);
	return status;
}

static int roll_back_here(struct kb_ctl *ctl, const struct kb_ctl_args *args, uint64_t *ret_version)
{
	struct kb_os_boot boot = {0};
	struct kb_os_state s = {0};
	struct kb_state *state;
	struct kb_err err = {0};
	int status = kb_ctl_os_open(ctl, args, &state, &boot, &s);
	if (status)
		return status;
	char *stage = kb_ctl_path(ctl->state, KB_OS_STAGE);
	int r = stage ? kb_os_stage_roll_back(state, &boot, stage, (uint64_t)time(NULL), &err, ret_version)
				  : kb_fail(&err, KB_ENOMEM, "out of memory");
	free(stage);
	kb_state_close(state);
	return r ? kb_ctl_fail(KB_CTL_FAILED, "%s", err.text) : KB_CTL_OK;
}

int kb_ctl_os_rollback(struct kb_ctl *ctl, const struct kb_ctl_args *args)
{
	uint64_t version = 0;
	yyjson_doc *doc = NULL;
	int status = KB_CTL_OK;
	if (is_here(ctl, args)) {
		status = roll_back_here(ctl, args, &version);
	} else {
		status = ask_box(ctl, "POST", PATH_ROLLBACK, &doc);
		version = yyjson_get_uint(yyjson_obj_get(yyjson_doc_get_root(doc), "version"));
	}
	yyjson_doc_free(doc);
	if (status == KB_CTL_OK)
		printf("version %" PRIu64 " is started on trial; the box restarts\n", version);
	return status;
}
