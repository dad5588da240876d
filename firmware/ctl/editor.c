/* see editor.h */
#include "firmware/ctl/editor.h"

#include "firmware/ctl/ctl.h"
#include <errno.h>
#include <histedit.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <wchar.h>

struct kb_ctl_editor {
	EditLine *el;
	History *history;
	char *history_path;
	const char *prompt;
	mbstate_t shift;
	char *line; // getline's
	size_t size;
};

static char *prompt_of(EditLine *el)
{
	struct kb_ctl_editor *e = NULL;
	el_get(el, EL_CLIENTDATA, &e);
	return (char *)(uintptr_t)e->prompt;
}

// False where Ctrl-C came. It is let in only while this waits: one that came while libedit was drawing must not be
// overlooked until the next key.
static bool wait_for_key(void)
{
	sigset_t interrupt, before;
	struct pollfd p = {.fd = STDIN_FILENO, .events = POLLIN};
	sigemptyset(&interrupt);
	sigaddset(&interrupt, SIGINT);
	sigprocmask(SIG_BLOCK, &interrupt, &before);
	while (!kb_ctl_interrupted && ppoll(&p, 1, NULL, &before) < 0 && errno == EINTR)
		; // the window's size, a stop and go
	sigprocmask(SIG_SETMASK, &before, NULL);
	return !kb_ctl_interrupted;
}

// One character from the terminal: 1, 0 at the end, -1 where Ctrl-C came. libedit's own reader swallows that.
static int read_character(EditLine *el, wchar_t *ret)
{
	struct kb_ctl_editor *e = NULL;
	el_get(el, EL_CLIENTDATA, &e);
	for (;;) {
		char byte;
		if (!wait_for_key())
			return -1;
		ssize_t n = read(STDIN_FILENO, &byte, 1);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return (int)n;
		size_t used = mbrtowc(ret, &byte, 1, &e->shift);
		if (used == (size_t)-2)
			continue;
		if (used == (size_t)-1) { // not a character of this locale
			memset(&e->shift, 0, sizeof e->shift);
			continue;
		}
		return 1;
	}
}

static int open_terminal(struct kb_ctl_editor *e, struct kb_err *err)
{
	HistEvent event;
	e->el = el_init("kotobako", stdin, stdout, stderr);
	e->history = history_init();
	if (!e->el || !e->history)
		return kb_fail(err, KB_ENOMEM, "out of memory");
	el_set(e->el, EL_CLIENTDATA, e);
	el_set(e->el, EL_PROMPT, prompt_of);
	el_set(e->el, EL_EDITOR, "emacs");
	el_set(e->el, EL_GETCFN, read_character);
	history(e->history, &event, H_SETSIZE, KB_CTL_HISTORY_MAX);
	history(e->history, &event, H_SETUNIQUE, 1);
	if (e->history_path)
		history(e->history, &event, H_LOAD, e->history_path);
	el_set(e->el, EL_HIST, history, e->history);
	el_set(e->el, EL_BIND, "\\e[A", "ed-prev-history", NULL);
	el_set(e->el, EL_BIND, "\\e[B", "ed-next-history", NULL);
	el_set(e->el, EL_BIND, "^R", "em-inc-search-prev", NULL);
	return 0;
}

int kb_ctl_editor_create(bool is_terminal, const char *history_path, struct kb_ctl_editor **ret, struct kb_err *err)
{
	struct kb_ctl_editor *e = calloc(1, sizeof *e);
	if (!e)
		return kb_fail(err, KB_ENOMEM, "out of memory");
	if (history_path && !(e->history_path = strdup(history_path))) {
		free(e);
		return kb_fail(err, KB_ENOMEM, "out of memory");
	}
	int r = is_terminal ? open_terminal(e, err) : 0;
	if (r) {
		free(e->history_path); // so that nothing is written
		e->history_path = NULL;
		kb_ctl_editor_destroy(e);
		return r;
	}
	*ret = e;
	return 0;
}

void kb_ctl_editor_destroy(struct kb_ctl_editor *e)
{
	HistEvent event;
	if (!e)
		return;
	if (e->history && e->history_path)
		history(e->history, &event, H_SAVE, e->history_path);
	if (e->el)
		el_end(e->el);
	if (e->history)
		history_end(e->history);
	free(e->history_path);
	free(e->line);
	free(e);
}

static int take_line(const char *line, size_t len, struct kb_buf *ret)
{
	while (len > 0 && (line[len - 1] == '\n' || line[len - 1] == '\r'))
		len--;
	ret->len = 0;
	int r = kb_buf_append(ret, line, len);
	return r == 0 && !kb_buf_cstr(ret) ? KB_ENOMEM : r;
}

int kb_ctl_editor_read(struct kb_ctl_editor *e, const char *prompt, struct kb_buf *ret_line)
{
	if (!e->el) {
		errno = 0;
		ssize_t n = getline(&e->line, &e->size, stdin);
		if (kb_ctl_interrupted)
			return KB_ECANCELLED;
		return n < 0 ? KB_ECLOSED : take_line(e->line, (size_t)n, ret_line);
	}
	int n = 0;
	e->prompt = prompt;
	const char *line = el_gets(e->el, &n);
	if (kb_ctl_interrupted) {
		el_reset(e->el);
		return KB_ECANCELLED;
	}
	return !line || n <= 0 ? KB_ECLOSED : take_line(line, (size_t)n, ret_line);
}

void kb_ctl_editor_remember(struct kb_ctl_editor *e, const char *line)
{
	HistEvent event;
	if (e->history && line[0])
		history(e->history, &event, H_ENTER, line);
}
