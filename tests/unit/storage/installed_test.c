// Versions of models on a box: forward only, one step back on request, and nothing that was revoked.
#include "storage/audit.h"
#include "storage/installed.h"
#include "storage/trust.h"
#include "storage/verity.h"
#include "unit/storage/keys.h"
#include "unit/storage/state_dir.h"

#define ROOM 512u
#define NOW 1795700000u

static struct kb_signer *root_key, *model_key, *second_key;

static struct kb_str str(const char *text)
{
	return (struct kb_str){text, strlen(text)};
}

// A root whose model role is model_key's and second_key's, one of which is enough; these are revoked.
static void trust(struct kb_state *s, uint64_t version, const uint8_t *revoked, uint32_t n)
{
	static const uint8_t fleet[KB_ROOT_FLEET] = "fleet of tests";
	struct kb_root *r = calloc(1, sizeof *r);
	struct kb_chain *c = calloc(1, sizeof *c);
	uint8_t block[ROOM] = KB_SIGNATURES_NONE;
	struct kb_buf bytes = {0};
	struct kb_err err = {0};
	assert_true(r && c);
	*r = (struct kb_root){
		.fleet = fleet, .version = version, .created = 5, .n_keys = 3, .revoked = revoked, .n_revoked = n};
	r->keys[0] = *kb_signer_key(root_key);
	r->keys[1] = *kb_signer_key(model_key);
	r->keys[2] = *kb_signer_key(second_key);
	r->roles[KB_ROLE_ROOT].threshold = r->roles[KB_ROLE_ROOT].n = r->roles[KB_ROLE_MODEL].threshold = 1;
	r->roles[KB_ROLE_MODEL].n = 2;
	r->roles[KB_ROLE_MODEL].key[0] = 1;
	r->roles[KB_ROLE_MODEL].key[1] = 2;
	assert_int_equal(kb_root_write(r, &err, &bytes), KB_OK);
	put_signature(root_key, KB_DOMAIN_ROOT, &bytes, block, ROOM);
	c->n = 1;
	c->roots[0] = signed_of(&bytes, block, ROOM);
	if (kb_trust_set(s, c, false, NOW, &err))
		fail_msg("%s", err.text);
	kb_buf_finish(&bytes);
	free(c);
	free(r);
}

// Installs version `version` of a model whose file is known by one byte. both: two keys sign.
static int install(struct kb_state *s, const char *name, uint64_t version, uint8_t file, const uint8_t *base, bool both,
	struct kb_err *err)
{
	uint8_t payload_root[32], digest[32], bytes[1024], block[ROOM] = KB_SIGNATURES_NONE;
	struct kb_manifest m = {.model = str(name),
		.version = version,
		.kind = base ? KB_MANIFEST_ADAPTER : KB_MANIFEST_MODEL,
		.created = 100,
		.family = str("llama"),
		.licence = str("MIT"),
		.min_firmware = 1,
		.device_memory = 1,
		.payload_bytes = 4096,
		.payload_root = payload_root,
		.base = base};
	struct kb_buf b = {.data = bytes};
	memset(payload_root, file, sizeof payload_root);
	assert_int_equal(kb_manifest_write(&m, sizeof bytes, err, bytes, &b.len), KB_OK);
	put_signature(model_key, KB_DOMAIN_MODEL, &b, block, ROOM);
	if (both)
		put_signature(second_key, KB_DOMAIN_MODEL, &b, block, ROOM);
	kb_verity_digest(4096, payload_root, digest);
	struct kb_signed image = signed_of(&b, block, ROOM);
	int allowed = kb_installed_allow(s, &m, digest, err);
	int done = kb_installed_commit(s, &image, &m, digest, NOW, err);
	assert_int_equal(allowed, done); // what was said before the file came is said at the end too
	return done;
}

static void digest_of(uint8_t file, uint8_t ret[static 32])
{
	uint8_t payload_root[32];
	memset(payload_root, file, sizeof payload_root);
	kb_verity_digest(4096, payload_root, ret);
}

static struct kb_installed get(struct kb_state *s, const char *name)
{
	struct kb_installed m = {0};
	struct kb_err err;
	(void)!kb_installed_get(s, name, &err, &m);
	return m;
}

static bool has_manifest(struct kb_state *s, uint8_t file)
{
	uint8_t digest[32];
	struct kb_signed signed_;
	struct kb_signatures signatures;
	struct kb_buf b = {0};
	struct kb_err err;
	digest_of(file, digest);
	bool found = kb_installed_signed(s, digest, &err, &b, &signed_) == KB_OK;
	if (found)
		assert_int_equal(kb_signatures_parse(signed_.signatures, signed_.signatures_len, &err, &signatures), KB_OK);
	kb_buf_finish(&b);
	return found;
}

static void versions_go_forward(void **state)
{
	struct kb_err err = {0};
	(void)state;
	struct kb_state *s = fresh_state();
	trust(s, 1, NULL, 0);
	uint64_t before = kb_installed_generation(s);
	assert_int_equal(install(s, "m", 2, 'b', NULL, false, &err), KB_OK);
	assert_true(kb_installed_generation(s) != before);
	assert_int_equal(install(s, "m", 2, 'b', NULL, false, &err), KB_EEXISTS);
	assert_int_equal(install(s, "m", 1, 'a', NULL, false, &err), KB_EDENIED);
	assert_non_null(strstr(err.text, "older"));
	assert_int_equal(install(s, "m", 2, 'x', NULL, false, &err), KB_EDENIED);
	assert_non_null(strstr(err.text, "another image"));
	assert_int_equal(install(s, "m", 5, 'c', NULL, false, &err), KB_OK);
	kb_state_close(s);
	s = open_state();
	struct kb_installed m = get(s, "m");
	assert_int_equal(m.active.version, 5);
	assert_int_equal(m.previous.version, 2);
	assert_true(has_manifest(s, 'b') && has_manifest(s, 'c'));
	assert_int_equal(install(s, "m", 6, 'd', NULL, false, &err), KB_OK);
	assert_false(has_manifest(s, 'b')); // only one step back is kept
	// Removing does not open the way back.
	assert_int_equal(kb_installed_remove(s, "m", NOW, &err), KB_OK);
	assert_false(has_manifest(s, 'c') || has_manifest(s, 'd'));
	assert_int_equal(install(s, "m", 5, 'c', NULL, false, &err), KB_EDENIED);
	assert_int_equal(install(s, "m", 6, 'd', NULL, false, &err), KB_OK);
	assert_int_equal(install(s, "other", 1, 'a', NULL, false, &err), KB_OK); // each has its own
	kb_state_close(s);
}

static void one_step_back(void **state)
{
	struct kb_err err = {0};
	(void)state;
	struct kb_state *s = fresh_state();
	trust(s, 1, NULL, 0);
	assert_int_equal(kb_installed_rollback(s, "m", false, NOW, NULL, &err), KB_ENOTFOUND);
	assert_int_equal(install(s, "m", 1, 'a', NULL, false, &err), KB_OK);
	assert_int_equal(kb_installed_rollback(s, "m", false, NOW, NULL, &err), KB_ENOTFOUND);
	assert_int_equal(install(s, "m", 2, 'b', NULL, false, &err), KB_OK);
	assert_int_equal(kb_installed_rollback(s, "m", false, NOW, NULL, &err), KB_OK);
	assert_int_equal(get(s, "m").active.version, 1);
	assert_int_equal(get(s, "m").previous.version, 2);
	assert_int_equal(install(s, "m", 1, 'z', NULL, false, &err), KB_EDENIED); // the floor did not move
	assert_int_equal(install(s, "m", 2, 'b', NULL, false, &err), KB_OK);      // forward again, by installing
	assert_int_equal(get(s, "m").active.version, 2);
	assert_int_equal(get(s, "m").previous.version, 1);
	assert_int_equal(kb_installed_rollback(s, "m", false, NOW, NULL, &err), KB_OK);
	assert_int_equal(kb_installed_rollback(s, "m", false, NOW, NULL, &err), KB_OK); // and by going back twice
	assert_int_equal(get(s, "m").active.version, 2);
	assert_int_equal(kb_installed_forget(s, "m", NOW, "no room", &err), KB_OK);
	assert_int_equal(kb_installed_forget(s, "m", NOW, "no room", &err), KB_ENOTFOUND);
	assert_int_equal(kb_installed_rollback(s, "m", false, NOW, NULL, &err), KB_ENOTFOUND);
	kb_state_close(s);
}

static void what_was_revoked_does_not_run(void **state)
{
	uint8_t a[32], b[32], c[32], revoked[64];
	struct kb_err err = {0};
	(void)state;
	struct kb_state *s = fresh_state();
	trust(s, 1, NULL, 0);
	digest_of('a', a);
	digest_of('b', b);
	digest_of('c', c);
	assert_int_equal(install(s, "m", 1, 'a', NULL, true, &err), KB_OK);
	assert_int_equal(install(s, "m", 2, 'b', NULL, false, &err), KB_OK);
	assert_int_equal(install(s, "n", 1, 'c', NULL, true, &err), KB_OK);
	for (int i = 0; i < 3; i++)
		assert_int_equal(kb_installed_may_run(s, i == 0 ? a : i == 1 ? b : c, false, &err), KB_OK);
	memcpy(revoked, a, 32);
	trust(s, 2, revoked, 1);
	assert_int_equal(kb_installed_may_run(s, a, false, &err), KB_EDENIED);
	assert_int_equal(kb_installed_rollback(s, "m", false, NOW, NULL, &err), KB_EDENIED);
	assert_int_equal(get(s, "m").active.version, 2);
	assert_int_equal(kb_installed_may_run(s, b, false, &err), KB_OK);
	// A key that is revoked takes along what only it has signed.
	kb_key_id(kb_signer_key(model_key), revoked + 32);
	trust(s, 3, revoked, 2);
	assert_int_equal(kb_installed_may_run(s, b, false, &err), KB_EDENIED);
	assert_non_null(strstr(err.text, "a key"));
	assert_int_equal(kb_installed_may_run(s, c, false, &err), KB_OK);
	kb_state_close(s);
}

static void adapters_want_their_base(void **state)
{
	uint8_t base[32];
	struct kb_err err = {0};
	(void)state;
	struct kb_state *s = fresh_state();
	trust(s, 1, NULL, 0);
	digest_of('b', base);
	assert_int_equal(install(s, "adapter", 1, 'a', base, false, &err), KB_ENOTFOUND);
	assert_int_equal(install(s, "m", 1, 'b', NULL, false, &err), KB_OK);
	assert_int_equal(install(s, "adapter", 1, 'a', base, false, &err), KB_OK);
	assert_int_equal(get(s, "adapter").kind, KB_MANIFEST_ADAPTER);
	kb_state_close(s);
}

struct log {
	char text[1024];
};

static int note(void *ctx, const struct kb_audit_entry *e)
{
	struct log *l = ctx;
	size_t n = strlen(l->text);
	snprintf(l->text + n, sizeof l->text - n, "%s %s %llu;", e->event, e->subject, (unsigned long long)e->version);
	return 0;
}

static void everything_is_said(void **state)
{
	struct kb_err err = {0};
	struct log log = {{0}};
	(void)state;
	struct kb_state *s = fresh_state();
	trust(s, 1, NULL, 0);
	assert_int_equal(install(s, "m", 1, 'a', NULL, false, &err), KB_OK);
	assert_int_equal(install(s, "m", 2, 'b', NULL, false, &err), KB_OK);
	assert_int_equal(install(s, "m", 1, 'a', NULL, false, &err), KB_EDENIED); // the installer says it, not the tables
	assert_int_equal(kb_installed_rollback(s, "m", false, NOW, "by hand", &err), KB_OK);
	assert_int_equal(kb_installed_forget(s, "m", NOW, "no room", &err), KB_OK);
	assert_int_equal(kb_installed_remove(s, "m", NOW, &err), KB_OK);
	assert_int_equal(kb_audit_each(s, 1, note, &log, &err, NULL), KB_OK);
	assert_string_equal(log.text, "root trusted fleet of tests 1;model installed m 1;model installed m 2;"
								  "model rolled back m 1;previous version dropped m 2;model removed m 1;");
	kb_state_close(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(versions_go_forward),
		cmocka_unit_test(one_step_back),
		cmocka_unit_test(what_was_revoked_does_not_run),
		cmocka_unit_test(adapters_want_their_base),
		cmocka_unit_test(everything_is_said),
	};
	root_key = new_signer(KB_CURVE_P256);
	model_key = new_signer(KB_CURVE_P256);
	second_key = new_signer(KB_CURVE_P384);
	int failed = cmocka_run_group_tests_name("storage/installed", tests, NULL, NULL);
	kb_signer_close(root_key);
	kb_signer_close(model_key);
	kb_signer_close(second_key);
	return failed;
}
