// Which blocks of a model file lie in another one, the base, already: the part of an image that makes it a delta. It is
// not signed and need not be: every block is proven against the signed root, wherever it comes from.
//
// "KBDELTA1", digest of the base (32 bytes), u32 how many runs, u32 zero, and of each run, in rising order, u64 first
// block in the new file, u64 how many, u64 first block in the base; little-endian. Blocks are of KB_VERITY_BLOCK bytes,
// whole ones only. Parsing is pure.
#pragma once
#include "storage/verity.h"

#define KB_DELTA_HEAD 48u
#define KB_DELTA_RUN 24u
#define KB_DELTA_RUNS_MAX 32768u // so that a reader may hold them all: less than a MiB

struct kb_delta_run {
	uint64_t target, count, source;
};

struct kb_delta {
	uint8_t base[KB_VERITY_HASH];
	uint32_t n;
	const uint8_t *runs; // n * KB_DELTA_RUN bytes
	uint32_t at;         // where the last one was found
};

// Of the head alone: how many runs follow. KB_EBAD, KB_ELIMIT.
KB_MUST_CHECK int kb_delta_head(const uint8_t head[static KB_DELTA_HEAD], struct kb_err *err, struct kb_delta *ret);
// d->runs is there: whether they are in order and lie within a file of target_blocks whole blocks. KB_EBAD names one.
KB_MUST_CHECK int kb_delta_check(const struct kb_delta *d, uint64_t target_blocks, struct kb_err *err);
void kb_delta_get(const struct kb_delta *d, uint32_t i, struct kb_delta_run *ret);
// Whether a block of the new file is copied, and from which of the base. Fast where blocks rise.
bool kb_delta_find(struct kb_delta *d, uint64_t block, uint64_t *ret_source);
// Whether all of [first, first + n) are copied.
bool kb_delta_has_all(struct kb_delta *d, uint64_t first, uint64_t n);
void kb_delta_put(const struct kb_delta_run *run, uint8_t ret[static KB_DELTA_RUN]);
void kb_delta_put_head(const uint8_t base[static KB_VERITY_HASH], uint32_t n, uint8_t ret[static KB_DELTA_HEAD]);
