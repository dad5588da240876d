// kotobako os: the table, and what kotobako-boot asks of the journal: settle, armed, proven, failed.
#include "firmware/ctl/ctl_os.h"
#include "firmware/ctl/ctl_install.h"
#include "storage/audit.h"
#include "storage/os_install.h"
#include "storage/trust.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* see ctl_os.h */
int kb_ctl_os_open(struct kb_ctl *ctl, const struct kb_ctl_args *args, struct kb_state **ret_state,
	struct kb_os_boot *ret_boot, struct kb_os_state *ret)
{
	const struct kb_ctl_value *where = &args->option[KB_OS_BOOT];
	const char *path = where->is_set ? where->text : KB_OS_BOOT_FILE;
	struct kb_err err = {0};
	struct kb_buf text = {0};
	*ret_state = NULL;
	int r = kb_ctl_read_file(path, &text, &err);
	if (r)
		kb_err_wrap(&err, "this is no box with slots: ");
	r = r ? r : kb_os_boot_parse((const char *)text.data, text.len, &err, ret_boot);
	kb_buf_finish(&text);
	r = r ? r : kb_ctl_state(ctl, false, &err, ret_state);
	r = r ? r : kb_os_load(*ret_state, &err, ret);
	if (r) {
		kb_state_close(*ret_state);
		*ret_state = NULL;
		return kb_ctl_fail(KB_CTL_FAILED, "%s", err.text);
	}
	return KB_CTL_OK;
}

// The journal with what happened, and closes the state.
static int keep(
	struct kb_state *state, const struct kb_os_state *s, const char *event, uint64_t version, const char *detail)
{
	struct kb_audit_entry e = {.subject = "system", .version = version};
	struct kb_err err = {0};
	int r = kb_os_store(state, s, &err);
	if (event) {
		snprintf(e.event, sizeof e.event, "%s", event);
		snprintf(e.detail, sizeof e.detail, "%s", detail);
		r = r ? r : kb_trust_now(state, (uint64_t)time(NULL), &err, &e.time_s);
		r = r ? r : kb_audit_append(state, &e, &err);
	}
	kb_state_close(state);
	return r ? kb_ctl_fail(KB_CTL_FAILED, "%s", err.text) : KB_CTL_OK;
}

static void clear_stage(const struct kb_ctl *ctl)
{
	char *stage = kb_ctl_path(ctl->state, KB_OS_STAGE);
	if (stage)
		kb_os_stage_clear(stage);
	free(stage);
}

static int ask_to_arm(const struct kb_ctl *ctl)
{
	char *stage = kb_ctl_path(ctl->state, KB_OS_STAGE);
	struct kb_err err = {0};
	int r = stage ? kb_os_stage_arm(stage, &err) : kb_fail(&err, KB_ENOMEM, "out of memory");
	free(stage);
	return r ? kb_ctl_fail(KB_CTL_FAILED, "%s", err.text) : KB_CTL_OK;
}

static int settle(struct kb_ctl *ctl, const struct kb_ctl_args *args)
{
	struct kb_os_boot boot = {0};
	struct kb_os_state s = {0};
	struct kb_state *state;
	int status = kb_ctl_os_open(ctl, args, &state, &boot, &s);
	if (status)
		return status;
	const enum kb_os_outcome outcome = kb_os_settle(&s, &boot, (uint64_t)time(NULL));
	if (outcome == KB_OS_RETURNED) {
		fprintf(stderr, "system: version %" PRIu64 " did not prove itself, version %" PRIu64 " runs again: %s\n",
			s.failed_version, boot.version, s.reason);
		status = keep(state, &s, "system returned", s.failed_version, s.reason);
	} else {
		if (s.slot[1 - boot.slot].phase == KB_OS_BAD)
			fprintf(stderr, "system: the other slot's, version %" PRIu64 ", is not started: %s\n",
				s.slot[1 - boot.slot].version, s.reason);
		status = keep(state, &s, NULL, 0, NULL);
	}
	if (outcome == KB_OS_CLEAN || outcome == KB_OS_RETURNED)
		clear_stage(ctl);
	if (outcome == KB_OS_TO_ARM && status == 0)
		status = ask_to_arm(ctl);
	if (status)
		return status;
	return outcome == KB_OS_ON_TRIAL   ? KB_CTL_OS_TRIAL
		   : outcome == KB_OS_TO_ARM   ? KB_CTL_OS_ARM
		   : outcome == KB_OS_RETURNED ? KB_CTL_OS_RETURNED
									   : KB_CTL_OK;
}

static int armed(struct kb_ctl *ctl, const struct kb_ctl_args *args)
{
	struct kb_os_boot boot = {0};
	struct kb_os_state s = {0};
	struct kb_state *state;
	int status = kb_ctl_os_open(ctl, args, &state, &boot, &s);
	if (status)
		return status;
	kb_os_armed(&s, &boot);
	status = keep(state, &s, "system on trial", s.slot[1 - boot.slot].version, "it is started once");
	if (status == 0)
		clear_stage(ctl);
	return status;
}

static int proven(struct kb_ctl *ctl, const struct kb_ctl_args *args)
{
	struct kb_os_boot boot = {0};
	struct kb_os_state s = {0};
	struct kb_state *state;
	int status = kb_ctl_os_open(ctl, args, &state, &boot, &s);
	if (status)
		return status;
	kb_os_proven(&s, &boot);
	return keep(state, &s, "system proven", boot.version, "it starts by itself from now on");
}

static int failed(struct kb_ctl *ctl, const struct kb_ctl_args *args)
{
	struct kb_os_boot boot = {0};
	struct kb_os_state s = {0};
	struct kb_state *state;
	int status = kb_ctl_os_open(ctl, args, &state, &boot, &s);
	if (status)
		return status;
	clear_stage(ctl);
	// On trial it is the one that runs, else the one that was written.
	const int slot = s.slot[boot.slot].phase == KB_OS_TRIAL ? boot.slot : 1 - boot.slot;
	kb_os_failed(&s, slot, args->arg[1], (uint64_t)time(NULL));
	return keep(state, &s, "system failed", s.failed_version, args->arg[1]);
}

#define BUILD_OPTIONS                                                                                      \
	(KB_OPTION(KB_OS_BOARD) | KB_OPTION(KB_OS_VERSION) | KB_OPTION(KB_OS_FLOOR) | KB_OPTION(KB_OS_ROOTS) | \
		KB_OPTION(KB_OS_ROOT_IMAGE) | KB_OPTION(KB_OS_KERNEL_A_FILE) | KB_OPTION(KB_OS_KERNEL_B_FILE) |    \
		KB_OPTION(KB_OS_REPLACE))

static const struct kb_ctl_action actions[] = {
	{"build", 1, 1, BUILD_OPTIONS, kb_ctl_os_build},
	{"install", 1, 1, KB_OPTION(KB_OS_BOOT) | KB_OPTION(KB_OS_AGAIN), kb_ctl_os_install},
	{"upload", 1, 1, 0, kb_ctl_upload},
	{"status", 0, 0, KB_OPTION(KB_OS_BOOT) | KB_OPTION(KB_OS_JSON), kb_ctl_os_status},
	{"rollback", 0, 0, KB_OPTION(KB_OS_BOOT), kb_ctl_os_rollback},
	{"settle", 0, 0, KB_OPTION(KB_OS_BOOT), settle},
	{"armed", 0, 0, KB_OPTION(KB_OS_BOOT), armed},
	{"check", 0, 0, KB_OPTION(KB_OS_BOOT), kb_ctl_os_check},
	{"proven", 0, 0, KB_OPTION(KB_OS_BOOT), proven},
	{"failed", 1, 1, KB_OPTION(KB_OS_BOOT), failed},
	{0},
};

int kb_ctl_os(struct kb_ctl *ctl, const struct kb_ctl_args *args)
{
	return kb_ctl_act("os", actions, ctl, args);
}
