// Chains: runs of dispatches that become one, for devices whose dispatches cost more than most of their work
// (shaders/chain.comp). The groups of a chain wait for each other, so all of them must run side by side; Vulkan does
// not promise that, so how many do is tried out when the backend is made, and every run is checked.
#include "op/op_vk_internal.h"
#include "shaders/push.h"
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

_Static_assert(KB_HEAD_TOKENS == KB_COUNT_TOKENS && KB_HEAD_OUT == KB_COUNT_OUT, "counters are words of the step head");
_Static_assert(sizeof(struct kb_chain_op) == 16, "layout of kb_chain_op");
_Static_assert(16 + sizeof(struct kb_push_matmul) <= KB_CHAIN_OP_BYTES, "ops fit their stride");
_Static_assert(16 + sizeof(struct kb_push_rope) <= KB_CHAIN_OP_BYTES, "ops fit their stride");
_Static_assert(16 + sizeof(struct kb_push_attention) <= KB_CHAIN_OP_BYTES, "ops fit their stride");

// From some tokens on, the work of a dispatch is far longer than its start.
#define CHAIN_TOKENS_MAX 32u
// lavapipe's pool has a thread a core; more than a few do not gain for one token's work.
#define RESIDENTS_MAX 16u
// Rounds of a wait (about 50 ns each): seconds in earnest, since another program may hold the core; short in the trial.
#define PATIENCE (1u << 26)
#define TRIAL_PATIENCE (1u << 19)
#define TRIAL_MEETINGS 8u

// What all ops of a chain share: the constants of chain.comp, in the order of their ids. Unset ones fit anything.
enum constant { C_SG, C_NT, C_PAIRS, C_ACT, C_HEADS, C_DIM, C_CAPPED, C_HALVES, C_FORMAT, CONSTANTS };
_Static_assert(C_FORMAT == KB_VK_SPEC_MAX, "as many constants as a pipeline takes");
struct shared {
	bool is_set[CONSTANTS];
	uint32_t value[CONSTANTS];
};

static bool agree(struct shared *s, enum constant c, uint32_t value)
{
	if (s->is_set[c] && s->value[c] != value)
		return false;
	s->is_set[c] = true;
	s->value[c] = value;
	return true;
}

// Whether a dispatch of this pipeline can join; on success s has what it needs. The order of spec: see op_vk_plan.c.
static bool join(struct shared *s, const struct kb_pipeline *p, uint32_t *ret_kind)
{
	struct shared with = *s;
	bool ok = true;
	switch (p->row->kernel) {
	case KB_KERNEL_NORM_LANES:
		*ret_kind = KB_CHAIN_NORM;
		break;
	case KB_KERNEL_MATMUL:
		*ret_kind = KB_CHAIN_MATMUL;
		ok = ok && agree(&with, C_NT, p->spec[0]) && agree(&with, C_PAIRS, p->spec[2]) &&
			 (!p->spec[3] || agree(&with, C_ACT, p->spec[3] - 1)) && agree(&with, C_FORMAT, (uint32_t)p->row->format);
		break;
	case KB_KERNEL_ROPE_KEEP:
		*ret_kind = KB_CHAIN_ROPE_KEEP;
		ok = ok && agree(&with, C_HALVES, p->spec[0]);
		break;
	case KB_KERNEL_ATTENTION_LANES:
		*ret_kind = KB_CHAIN_ATTENTION;
		ok = ok && agree(&with, C_HEADS, p->spec[0]) && agree(&with, C_DIM, p->spec[2]) &&
			 agree(&with, C_CAPPED, p->spec[3]);
		break;
	default:
		return false;
	}
	if (ok)
		*s = with;
	return ok;
}

// How many dispatches from i on become one; 1: none.
static uint32_t chain_length(const struct kb_plan *p, uint32_t i, struct shared *ret)
{
	double ns = 0;
	uint32_t n = 0, kind;
	*ret = (struct shared){0};
	agree(ret, C_SG, p->b->caps.subgroup);
	for (; i + n < p->n; n++) {
		const struct kb_vk_dispatch *d = &p->list[i + n];
		// A chain cannot be cut into submissions, so it must itself stay well below one.
		ns += (double)d->work * p->desc->max_tokens * p->b->ns_per_work;
		if ((n && ns > (double)KB_VK_SUBMISSION_NS / 2) || !join(ret, p->pipelines[i + n], &kind))
			break;
	}
	return n ? n : 1;
}

static void write_op(const struct kb_plan *p, uint32_t i, uint8_t *ret)
{
	const struct kb_vk_dispatch *d = &p->list[i];
	struct shared any = {0};
	struct kb_chain_op op = {.x = d->x, .per = d->y_per_group, .counter = d->counter};
	if (!join(&any, p->pipelines[i], &op.kind))
		op.x = 0; // cannot be: it joined before
	if (op.kind == KB_CHAIN_ROPE_KEEP) {
		struct kb_push_rope rope;
		memcpy(&rope, d->push, sizeof rope);
		op.x = (rope.rot / 4 + p->b->caps.subgroup - 1) / p->b->caps.subgroup * rope.kv_heads;
	}
	memcpy(ret, &op, sizeof op);
	memcpy(ret + sizeof op, d->push, d->push_size);
}

// Puts one dispatch in the place of n from i on; they are ops i and following of the buffer.
static int replace(
	struct kb_plan *p, uint32_t i, uint32_t n, const struct shared *s, struct kb_chains *c, struct kb_err *err)
{
	const struct kb_pipeline *pipeline;
	uint32_t spec[KB_VK_SPEC_MAX];
	for (int k = 0; k < C_FORMAT; k++)
		spec[k] = s->is_set[k] ? s->value[k] : k == C_DIM ? 64 : k == C_ACT || k == C_CAPPED || k == C_HALVES ? 0 : 1;
	int rc = kb__op_vk_pipeline(p->b, KB_KERNEL_CHAIN, s->is_set[C_FORMAT] ? (int)s->value[C_FORMAT] : KB_FMT_F32,
		KB_VK_SPEC_MAX, spec, err, &pipeline);
	if (rc != KB_OK)
		return rc;
	struct kb_push_chain push = {
		.ops = c->buffer.address,
		.meet = c->buffer.address + c->meet_offset,
		.head = p->desc->step.head,
		.first = i,
		.end = i + n,
		.patience = PATIENCE,
	};
	struct kb_vk_dispatch d = {
		.name = p->list[i].name,
		.pipeline = pipeline->pipeline,
		.push_size = sizeof push,
		.x = p->b->base.residents,
		.touches_all = true,
	};
	memcpy(d.push, &push, sizeof push);
	for (uint32_t k = 0; k < n; k++) {
		write_op(p, i + k, (uint8_t *)c->buffer.host + (uint64_t)(i + k) * KB_CHAIN_OP_BYTES);
		d.work += p->list[i + k].work * p->desc->max_tokens;
	}
	p->list[i] = d;
	p->pipelines[i] = pipeline;
	return KB_OK;
}

/* see op_vk_internal.h */
int kb__op_vk_chain(struct kb_plan *p, struct kb_chains *ret, struct kb_err *err)
{
	struct shared s;
	uint32_t out = 0;
	*ret = (struct kb_chains){.meet_offset = (uint64_t)p->n * KB_CHAIN_OP_BYTES, .meet_bytes = 4 * (p->n + 1ull)};
	if (!p->b->base.residents || p->desc->max_tokens > CHAIN_TOKENS_MAX || p->n < 2)
		return KB_OK;
	int rc = kb_vk_buffer_create(p->b->vk, KB_VK_HOST, ret->meet_offset + ret->meet_bytes, "chains", err, &ret->buffer);
	for (uint32_t i = 0, n; i < p->n && rc == KB_OK; i += n) {
		n = chain_length(p, i, &s);
		if (n > 1)
			rc = replace(p, i, n, &s, ret, err);
		p->list[out] = p->list[i];
		p->pipelines[out++] = p->pipelines[i];
	}
	if (rc == KB_OK)
		p->n = out;
	return rc;
}

/* see op_vk_internal.h */
void kb__op_vk_chains_clear(struct kb_chains *c)
{
	if (c->buffer.host)
		memset((uint8_t *)c->buffer.host + c->meet_offset, 0, c->meet_bytes);
}

/* see op_vk_internal.h */
int kb__op_vk_chains_check(const struct kb_chains *c, struct kb_err *err)
{
	uint32_t gave_up = 0;
	if (c->buffer.host)
		memcpy(&gave_up, (const uint8_t *)c->buffer.host + c->meet_offset + 4ull * KB_CHAIN_GAVE_UP, sizeof gave_up);
	if (gave_up)
		return kb_fail(err, KB_EDEVICE, "op_vk: groups of a chain did not meet: a core was away for seconds");
	return KB_OK;
}

// KB_OK with *ret set: whether so many groups run side by side.
static int try_out(struct kb_op_vk *b, uint32_t groups, struct kb_chains *c, struct kb_err *err, bool *ret)
{
	const struct kb_pipeline *pipeline;
	struct kb_vk_graph *g = NULL;
	const uint32_t counters[KB_VK_COUNTERS] = {1, 1};
	struct kb_push_chain push = {.meet = c->buffer.address, .end = TRIAL_MEETINGS, .patience = TRIAL_PATIENCE};
	int rc = kb__op_vk_pipeline(b, KB_KERNEL_RESIDENT, KB_ANY_FORMAT, 1, &b->caps.subgroup, err, &pipeline);
	if (rc != KB_OK)
		return rc;
	struct kb_vk_dispatch d = {
		.name = "residents", .pipeline = pipeline->pipeline, .push_size = sizeof push, .x = groups};
	memcpy(d.push, &push, sizeof push);
	kb__op_vk_chains_clear(c);
	rc = kb_vk_graph_create(b->vk, &d, 1, counters, b->ns_per_work, false, err, &g);
	if (rc == KB_OK)
		rc = kb_vk_graph_run(g, counters, err);
	kb_vk_graph_destroy(g);
	if (rc == KB_OK)
		*ret = kb__op_vk_chains_check(c, err) == KB_OK;
	return rc;
}

/* see op_vk_internal.h */
int kb__op_vk_residents(struct kb_op_vk *b, struct kb_err *err)
{
	struct kb_chains c = {.meet_bytes = 4 * (TRIAL_MEETINGS + 1)};
	long cores = sysconf(_SC_NPROCESSORS_ONLN);
	uint32_t groups = cores < 1 ? 1 : cores > RESIDENTS_MAX ? RESIDENTS_MAX : (uint32_t)cores;
	bool do_meet = false;
	// GPUs start dispatches in a few us, and how many groups are resident there depends on the kernel.
	if (b->path != KB_OP_VK_TUNED || b->caps.type != KB_VK_CPU)
		return KB_OK;
	int rc = kb_vk_buffer_create(b->vk, KB_VK_HOST, c.meet_bytes, "chains", err, &c.buffer);
	for (; rc == KB_OK && groups && !do_meet; groups /= 2) {
		rc = try_out(b, groups, &c, err, &do_meet);
		if (do_meet)
			b->base.residents = groups;
	}
	kb_vk_buffer_destroy(b->vk, &c.buffer);
	return rc;
}
