// kotobako root build|sign|show: the chain of roots that a fleet's keepers hold; trust|trusted: a box's side of it.
#include "firmware/ctl/action.h"
#include "firmware/ctl/chain_file.h"
#include "firmware/ctl/root_spec.h"
#include "firmware/ctl/sign.h"
#include "storage/trust.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

// Of the signatures over a root: room for all that may sign, so that each signs without moving anything.
#define ROOM (8u + KB_SIGNATURES_MAX * (KB_KEY_ID + 4u + KB_SIGNATURE_MAX))

// Files of keys stand beside the description of the root.
static int read_key(void *ctx, const char *file, struct kb_err *err, struct kb_public_key *ret)
{
	const char *spec = ctx, *slash = strrchr(spec, '/');
	char *path = NULL;
	if (asprintf(&path, "%.*s%s", file[0] == '/' || !slash ? 0 : (int)(slash + 1 - spec), spec, file) < 0)
		return kb_fail(err, KB_ENOMEM, "out of memory");
	int r = kb_ctl_public_key(path, err, ret);
	free(path);
	return r;
}

// The chain that is there already. One without its newest root's signatures cannot go on.
static int read_before(
	const char *path, struct kb_err *err, struct kb_buf *bytes, struct kb_chain *chain, struct kb_root *ret_newest)
{
	if (access(path, F_OK) != 0)
		return KB_OK;
	int r = kb_ctl_chain_read(path, err, bytes, chain);
	if (r)
		return r;
	r = kb_chain_check(chain, true, err); // whether test keys count is the boxes' question
	if (r) {
		kb_err_wrap(err, "%s: its newest root must be signed before there is a next one: ", path);
		return r;
	}
	const struct kb_signed *s = &chain->roots[chain->n - 1];
	return kb_root_parse(s->bytes, s->len, err, ret_newest);
}

static int append(const char *path, const char *spec_path, struct kb_root_spec *spec, struct kb_err *err)
{
	static const uint8_t no_signatures[ROOM] = KB_SIGNATURES_NONE;
	struct kb_chain *chain = calloc(1, sizeof *chain);
	struct kb_buf json = {0}, before = {0}, root = {0}, file = {0};
	struct kb_root newest = {0};
	int r = chain ? kb_ctl_read_file(spec_path, &json, err) : kb_fail(err, KB_ENOMEM, "out of memory");
	if (r == 0) {
		r = kb_root_spec_read((const char *)json.data, json.len, read_key, (void *)(uintptr_t)spec_path, err, spec);
		if (r)
			kb_err_wrap(err, "%s: ", spec_path);
	}
	if (r == 0)
		r = read_before(path, err, &before, chain, &newest);
	if (r == 0 && chain->n == KB_CHAIN_ROOTS_MAX)
		r = kb_fail(err, KB_ELIMIT, "%s has %u roots, the most there can be", path, KB_CHAIN_ROOTS_MAX);
	if (r == 0 && newest.fleet && memcmp(newest.fleet, spec->fleet, KB_ROOT_FLEET) != 0)
		r = kb_fail(err, KB_EARG, "%s: the chain is another fleet's", spec_path);
	if (r == 0) {
		spec->root.version = newest.version + 1;
		spec->root.created = kb_ctl_now();
		r = kb_root_write(&spec->root, err, &root);
	}
	if (r == 0) {
		chain->roots[chain->n++] = (struct kb_signed){root.data, no_signatures, root.len, ROOM};
		r = kb_chain_write(chain, err, &file);
	}
	if (r == 0)
		r = kb_ctl_write_file(path, file.data, file.len, 0644, err);
	kb_buf_finish(&json);
	kb_buf_finish(&before);
	kb_buf_finish(&root);
	kb_buf_finish(&file);
	free(chain);
	return r;
}

static int build(struct kb_ctl *ctl, const struct kb_ctl_args *args)
{
	struct kb_root_spec *spec = malloc(sizeof *spec);
	struct kb_err err = {0};
	(void)ctl;
	int r = spec ? append(args->arg[2], args->arg[1], spec, &err) : kb_fail(&err, KB_ENOMEM, "out of memory");
	if (r == 0)
		printf("%s: root %" PRIu64 ", to be signed by %u of its own keys%s\n", args->arg[2], spec->root.version,
			spec->root.roles[KB_ROLE_ROOT].threshold, spec->root.version > 1 ? " and by enough of the one before" : "");
	free(spec);
	return r ? kb_ctl_fail(KB_CTL_FAILED, "%s", err.text) : KB_CTL_OK;
}

static int sign(struct kb_ctl *ctl, const struct kb_ctl_args *args)
{
	struct kb_chain *chain = calloc(1, sizeof *chain);
	struct kb_buf bytes = {0};
	struct kb_ctl_signature made;
	struct kb_err err = {0};
	(void)ctl;
	int r = chain ? kb_ctl_chain_read(args->arg[1], &err, &bytes, chain) : kb_fail(&err, KB_ENOMEM, "out of memory");
	if (r) {
		free(chain);
		return kb_ctl_fail(KB_CTL_FAILED, "%s", err.text);
	}
	const struct kb_signed *newest = &chain->roots[chain->n - 1];
	int status = kb_ctl_sign(args->option, KB_DOMAIN_ROOT, newest, &made);
	if (status == KB_CTL_OK && made.is_made) {
		uint8_t *block = bytes.data + (newest->signatures - bytes.data);
		r = kb_signatures_put(block, newest->signatures_len,
			&(struct kb_signature){.key_id = made.id, .len = made.len, .bytes = made.raw}, &err);
		if (r == 0)
			r = kb_ctl_write_file(args->arg[1], bytes.data, bytes.len, 0644, &err);
		if (r)
			status = kb_ctl_fail(KB_CTL_FAILED, "%s", err.text);
		else if (kb_chain_check(chain, true, &err))
			printf("%s: signed, not yet by all that must: %s\n", args->arg[1], err.text);
		else
			printf("%s: signed, and complete\n", args->arg[1]);
	}
	kb_buf_finish(&bytes);
	free(chain);
	return status;
}

static int show(struct kb_ctl *ctl, const struct kb_ctl_args *args)
{
	struct kb_chain *chain = calloc(1, sizeof *chain);
	struct kb_signatures signatures;
	struct kb_buf bytes = {0};
	struct kb_root root;
	struct kb_err err = {0};
	(void)ctl;
	int r = chain ? kb_ctl_chain_read(args->arg[1], &err, &bytes, chain) : kb_fail(&err, KB_ENOMEM, "out of memory");
	for (uint32_t i = 0; r == 0 && i < chain->n; i++) {
		const struct kb_signed *s = &chain->roots[i];
		r = kb_root_parse(s->bytes, s->len, &err, &root);
		if (r == 0)
			r = kb_signatures_parse(s->signatures, s->signatures_len, &err, &signatures);
		if (r == 0)
			kb_ctl_root_print(&root, &signatures);
	}
	if (r == 0)
		r = kb_chain_check(chain, true, &err);
	if (r == 0)
		printf("every root is signed by enough keys, its own and those of the root before\n");
	kb_buf_finish(&bytes);
	free(chain);
	return r ? kb_ctl_fail(KB_CTL_FAILED, "%s", err.text) : KB_CTL_OK;
}

static int print_trusted(struct kb_state *state, struct kb_err *err)
{
	static const struct kb_signatures none;
	struct kb_buf bytes = {0};
	struct kb_root root;
	int r = kb_trust_root(state, err, &bytes);
	r = r ? r : kb_root_parse(bytes.data, bytes.len, err, &root);
	if (r == 0)
		kb_ctl_root_print(&root, &none);
	kb_buf_finish(&bytes);
	return r;
}

static int trust(struct kb_ctl *ctl, const struct kb_ctl_args *args)
{
	struct kb_chain *chain = calloc(1, sizeof *chain);
	struct kb_state *state = NULL;
	struct kb_buf bytes = {0};
	struct kb_err err = {0};
	int r = chain ? kb_ctl_chain_read(args->arg[1], &err, &bytes, chain) : kb_fail(&err, KB_ENOMEM, "out of memory");
	r = r ? r : kb_ctl_state(ctl, false, &err, &state);
	r = r ? r : kb_trust_set(state, chain, KB_ALLOW_TEST_KEYS, (uint64_t)time(NULL), &err);
	r = r ? r : print_trusted(state, &err);
	kb_state_close(state);
	kb_buf_finish(&bytes);
	free(chain);
	if (r)
		return kb_ctl_fail(KB_CTL_FAILED, "%s: %s", args->arg[1], err.text);
	fprintf(stderr, "this box runs only models that were signed for it (kotobako model install)\n");
	return KB_CTL_OK;
}

static int trusted(struct kb_ctl *ctl, const struct kb_ctl_args *args)
{
	struct kb_state *state = NULL;
	struct kb_err err = {0};
	(void)args;
	int r = kb_ctl_state(ctl, true, &err, &state);
	if (r == 0 && !state)
		r = kb_fail(&err, KB_ENOTFOUND, "there is no box in %s", ctl->state);
	r = r ? r : print_trusted(state, &err);
	kb_state_close(state);
	return r ? kb_ctl_fail(KB_CTL_FAILED, "%s", err.text) : KB_CTL_OK;
}

static int adopt(struct kb_ctl *ctl, const struct kb_ctl_args *args)
{
	struct kb_state *state = NULL;
	struct kb_err err = {0};
	(void)args;
	int r = kb_ctl_state_adopt(ctl, &err, &state);
	kb_state_close(state);
	if (r)
		return kb_ctl_fail(r == KB_EARG ? KB_CTL_USAGE : KB_CTL_FAILED, "%s", err.text);
	printf("this state and this TPM belong together from now on; it is in the audit log\n");
	return KB_CTL_OK;
}

static const struct kb_ctl_action actions[] = {
	{"build", 2, 2, 0, build},
	{"sign", 1, 1, KB_SIGN_TAKES, sign},
	{"show", 1, 1, 0, show},
	{"trust", 1, 1, 0, trust},
	{"trusted", 0, 0, 0, trusted},
	{"adopt", 0, 0, 0, adopt},
	{0},
};

int kb_ctl_root(struct kb_ctl *ctl, const struct kb_ctl_args *args)
{
	return kb_ctl_act("root", actions, ctl, args);
}
