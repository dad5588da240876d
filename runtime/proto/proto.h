// Messages between kotobakod and kotobako-engine over one socketpair.
// Frame: u32 length of what follows, u8 type, u64 request id, then the type's fields in order.
// Integers little-endian; f32 as its bits; strings and lists are a u32 count, then the items.
// The daemon is trusted by the engine to be well-formed only as far as the decoder checks it; the engine is not
// trusted by the daemon at all. Both decode with the same pure functions (proto.c), which are fuzzed.
#pragma once
#include "base/buf.h"
#include "base/err.h"
#include "base/meta.h"
#include <stdbool.h>
#include <stdint.h>

#define KB_PROTO_VERSION 2u
#define KB_FRAME_MAX (16u << 20) // a prompt of the largest context as text, with room to spare
#define KB_MESSAGES_MAX 4096u    // messages of one chat
#define KB_STOP_MAX 16u          // stop strings of one request (OpenAI allows 4)
#define KB_TOP_LOGPROBS_MAX 20u  // OpenAI's limit

enum kb_msg_type {
	// daemon -> engine
	KB_MSG_SUBMIT = 1, // a request; answered by ACCEPTED or ERROR, then TOKENs, then DONE or ERROR
	KB_MSG_CANCEL = 2, // frees the request's KV at once; answered by DONE(cancelled), or nothing if already over
	KB_MSG_PING = 3,   // run a real GPU operation; answered by PONG
	KB_MSG_STATS = 4,  // answered by STATS_REPLY
	KB_MSG_QUIT = 5,
	// engine -> daemon
	KB_MSG_READY = 32,    // model loaded
	KB_MSG_PROGRESS = 33, // loading
	KB_MSG_ACCEPTED = 34,
	KB_MSG_TOKEN = 35,
	KB_MSG_DONE = 36,
	KB_MSG_ERROR = 37, // id 0: the engine itself cannot go on
	KB_MSG_PONG = 38,
	KB_MSG_STATS_REPLY = 39,
};

enum kb_prompt_kind { KB_PROMPT_CHAT = 0, KB_PROMPT_TEXT = 1, KB_PROMPT_TOKENS = 2 };
enum kb_finish { KB_FINISH_STOP = 0, KB_FINISH_LENGTH = 1, KB_FINISH_CANCELLED = 2 };

struct kb_chat_message {
	struct kb_str role, content;
};

// Sampling, with OpenAI's meanings; see sample/sampler.h for the ranges.
struct kb_sampling {
	float temperature; // 0: greedy
	float top_p, min_p;
	uint32_t top_k; // 0: off
	float repeat_penalty, presence_penalty, frequency_penalty;
	uint64_t seed;
};

// Decoded strings and lists point into the frame.
struct kb_msg_submit {
	uint8_t kind; // enum kb_prompt_kind
	uint32_t n_messages;
	const uint8_t *messages; // the encoded list: walk it with kb_proto_next_message()
	size_t messages_len;
	struct kb_str text;    // KB_PROMPT_TEXT
	const uint8_t *tokens; // KB_PROMPT_TOKENS: u32 little-endian
	uint32_t n_tokens;
	const uint8_t *resume; // u32 ids already sent to the client before an engine restart: re-prefilled, not re-sent
	uint32_t n_resume;
	uint32_t max_new; // tokens to generate, resume included; 0: up to the context's end
	struct kb_sampling sampling;
	uint8_t logprobs;   // 0: none; 1 + k: chosen token's and the k best
	uint8_t ignore_eos; // benchmarks
	uint32_t n_stop;
	struct kb_str stop[KB_STOP_MAX];
	struct kb_str client; // fairness and accounting key, never logged by the engine
};

struct kb_msg_ready {
	uint32_t version; // KB_PROTO_VERSION
	struct kb_str arch, name, device;
	uint32_t vocab, context; // context: tokens of one request, prompt and answer
	uint32_t max_seqs, kv_tokens;
	uint64_t weight_bytes, kv_bytes, parameters;
};
struct kb_msg_progress {
	uint64_t done, total;
	struct kb_str what; // "weights", "pipelines"
};
struct kb_msg_accepted {
	uint32_t prompt_tokens;
};
struct kb_logprob {
	uint32_t token;
	float logprob;
	struct kb_str bytes; // the token's raw bytes
};
// One generated token. text is whole UTF-8 (it may be empty while a character is incomplete or a stop string
// may be beginning, and hold several tokens' text when that resolves).
struct kb_msg_token {
	uint32_t token;
	struct kb_str text;
	uint8_t has_logprob;
	struct kb_logprob chosen;
	uint32_t n_top;
	struct kb_logprob top[KB_TOP_LOGPROBS_MAX];
};
struct kb_msg_done {
	uint8_t finish;     // enum kb_finish
	struct kb_str text; // held-back text that turned out not to be a stop string
	uint32_t prompt_tokens, completion_tokens, cached_tokens;
	uint64_t queue_us, prefill_us, decode_us;
};
struct kb_msg_error {
	int32_t code; // enum kb_error: KB_EARG a bad request, KB_ELIMIT the context is exceeded, KB_EBUSY no room,
				  // KB_EDEVICE ...
	struct kb_str text;
};
struct kb_msg_pong {
	uint8_t is_healthy;
	uint32_t device_us;
	struct kb_str text;
};
struct kb_msg_stats {
	uint32_t running, waiting, kv_pages, kv_pages_used, kv_pages_idle;
	uint64_t prompt_tokens, generated_tokens, steps, step_us, resident_bytes, preemptions;
	uint64_t guessed_tokens, guessed_right;
};

struct kb_msg {
	enum kb_msg_type type;
	uint64_t id;
	union {
		struct kb_msg_submit submit;
		struct kb_msg_ready ready;
		struct kb_msg_progress progress;
		struct kb_msg_accepted accepted;
		struct kb_msg_token token;
		struct kb_msg_done done;
		struct kb_msg_error error;
		struct kb_msg_pong pong;
		struct kb_msg_stats stats;
	};
};

// Appends one frame. KB_ELIMIT when it would pass KB_FRAME_MAX or a list limit. For SUBMIT, messages/messages_len
// is a list that kb_proto_add_message() made.
KB_MUST_CHECK int kb_proto_encode(struct kb_buf *out, const struct kb_msg *msg);
KB_MUST_CHECK int kb_proto_add_message(struct kb_buf *list, struct kb_str role, struct kb_str content);
// Pure: the first frame of (data, len) -> *ret_msg, which points into data, and *ret_used bytes consumed.
// KB_EPARTIAL: more bytes are needed. KB_EBAD / KB_ELIMIT: close the connection.
KB_MUST_CHECK int kb_proto_decode(const uint8_t *data, size_t len, struct kb_msg *ret_msg, size_t *ret_used);
// Walks submit.messages: *cursor starts at 0; false at the end. The list was checked by decode.
bool kb_proto_next_message(const struct kb_msg_submit *s, size_t *cursor, struct kb_chat_message *ret);
