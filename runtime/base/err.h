// The one error type: int, 0 or one of these negative codes.
// A function that can fail returns it, writes its outputs (named ret_*, last) only on success,
// and describes the failure in a struct kb_err when it is given one.
#pragma once
#include <stddef.h>

#define KB_MUST_CHECK __attribute__((warn_unused_result))

// XX(name, value, message). Do not renumber: codes cross the daemon-engine socket.
#define KB_ERR_MAP(XX)                                                                             \
	XX(NOMEM, 1, "out of memory")                                                                  \
	XX(IO, 2, "input/output error") /* a system call failed; not for bad content */                \
	XX(BAD, 3, "malformed data")    /* content breaks its format; not for valid but unsupported */ \
	XX(PARTIAL, 4, "more data needed")                                                             \
	XX(LIMIT, 5, "a limit was exceeded")                                                           \
	XX(UNSUPPORTED, 6, "not supported") /* valid, but this build or device cannot */               \
	XX(NOTFOUND, 7, "not found")                                                                   \
	XX(EXISTS, 8, "already exists")                                                                \
	XX(DENIED, 9, "not allowed")                                                                   \
	XX(BUSY, 10, "busy, try again later")                                                          \
	XX(CANCELLED, 11, "cancelled")                                                                 \
	XX(DEVICE, 12, "the compute device failed") /* lost, hung or wrong results */                  \
	XX(CORRUPT, 13, "stored data is damaged")   /* a checksum or signature does not match */       \
	XX(NOSPACE, 14, "no space left")                                                               \
	XX(ARG, 15, "bad argument") /* the caller's fault; not for data from outside */                \
	XX(TIMEOUT, 16, "timed out")                                                                   \
	XX(CLOSED, 17, "closed by the other side")

enum kb_error {
	KB_OK = 0,
#define XX(name, value, message) KB_E##name = -(value),
	KB_ERR_MAP(XX)
#undef XX
};

#define KB_ERR_TEXT_MAX 256 // one line on a terminal; longer text is cut

// Where a failure is described: what, where, what to do. Embed on the stack; no cleanup needed.
struct kb_err {
	int code;
	char text[KB_ERR_TEXT_MAX];
};

// Fills err (which may be NULL).
void kb_err_set(struct kb_err *err, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));

// The same as an expression with the code's value, so that `return kb_fail(err, KB_EBAD, "...")` reads well, and so
// that a static analyser sees that a failure is not 0.
#define kb_fail(err, code, ...)                       \
	__extension__({                                   \
		const int kb_fail_code = (code);              \
		kb_err_set((err), kb_fail_code, __VA_ARGS__); \
		kb_fail_code;                                 \
	})

// Prefixes the text with context ("importing x.gguf: "). Returns err->code.
int kb_err_wrap(struct kb_err *err, const char *format, ...) __attribute__((format(printf, 2, 3)));

// "BAD" and "malformed data" for a code; "UNKNOWN" for one that is not in the map. Static strings.
const char *kb_err_name(int code);
const char *kb_err_message(int code);

// Maps errno to a code: ENOSPC and EDQUOT to NOSPACE, ENOENT to NOTFOUND, EACCES to DENIED ..., else IO.
int kb_err_from_errno(int number);
