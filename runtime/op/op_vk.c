#include "op/op_vk.h"
#include "base/log.h"
#include "op/op_vk_internal.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct kb_graph {
	struct kb_op_vk *b;
	struct kb_vk_graph *graph;
	struct kb_vk_buffer result; // where the canary comes back
	struct kb_chains chains;
	struct kb_vk_buffer fixed; // x in fixed point, one matmul's after another's
	struct kb_vk_buffer parts; // of split attention, and their counters
	const struct kb_step_head *head;
	uint32_t max_tokens, max_out;
};

static struct kb_op_vk *of(struct kb_backend *b)
{
	return (struct kb_op_vk *)b;
}

static void keep(struct kb_op_vk *b, struct kb_op_vk_mem *m, struct kb_mem *ret)
{
	m->next = b->mems;
	b->mems = m;
	*ret = (struct kb_mem){.addr = m->buffer.address, .host = m->buffer.host, .size = m->buffer.size, .priv = m};
}

static int op_alloc(struct kb_backend *base, enum kb_mem_kind kind, uint64_t size, const char *what, struct kb_err *err,
	struct kb_mem *ret)
{
	struct kb_op_vk *b = of(base);
	struct kb_op_vk_mem *m = calloc(1, sizeof *m);
	if (!m)
		return kb_fail(err, KB_ENOMEM, "op_vk: out of memory");
	int rc = kb_vk_buffer_create(b->vk, kind == KB_MEM_HOST ? KB_VK_HOST : KB_VK_DEVICE, size, what, err, &m->buffer);
	if (rc != KB_OK) {
		free(m);
		return rc;
	}
	base->bytes_allocated += m->buffer.size;
	keep(b, m, ret);
	return KB_OK;
}

static int op_import(struct kb_backend *base, const void *bytes, uint64_t size, struct kb_err *err, struct kb_mem *ret)
{
	struct kb_op_vk *b = of(base);
	struct kb_op_vk_mem *m = calloc(1, sizeof *m);
	int rc = KB_EUNSUPPORTED;
	if (!m)
		return kb_fail(err, KB_ENOMEM, "op_vk: out of memory");
	if (base->imports_in_place)
		rc = kb_vk_buffer_import(b->vk, bytes, size, NULL, &m->buffer);
	if (rc != KB_OK && !b->vk->lost) {
		rc = kb_vk_buffer_create(b->vk, KB_VK_DEVICE, size, "weights", err, &m->buffer);
		if (rc == KB_OK)
			rc = kb_vk_buffer_write(b->vk, &m->buffer, bytes, size, err);
	} else if (rc != KB_OK) {
		rc = kb_fail(err, KB_EDEVICE, "op_vk: the device was lost while importing memory");
	}
	if (rc != KB_OK) {
		kb_vk_buffer_destroy(b->vk, &m->buffer);
		free(m);
		return rc;
	}
	*(m->buffer.in_place ? &base->bytes_imported : &base->bytes_copied) += size;
	keep(b, m, ret);
	return KB_OK;
}

static void op_free(struct kb_backend *base, struct kb_mem *mem)
{
	struct kb_op_vk *b = of(base);
	for (struct kb_op_vk_mem **at = &b->mems; mem->priv && *at; at = &(*at)->next) {
		if (*at != mem->priv)
			continue;
		struct kb_op_vk_mem *m = *at;
		*at = m->next;
		kb_vk_buffer_destroy(b->vk, &m->buffer);
		free(m);
		break;
	}
	*mem = (struct kb_mem){0};
}

// NULL: not in memory that the host sees.
static void *host_of(struct kb_op_vk *b, kb_addr addr)
{
	for (struct kb_op_vk_mem *m = b->mems; m; m = m->next)
		if (m->buffer.host && addr >= m->buffer.address && addr - m->buffer.address < m->buffer.size)
			return (uint8_t *)m->buffer.host + (addr - m->buffer.address);
	return NULL;
}

static void op_graph_destroy(struct kb_backend *base, struct kb_graph *g)
{
	if (!g)
		return;
	kb_vk_graph_destroy(g->graph);
	kb_vk_buffer_destroy(of(base)->vk, &g->result);
	kb_vk_buffer_destroy(of(base)->vk, &g->chains.buffer);
	kb_vk_buffer_destroy(of(base)->vk, &g->fixed);
	kb_vk_buffer_destroy(of(base)->vk, &g->parts);
	free(g);
}

static int build(struct kb_op_vk *b, const struct kb_graph_desc *desc, struct kb_graph *g, struct kb_err *err)
{
	struct kb_plan plan = {.b = b, .desc = desc};
	const uint32_t most[KB_VK_COUNTERS] = {desc->max_tokens, desc->max_out};
	uint64_t arrived;
	const uint64_t bytes = kb__op_vk_fixed_bytes(b, desc), parts = kb__op_vk_parts_bytes(b, desc, &arrived);
	int rc = bytes ? kb_vk_buffer_create(b->vk, KB_VK_DEVICE, bytes, "x in fixed point", err, &g->fixed) : KB_OK;
	if (bytes)
		plan.fixed = (struct kb_vk_range){.address = g->fixed.address, .size = bytes};
	if (rc == KB_OK && parts)
		rc = kb_vk_buffer_create(b->vk, KB_VK_DEVICE, parts + arrived, "parts of attention", err, &g->parts);
	plan.parts = (struct kb_vk_range){.address = g->parts.address, .size = parts};
	plan.arrived = g->parts.address + parts;
	if (rc == KB_OK)
		rc = kb__op_vk_plan(&plan, err);
	if (rc == KB_OK)
		rc = kb__op_vk_chain(&plan, &g->chains, err);
	if (rc == KB_OK)
		rc = kb_vk_buffer_create(b->vk, KB_VK_HOST, 16, "canary", err, &g->result);
	if (rc == KB_OK)
		rc = kb__op_vk_plan_canary(&plan, g->result.address, err);
	if (rc == KB_OK)
		rc = kb_vk_graph_create(b->vk, plan.list, plan.n, most, b->ns_per_work, b->profile, err, &g->graph);
	kb__op_vk_plan_finish(&plan);
	return rc;
}

static int op_graph_create(
	struct kb_backend *base, const struct kb_graph_desc *desc, struct kb_err *err, struct kb_graph **ret)
{
	struct kb_op_vk *b = of(base);
	struct kb_err ignored;
	const struct kb_step_head *head = host_of(b, desc->step.head);
	if (!head || !desc->max_tokens || desc->max_tokens > KB_STEP_TOKENS_MAX)
		return kb_fail(err, KB_EARG, "op_vk: a graph of %u tokens, step head %s", desc->max_tokens,
			head ? "present" : "not in host memory");
	struct kb_graph *g = calloc(1, sizeof *g);
	if (!g)
		return kb_fail(err, KB_ENOMEM, "op_vk: out of memory");
	*g = (struct kb_graph){.b = b, .head = head, .max_tokens = desc->max_tokens, .max_out = desc->max_out};
	int rc = build(b, desc, g, err);
	if (rc != KB_OK) {
		op_graph_destroy(base, g);
		return rc;
	}
	if (b->is_cache_dirty && kb_vk_cache_save(b->vk, &ignored) != KB_OK)
		kb_debug("op", "%s", ignored.text); // only the next start is slower
	b->is_cache_dirty = false;
	*ret = g;
	return KB_OK;
}

static int op_graph_run(struct kb_backend *base, struct kb_graph *g, struct kb_err *err)
{
	struct kb_op_vk *b = of(base);
	volatile uint32_t *result = g->result.host;
	const uint32_t counters[KB_VK_COUNTERS] = {g->head->n_tokens, g->head->n_out};
	if (b->fault_after && b->runs >= b->fault_after) {
		b->vk->lost = true;
		return kb_fail(err, KB_EDEVICE, "op_vk: the device was lost (injected after %u runs)", b->fault_after);
	}
	if (counters[0] > g->max_tokens || counters[1] > g->max_out)
		return kb_fail(err, KB_EARG, "op_vk: %u tokens and %u outputs in a graph for %u and %u", counters[0],
			counters[1], g->max_tokens, g->max_out);
	*result = ~g->head->canary;
	kb__op_vk_chains_clear(&g->chains);
	int rc = kb_vk_graph_run(g->graph, counters, err);
	if (rc != KB_OK)
		return rc;
	rc = kb__op_vk_chains_check(&g->chains, err);
	if (rc != KB_OK) {
		b->vk->lost = true;
		return rc;
	}
	if (*result != g->head->canary) {
		b->vk->lost = true;
		return kb_fail(err, KB_EDEVICE,
			"op_vk: the last dispatch did not run (canary %#x, expected %#x): the driver dropped work", *result,
			g->head->canary);
	}
	b->runs++;
	double rate = kb_vk_graph_rate(g->graph);
	if (rate > 0)
		b->ns_per_work = 0.75 * b->ns_per_work + 0.25 * rate;
	return KB_OK;
}

static void op_destroy(struct kb_backend *base)
{
	struct kb_op_vk *b = of(base);
	if (b->vk) {
		if (!b->vk->lost)
			vkDeviceWaitIdle(b->vk->device);
		while (b->mems) {
			struct kb_op_vk_mem *m = b->mems;
			b->mems = m->next;
			kb_vk_buffer_destroy(b->vk, &m->buffer);
			free(m);
		}
		kb__op_vk_pipelines_finish(b);
	}
	kb_vk_destroy(b->vk);
	free(b);
}

static const struct kb_backend_ops backend_ops = {
	.alloc = op_alloc,
	.import = op_import,
	.free = op_free,
	.graph_create = op_graph_create,
	.graph_destroy = op_graph_destroy,
	.graph_run = op_graph_run,
	.destroy = op_destroy,
};

static int choose_path(struct kb_op_vk *b, enum kb_op_vk_path path, struct kb_err *err)
{
	static const char *const names[] = {
		[KB_OP_VK_UNIVERSAL] = "universal", [KB_OP_VK_TUNED] = "tuned", [KB_OP_VK_STREAM] = "stream"};
	for (b->path = KB_OP_VK_STREAM; b->path > KB_OP_VK_UNIVERSAL && strcmp(b->caps.path, names[b->path]) != 0;
		b->path--)
		;
	if (path == KB_OP_VK_AUTO || path == b->path)
		return KB_OK;
	if (path == KB_OP_VK_TUNED)
		return kb_fail(err, KB_EUNSUPPORTED, "op_vk: %s: %s", b->caps.name, b->caps.path_reason);
	b->path = path;
	snprintf(b->caps.path, sizeof b->caps.path, "%s", names[path]);
	snprintf(b->caps.path_reason, sizeof b->caps.path_reason, "asked for");
	return KB_OK;
}

/* see op_vk.h */
int kb_op_vk_create(const struct kb_op_vk_options *o, struct kb_err *err, struct kb_backend **ret)
{
	struct kb_vk_options vo = {
		.device = o->device,
		.validate = o->validate,
		.import = !o->no_import,
		.cache_path = o->cache_path,
		.message = o->message,
		.message_ctx = o->message_ctx,
	};
	struct kb_op_vk *b = calloc(1, sizeof *b);
	if (!b)
		return kb_fail(err, KB_ENOMEM, "op_vk: out of memory");
	b->base.ops = &backend_ops;
	b->fault_after = o->fault_after;
	b->profile = o->profile;
	int rc = kb_vk_create(&vo, err, &b->vk);
	if (rc == KB_OK) {
		b->caps = b->vk->caps;
		// A first guess, until runs are measured: 2 and 100 GMAC/s.
		b->ns_per_work = b->caps.type == KB_VK_CPU ? 0.5 : 0.01;
		rc = choose_path(b, o->path, err);
		b->base.residents = o->residents;
		if (rc == KB_OK && !o->no_chains && !o->residents)
			rc = kb__op_vk_residents(b, err);
	}
	if (rc != KB_OK) {
		op_destroy(&b->base);
		return rc;
	}
	snprintf(b->base.device, sizeof b->base.device, "%.127s", b->caps.name);
	b->base.imports_in_place = b->caps.import && b->vk->host_pointer_properties;
	*ret = &b->base;
	return KB_OK;
}

/* see op_vk.h */
const struct kb_vk_caps *kb_op_vk_caps(const struct kb_backend *b)
{
	return &((const struct kb_op_vk *)b)->caps;
}

/* see op_vk.h */
uint32_t kb_op_vk_messages(const struct kb_backend *b)
{
	return ((const struct kb_op_vk *)b)->vk->messages;
}

/* see op_vk.h */
bool kb_op_vk_profile(const struct kb_graph *g, uint32_t i, struct kb_op_vk_profile *ret)
{
	uint32_t n;
	const struct kb_vk_profile *p = kb_vk_graph_profile(g->graph, &n);
	if (i >= n)
		return false;
	*ret = (struct kb_op_vk_profile){
		.name = p[i].name, .work = p[i].work, .ns = p[i].ns, .ns_min = p[i].ns_min, .runs = p[i].runs};
	return true;
}

/* see op_vk.h */
void kb_op_vk_counts(const struct kb_graph *g, uint32_t ret[3])
{
	kb_vk_graph_counts(g->graph, ret);
}
