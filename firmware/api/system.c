// The system in the box's slots, for administrators:
//   GET  /admin/system           -> what runs, what the slots hold, which update failed last (storage/os_report.h)
//   POST /admin/system/rollback  -> {version}; the system before is tried, the box restarts
// A new one comes as an upload (upload.c, with "system": true).
#include "base/log.h"
#include "firmware/api/conn.h"
#include "firmware/api/json.h"
#include "firmware/api/receive.h"
#include "storage/os_install.h"
#include "storage/os_report.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define BOOT_MAX 2048u // bytes of the file of --boot

/* see receive.h */
int kb_system_boot(const struct kb_daemon *d, struct kb_err *err, struct kb_os_boot *ret)
{
	char text[BOOT_MAX];
	int fd = d->o.boot ? open(d->o.boot, O_RDONLY | O_CLOEXEC) : -1;
	if (fd < 0)
		return kb_fail(err, KB_EUNSUPPORTED, "this box has no slots for systems%s%s", d->o.boot ? ": " : "",
			d->o.boot ? strerror(errno) : "");
	ssize_t n = read(fd, text, sizeof text);
	close(fd);
	if (n < 0)
		return kb_fail(err, KB_EIO, "%s: %s", d->o.boot, strerror(errno));
	return kb_os_boot_parse(text, (size_t)n, err, ret);
}

void kb_handle_system(struct kb_conn *c)
{
	struct kb_os_boot boot;
	struct kb_os_state s;
	struct kb_buf body = {0};
	struct kb_err err;
	if (!kb_is_administrator(c))
		return;
	int r = kb_system_boot(c->daemon, &err, &boot);
	r = r ? r : kb_os_load(c->daemon->state, &err, &s);
	if (r)
		kb_reply_error(c, r == KB_EUNSUPPORTED ? 404 : 500, NULL, "", "%s", err.text);
	else
		kb_reply_json(c, 200, &body, kb_os_report(&s, &boot, &body));
}

void kb_handle_system_rollback(struct kb_conn *c)
{
	char stage[600], body[64];
	struct kb_os_boot boot;
	struct kb_err err;
	uint64_t version = 0;
	if (!kb_is_administrator(c))
		return;
	snprintf(stage, sizeof stage, "%s/" KB_OS_STAGE, c->daemon->o.state_dir);
	int r = kb_system_boot(c->daemon, &err, &boot);
	r = r ? r : kb_os_stage_roll_back(c->daemon->state, &boot, stage, (uint64_t)time(NULL), &err, &version);
	if (r) {
		kb_reply_error(c,
			r == KB_EUNSUPPORTED               ? 404
			: r == KB_EDENIED || r == KB_EBUSY ? 409
											   : 500,
			NULL, "", "%s", err.text);
		return;
	}
	kb_info("system", "back to version %" PRIu64 ", on request", version);
	int n = snprintf(body, sizeof body, "{\"version\":%" PRIu64 "}", version);
	kb_reply(c, 200, "application/json", body, (size_t)n);
}
