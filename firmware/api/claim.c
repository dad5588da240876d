// Claiming: the first client of a box, by a code that only who stands before it can read (net/claim.h).
//   POST /claim/begin   {one}                     -> {one, two}
//   POST /claim/finish  {two, name, csr, proof}   -> {name, certificate, ca, fingerprint, serial, proof}
// Messages and proofs in hexadecimal. Both on one connection, which asked for KB_TLS_CLAIM_NAME. The client's proof is
// of (csr, name), the box's of (certificate, ca).
#include "base/hex.h"
#include "base/log.h"
#include "firmware/api/conn.h"
#include "firmware/api/json.h"
#include "firmware/api/limits.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static uint64_t minutes_since_start(void)
{
	struct timespec t;
	clock_gettime(CLOCK_BOOTTIME, &t);
	return (uint64_t)t.tv_sec / 60;
}

uint32_t kb_claim_minutes_left(const struct kb_daemon *d)
{
	const uint64_t now = minutes_since_start();
	return now < d->o.claim ? (uint32_t)(d->o.claim - now) : 0;
}

static int stop_at_first(void *ctx, const struct kb_client *client)
{
	(void)ctx, (void)client;
	return KB_EEXISTS;
}

// A revoked client counts too: the box is somebody's.
static bool has_clients(const struct kb_daemon *d)
{
	return kb_state_each_client(d->state, stop_at_first, NULL, NULL) != 0;
}

bool kb_claim_may(void *daemon)
{
	const struct kb_daemon *d = daemon;
	return d->claim_code[0] && d->claim_failures < KB_CLAIM_TRIES && kb_claim_minutes_left(d) > 0 && !has_clients(d);
}

int kb_claim_open(struct kb_daemon *d, struct kb_err *err)
{
	if (kb_claim_minutes_left(d) == 0 || has_clients(d))
		return 0;
	int r = kb_claim_code_make(d->claim_code, err);
	if (r == 0)
		kb_info("claim", "this box has no client yet: kotobako claim --box ADDRESS, code %.4s-%s, for %u minutes",
			d->claim_code, d->claim_code + 4, kb_claim_minutes_left(d));
	return r;
}

// A box that is claimed does not make clients for sticks (firmware/init).
static void mark(const struct kb_daemon *d)
{
	char path[600];
	snprintf(path, sizeof path, "%s/claimed", d->o.state_dir);
	int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0 || fsync(fd))
		kb_warn("claim", "%s: %s", path, strerror(errno));
	if (fd >= 0)
		close(fd);
}

static const char *text_of(yyjson_val *root, const char *key)
{
	yyjson_val *v = yyjson_obj_get(root, key);
	const char *text = yyjson_get_str(v);
	return text && strlen(text) == yyjson_get_len(v) ? text : NULL;
}

// A message in hexadecimal; its length, or 0.
static size_t message_of(yyjson_val *root, const char *key, uint8_t ret[KB_CLAIM_MESSAGE_MAX])
{
	const char *text = text_of(root, key);
	const size_t len = text ? strlen(text) / 2 : 0;
	return len <= KB_CLAIM_MESSAGE_MAX && len > 0 && kb_unhex(text, ret, len) == 0 ? len : 0;
}

static void print_message(struct kb_json *j, const char *key, const struct kb_buf *message)
{
	char hex[2 * KB_CLAIM_MESSAGE_MAX + 1];
	kb_hex(message->data, message->len, hex);
	kb_json_cstr(j, key);
	kb_json_raw(j, ":");
	kb_json_cstr(j, hex);
}

// Whether the box may (still) be claimed by this connection; answers where not.
static bool may(struct kb_conn *c)
{
	if (kb_claim_may(c->daemon))
		return true;
	kb_reply_error(c, 403, "claim_closed", "", "%s",
		c->daemon->claim_failures >= KB_CLAIM_TRIES
			? "too many wrong codes: switch the box off and on, then it shows another one"
			: "this box has a client already, or its time to be claimed is over (switch it off and on)");
	return false;
}

void kb_handle_claim_begin(struct kb_conn *c)
{
	uint8_t message[KB_CLAIM_MESSAGE_MAX];
	struct kb_buf one = {0}, two = {0}, body = {0};
	struct kb_json j = {.out = &body};
	struct kb_err err = {0};
	if (!may(c))
		return;
	yyjson_doc *doc = kb_json_parse(c->http.body.data, c->http.body.len, &err);
	const size_t len = message_of(yyjson_doc_get_root(doc), "one", message);
	yyjson_doc_free(doc);
	kb_claim_destroy(c->claim);
	c->claim = NULL;
	int r = len ? 0 : kb_fail(&err, KB_EBAD, "one: it wants a message in hexadecimal");
	r = r ? r : kb_claim_create(true, c->daemon->claim_code, &c->claim, &err);
	r = r ? r : kb_claim_read_one(c->claim, message, len, &err);
	r = r ? r : kb_claim_write_one(c->claim, &one, &err);
	r = r ? r : kb_claim_write_two(c->claim, &two, &err);
	if (r) {
		kb_reply_error(c, r == KB_EBAD ? 400 : 500, NULL, "one", "%s", err.text);
	} else {
		kb_json_raw(&j, "{");
		print_message(&j, "one", &one);
		kb_json_raw(&j, ",");
		print_message(&j, "two", &two);
		kb_json_raw(&j, "}");
		kb_reply_json(c, 200, &body, j.error);
	}
	kb_buf_finish(&one);
	kb_buf_finish(&two);
}

// Whether the other side knows the code; it counts as a try where not.
static bool is_proven(struct kb_conn *c, yyjson_val *root, const char *name, const char *csr)
{
	uint8_t message[KB_CLAIM_MESSAGE_MAX], certificate[KB_FINGERPRINT_LEN], theirs[KB_CLAIM_PROOF],
		right[KB_CLAIM_PROOF];
	struct kb_err err;
	const size_t len = message_of(root, "two", message);
	const char *proof = text_of(root, "proof");
	kb_tls_own_fingerprint(c->tls, certificate);
	if (len > 0 && proof && strlen(proof) == 2 * KB_CLAIM_PROOF && kb_unhex(proof, theirs, KB_CLAIM_PROOF) == 0 &&
		kb_claim_read_two(c->claim, message, len, &err) == 0 &&
		kb_claim_prove(c->claim, false, certificate, csr, name, right, &err) == 0 &&
		kb_equal_constant_time(theirs, right, sizeof right))
		return true;
	c->daemon->claim_failures++;
	kb_warn("claim", "somebody tried a wrong code, the %u. of %u times", c->daemon->claim_failures, KB_CLAIM_TRIES);
	kb_reply_error(c, 403, "wrong_code", "",
		"the code is not the one that the box shows, or something stands between (%u tries left)",
		KB_CLAIM_TRIES - c->daemon->claim_failures);
	return false;
}

static void answer(struct kb_conn *c, const struct kb_client *client, struct kb_buf *cert)
{
	uint8_t certificate[KB_FINGERPRINT_LEN], proof[KB_CLAIM_PROOF];
	char hex[2 * KB_CLAIM_PROOF + 1];
	struct kb_buf body = {0};
	struct kb_json j = {.out = &body};
	struct kb_err err;
	kb_tls_own_fingerprint(c->tls, certificate);
	int r =
		kb_claim_prove(c->claim, true, certificate, kb_buf_cstr(cert), kb_buf_cstr(&c->daemon->ca_cert), proof, &err);
	if (r) {
		kb_reply_error(c, 500, NULL, "", "%s", err.text);
		return;
	}
	kb_hex(proof, sizeof proof, hex);
	kb_print_client(c->daemon, client, cert, &j);
	kb_json_printf(&j, ",\"proof\":\"%s\"}", hex);
	kb_reply_json(c, 200, &body, j.error);
}

void kb_handle_claim_finish(struct kb_conn *c)
{
	struct kb_buf cert = {0};
	struct kb_client client;
	struct kb_err err;
	if (!may(c))
		return;
	yyjson_doc *doc = kb_json_parse(c->http.body.data, c->http.body.len, &err);
	yyjson_val *root = yyjson_doc_get_root(doc);
	const char *name = text_of(root, "name"), *csr = text_of(root, "csr");
	if (!c->claim)
		kb_reply_error(c, 409, NULL, "", "/claim/begin comes first, on the same connection");
	else if (!name || !csr || strlen(csr) >= KB_X509_PEM_MAX)
		kb_reply_error(c, 400, NULL, name ? "csr" : "name", "name and csr are required");
	else if (is_proven(c, root, name, csr) && kb_issue_client(c, name, csr, true, &cert, &client)) {
		mark(c->daemon);
		kb_info("claim", "this box belongs to \"%s\" now", client.name);
		answer(c, &client, &cert);
	}
	kb_buf_finish(&cert);
	yyjson_doc_free(doc);
	kb_claim_destroy(c->claim);
	c->claim = NULL;
}
