// The program kotobako: what its subcommands share.
#pragma once
#include "base/buf.h"
#include "base/err.h"
#include "firmware/ctl/options.h"
#include "net/http_client.h"
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

#define KB_CTL_PORT 8443u           // kotobakod's own default
#define KB_CTL_FILE_MAX (64u << 20) // of a prompt, a credential or a saved conversation

// Exit statuses. 130 where Ctrl-C stopped it, as shells have it.
enum kb_ctl_exit {
	KB_CTL_OK = 0,
	KB_CTL_FAILED = 1,
	KB_CTL_USAGE = 2,
	KB_CTL_UNREACHABLE = 3, // no daemon, no box, or it does not accept us
	KB_CTL_INTERRUPTED = 130,
};

// Global options: places in kb_ctl_globals.
enum { KB_GLOBAL_STATE, KB_GLOBAL_BOX, KB_GLOBAL_CLIENT, KB_GLOBAL_TPM, KB_GLOBAL_VERSION };
extern const struct kb_ctl_option kb_ctl_globals[];

struct kb_ctl {
	const char *program;  // argv[0]
	char *state, *client; // directories; resolved, never NULL
	char *models;         // STATE/models
	bool has_state;       // given by --state or KB_STATE
	bool has_client;      // given by --client
	const char *box;      // --box, or NULL
	const char *tpm;      // --tpm, or NULL
};

// Prints "kotobako: text" on standard error and returns status.
int kb_ctl_fail(int status, const char *format, ...) __attribute__((format(printf, 2, 3)));

// Set by Ctrl-C once kb_ctl_catch_interrupt() was called. once: a second Ctrl-C ends the program.
extern volatile sig_atomic_t kb_ctl_interrupted;
void kb_ctl_catch_interrupt(bool once);

// Whether lines on this descriptor may be redrawn: KB_TTY=0|1 in the environment, else whether it is a terminal.
bool kb_ctl_is_terminal(int fd);

// directory/name; free() it. NULL when out of memory.
char *kb_ctl_path(const char *directory, const char *name);
// Whole file ("-": standard input), at most KB_CTL_FILE_MAX; NUL-terminated, not counted.
KB_MUST_CHECK int kb_ctl_read_file(const char *path, struct kb_buf *ret, struct kb_err *err);
// Beside it, synced, then renamed over it.
KB_MUST_CHECK int kb_ctl_write_file(const char *path, const void *data, size_t len, unsigned mode, struct kb_err *err);
// The directory and those above it; new ones are 0700.
KB_MUST_CHECK int kb_ctl_make_directory(const char *path, struct kb_err *err);

struct kb_state;
// The box's own environment; where there is none yet it is made, or *ret is NULL if that is fine.
KB_MUST_CHECK int kb_ctl_state(
	const struct kb_ctl *ctl, bool missing_is_fine, struct kb_err *err, struct kb_state **ret);
// The same, and the TPM's counter is taken as it is.
KB_MUST_CHECK int kb_ctl_state_adopt(const struct kb_ctl *ctl, struct kb_err *err, struct kb_state **ret);
// The file of a model of the box; free() it.
KB_MUST_CHECK int kb_ctl_model_path(const struct kb_ctl *ctl, const char *name, struct kb_err *err, char **ret);

int kb_ctl_import(struct kb_ctl *ctl, const struct kb_ctl_args *args);
int kb_ctl_model(struct kb_ctl *ctl, const struct kb_ctl_args *args);
int kb_ctl_key(struct kb_ctl *ctl, const struct kb_ctl_args *args);
int kb_ctl_root(struct kb_ctl *ctl, const struct kb_ctl_args *args);
int kb_ctl_audit(struct kb_ctl *ctl, const struct kb_ctl_args *args);
int kb_ctl_catalog(struct kb_ctl *ctl, const struct kb_ctl_args *args);
int kb_ctl_image(struct kb_ctl *ctl, const struct kb_ctl_args *args);
int kb_ctl_console(struct kb_ctl *ctl, const struct kb_ctl_args *args);
int kb_ctl_network(struct kb_ctl *ctl, const struct kb_ctl_args *args);
int kb_ctl_os(struct kb_ctl *ctl, const struct kb_ctl_args *args);
int kb_ctl_claim(struct kb_ctl *ctl, const struct kb_ctl_args *args);
int kb_ctl_pair(struct kb_ctl *ctl, const struct kb_ctl_args *args);
int kb_ctl_clients(struct kb_ctl *ctl, const struct kb_ctl_args *args);
int kb_ctl_revoke(struct kb_ctl *ctl, const struct kb_ctl_args *args);
int kb_ctl_bearer(struct kb_ctl *ctl, const struct kb_ctl_args *args);
int kb_ctl_status(struct kb_ctl *ctl, const struct kb_ctl_args *args);
int kb_ctl_run(struct kb_ctl *ctl, const struct kb_ctl_args *args);
int kb_ctl_chat(struct kb_ctl *ctl, const struct kb_ctl_args *args);
int kb_ctl_bench(struct kb_ctl *ctl, const struct kb_ctl_args *args);
int kb_ctl_doctor(struct kb_ctl *ctl, const struct kb_ctl_args *args);

// Options of each subcommand; the enums beside them name the places.
enum { KB_IMPORT_NAME, KB_IMPORT_OUT, KB_IMPORT_REPLACE };
enum { KB_MODEL_JSON, KB_MODEL_KEEP, KB_MODEL_KEY, KB_MODEL_CA, KB_MODEL_ALL };
enum { KB_AUDIT_JSON, KB_AUDIT_SINCE };
enum { KB_KEY_CURVE };
// How something is signed, first in the tables of root and image.
enum { KB_SIGN_KEY, KB_SIGN_EXPORT, KB_SIGN_IMPORT, KB_SIGN_PUBLIC, KB_SIGN_OPTIONS };
enum { KB_CATALOG_ROOTS = KB_SIGN_OPTIONS, KB_CATALOG_VERSION };
#define KB_CATALOG_ARGS_MAX 4097 // the catalog and KB_CATALOG_IMAGES_MAX images
enum {
	KB_IMAGE_ROOTS = KB_SIGN_OPTIONS,
	KB_IMAGE_MODEL,
	KB_IMAGE_VERSION,
	KB_IMAGE_LICENCE,
	KB_IMAGE_ORIGIN,
	KB_IMAGE_RECIPE,
	KB_IMAGE_QUALITY,
	KB_IMAGE_FIRMWARE,
	KB_IMAGE_MEMORY,
	KB_IMAGE_BASE,
	KB_IMAGE_REPLACE,
	KB_IMAGE_JSON,
	KB_IMAGE_TO,
	KB_IMAGE_CA,
	KB_IMAGE_LISTEN,
};
enum {
	KB_OS_BOARD,
	KB_OS_VERSION,
	KB_OS_FLOOR,
	KB_OS_ROOTS,
	KB_OS_ROOT_IMAGE,
	KB_OS_KERNEL_A_FILE,
	KB_OS_KERNEL_B_FILE,
	KB_OS_REPLACE,
	KB_OS_AGAIN,
	KB_OS_JSON,
	KB_OS_BOOT,
};
enum { KB_CONSOLE_TTY, KB_CONSOLE_ONCE };
enum { KB_NETWORK_GATEWAY, KB_NETWORK_TIME, KB_NETWORK_NAME, KB_NETWORK_JSON };
enum { KB_CLAIM_CODE, KB_CLAIM_NAME, KB_CLAIM_OUT, KB_CLAIM_REPLACE };
enum { KB_PAIR_NAME, KB_PAIR_OUT, KB_PAIR_REPLACE, KB_PAIR_ADMIN };
enum { KB_CLIENTS_JSON };
enum { KB_STATUS_JSON };
// The first ones are also chat's.
enum {
	KB_RUN_MODEL,
	KB_RUN_SYSTEM,
	KB_RUN_MAX_TOKENS,
	KB_RUN_TEMPERATURE,
	KB_RUN_TOP_P,
	KB_RUN_SEED,
	KB_RUN_WAIT,
	KB_RUN_STATS,
	KB_RUN_JSON,
};
enum { KB_CHAT_NO_HISTORY = KB_RUN_JSON };
enum { KB_BENCH_IMAGE, KB_BENCH_PROMPT, KB_BENCH_DECODE, KB_BENCH_JSON };
enum { KB_DOCTOR_IMAGE };
