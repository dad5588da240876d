// Engines: one for each model in use, at most --max-engines. See daemon.h.
#include "base/clock.h"
#include "base/log.h"
#include "firmware/api/daemon.h"
#include "storage/audit.h"
#include "storage/trust.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

const char *kb_pool_default(const struct kb_daemon *d)
{
	if (d->o.model)
		return d->o.model;
	return d->models.n ? d->models.row[0].name : "";
}

static struct kb_engine *engine_of(struct kb_daemon *d, const char *name)
{
	for (uint32_t i = 0; i < KB_ENGINES_MAX; i++)
		if (strcmp(d->engines[i].model, name) == 0 && !d->engines[i].is_retiring)
			return &d->engines[i];
	return NULL;
}

static void release(struct kb_engine *e)
{
	kb_info("engine", "%s: leaves", e->model);
	kb_engine_stop(e);
	kb_engine_finish(e);
}

// A free slot; else that of the idle engine that was used longest ago; NULL where all are at work. Engines that are
// about to leave do not count: the version that takes their place need not wait for their last answers.
static struct kb_engine *make_room(struct kb_daemon *d)
{
	struct kb_engine *oldest = NULL, *free_one = NULL;
	uint32_t n = 0;
	for (uint32_t i = 0; i < KB_ENGINES_MAX; i++) {
		struct kb_engine *e = &d->engines[i];
		n += e->model[0] && !e->is_retiring;
		if (!e->model[0] && !free_one)
			free_one = e;
		else if (e->model[0] && e->n_jobs == 0 && (!oldest || e->used_ms < oldest->used_ms))
			oldest = e;
	}
	if (n < d->o.max_engines && free_one)
		return free_one;
	if (oldest)
		release(oldest);
	return oldest;
}

// The image that it has is not the active one any more: it leaves at once, or when its answers are done.
static void retire(struct kb_engine *e)
{
	e->is_wanted = false;
	if (e->n_jobs == 0) {
		release(e);
		return;
	}
	kb_info("engine", "%s: another version is active; %u answers end on this one", e->model, e->n_jobs);
	e->is_retiring = true;
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
	if (e && e->id != m->id) { // another image under the same name
		retire(e);
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
		char *path = kb_models_path(&d->models, m);
		kb_engine_init(e, &d->engine_options, m, path ? path : "");
		free(path);
		e->is_wanted = strcmp(m->name, kb_pool_default(d)) == 0;
	}
	*ret = e;
	return 0;
}

// Its file is not what was signed. The version before takes its place where there is one, and it is never come back to.
static void give_up_damaged(struct kb_daemon *d, struct kb_engine *e)
{
	struct kb_audit_entry said = {.event = "model damaged"};
	struct kb_err err = {0};
	const struct kb_model *m = kb_models_find(&d->models, (struct kb_str){e->model, strlen(e->model)});
	uint64_t now_s = (uint64_t)time(NULL);
	e->is_damaged = false;
	if (!m || m->id != e->id)
		return;
	snprintf(said.subject, sizeof said.subject, "%s", e->model);
	snprintf(said.detail, sizeof said.detail, "%s", e->last_failure);
	memcpy(said.digest, m->digest, sizeof said.digest);
	said.version = m->version;
	int r = kb_trust_now(d->state, now_s, &err, &now_s);
	said.time_s = now_s;
	r = r ? r : kb_audit_append(d->state, &said, &err);
	r = r ? r : kb_installed_rollback(d->state, e->model, KB_ALLOW_TEST_KEYS, now_s, "the active one is damaged", &err);
	r = r ? r : kb_installed_forget(d->state, e->model, now_s, "it is damaged", &err);
	if (r) {
		kb_error("engine", "%s: its file is damaged, and there is nothing to go back to: %s", e->model, err.text);
		return;
	}
	kb_error("engine", "%s: its file is damaged; the version before is active again", e->model);
	kb_pool_reload(d);
}

void kb_pool_tick(struct kb_daemon *d, uint64_t now_ms)
{
	for (uint32_t i = 0; i < KB_ENGINES_MAX; i++) {
		struct kb_engine *e = &d->engines[i];
		if (!e->model[0])
			continue;
		kb_engine_tick(e, now_ms);
		if (e->is_damaged)
			give_up_damaged(d, e);
		else if (e->is_retiring && e->n_jobs == 0)
			release(e);
	}
}

void kb_pool_reload(struct kb_daemon *d)
{
	kb_models_scan(&d->models);
	for (uint32_t i = 0; i < KB_ENGINES_MAX; i++) {
		struct kb_engine *e = &d->engines[i];
		const struct kb_model *m = kb_models_find(&d->models, (struct kb_str){e->model, strlen(e->model)});
		if (e->model[0] && !e->is_retiring && (!m || m->id != e->id))
			retire(e);
	}
	struct kb_engine *e;
	struct kb_problem p;
	if (d->models.n && kb_pool_acquire(d, (struct kb_str){0}, &e, &p) == 0)
		kb_engine_start(e);
}

void kb_pool_stop(struct kb_daemon *d)
{
	for (uint32_t i = 0; i < KB_ENGINES_MAX; i++)
		if (d->engines[i].model[0])
			release(&d->engines[i]);
}

void kb_pool_gauges(const struct kb_daemon *d, struct kb_gauges *ret)
{
	ret->n_engines = 0;
	for (uint32_t i = 0; i < KB_ENGINES_MAX; i++) {
		const struct kb_engine *e = &d->engines[i];
		if (!e->model[0] || e->is_retiring)
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
