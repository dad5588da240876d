/* see sign.h */
#include "firmware/ctl/sign.h"

#include "net/x509.h"
#include <stdio.h>
#include <string.h>

/* see sign.h */
const char *kb_ctl_curve_name(enum kb_curve curve)
{
	return curve == KB_CURVE_P256 ? "P-256" : "P-384";
}

static int open_signer(const char *path, struct kb_err *err, struct kb_signer **ret)
{
	struct kb_buf pem = {0};
	int r = kb_ctl_read_file(path, &pem, err);
	if (r)
		return r;
	r = kb_signer_open((const char *)pem.data, err, ret);
	if (r)
		kb_err_wrap(err, "%s: ", path);
	kb_wipe(&pem);
	return r;
}

/* see sign.h */
int kb_ctl_public_key(const char *path, struct kb_err *err, struct kb_public_key *ret)
{
	struct kb_buf pem = {0};
	struct kb_signer *signer = NULL;
	int r = kb_ctl_read_file(path, &pem, err);
	if (r)
		return r;
	if (strstr((const char *)pem.data, "PRIVATE KEY")) {
		r = kb_signer_open((const char *)pem.data, err, &signer);
		if (r == 0)
			*ret = *kb_signer_key(signer);
		kb_signer_close(signer);
	} else {
		r = kb_public_key_read((const char *)pem.data, err, ret);
	}
	if (r)
		kb_err_wrap(err, "%s: ", path);
	kb_wipe(&pem);
	return r;
}

// The domain, its NUL, and the bytes: what openssl is given.
static int export(const char *path, const char *domain, const struct kb_signed *what)
{
	struct kb_buf b = {0};
	struct kb_err err;
	int r = kb_buf_append(&b, domain, strlen(domain) + 1);
	r = r ? r : kb_buf_append(&b, what->bytes, what->len);
	r = r ? kb_fail(&err, KB_ENOMEM, "out of memory") : kb_ctl_write_file(path, b.data, b.len, 0644, &err);
	kb_buf_finish(&b);
	if (r)
		return kb_ctl_fail(KB_CTL_FAILED, "%s", err.text);
	printf("%s: sign it where the key is, with SHA-256 for P-256 and SHA-384 for P-384:\n"
		   "  openssl dgst -sha256 -sign KEY.pem -out SIGNATURE.der %s\n"
		   "and bring the signature back with --import SIGNATURE.der --public KEY.pub\n",
		path, path);
	return KB_CTL_OK;
}

static int import(const char *path, const struct kb_public_key *key, struct kb_ctl_signature *ret, struct kb_err *err)
{
	struct kb_buf der = {0};
	size_t len = 0;
	int r = kb_ctl_read_file(path, &der, err);
	if (r)
		return r;
	r = kb_signature_from_der(key, der.data, der.len, err, ret->raw, &len);
	if (r)
		kb_err_wrap(err, "%s: ", path);
	ret->len = (uint32_t)len;
	ret->key = *key;
	kb_buf_finish(&der);
	return r;
}

static int make(const char *path, const char *domain, const struct kb_signed *what, struct kb_ctl_signature *ret,
	struct kb_err *err)
{
	struct kb_signer *signer = NULL;
	size_t len = 0;
	int r = open_signer(path, err, &signer);
	if (r)
		return r;
	r = kb_signer_sign(signer, domain, what->bytes, what->len, err, ret->raw, &len);
	ret->len = (uint32_t)len;
	ret->key = *kb_signer_key(signer);
	kb_signer_close(signer);
	return r;
}

/* see sign.h */
int kb_ctl_sign(
	const struct kb_ctl_value *options, const char *domain, const struct kb_signed *what, struct kb_ctl_signature *ret)
{
	const char *key = options[KB_SIGN_KEY].text, *out = options[KB_SIGN_EXPORT].text;
	const char *in = options[KB_SIGN_IMPORT].text, *public = options[KB_SIGN_PUBLIC].text;
	struct kb_public_key k;
	struct kb_err err = {0};
	*ret = (struct kb_ctl_signature){0};
	if (!key + !out + !in != 2 || !in != !public)
		return kb_ctl_fail(KB_CTL_USAGE, "sign wants --key KEY.pem, or --export FILE, or --import SIGNATURE.der with "
										 "--public KEY.pub");
	if (out)
		return export(out, domain, what);
	int r = in ? kb_ctl_public_key(public, &err, &k) : make(key, domain, what, ret, &err);
	if (r == 0 && in)
		r = import(in, &k, ret, &err);
	if (r == 0) {
		kb_key_id(&ret->key, ret->id);
		const struct kb_signatures one = {1, {{ret->id, ret->len, ret->raw}}};
		r = kb_signatures_check(domain, what->bytes, what->len, &one, &ret->key, 1, 1, &err);
		if (r)
			kb_err_wrap(&err, "%s: it is not this key's signature over this: ", in ? in : key);
	}
	ret->is_made = r == 0;
	return r ? kb_ctl_fail(KB_CTL_FAILED, "%s", err.text) : KB_CTL_OK;
}
