// The engine's parts, put together in the order that the sandbox wants: image file and device first, then the
// sandbox closes, then what others wrote (metadata, tokenizer, weights) is read.
#pragma once
#include "base/buf.h"
#include "firmware/engine/ping.h"
#include "firmware/engine/sandbox.h"
#include "firmware/engine/source.h"
#include "model/model.h"
#include "op/op_vk.h"
#include "text/chat.h"
#include "text/tok.h"
#include <stdbool.h>

#define KB_ENGINE_GUESSES 15u     // KB_DRAFT_MAX: the scheduler uses as many as pay
#define KB_ENGINE_KV_TOKENS 8192u // KV cache where nothing is said: all sequences together

// What the command line says. Strings live as long as the program.
struct kb_engine_options {
	const char *image;
	const char *digest; // fs-verity digest that the image must have, hexadecimal; NULL: it is taken as it is
	const char *device; // an index, part of a name, or NULL: the best; "reference": plain C, for tests
	enum kb_op_vk_path path;
	const char *cache;         // pipeline cache file, or NULL
	uint32_t kv_tokens;        // 0: KB_ENGINE_KV_TOKENS, or the model's context where that is less
	uint32_t max_seqs;         // 0: the model's default
	uint32_t max_tokens;       // of a step; 0: the model's default
	uint32_t fault_after;      // tests: the device fails after so many steps; 0: never
	bool no_sandbox;           // tests under sanitizers
	bool no_import;            // copy weights even where they could be used in place
	bool no_prefix_cache;      // read every prompt from its first token on
	const char *shared_system; // file, or NULL: see shared.h
	uint32_t guesses;          // tokens of an answer that a step may check ahead of time (sched/draft.h)
	bool json;
	uint32_t prompt_tokens, decode_tokens; // --bench
};

struct kb_engine {
	const struct kb_engine_options *options;
	struct kb_sandbox sandbox;
	char *cache_dir;
	struct kb_image *image;
	struct kb_model_source source;
	struct kb_backend *backend;
	struct kb_tok *tok;
	const struct kb_chat_frame *chat; // NULL: the model has none that is built in, and chat_error says so
	struct kb_err chat_error;
	struct kb_model *model;
	struct kb_ping *ping;
	struct kb_buf shared_system; // as read
	int statm;                   // /proc/self/statm, opened before the sandbox closed
	uint64_t page_bytes;
};

// progress as in kb_model_options; may be NULL. On failure everything is closed again.
KB_MUST_CHECK int kb_engine_open(struct kb_engine *e, const struct kb_engine_options *o,
	void (*progress)(void *ctx, uint64_t done, uint64_t total), void *progress_ctx, struct kb_err *err);
void kb_engine_close(struct kb_engine *e);
// Bytes of physical memory in use now; 0 where the kernel does not say.
uint64_t kb_engine_resident(const struct kb_engine *e);

// Modes: each prints on standard output and returns the program's exit status.
#define KB_EXIT_DEVICE 3 // the device failed: start again
int kb_mode_serve(const struct kb_engine_options *o, char **arguments);
int kb_mode_doctor(const struct kb_engine_options *o, char **arguments);
int kb_mode_bench(const struct kb_engine_options *o, char **arguments);
int kb_mode_logits(const struct kb_engine_options *o, char **arguments);
int kb_mode_generate(const struct kb_engine_options *o, char **arguments);
int kb_mode_sandbox_selftest(const struct kb_engine_options *o, char **arguments);
