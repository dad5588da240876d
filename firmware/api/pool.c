// Engines: one for each model in use, at most --max-engines. See daemon.h.
#include "base/clock.h"
#include "base/log.h"
#include "firmware/api/daemon.h"

#include <stdio.h>
#include <string.h>

const char *kb_pool_default(const struct kb_daemon *d)
{
	if (d->o.model)
		return d->o.model;
	return d->models.n ? d->models.row[0].name : "";
}

static struct kb_engine *engine_of(struct kb_daemon *d, const char *name)
{
	for (uint32_t i = 0; i < d->o.max_engines; i++)
		if (strcmp(d->engines[i].model, name) == 0)
			return &d->engines[i];
	return NULL;
}

static void release(struct kb_engine *e)
{
	kb_info("engine", "%s: leaves", e->model);
	kb_engine_stop(e);
	kb_engine_finish(e);
}

// A free slot; else that of the idle engine that was used longest ago; NULL where all are at work.
static struct kb_engine *make_room(struct kb_daemon *d)
{
	struct kb_engine *oldest = NULL;
	for (uint32_t i = 0; i < d->o.max_engines; i++) {
		struct kb_engine *e = &d->engines[i];
		if (!e->model[0])
			return e;
		if (e->n_jobs == 0 && (!oldest || e->used_ms < oldest->used_ms))
			oldest = e;
	}
	if (oldest)
		release(oldest);
	return oldest;
}

static void no_model(const struct kb_daemon *d, struct kb_str name, struct kb_problem *p)
{
	if (d->models.n == 0)
		kb_problem_set(p, 404, "model_not_found", "model",
			"no model is installed on this box: kotobako import FILE.gguf installs one");
	else
		kb_problem_set(p, 404, "model_not_found", "model",
			"the model %.*s is not installed; GET /v1/models lists them, kotobako import FILE.gguf installs more",
			(int)(name.len < KB_MODEL_NAME_MAX ? name.len : KB_MODEL_NAME_MAX), name.data);
}

int kb_pool_acquire(struct kb_daemon *d, struct kb_str name, struct kb_engine **ret, struct kb_problem *p)
{
	char path[1024];
	kb_models_scan(&d->models);
	if (name.len == 0) {
		const char *standard = kb_pool_default(d);
		name = (struct kb_str){standard, strlen(standard)};
	}
	const struct kb_model *m = kb_models_find(&d->models, name);
	if (!m) {
		no_model(d, name, p);
		return KB_ENOTFOUND;
	}
	struct kb_engine *e = engine_of(d, m->name);
	if (e && e->inode != m->inode && e->n_jobs == 0) { // another image under the same name
		release(e);
		e = NULL;
	}
	if (!e) {
		e = make_room(d);
		if (!e) {
			kb_problem_set(p, 503, "overloaded", "model",
				"all %u engines are at work for other models; try again later", d->o.max_engines);
			p->retry_after_s = KB_ENGINE_QUEUE_RETRY_S;
			return KB_EBUSY;
		}
		snprintf(path, sizeof path, "%s/%s.kbm", d->models_dir, m->name);
		kb_engine_init(e, &d->engine_options, m->name, path, m->inode);
		e->is_wanted = strcmp(m->name, kb_pool_default(d)) == 0;
	}
	*ret = e;
	return 0;
}

void kb_pool_tick(struct kb_daemon *d, uint64_t now_ms)
{
	for (uint32_t i = 0; i < d->o.max_engines; i++)
		if (d->engines[i].model[0])
			kb_engine_tick(&d->engines[i], now_ms);
}

void kb_pool_reload(struct kb_daemon *d)
{
	kb_models_scan(&d->models);
	for (uint32_t i = 0; i < d->o.max_engines; i++) {
		struct kb_engine *e = &d->engines[i];
		const struct kb_model *m = kb_models_find(&d->models, (struct kb_str){e->model, strlen(e->model)});
		if (e->model[0] && e->n_jobs == 0 && (!m || m->inode != e->inode))
			release(e);
	}
	struct kb_engine *e;
	struct kb_problem p;
	if (d->models.n && kb_pool_acquire(d, (struct kb_str){0}, &e, &p) == 0)
		kb_engine_start(e);
}

void kb_pool_stop(struct kb_daemon *d)
{
	for (uint32_t i = 0; i < d->o.max_engines; i++)
		if (d->engines[i].model[0])
			release(&d->engines[i]);
}

void kb_pool_gauges(const struct kb_daemon *d, struct kb_gauges *ret)
{
	ret->n_engines = 0;
	for (uint32_t i = 0; i < d->o.max_engines; i++) {
		const struct kb_engine *e = &d->engines[i];
		if (!e->model[0])
			continue;
		ret->engines[ret->n_engines++] = (struct kb_engine_gauges){
			.model = e->model,
			.is_up = e->state == KB_ENGINE_READY,
			.jobs = e->n_jobs,
			.engine_running = e->stats.running,
			.engine_waiting = e->stats.waiting,
			.kv_pages = e->stats.kv_pages,
			.kv_pages_used = e->stats.kv_pages_used,
			.kv_pages_idle = e->stats.kv_pages_idle,
			.resident_bytes = e->stats.resident_bytes,
			.preemptions = e->stats.preemptions,
			.guessed_tokens = e->stats.guessed_tokens,
			.guessed_right = e->stats.guessed_right,
			.steps = e->stats.steps,
			.step_s = (double)e->stats.step_us / 1e6,
			.has_stats = e->has_stats,
		};
	}
}
