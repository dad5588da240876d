// kotobako os check: whether the system that runs does what a box is for. The daemon answers, takes connections, and,
// where there is a model, gives a token of it. The network's cable and what the owner has set do not count.
#include "base/clock.h"
#include "firmware/ctl/box.h"
#include "firmware/ctl/ctl_os.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define TRY_MS 1000     // between tries of what may not be up yet; PID 1 ends it when the trial's time is over
#define TOKEN_MS 600000 // a token may take this long; see above
#define TRIES 15        // of what may not be up yet
#define TOKEN_TRIES 3   // an engine that does not start takes some seconds to say so

static const char question[] = "{\"prompt\":\"1\",\"max_tokens\":1,\"temperature\":0}";

// The port that the daemon says it listens on takes a connection.
static bool listens(const char *where)
{
	const char *colon = where ? strrchr(where, ':') : NULL;
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
	if (!colon)
		return false;
	a.sin_port = htons((uint16_t)strtoul(colon + 1, NULL, 10));
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	const bool is_up = fd >= 0 && connect(fd, (struct sockaddr *)&a, sizeof a) == 0;
	if (fd >= 0)
		close(fd);
	return is_up;
}

// NULL: fine; else what is wrong. *ret_models: whether there are any.
static const char *ask_status(const struct kb_ctl *ctl, bool *ret_models)
{
	struct kb_http_client *admin = NULL;
	yyjson_doc *doc = NULL;
	const char *why = "the daemon does not answer";
	if (kb_ctl_admin_open(ctl, &admin) == 0 && kb_ctl_call(admin, "GET", "/admin/status", NULL, &doc) == 0) {
		yyjson_val *o = yyjson_doc_get_root(doc);
		*ret_models = yyjson_arr_size(yyjson_obj_get(o, "models")) > 0;
		why = listens(yyjson_get_str(yyjson_obj_get(o, "listen"))) ? NULL : "the daemon takes no connections";
	}
	yyjson_doc_free(doc);
	kb_http_client_destroy(admin);
	return why;
}

static const char *ask_token(const struct kb_ctl *ctl)
{
	struct kb_http_client *admin = NULL;
	yyjson_doc *doc = NULL;
	const char *why = "the model gave no token";
	if (kb_ctl_admin_open(ctl, &admin) == 0 &&
		kb_ctl_call_within(admin, "POST", "/v1/completions", question, TOKEN_MS, &doc) == 0) {
		yyjson_val *usage = yyjson_obj_get(yyjson_doc_get_root(doc), "usage");
		if (yyjson_get_uint(yyjson_obj_get(usage, "completion_tokens")) > 0)
			why = NULL;
	}
	yyjson_doc_free(doc);
	kb_http_client_destroy(admin);
	return why;
}

// In the journal; the restart that follows leads back to the old system.
static int say_failed(struct kb_ctl *ctl, const char *why)
{
	char word[] = "failed", text[128];
	char *arg[] = {word, text};
	struct kb_ctl_args args = {.n = 2, .arg = arg};
	snprintf(text, sizeof text, "%s", why);
	kb_ctl_os(ctl, &args);
	return kb_ctl_fail(KB_CTL_FAILED, "the system does not prove itself: %s", why);
}

int kb_ctl_os_check(struct kb_ctl *ctl, const struct kb_ctl_args *args)
{
	bool has_models = false;
	const char *why = NULL;
	(void)args;
	for (int i = 0; i < TRIES && (why = ask_status(ctl, &has_models)); i++)
		nanosleep(&(struct timespec){.tv_sec = TRY_MS / 1000}, NULL);
	for (int i = 0; !why && has_models && i < TOKEN_TRIES && (why = ask_token(ctl)); i++)
		nanosleep(&(struct timespec){.tv_sec = TRY_MS / 1000}, NULL);
	if (why)
		return say_failed(ctl, why);
	printf("the daemon answers%s\n", has_models ? ", a model gives tokens" : "; there is no model to ask");
	return KB_CTL_OK;
}
