// kotobako audit list|verify: what was done to this box.
#include "base/hex.h"
#include "firmware/ctl/action.h"
#include "firmware/ctl/text.h"
#include "storage/audit.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <yyjson.h>

static bool has_digest(const struct kb_audit_entry *e)
{
	static const uint8_t none[sizeof e->digest];
	return memcmp(e->digest, none, sizeof none) != 0;
}

static void when(uint64_t seconds, char ret[static 32])
{
	time_t t = (time_t)seconds;
	struct tm tm;
	if (!gmtime_r(&t, &tm) || tm.tm_year > 8000 || strftime(ret, 32, "%Y-%m-%dT%H:%M:%SZ", &tm) == 0)
		snprintf(ret, 32, "no time");
}

static int print_text(void *ctx, const struct kb_audit_entry *e)
{
	char time_text[32], hex[2 * sizeof e->digest + 1];
	(void)ctx;
	when(e->time_s, time_text);
	printf("%" PRIu64 "  %s  %s", e->sequence, time_text, e->event);
	if (e->subject[0]) {
		printf("  ");
		kb_ctl_text_line(e->subject, strlen(e->subject), sizeof e->subject);
	}
	if (e->version)
		printf("  version %" PRIu64, e->version);
	if (has_digest(e)) {
		kb_hex(e->digest, sizeof e->digest, hex);
		printf("  sha256:%s", hex);
	}
	if (e->detail[0]) {
		printf("  ");
		kb_ctl_text_line(e->detail, strlen(e->detail), sizeof e->detail);
	}
	putchar('\n');
	return 0;
}

// One object a line, so that a log of years needs no memory.
static int print_json(void *ctx, const struct kb_audit_entry *e)
{
	yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
	yyjson_mut_val *o = yyjson_mut_obj(doc);
	char hex[2 * sizeof e->digest + 1];
	(void)ctx;
	yyjson_mut_doc_set_root(doc, o);
	yyjson_mut_obj_add_uint(doc, o, "sequence", e->sequence);
	yyjson_mut_obj_add_uint(doc, o, "time", e->time_s);
	yyjson_mut_obj_add_strcpy(doc, o, "event", e->event);
	yyjson_mut_obj_add_strcpy(doc, o, "subject", e->subject);
	yyjson_mut_obj_add_uint(doc, o, "version", e->version);
	if (has_digest(e)) {
		kb_hex(e->digest, sizeof e->digest, hex);
		yyjson_mut_obj_add_strcpy(doc, o, "digest", hex);
	}
	yyjson_mut_obj_add_strcpy(doc, o, "detail", e->detail);
	kb_hex(e->hash, sizeof e->hash, hex);
	yyjson_mut_obj_add_strcpy(doc, o, "hash", hex);
	char *text = yyjson_mut_write(doc, YYJSON_WRITE_ALLOW_INVALID_UNICODE, NULL);
	yyjson_mut_doc_free(doc);
	if (!text)
		return KB_ENOMEM;
	puts(text);
	free(text);
	return 0;
}

static int walk(struct kb_ctl *ctl, uint64_t from, int (*each)(void *ctx, const struct kb_audit_entry *e),
	struct kb_audit_entry *ret_last)
{
	struct kb_state *state = NULL;
	struct kb_err err = {0};
	int r = kb_ctl_state(ctl, true, &err, &state);
	*ret_last = (struct kb_audit_entry){0};
	r = r || !state ? r : kb_audit_each(state, from, each, NULL, &err, ret_last);
	kb_state_close(state);
	return r ? kb_ctl_fail(KB_CTL_FAILED, "%s", err.text[0] ? err.text : kb_err_message(r)) : KB_CTL_OK;
}

static int list(struct kb_ctl *ctl, const struct kb_ctl_args *args)
{
	struct kb_audit_entry last;
	uint64_t since = args->option[KB_AUDIT_SINCE].is_set ? args->option[KB_AUDIT_SINCE].count : 1;
	return walk(ctl, since, args->option[KB_AUDIT_JSON].is_set ? print_json : print_text, &last);
}

static int verify(struct kb_ctl *ctl, const struct kb_ctl_args *args)
{
	struct kb_audit_entry last;
	char hex[2 * KB_AUDIT_HASH + 1];
	(void)args;
	int status = walk(ctl, 1, NULL, &last);
	if (status)
		return status;
	kb_hex(last.hash, sizeof last.hash, hex);
	printf("%" PRIu64 " entries, unbroken, up to %s\n", last.sequence, hex);
	return KB_CTL_OK;
}

static const struct kb_ctl_action actions[] = {
	{"list", 0, 0, KB_OPTION(KB_AUDIT_JSON) | KB_OPTION(KB_AUDIT_SINCE), list},
	{"verify", 0, 0, 0, verify},
	{0},
};

int kb_ctl_audit(struct kb_ctl *ctl, const struct kb_ctl_args *args)
{
	return kb_ctl_act("audit", actions, ctl, args);
}
