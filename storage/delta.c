#include "storage/delta.h"
#include "storage/fields.h"
#include <inttypes.h>
#include <string.h>

#define MAGIC "KBDELTA1"

/* see delta.h */
int kb_delta_head(const uint8_t head[static KB_DELTA_HEAD], struct kb_err *err, struct kb_delta *ret)
{
	uint64_t n = kb_field_get(head + 40, 4);
	if (memcmp(head, MAGIC, 8) != 0 || kb_field_get(head + 44, 4))
		return kb_fail(err, KB_EBAD, "the list of copied blocks does not begin as one");
	if (n > KB_DELTA_RUNS_MAX)
		return kb_fail(err, KB_ELIMIT, "%" PRIu64 " runs of copied blocks, at most %u", n, KB_DELTA_RUNS_MAX);
	*ret = (struct kb_delta){.n = (uint32_t)n};
	memcpy(ret->base, head + 8, KB_VERITY_HASH);
	return KB_OK;
}

/* see delta.h */
void kb_delta_get(const struct kb_delta *d, uint32_t i, struct kb_delta_run *ret)
{
	const uint8_t *p = d->runs + (size_t)i * KB_DELTA_RUN;
	ret->target = kb_field_get(p, 8);
	ret->count = kb_field_get(p + 8, 8);
	ret->source = kb_field_get(p + 16, 8);
}

/* see delta.h */
int kb_delta_check(const struct kb_delta *d, uint64_t target_blocks, struct kb_err *err)
{
	const uint64_t most = KB_VERITY_SIZE_MAX / KB_VERITY_BLOCK;
	uint64_t end = 0;
	for (uint32_t i = 0; i < d->n; i++) {
		struct kb_delta_run r;
		kb_delta_get(d, i, &r);
		if (r.count == 0 || r.target < end || r.target > target_blocks || r.count > target_blocks - r.target ||
			r.source > most || r.count > most - r.source)
			return kb_fail(err, KB_EBAD, "run %" PRIu32 " of copied blocks is out of order or beyond the end", i);
		end = r.target + r.count;
	}
	return KB_OK;
}

/* see delta.h */
bool kb_delta_find(struct kb_delta *d, uint64_t block, uint64_t *ret_source)
{
	struct kb_delta_run r;
	if (d->at && d->at < d->n)
		kb_delta_get(d, d->at, &r);
	if (!d->at || d->at >= d->n || r.target > block)
		d->at = 0;
	for (; d->at < d->n; d->at++) {
		kb_delta_get(d, d->at, &r);
		if (block < r.target)
			return false;
		if (block - r.target < r.count) {
			*ret_source = r.source + (block - r.target);
			return true;
		}
	}
	return false;
}

/* see delta.h */
bool kb_delta_has_all(struct kb_delta *d, uint64_t first, uint64_t n)
{
	struct kb_delta look = *d;
	uint64_t source;
	for (uint64_t i = 0; i < n; i++)
		if (!kb_delta_find(&look, first + i, &source))
			return false;
	return true;
}

/* see delta.h */
void kb_delta_put(const struct kb_delta_run *run, uint8_t ret[static KB_DELTA_RUN])
{
	kb_field_put(ret, run->target, 8);
	kb_field_put(ret + 8, run->count, 8);
	kb_field_put(ret + 16, run->source, 8);
}

/* see delta.h */
void kb_delta_put_head(const uint8_t base[static KB_VERITY_HASH], uint32_t n, uint8_t ret[static KB_DELTA_HEAD])
{
	memset(ret, 0, KB_DELTA_HEAD);
	memcpy(ret, MAGIC, 8);
	memcpy(ret + 8, base, KB_VERITY_HASH);
	kb_field_put(ret + 40, n, 4);
}
