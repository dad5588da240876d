// kotobako claim: this user becomes the first client of a box, an administrator, by the code that the box shows.
#include "base/hex.h"
#include "firmware/ctl/client_files.h"
#include "net/claim.h"
#include "net/x509.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

// What one claim needs from its begin to its end.
struct claiming {
	struct kb_http_client *box;
	struct kb_claim *claim;
	const char *name, *csr;
	yyjson_doc *answer;
};

static int ask_code(char ret[KB_CLAIM_DIGITS + 1])
{
	char line[64];
	if (kb_ctl_is_terminal(STDERR_FILENO))
		fprintf(stderr, "the code on the box's screen: ");
	if (!fgets(line, sizeof line, stdin) || kb_claim_code_clean(line, ret))
		return kb_ctl_fail(KB_CTL_USAGE, "the code has %u digits", KB_CLAIM_DIGITS);
	return KB_CTL_OK;
}

static int out_of_memory(void)
{
	return kb_ctl_fail(KB_CTL_FAILED, "out of memory");
}

// Text members "key", value, ... NULL as a body; free() it.
static char *body_of(const char *const *pairs)
{
	yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
	yyjson_mut_val *o = yyjson_mut_obj(doc);
	yyjson_mut_doc_set_root(doc, o);
	for (; *pairs; pairs += 2)
		yyjson_mut_obj_add_str(doc, o, pairs[0], pairs[1]);
	char *text = yyjson_mut_write(doc, 0, NULL);
	yyjson_mut_doc_free(doc);
	return text;
}

static int call(struct claiming *c, const char *path, const char *const *pairs)
{
	char *body = body_of(pairs);
	yyjson_doc_free(c->answer);
	c->answer = NULL;
	int status = body ? kb_ctl_call(c->box, "POST", path, body, &c->answer) : out_of_memory();
	free(body);
	return status;
}

// A message of the answer; its length, or 0.
static size_t message_of(const struct claiming *c, const char *key, uint8_t ret[KB_CLAIM_MESSAGE_MAX])
{
	const char *text = yyjson_get_str(yyjson_obj_get(yyjson_doc_get_root(c->answer), key));
	const size_t len = text ? strlen(text) / 2 : 0;
	return len <= KB_CLAIM_MESSAGE_MAX && kb_unhex(text ? text : "", ret, len) == 0 ? len : 0;
}

static int begin(struct claiming *c)
{
	char hex[2 * KB_CLAIM_MESSAGE_MAX + 1];
	uint8_t one[KB_CLAIM_MESSAGE_MAX], two[KB_CLAIM_MESSAGE_MAX];
	struct kb_buf message = {0};
	struct kb_err err = {0};
	int r = kb_claim_write_one(c->claim, &message, &err);
	if (r == 0)
		kb_hex(message.data, message.len, hex);
	kb_buf_finish(&message);
	int status = r ? kb_ctl_fail(KB_CTL_FAILED, "%s", err.text)
				   : call(c, "/claim/begin", (const char *const[]){"one", hex, NULL});
	if (status)
		return status;
	const size_t n_one = message_of(c, "one", one), n_two = message_of(c, "two", two);
	if (kb_claim_read_one(c->claim, one, n_one, &err) || kb_claim_read_two(c->claim, two, n_two, &err))
		return kb_ctl_fail(KB_CTL_FAILED, "what answers there is no box that can be claimed: %s", err.text);
	return KB_CTL_OK;
}

static int finish(struct claiming *c, const uint8_t certificate[KB_FINGERPRINT_LEN])
{
	char hex[2 * KB_CLAIM_MESSAGE_MAX + 1], proof_hex[2 * KB_CLAIM_PROOF + 1];
	uint8_t proof[KB_CLAIM_PROOF];
	struct kb_buf message = {0};
	struct kb_err err = {0};
	int r = kb_claim_write_two(c->claim, &message, &err);
	r = r ? r : kb_claim_prove(c->claim, false, certificate, c->csr, c->name, proof, &err);
	if (r == 0) {
		kb_hex(message.data, message.len, hex);
		kb_hex(proof, sizeof proof, proof_hex);
	}
	kb_buf_finish(&message);
	return r ? kb_ctl_fail(KB_CTL_FAILED, "%s", err.text)
			 : call(c, "/claim/finish",
				   (const char *const[]){"two", hex, "name", c->name, "csr", c->csr, "proof", proof_hex, NULL});
}

// Whether the certificates are the box's that shows the code, and not of somebody between.
static int check(struct claiming *c, const uint8_t certificate[KB_FINGERPRINT_LEN])
{
	yyjson_val *root = yyjson_doc_get_root(c->answer);
	const char *cert = yyjson_get_str(yyjson_obj_get(root, "certificate")),
			   *ca = yyjson_get_str(yyjson_obj_get(root, "ca")), *text = yyjson_get_str(yyjson_obj_get(root, "proof"));
	uint8_t right[KB_CLAIM_PROOF], theirs[KB_CLAIM_PROOF];
	struct kb_err err = {0};
	if (!cert || !ca || !text || kb_unhex(text, theirs, sizeof theirs) ||
		kb_claim_prove(c->claim, true, certificate, cert, ca, right, &err) ||
		!kb_equal_constant_time(right, theirs, sizeof right))
		return kb_ctl_fail(KB_CTL_FAILED,
			"what answers there does not know the code: this is not the box that shows it, or "
			"something stands between; nothing was kept");
	return KB_CTL_OK;
}

static int claim(struct claiming *c, const char *code)
{
	struct kb_err err = {0};
	uint8_t certificate[KB_FINGERPRINT_LEN];
	if (kb_claim_create(false, code, &c->claim, &err))
		return kb_ctl_fail(KB_CTL_FAILED, "%s", err.text);
	int status = begin(c);
	// Of the connection that both messages use; were it opened anew, the box would not know the first one.
	memcpy(certificate, kb_http_client_peer(c->box)->fingerprint, sizeof certificate);
	status = status ? status : finish(c, certificate);
	return status ? status : check(c, certificate);
}

int kb_ctl_claim(struct kb_ctl *ctl, const struct kb_ctl_args *args)
{
	char own_name[65], code[KB_CLAIM_DIGITS + 1];
	struct kb_ctl_where where = {"", KB_CTL_PORT};
	struct kb_err err = {0};
	struct kb_buf key = {0}, csr = {0};
	const char *directory = args->option[KB_CLAIM_OUT].is_set ? args->option[KB_CLAIM_OUT].text : ctl->client;
	const struct kb_ctl_value *given = &args->option[KB_CLAIM_CODE];
	kb_ctl_client_name(own_name, sizeof own_name);
	struct claiming c = {.name = args->option[KB_CLAIM_NAME].is_set ? args->option[KB_CLAIM_NAME].text : own_name};
	if (!ctl->box || kb_ctl_parse_box(ctl->box, where.host, sizeof where.host, &where.port))
		return kb_ctl_fail(KB_CTL_USAGE, "claim wants --box ADDRESS, as the box's screen says");
	if (!kb_x509_name_ok(c.name))
		return kb_ctl_fail(KB_CTL_USAGE, "--name %s: a client's name is 1 to %u letters, digits, . - _ @ or spaces",
			c.name, KB_TLS_NAME_MAX);
	if (kb_ctl_is_paired(directory) && !args->option[KB_CLAIM_REPLACE].is_set)
		return kb_ctl_fail(KB_CTL_FAILED,
			"%s holds a client's certificate already (--replace replaces it, --out goes elsewhere)", directory);
	if (given->is_set && kb_claim_code_clean(given->text, code))
		return kb_ctl_fail(KB_CTL_USAGE, "--code: the code has %u digits", KB_CLAIM_DIGITS);
	int status = given->is_set ? KB_CTL_OK : ask_code(code);
	if (status)
		return status;
	struct kb_http_target target = {.host = where.host, .port = where.port, .is_claim = true};
	int r = kb_tls_init(&err);
	r = r ? r : kb_ctl_make_directory(directory, &err);
	r = r ? r : kb_x509_make_csr(c.name, &key, &csr, &err);
	r = r ? r : kb_http_client_create(&target, &c.box, &err);
	c.csr = kb_buf_cstr(&csr);
	status = r                            ? kb_ctl_fail(KB_CTL_FAILED, "%s", err.text)
			 : c.csr && kb_buf_cstr(&key) ? claim(&c, code)
										  : out_of_memory();
	if (status == KB_CTL_OK)
		status = kb_ctl_keep_client(directory, c.name, &where, kb_buf_cstr(&key), yyjson_doc_get_root(c.answer));
	kb_http_client_destroy(c.box);
	kb_claim_destroy(c.claim);
	yyjson_doc_free(c.answer);
	kb_wipe(&key);
	kb_buf_finish(&csr);
	return status;
}
