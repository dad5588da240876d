// See metrics.h. Format: https://prometheus.io/docs/instrumenting/exposition_formats/ (text, 0.0.4).
#include "firmware/api/metrics.h"
#include "firmware/api/json.h"

static const double bounds[KB_HISTOGRAM_BOUNDS] = {0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60, 180};

void kb_histogram_add(struct kb_histogram *h, double seconds)
{
	h->count++;
	h->sum += seconds;
	for (int i = 0; i < KB_HISTOGRAM_BOUNDS; i++)
		h->bucket[i] += seconds <= bounds[i];
}

static void head(struct kb_json *j, const char *name, const char *type, const char *help)
{
	kb_json_printf(j, "# HELP kotobako_%s %s\n# TYPE kotobako_%s %s\n", name, help, name, type);
}

static void one(struct kb_json *j, const char *name, const char *type, const char *help, uint64_t value)
{
	head(j, name, type, help);
	kb_json_printf(j, "kotobako_%s %llu\n", name, (unsigned long long)value);
}

static void histogram(struct kb_json *j, const char *name, const char *help, const struct kb_histogram *h)
{
	head(j, name, "histogram", help);
	for (int i = 0; i < KB_HISTOGRAM_BOUNDS; i++)
		kb_json_printf(j, "kotobako_%s_bucket{le=\"%g\"} %llu\n", name, bounds[i], (unsigned long long)h->bucket[i]);
	kb_json_printf(j, "kotobako_%s_bucket{le=\"+Inf\"} %llu\n", name, (unsigned long long)h->count);
	kb_json_printf(
		j, "kotobako_%s_sum %.9g\nkotobako_%s_count %llu\n", name, h->sum, name, (unsigned long long)h->count);
}

static void requests(struct kb_json *j, const struct kb_metrics *m)
{
	static const char *const names[KB_ENDPOINTS] = {
		"chat_completions", "completions", "models", "healthz", "metrics", "admin", "other"};
	head(j, "requests_total", "counter", "Answered requests by endpoint and class of status.");
	for (int e = 0; e < KB_ENDPOINTS; e++)
		for (int c = 2; c < 6; c++)
			if (m->requests[e][c] || c == 2)
				kb_json_printf(j, "kotobako_requests_total{endpoint=\"%s\",status=\"%dxx\"} %llu\n", names[e], c,
					(unsigned long long)m->requests[e][c]);
}

// One gauge or counter of every engine: at is the field's place in struct kb_engine_gauges.
static void engines(
	struct kb_json *j, const struct kb_gauges *g, const char *name, const char *type, const char *help, size_t at)
{
	head(j, name, type, help);
	for (uint32_t i = 0; i < g->n_engines; i++) {
		const struct kb_engine_gauges *e = &g->engines[i];
		if (!e->has_stats && at != offsetof(struct kb_engine_gauges, jobs))
			continue;
		const uint64_t *value = (const uint64_t *)(const void *)((const char *)e + at);
		kb_json_printf(j, "kotobako_%s{model=\"%s\"} %llu\n", name, e->model, (unsigned long long)*value);
	}
}

static void engine_rows(struct kb_json *j, const struct kb_gauges *g)
{
	head(j, "engine_up", "gauge", "Whether the model's engine is loaded and answers.");
	for (uint32_t i = 0; i < g->n_engines; i++)
		kb_json_printf(j, "kotobako_engine_up{model=\"%s\"} %d\n", g->engines[i].model, g->engines[i].is_up);
#define AT(field) offsetof(struct kb_engine_gauges, field)
	engines(j, g, "engine_jobs", "gauge", "Answers being made or waiting, as the daemon sees it.", AT(jobs));
	engines(j, g, "requests_processing", "gauge", "Sequences in the engine's batch.", AT(engine_running));
	engines(j, g, "requests_deferred", "gauge", "Sequences waiting in the engine.", AT(engine_waiting));
	engines(j, g, "kv_pages", "gauge", "Pages of KV memory.", AT(kv_pages));
	engines(j, g, "kv_pages_used", "gauge", "Pages of KV memory in use.", AT(kv_pages_used));
	engines(j, g, "kv_pages_idle", "gauge", "Pages of KV memory kept for later requests.", AT(kv_pages_idle));
	engines(j, g, "engine_resident_bytes", "gauge", "Resident memory of the engine.", AT(resident_bytes));
	engines(
		j, g, "preemptions_total", "counter", "Sequences that were put back for lack of KV memory.", AT(preemptions));
	engines(
		j, g, "guessed_tokens_total", "counter", "Tokens guessed ahead (speculative decoding).", AT(guessed_tokens));
	engines(j, g, "guessed_right_total", "counter", "Guessed tokens that came.", AT(guessed_right));
	engines(j, g, "engine_steps_total", "counter", "Batch steps.", AT(steps));
#undef AT
	head(j, "kv_cache_usage_ratio", "gauge", "Used part of the KV memory, 0 to 1.");
	for (uint32_t i = 0; i < g->n_engines; i++)
		if (g->engines[i].has_stats && g->engines[i].kv_pages)
			kb_json_printf(j, "kotobako_kv_cache_usage_ratio{model=\"%s\"} %.6g\n", g->engines[i].model,
				(double)g->engines[i].kv_pages_used / (double)g->engines[i].kv_pages);
	head(j, "engine_step_seconds_total", "counter", "Time spent in batch steps.");
	for (uint32_t i = 0; i < g->n_engines; i++)
		if (g->engines[i].has_stats)
			kb_json_printf(j, "kotobako_engine_step_seconds_total{model=\"%s\"} %.9g\n", g->engines[i].model,
				g->engines[i].step_s);
}

int kb_metrics_print(const struct kb_metrics *m, const struct kb_gauges *g, struct kb_buf *out)
{
	struct kb_json j = {.out = out};
	one(&j, "uptime_seconds", "gauge", "Since the daemon started.", g->uptime_s);
	one(&j, "connections", "gauge", "Open connections.", g->connections);
	one(&j, "connections_handshaking", "gauge", "Connections in their TLS handshake.", g->handshaking);
	one(&j, "connections_total", "counter", "Accepted connections.", m->connections_total);
	one(&j, "connections_refused_total", "counter", "Connections over a limit.", m->connections_refused);
	one(&j, "handshake_failures_total", "counter", "TLS handshakes that failed or took too long.",
		m->handshake_failures);
	one(&j, "slow_readers_total", "counter", "Connections cut because the client did not read.", m->slow_readers);
	requests(&j, m);
	one(&j, "requests_running", "gauge", "Requests being answered.", g->running);
	one(&j, "requests_cancelled_total", "counter", "Requests whose client went away.", m->cancelled);
	one(&j, "prompt_tokens_total", "counter", "Tokens of prompts.", m->prompt_tokens);
	one(&j, "cached_tokens_total", "counter", "Tokens of prompts found in the KV cache.", m->cached_tokens);
	one(&j, "generated_tokens_total", "counter", "Tokens generated.", m->generated_tokens);
	one(&j, "engine_restarts_total", "counter", "Engines started again after a failure.", m->engine_restarts);
	one(&j, "engine_failures_total", "counter", "Engines that died or hung.", m->engine_failures);
	one(&j, "resumed_total", "counter", "Answers resumed in a new engine.", m->resumed);
	engine_rows(&j, g);
	histogram(&j, "time_to_first_token_seconds", "From the request to its first token.", &m->first_token_s);
	histogram(&j, "inter_token_seconds", "Between tokens of one answer.", &m->inter_token_s);
	histogram(&j, "request_seconds", "Whole requests for text.", &m->request_s);
	return j.error;
}
