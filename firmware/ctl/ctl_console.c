// kotobako console: the box's own screen, drawn anew where it changed.
#include "firmware/ctl/box.h"
#include "firmware/ctl/screen.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { LOOK_S = 2 }; // between looks at the daemon

// An answer, or NULL: the daemon does not run (yet), or the box has no such thing.
static yyjson_doc *ask(const struct kb_ctl *ctl, const char *path)
{
	struct kb_http_client *c = NULL;
	struct kb_http_reply reply = {0};
	struct kb_err err;
	char *socket = kb_ctl_path(ctl->state, "admin.sock");
	yyjson_doc *doc = NULL;
	if (socket && kb_http_client_create(&(struct kb_http_target){.unix_path = socket}, &c, &err) == 0 &&
		kb_http_client_call(c, &(struct kb_http_call){.method = "GET", .path = path, .idle_ms = 5000}, &reply, &err) ==
			0 &&
		reply.status == 200)
		doc = yyjson_read((const char *)reply.body.data, reply.body.len, 0);
	kb_buf_finish(&reply.body);
	kb_http_client_destroy(c);
	free(socket);
	return doc;
}

static int look(const struct kb_ctl *ctl, struct kb_buf *ret)
{
	char name[256] = "", code[KB_SCREEN_CODE_MAX];
	if (gethostname(name, sizeof name - 1))
		name[0] = 0;
	yyjson_doc *status = ask(ctl, "/admin/status"), *system = status ? ask(ctl, "/admin/system") : NULL;
	int r = kb_screen_text(yyjson_doc_get_root(status), yyjson_doc_get_root(system), name, ret, code);
	if (r == 0 && code[0])
		r = kb_buf_puts(ret, "\n") ? KB_ENOMEM : kb_screen_qr(code, ret);
	yyjson_doc_free(status);
	yyjson_doc_free(system);
	return r;
}

// The whole screen: cleared, the cursor hidden, the text.
static void draw(int fd, const struct kb_buf *text)
{
	static const char clear[] = "\033[2J\033[H\033[?25l";
	ssize_t n = write(fd, clear, sizeof clear - 1);
	n = n < 0 ? n : write(fd, text->data, text->len);
	if (n < 0)
		fprintf(stderr, "console: %s\n", strerror(errno));
}

int kb_ctl_console(struct kb_ctl *ctl, const struct kb_ctl_args *args)
{
	const struct kb_ctl_value *tty = &args->option[KB_CONSOLE_TTY];
	const bool is_once = args->option[KB_CONSOLE_ONCE].is_set;
	struct kb_buf shown = {0};
	int fd = tty->is_set ? open(tty->text, O_WRONLY | O_NOCTTY | O_CLOEXEC | O_NONBLOCK) : STDOUT_FILENO;
	if (fd < 0)
		return kb_ctl_fail(KB_CTL_FAILED, "%s: %s", tty->text, strerror(errno));
	kb_ctl_catch_interrupt(false);
	int r = 0;
	while (r == 0 && !kb_ctl_interrupted) {
		struct kb_buf now = {0};
		r = look(ctl, &now);
		if (r == 0 && (now.len != shown.len || memcmp(now.data, shown.data, now.len) != 0)) {
			if (is_once)
				r = write(fd, now.data, now.len) < 0 ? KB_EIO : 0;
			else
				draw(fd, &now);
		}
		kb_buf_finish(&shown);
		shown = now;
		if (is_once)
			break;
		nanosleep(&(struct timespec){.tv_sec = LOOK_S}, NULL);
	}
	kb_buf_finish(&shown);
	if (tty->is_set)
		close(fd);
	return r ? kb_ctl_fail(KB_CTL_FAILED, "the screen: %s", kb_err_name(r)) : KB_CTL_OK;
}
