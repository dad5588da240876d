// kotobako key new|show: the keys that sign roots and images.
#include "base/hex.h"
#include "firmware/ctl/action.h"
#include "firmware/ctl/sign.h"
#include "net/x509.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void say(const struct kb_public_key *key)
{
	uint8_t id[KB_KEY_ID];
	char text[2 * KB_KEY_ID + 1];
	kb_key_id(key, id);
	kb_hex(id, sizeof id, text);
	printf("%s %s\n", kb_ctl_curve_name(key->curve), text);
}

static int write_pair(const char *path, const char *public_path, const struct kb_buf *secret,
	const struct kb_buf *public, struct kb_err *err)
{
	if (access(path, F_OK) == 0 || access(public_path, F_OK) == 0)
		return kb_fail(err, KB_EEXISTS, "%s or %s is there already; a key is never overwritten", path, public_path);
	int r = kb_ctl_write_file(path, secret->data, secret->len, 0600, err);
	return r ? r : kb_ctl_write_file(public_path, public->data, public->len, 0644, err);
}

static int new(struct kb_ctl *ctl, const struct kb_ctl_args *args)
{
	const char *curve = args->option[KB_KEY_CURVE].is_set ? args->option[KB_KEY_CURVE].text : "p256";
	struct kb_buf secret = {0}, public = {0};
	struct kb_public_key key;
	struct kb_err err;
	char *public_path = NULL;
	(void)ctl;
	if (strcmp(curve, "p256") != 0 && strcmp(curve, "p384") != 0)
		return kb_ctl_fail(KB_CTL_USAGE, "--curve is p256 or p384, not \"%.32s\"", curve);
	if (asprintf(&public_path, "%s.pub", args->arg[1]) < 0)
		return kb_ctl_fail(KB_CTL_FAILED, "out of memory");
	int r = kb_key_new(strcmp(curve, "p256") == 0 ? KB_CURVE_P256 : KB_CURVE_P384, &err, &secret, &public);
	if (r == 0)
		r = kb_public_key_read((const char *)public.data, &err, &key);
	if (r == 0)
		r = write_pair(args->arg[1], public_path, &secret, &public, &err);
	kb_wipe(&secret);
	kb_buf_finish(&public);
	free(public_path);
	if (r)
		return kb_ctl_fail(KB_CTL_FAILED, "%s", err.text);
	say(&key);
	fprintf(stderr, "%s is the key: whoever has it can sign. %s.pub is for roots and for others to check with.\n",
		args->arg[1], args->arg[1]);
	return KB_CTL_OK;
}

static int show(struct kb_ctl *ctl, const struct kb_ctl_args *args)
{
	struct kb_public_key key;
	struct kb_err err;
	(void)ctl;
	if (kb_ctl_public_key(args->arg[1], &err, &key))
		return kb_ctl_fail(KB_CTL_FAILED, "%s", err.text);
	say(&key);
	return KB_CTL_OK;
}

static const struct kb_ctl_action actions[] = {
	{"new", 1, 1, KB_OPTION(KB_KEY_CURVE), new},
	{"show", 1, 1, 0, show},
	{0},
};

int kb_ctl_key(struct kb_ctl *ctl, const struct kb_ctl_args *args)
{
	return kb_ctl_act("key", actions, ctl, args);
}
