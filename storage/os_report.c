#include "storage/os_report.h"
#include <stdlib.h>
#include <yyjson.h>

static const char *const slot_names[KB_OS_SLOTS] = {"a", "b"};

static void put_slots(
	yyjson_mut_doc *doc, yyjson_mut_val *o, const struct kb_os_state *s, const struct kb_os_boot *boot)
{
	yyjson_mut_val *slots = yyjson_mut_obj_add_arr(doc, o, "slots");
	for (int i = 0; i < KB_OS_SLOTS; i++) {
		yyjson_mut_val *slot = yyjson_mut_arr_add_obj(doc, slots);
		yyjson_mut_obj_add_str(doc, slot, "slot", slot_names[i]);
		yyjson_mut_obj_add_str(doc, slot, "state", kb_os_phase_names[s->slot[i].phase]);
		yyjson_mut_obj_add_uint(doc, slot, "version", s->slot[i].version);
		yyjson_mut_obj_add_bool(doc, slot, "starts_by_itself", boot->default_slot == i);
	}
}

/* see os_report.h */
int kb_os_report(const struct kb_os_state *s, const struct kb_os_boot *boot, struct kb_buf *ret)
{
	yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
	yyjson_mut_val *o = yyjson_mut_obj(doc);
	size_t len = 0;
	yyjson_mut_doc_set_root(doc, o);
	yyjson_mut_obj_add_uint(doc, o, "version", boot->version);
	yyjson_mut_obj_add_str(doc, o, "board", boot->board);
	yyjson_mut_obj_add_str(doc, o, "slot", slot_names[boot->slot]);
	yyjson_mut_obj_add_uint(doc, o, "floor", s->floor);
	put_slots(doc, o, s, boot);
	if (s->failed_version) {
		yyjson_mut_val *failed = yyjson_mut_obj_add_obj(doc, o, "last_failed");
		yyjson_mut_obj_add_uint(doc, failed, "version", s->failed_version);
		yyjson_mut_obj_add_uint(doc, failed, "time_s", s->failed_s);
		yyjson_mut_obj_add_str(doc, failed, "reason", s->reason);
	}
	char *text = yyjson_mut_write(doc, 0, &len);
	yyjson_mut_doc_free(doc);
	int r = text ? kb_buf_append(ret, text, len) : KB_ENOMEM;
	free(text);
	return r;
}
