#include "storage/epoch_tpm.h"
#include "tpm/counter.h"

static int read_counter(void *ctx, uint64_t *ret, struct kb_err *err)
{
	return kb_tpm_counter_read(ctx, err, ret);
}

static int make_counter(void *ctx, struct kb_err *err)
{
	return kb_tpm_counter_make(ctx, err);
}

static int advance_counter(void *ctx, struct kb_err *err)
{
	return kb_tpm_counter_advance(ctx, err);
}

/* see epoch_tpm.h */
int kb_epoch_guard_tpm(
	struct kb_state *s, const char *tcti, const char *lock, bool adopt, uint64_t now_s, struct kb_err *err)
{
	const struct kb_epoch_counter counter = {read_counter, make_counter, advance_counter, (void *)(uintptr_t)tcti};
	return kb_epoch_guard(s, &counter, lock, adopt, now_s, err);
}
