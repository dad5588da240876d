// kotobako image diff: what changed from one image to the next, as an image of its own.
#include "base/clock.h"
#include "base/hex.h"
#include "firmware/ctl/ctl_image.h"
#include "firmware/ctl/progress.h"
#include "storage/delta_write.h"

#include <stdio.h>

static int step(void *ctx, uint64_t done, uint64_t total, const char *what)
{
	kb_ctl_progress_step(ctx, done, total, what, kb_clock_ms());
	return kb_ctl_interrupted;
}

int kb_ctl_image_diff(struct kb_ctl *ctl, const struct kb_ctl_args *args)
{
	struct kb_ctl_progress progress;
	struct kb_delta_report report;
	struct kb_err err = {0};
	char base[2 * KB_VERITY_HASH + 1], all[16], changed[16], size[16];
	(void)ctl;
	kb_ctl_catch_interrupt(true);
	kb_ctl_progress_begin(&progress, stderr, kb_ctl_is_terminal(2), "comparing", kb_clock_ms());
	int r = kb_delta_write(args->arg[1], args->arg[2], args->arg[3], args->option[KB_IMAGE_REPLACE].is_set,
		&(struct kb_progress){.step = step, .ctx = &progress}, &err, &report);
	kb_ctl_progress_end(&progress);
	if (r == KB_ECANCELLED)
		return kb_ctl_fail(KB_CTL_INTERRUPTED, "stopped; nothing was kept");
	if (r)
		return kb_ctl_fail(KB_CTL_FAILED, "%s", err.text);
	kb_hex(report.base, sizeof report.base, base);
	printf("%s: %s, for boxes that have sha256:%s; %s of %s changed\n", args->arg[3],
		kb_ctl_bytes(report.delta_bytes, size), base, kb_ctl_bytes(report.changed_bytes, changed),
		kb_ctl_bytes(report.model_bytes, all));
	return KB_CTL_OK;
}
