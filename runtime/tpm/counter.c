#include "tpm/counter.h"

#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <tss2/tss2_sys.h>
#include <tss2/tss2_tctildr.h>
#include <unistd.h>

#define COUNTER_BYTES 8u
#define TRIES 50u // a TPM that is busy, or that writes too often, asks to be asked again
#define PAUSE_US 100000u
#define ATTRIBUTES \
	((TPMA_NV)TPM2_NT_COUNTER << TPMA_NV_TPM2_NT_SHIFT | TPMA_NV_AUTHREAD | TPMA_NV_AUTHWRITE | TPMA_NV_NO_DA)

struct tpm {
	TSS2_TCTI_CONTEXT *tcti;
	TSS2_SYS_CONTEXT *sys;
};

// What the kernel's resource manager lets in is up to the device's owner; there is no password.
static const TSS2L_SYS_AUTH_COMMAND no_password = {.count = 1, .auths = {{.sessionHandle = TPM2_RS_PW}}};

static int failed(struct kb_err *err, const char *what, TSS2_RC r)
{
	return kb_fail(err, KB_EIO, "the TPM: %s failed with 0x%08x", what, (unsigned)r);
}

static void shut(struct tpm *t)
{
	if (t->sys)
		Tss2_Sys_Finalize(t->sys);
	free(t->sys);
	Tss2_TctiLdr_Finalize(&t->tcti);
}

// Programs that we start must not have it.
static void close_on_exec(TSS2_TCTI_CONTEXT *tcti)
{
	TSS2_TCTI_POLL_HANDLE handles[4];
	size_t n = sizeof handles / sizeof *handles;
	if (Tss2_Tcti_GetPollHandles(tcti, handles, &n) == TSS2_RC_SUCCESS)
		for (size_t i = 0; i < n; i++)
			fcntl(handles[i].fd, F_SETFD, FD_CLOEXEC);
}

static int open_tpm(const char *tcti, struct tpm *ret, struct kb_err *err)
{
	TSS2_ABI_VERSION version = TSS2_ABI_VERSION_CURRENT;
	const size_t size = Tss2_Sys_GetContextSize(0);
	*ret = (struct tpm){0};
	TSS2_RC r = Tss2_TctiLdr_Initialize(tcti, &ret->tcti);
	if (r)
		return kb_fail(err, KB_EIO, "the TPM cannot be reached by %s (0x%08x)", tcti, (unsigned)r);
	close_on_exec(ret->tcti);
	ret->sys = calloc(1, size);
	if (!ret->sys) {
		shut(ret);
		return kb_fail(err, KB_ENOMEM, "out of memory");
	}
	r = Tss2_Sys_Initialize(ret->sys, size, ret->tcti, &version);
	if (r) {
		free(ret->sys);
		ret->sys = NULL;
		shut(ret);
		return failed(err, "beginning", r);
	}
	return KB_OK;
}

static bool is_later(TSS2_RC r)
{
	return r == TPM2_RC_RETRY || r == TPM2_RC_NV_RATE || r == TPM2_RC_YIELDED || r == TPM2_RC_TESTING;
}

// A command, again while the TPM asks for that.
#define PATIENTLY(r, command)                                                      \
	do {                                                                           \
		(r) = (command);                                                           \
		for (unsigned kb_tries = 0; is_later(r) && kb_tries < TRIES; kb_tries++) { \
			usleep(PAUSE_US);                                                      \
			(r) = (command);                                                       \
		}                                                                          \
	} while (0)

// KB_ENOTFOUND: there is no such index.
static int look(struct tpm *t, struct kb_err *err)
{
	TPM2B_NV_PUBLIC public = {0};
	TPM2B_NAME name = {.size = sizeof name.name};
	TSS2_RC r;
	PATIENTLY(r, Tss2_Sys_NV_ReadPublic(t->sys, KB_TPM_COUNTER_INDEX, NULL, &public, &name, NULL));
	if ((r & TPM2_RC_FMT1) && (r & 0xbf) == TPM2_RC_HANDLE) // whichever parameter it names
		return kb_fail(err, KB_ENOTFOUND, "the TPM has no counter of this box");
	if (r)
		return failed(err, "looking at the counter", r);
	const TPMA_NV written = TPMA_NV_WRITTEN;
	if ((public.nvPublic.attributes & ~written) != ATTRIBUTES || public.nvPublic.dataSize != COUNTER_BYTES)
		return kb_fail(err, KB_ECORRUPT, "the TPM has something else at index 0x%08x", KB_TPM_COUNTER_INDEX);
	return KB_OK;
}

static int increment(struct tpm *t, struct kb_err *err)
{
	TSS2L_SYS_AUTH_RESPONSE answer = {0};
	TSS2_RC r;
	PATIENTLY(r, Tss2_Sys_NV_Increment(t->sys, KB_TPM_COUNTER_INDEX, KB_TPM_COUNTER_INDEX, &no_password, &answer));
	return r ? failed(err, "counting", r) : KB_OK;
}

static int define(struct tpm *t, struct kb_err *err)
{
	const TPM2B_NV_PUBLIC public = {.nvPublic = {.nvIndex = KB_TPM_COUNTER_INDEX,
										.nameAlg = TPM2_ALG_SHA256,
										.attributes = ATTRIBUTES,
										.dataSize = COUNTER_BYTES}};
	const TPM2B_AUTH no_auth = {0};
	TSS2L_SYS_AUTH_RESPONSE answer = {0};
	TSS2_RC r;
	PATIENTLY(r, Tss2_Sys_NV_DefineSpace(t->sys, TPM2_RH_OWNER, &no_password, &no_auth, &public, &answer));
	return r ? failed(err, "making the counter", r) : KB_OK;
}

static int read_value(struct tpm *t, struct kb_err *err, uint64_t *ret)
{
	TPM2B_MAX_NV_BUFFER data = {.size = sizeof data.buffer};
	TSS2L_SYS_AUTH_RESPONSE answer = {0};
	TSS2_RC r;
	PATIENTLY(r, Tss2_Sys_NV_Read(t->sys, KB_TPM_COUNTER_INDEX, KB_TPM_COUNTER_INDEX, &no_password, COUNTER_BYTES, 0,
					 &data, &answer));
	if (r == TPM2_RC_NV_UNINITIALIZED) // it was made, and the power went before it counted
		return kb_fail(err, KB_ENOTFOUND, "the TPM's counter has not begun");
	if (r || data.size != COUNTER_BYTES)
		return failed(err, "reading the counter", r);
	*ret = 0;
	for (unsigned i = 0; i < COUNTER_BYTES; i++)
		*ret = *ret << 8 | data.buffer[i];
	return KB_OK;
}

/* see counter.h */
int kb_tpm_counter_read(const char *tcti, struct kb_err *err, uint64_t *ret)
{
	struct tpm t;
	int r = open_tpm(tcti, &t, err);
	if (r)
		return r;
	r = look(&t, err);
	r = r ? r : read_value(&t, err, ret);
	shut(&t);
	return r;
}

/* see counter.h */
int kb_tpm_counter_make(const char *tcti, struct kb_err *err)
{
	struct tpm t;
	int r = open_tpm(tcti, &t, err);
	if (r)
		return r;
	r = look(&t, err);
	r = r == KB_ENOTFOUND ? define(&t, err) : r;
	r = r ? r : increment(&t, err);
	shut(&t);
	return r;
}

/* see counter.h */
int kb_tpm_counter_advance(const char *tcti, struct kb_err *err)
{
	struct tpm t;
	int r = open_tpm(tcti, &t, err);
	if (r)
		return r;
	r = look(&t, err);
	r = r ? r : increment(&t, err);
	shut(&t);
	return r;
}
