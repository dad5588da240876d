/* see client_files.h */
#include "firmware/ctl/client_files.h"

#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char *box_text(const struct kb_ctl_where *where, const char *name, const char *fingerprint)
{
	yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
	yyjson_mut_val *o = yyjson_mut_obj(doc);
	yyjson_mut_doc_set_root(doc, o);
	yyjson_mut_obj_add_str(doc, o, "host", where->host);
	yyjson_mut_obj_add_uint(doc, o, "port", where->port);
	yyjson_mut_obj_add_str(doc, o, "name", name);
	yyjson_mut_obj_add_str(doc, o, "fingerprint", fingerprint);
	char *text = yyjson_mut_write(doc, YYJSON_WRITE_PRETTY_TWO_SPACES, NULL);
	yyjson_mut_doc_free(doc);
	return text;
}

/* see client_files.h */
void kb_ctl_client_name(char *ret, size_t size)
{
	char machine[64] = "localhost";
	const struct passwd *user = getpwuid(getuid());
	if (gethostname(machine, sizeof machine - 1))
		snprintf(machine, sizeof machine, "localhost");
	snprintf(ret, size, "%.24s@%.38s", user ? user->pw_name : "user", machine);
	for (char *c = ret; *c; c++)
		if (!strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_@", *c))
			*c = '-';
}

static int write_in(const char *directory, const char *name, const char *text, unsigned mode, struct kb_err *err)
{
	char *path = kb_ctl_path(directory, name);
	int r = path ? kb_ctl_write_file(path, text, strlen(text), mode, err) : kb_fail(err, KB_ENOMEM, "out of memory");
	free(path);
	return r;
}

bool kb_ctl_is_paired(const char *directory)
{
	char *path = kb_ctl_path(directory, KB_CTL_CERT);
	bool exists = path && access(path, F_OK) == 0;
	free(path);
	return exists;
}

int kb_ctl_keep_client(
	const char *directory, const char *name, const struct kb_ctl_where *where, const char *key, yyjson_val *answer)
{
	const char *cert = yyjson_get_str(yyjson_obj_get(answer, "certificate"));
	const char *ca = yyjson_get_str(yyjson_obj_get(answer, "ca"));
	const char *fingerprint = yyjson_get_str(yyjson_obj_get(answer, "fingerprint"));
	struct kb_err err;
	char *box = cert && ca && fingerprint ? box_text(where, name, fingerprint) : NULL;
	int status = KB_CTL_OK;
	if (!box)
		status =
			kb_ctl_fail(KB_CTL_FAILED, "the daemon's answer lacks the certificate: do both programs belong together?");
	else if (write_in(directory, KB_CTL_KEY, key, 0600, &err) || write_in(directory, KB_CTL_CERT, cert, 0644, &err) ||
			 write_in(directory, KB_CTL_CA, ca, 0644, &err) || write_in(directory, KB_CTL_BOX, box, 0644, &err))
		status = kb_ctl_fail(KB_CTL_FAILED, "%s (the box knows \"%s\" now: kotobako revoke it)", err.text, name);
	else
		printf("paired as \"%s\" with %s port %u\nfingerprint %s\nfiles in %s\n", name, where->host, where->port,
			fingerprint, directory);
	free(box);
	return status;
}
