/* see receive.h */
#include "firmware/api/receive.h"
#include "base/version.h"
#include "storage/install.h"
#include "storage/os_install.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define ROOM_REASON "to make room for another image"

struct kb_receiver {
	struct kb_install *model; // one of the two
	struct kb_os_install *system;
	struct kb_os_boot boot; // of a system
	char stage[600];
	bool was_active; // the system: that version runs
};

static int begin_model(struct kb_daemon *d, struct kb_receiver *r, struct kb_err *err)
{
	const struct kb_install_options options = {.state = d->state,
		.models = d->models_dir,
		.allow_test = KB_ALLOW_TEST_KEYS,
		.firmware = KB_FIRMWARE,
		.clock_s = (uint64_t)time(NULL),
		.drop_why = ROOM_REASON};
	return kb_install_begin(&options, err, &r->model);
}

static int begin_system(struct kb_daemon *d, struct kb_receiver *r, struct kb_err *err)
{
	snprintf(r->stage, sizeof r->stage, "%s/" KB_OS_STAGE, d->o.state_dir);
	const struct kb_os_install_options options = {.state = d->state,
		.boot = &r->boot,
		.stage = r->stage,
		.allow_test = KB_ALLOW_TEST_KEYS,
		.clock_s = (uint64_t)time(NULL)};
	int rc = kb_system_boot(d, err, &r->boot);
	return rc ? rc : kb_os_install_begin(&options, err, &r->system);
}

/* see receive.h */
int kb_receiver_begin(struct kb_daemon *d, bool is_system, struct kb_err *err, struct kb_receiver **ret)
{
	struct kb_receiver *r = calloc(1, sizeof *r);
	if (!r)
		return kb_fail(err, KB_ENOMEM, "out of memory");
	int rc = is_system ? begin_system(d, r, err) : begin_model(d, r, err);
	if (rc)
		free(r);
	else
		*ret = r;
	return rc;
}

/* see receive.h */
int kb_receiver_feed(struct kb_receiver *r, const void *bytes, size_t len, struct kb_err *err)
{
	if (r->model)
		return kb_install_feed(r->model, bytes, len, err);
	int rc = kb_os_install_feed(r->system, bytes, len, err);
	r->was_active = rc == KB_EEXISTS;
	return rc;
}

/* see receive.h */
bool kb_receiver_is_proven(const struct kb_receiver *r)
{
	return r->model ? kb_install_is_proven(r->model) : kb_os_install_is_proven(r->system);
}

/* see receive.h */
int kb_receiver_finish(struct kb_receiver *r, struct kb_err *err, struct kb_received *ret)
{
	struct kb_install_result model;
	struct kb_os_install_result system = {.version = r->boot.version};
	*ret = (struct kb_received){.name = "system", .was_active = r->was_active};
	int rc = r->model        ? kb_install_finish(r->model, err, &model)
			 : r->was_active ? KB_OK
							 : kb_os_install_finish(r->system, err, &system);
	if (rc)
		return rc;
	if (r->model) {
		*ret = (struct kb_received){.version = model.version, .was_active = model.was_active};
		memcpy(ret->name, model.model, sizeof ret->name);
		memcpy(ret->digest, model.digest, sizeof ret->digest);
	} else {
		ret->version = system.version;
		memcpy(ret->digest, system.digest, sizeof ret->digest);
	}
	return KB_OK;
}

/* see receive.h */
void kb_receiver_destroy(struct kb_receiver *r)
{
	if (!r)
		return;
	kb_install_destroy(r->model);
	kb_os_install_destroy(r->system);
	free(r);
}
