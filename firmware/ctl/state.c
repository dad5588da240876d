// The box's own environment, as subcommands open it. See ctl.h.
#include "firmware/ctl/ctl.h"
#include "storage/epoch_tpm.h"
#include "storage/trust.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static int guard(const struct kb_ctl *ctl, struct kb_state *s, bool adopt, struct kb_err *err)
{
	uint64_t now_s = 0;
	char *lock = kb_ctl_path(ctl->state, "epoch.lock");
	int r = lock ? kb_trust_now(s, (uint64_t)time(NULL), err, &now_s) : kb_fail(err, KB_ENOMEM, "out of memory");
	r = r ? r : kb_epoch_guard_tpm(s, ctl->tpm, lock, adopt, now_s, err);
	free(lock);
	return r;
}

/* see ctl.h */
int kb_ctl_state(const struct kb_ctl *ctl, bool missing_is_fine, struct kb_err *err, struct kb_state **ret)
{
	char *path = kb_ctl_path(ctl->state, "state.mdb");
	int r = path ? KB_OK : kb_fail(err, KB_ENOMEM, "out of memory");
	bool is_there = path && access(path, F_OK) == 0;
	*ret = NULL;
	if (r == KB_OK && !is_there && !missing_is_fine)
		r = kb_ctl_make_directory(ctl->models, err);
	if (r == KB_OK && (is_there || !missing_is_fine))
		r = kb_state_open(path, ret, err);
	free(path);
	if (r || !*ret || !ctl->tpm)
		return r;
	r = guard(ctl, *ret, false, err);
	if (r && missing_is_fine) { // for looking at it
		kb_ctl_fail(0, "note: %s", err->text);
		return KB_OK;
	}
	if (r) {
		kb_state_close(*ret);
		*ret = NULL;
	}
	return r;
}

/* see ctl.h */
int kb_ctl_state_adopt(const struct kb_ctl *ctl, struct kb_err *err, struct kb_state **ret)
{
	char *path = kb_ctl_path(ctl->state, "state.mdb");
	int r = path ? KB_OK : kb_fail(err, KB_ENOMEM, "out of memory");
	*ret = NULL;
	if (r == KB_OK && !ctl->tpm)
		r = kb_fail(err, KB_EARG, "--tpm is wanted: which TPM (device:/dev/tpmrm0)");
	if (r == KB_OK && access(path, F_OK) != 0)
		r = kb_fail(err, KB_ENOTFOUND, "there is no box in %s", ctl->state);
	r = r ? r : kb_state_open(path, ret, err);
	r = r ? r : guard(ctl, *ret, true, err);
	free(path);
	return r;
}
