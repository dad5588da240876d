// Counters of the daemon and their Prometheus text. No prompt, answer or client is in a label.
#pragma once
#include "base/buf.h"
#include "firmware/api/limits.h"
#include <stdint.h>

#define KB_HISTOGRAM_BOUNDS 14

struct kb_histogram {
	uint64_t count, bucket[KB_HISTOGRAM_BOUNDS]; // observations at or below each bound
	double sum;
};

// Rows of the requests' table: what was asked, and the class of the answer's status.
enum kb_endpoint {
	KB_ENDPOINT_CHAT,
	KB_ENDPOINT_COMPLETIONS,
	KB_ENDPOINT_MODELS,
	KB_ENDPOINT_HEALTH,
	KB_ENDPOINT_METRICS,
	KB_ENDPOINT_ADMIN,
	KB_ENDPOINT_OTHER,
	KB_ENDPOINTS
};

struct kb_metrics {
	uint64_t requests[KB_ENDPOINTS][6]; // [endpoint][status / 100]
	uint64_t connections_total, connections_refused, handshake_failures, slow_readers, cancelled;
	uint64_t prompt_tokens, generated_tokens, cached_tokens;
	uint64_t engine_restarts, engine_failures, resumed;
	struct kb_histogram first_token_s, inter_token_s, request_s;
};

// What is true now, gathered by the caller.
struct kb_gauges {
	uint64_t connections, handshaking, running, uptime_s;
	struct kb_engine_gauges {
		const char *model;
		int is_up;
		uint64_t jobs, engine_running, engine_waiting, kv_pages, kv_pages_used, kv_pages_idle, resident_bytes,
			preemptions, steps;
		uint64_t guessed_tokens, guessed_right;
		double step_s;
		int has_stats;
	} engines[KB_ENGINES_MAX];
	uint32_t n_engines;
};

void kb_histogram_add(struct kb_histogram *h, double seconds);
KB_MUST_CHECK int kb_metrics_print(const struct kb_metrics *m, const struct kb_gauges *g, struct kb_buf *out);
