// One engine process and the jobs it works on: start, framing, watching, restart, resumption.
//
//   STOPPED --start--> LOADING --READY--> READY
//      ^                  |                 |  death, ERROR 0, no PONG, bad frames
//      |                  v                 v
//      +---- quit ---- RESTING <------------+      RESTING waits (longer each time), then LOADING again;
//                                                  after KB_ENGINE_RESTARTS_MAX failures its jobs fail
//
// A job that was running is submitted again with the tokens it has delivered (resume): its owner notices nothing but
// a pause.
#pragma once
#include "base/buf.h"
#include "firmware/api/metrics.h"
#include "firmware/api/models.h"
#include "firmware/api/request.h"
#include "proto/proto.h"
#include <uv.h>

struct kb_engine;

// One choice of one request. The owner embeds it and fills submit and the functions; what submit points to stays valid
// until on_done or on_failed, or until kb_engine_cancel().
struct kb_job {
	struct kb_msg_submit submit;
	void (*on_accepted)(struct kb_job *j, uint32_t prompt_tokens);
	void (*on_token)(struct kb_job *j, const struct kb_msg_token *t);
	void (*on_done)(struct kb_job *j, const struct kb_msg_done *d); // the job is over before these two are called
	void (*on_failed)(struct kb_job *j, const struct kb_problem *p);
	// the engine's
	uint64_t id;
	struct kb_engine *engine; // NULL: over
	struct kb_buf received;   // ids delivered, u32 little-endian
	struct kb_job *next;
	uint32_t sends; // engines that got it
	bool is_accepted;
};

// Somebody who waits for the answer to a PING or STATS.
struct kb_engine_wait {
	void (*on_answer)(struct kb_engine_wait *w, bool is_answered); // false: the engine died
	struct kb_engine_wait *next;
	struct kb_engine *engine; // NULL: not waiting
	uint64_t need;            // answers to have been received
	int index;                // the asker's
	bool is_stats;
};

#define KB_ENGINES_CHOICE UINT32_MAX // of options for which 0 means something

enum kb_engine_state { KB_ENGINE_STOPPED, KB_ENGINE_LOADING, KB_ENGINE_READY, KB_ENGINE_RESTING };

struct kb_engine_run; // one life of the process

struct kb_engine_options {
	uv_loop_t *loop;
	const char *program, *cache_dir, *shared_system; // shared_system: a file, or NULL
	uint32_t kv_tokens, max_seqs;                    // 0: the engine's choice
	uint32_t speculate;                              // or KB_ENGINES_CHOICE
	uint32_t hurry;                                  // tests: all times divided by this
	uint32_t patience;                               // slow machines: what an engine may take, multiplied by this
	struct kb_metrics *metrics;
};

struct kb_engine {
	const struct kb_engine_options *o;
	char model[KB_MODEL_NAME_MAX + 1], path[1024];
	char digest[2 * KB_MANIFEST_HASH + 1]; // of a signed image, for the engine to prove it; "": it is none
	uint64_t id;                           // of the image that is loaded (models.h)
	bool is_retiring;                      // another version is active: it ends its answers, then leaves
	bool is_damaged;                       // the image is not what was signed
	enum kb_engine_state state;
	struct kb_engine_run *run; // NULL: no process
	bool is_wanted;            // started again even without jobs
	struct kb_job *jobs;
	uint32_t n_jobs;
	struct kb_engine_wait *waits;
	uint32_t failures; // in a row
	uint64_t started_ms, ready_ms, heard_ms, token_ms, used_ms, rest_until_ms, next_ping_ms;
	uint64_t pings_sent, pongs_received, ping_sent_ms, stats_sent, stats_received, next_id;
	bool is_given_up; // RESTING after too many failures
	char last_failure[KB_ERR_TEXT_MAX];
	// of the last READY, PONG and STATS_REPLY
	char arch[32], device[128];
	uint32_t context, vocab, max_seqs, kv_tokens, device_us;
	uint64_t weight_bytes, parameters;
	bool is_healthy, has_stats;
	struct kb_msg_stats stats;
	uint64_t load_done, load_total;
};

void kb_engine_init(
	struct kb_engine *e, const struct kb_engine_options *o, const struct kb_model *model, const char *path);
// LOADING, unless it runs. A giving-up engine whose rest is over tries again.
void kb_engine_start(struct kb_engine *e);
// Every 100 ms.
void kb_engine_tick(struct kb_engine *e, uint64_t now_ms);
// QUIT; the process gets KB_ENGINE_QUIT_MS to leave, then SIGKILL. Its jobs fail. STOPPED at once.
void kb_engine_stop(struct kb_engine *e);
// Frees what the engine holds once its processes are gone (the loop must have closed their handles).
void kb_engine_finish(struct kb_engine *e);

// KB_EBUSY with p filled: too many jobs, or the engine has given up.
KB_MUST_CHECK int kb_engine_submit(struct kb_engine *e, struct kb_job *j, struct kb_problem *p);
// Ends a job without any callback; harmless on one that is over. Frees what the job holds of the engine's.
void kb_engine_cancel(struct kb_job *j);
// Asks; false where no engine is ready. kb_engine_forget() ends waiting.
bool kb_engine_ask(struct kb_engine *e, struct kb_engine_wait *w, bool stats);
void kb_engine_forget(struct kb_engine_wait *w);

const char *kb_engine_state_name(const struct kb_engine *e);
int kb_engine_pid(const struct kb_engine *e); // 0: no process

// --- between engine.c and engine_run.c
// A life: the process, the socket. It reports to the engine until kb_engine_run_drop().
struct kb_engine_run *kb_engine_run_create(struct kb_engine *e, struct kb_err *err); // NULL on failure
KB_MUST_CHECK int kb_engine_run_send(struct kb_engine_run *r, const struct kb_msg *msg);
void kb_engine_run_drop(struct kb_engine_run *r, bool kill_now); // frees itself when the process is gone
int kb_engine_run_pid(const struct kb_engine_run *r);
int kb_engine_on_message(struct kb_engine *e, const struct kb_msg *msg); // non-zero: not what an engine may say
void kb_engine_on_end(struct kb_engine *e, const char *why);             // the life is over
