// The daemon's limits, each with its reason; those of one HTTP message are in net/limits.h. Times in milliseconds.
#pragma once

// --- connections
#define KB_CONNS_MAX 256u            // TLS buffers take about 40 KiB each
#define KB_CONNS_HANDSHAKING_MAX 64u // a handshake blocks the loop for 5 to 8 ms; the oldest gives way to a new one
#define KB_CLIENT_CONNS_MAX 64u      // open at once by one client; HTTP libraries pool about 10
#define KB_ADMIN_CONNS_MAX 16u
#define KB_HANDSHAKE_MS 10000      // a slow radio link needs about one second
#define KB_IDLE_MS 75000           // between requests; above the 60 s that proxies assume
#define KB_HEADER_MS 10000         // from a request's first byte to the end of its headers
#define KB_BODY_MS 60000           // then to the end of its body: 8 MiB at 1.1 Mbit/s
#define KB_WRITE_STALL_MS 30000    // nothing of an answer was taken for so long: the reader is gone
#define KB_LINGER_MS 2000          // after an early refusal: reading on so that the answer is not lost to a reset
#define KB_WRITE_PIECE (64u << 10) // bytes given to the socket at once
#define KB_STREAM_HIGH_WATER (256u << 10) // an event stream this far behind is cut and its request cancelled
#define KB_SOCKET_SEND_BUFFER (128 << 10) // so that the kernel does not hide a reader that stands still
#define KB_WELL_MS 5000                   // the supervisor is told this often that all is well
#define KB_TICK_MS 100                    // deadlines are looked at this often

// --- requests
#define KB_JSON_DEPTH_MAX 32u           // OpenAI's own bodies nest six deep
#define KB_CHOICES_MAX 8u               // n
#define KB_PROMPTS_MAX 32u              // prompts of one /v1/completions request
#define KB_ANSWER_CHOICES_MAX 64u       // n x prompts
#define KB_PROMPT_TOKENS_MAX (1u << 20) // token ids of one request
#define KB_STOP_BYTES_MAX 256u          // of one stop string
#define KB_MAX_NEW_MAX (1u << 20)       // max_tokens
#define KB_PING_COMMENT_MS 10000        // ": ping" in a silent event stream
#define KB_REPLY_MAX (64u << 20)        // a whole answer: 8 choices with 20 logprobs a token

// --- claims
#define KB_CLAIM_TRIES 5u // wrong codes until the daemon starts again: a guess is right once in 100 million

// --- uploads of images
#define KB_UPLOAD_IDLE_MS 600000     // nothing came for so long: it is given up, and the disk is free again
#define KB_UPLOAD_TAKE_OVER_MS 60000 // after so long another one may begin in its place

// --- a client (see --client-requests, --client-rate)
#define KB_CLIENT_REQUESTS_DEFAULT 16u // generations at once
#define KB_CLIENT_RATE_DEFAULT 20u     // requests a second, twice that in a burst
#define KB_LIMITER_ROWS 1024u          // clients remembered; the longest quiet one is forgotten first

// --- engines
#define KB_ENGINE_JOBS_MAX 128u   // running and waiting choices of one engine; above: 503
#define KB_ENGINE_QUEUE_RETRY_S 5 // Retry-After of that 503
#define KB_ENGINE_LOAD_MS 120000  // silence while loading
#define KB_ENGINE_PING_MS 5000
#define KB_ENGINE_HANG_MS 30000       // no PONG: the device hangs, the engine is killed
#define KB_PATIENCE_MAX 100           // --patience: the longest an engine is waited for, in multiples of the above
#define KB_ENGINE_RESTARTS_MAX 3      // restarts in a row that failed, then its requests fail
#define KB_ENGINE_REST_MS 30000       // after that, until the next request may try again
#define KB_ENGINE_STEADY_MS 60000     // up for so long: earlier failures are forgotten
#define KB_ENGINE_OUT_MAX (64u << 20) // bytes waiting to be read by the engine: it is stuck
#define KB_ENGINES_MAX 8u             // bound of --max-engines
#define KB_STOP_GRACE_MS 10000        // on SIGTERM running answers may finish for so long
#define KB_ENGINE_QUIT_MS 3000        // then engines get so long to leave
