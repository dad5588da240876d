// kotobako chat: a conversation on a terminal or through a pipe.
#include "firmware/ctl/answer.h"
#include "firmware/ctl/box.h"
#include "firmware/ctl/editor.h"
#include "firmware/ctl/input.h"
#include "firmware/ctl/text.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct chat {
	const struct kb_ctl_args *args;
	struct kb_http_client *client;
	struct kb_ctl_editor *editor;
	struct kb_ctl_talk talk;
	struct kb_ctl_input input;
	struct kb_buf line;
	char *model, *saved; // saved: the file of the last /save or /load
	bool is_terminal;    // a person is there
	bool is_over;
	int status; // of the program
};

// --- commands: each gets what follows its name, "" for nothing
struct chat_command {
	const char *name, *argument, *help;
	void (*run)(struct chat *chat, const char *argument);
};

static void note(const char *text)
{
	fprintf(stderr, "%s\n", text);
}

static void command_new(struct chat *chat, const char *argument)
{
	(void)argument;
	kb_ctl_talk_clear(&chat->talk);
	if (chat->is_terminal)
		note("a new conversation");
}

static void command_system(struct chat *chat, const char *argument)
{
	if (kb_ctl_talk_set_system(&chat->talk, argument))
		note("out of memory");
	else if (chat->is_terminal)
		note(argument[0] ? "the system text is set, for this conversation too" : "there is no system text now");
}

static void list_models(struct chat *chat)
{
	yyjson_doc *doc = NULL;
	size_t i, n;
	yyjson_val *m;
	if (kb_ctl_call(chat->client, "GET", "/v1/models", NULL, &doc))
		return;
	yyjson_arr_foreach(yyjson_obj_get(yyjson_doc_get_root(doc), "data"), i, n, m)
	{
		const char *id = yyjson_get_str(yyjson_obj_get(m, "id"));
		struct kb_buf clean = {0};
		bool is_ours = id && chat->model && strcmp(id, chat->model) == 0;
		if (id && kb_ctl_text_clean(&clean, id, strlen(id)) == 0 && kb_buf_cstr(&clean))
			fprintf(stderr, "%c %s\n", is_ours ? '*' : ' ', (const char *)clean.data);
		kb_buf_finish(&clean);
	}
	yyjson_doc_free(doc);
}

static void command_model(struct chat *chat, const char *argument)
{
	if (!argument[0]) {
		list_models(chat);
		return;
	}
	char *model = strdup(argument);
	if (!model) {
		note("out of memory");
		return;
	}
	free(chat->model);
	chat->model = model;
}

static void remember_file(struct chat *chat, const char *path)
{
	char *copy = strdup(path);
	free(chat->saved);
	chat->saved = copy;
}

static void command_save(struct chat *chat, const char *argument)
{
	struct kb_buf text = {0};
	struct kb_err err;
	if (!argument[0]) {
		note("/save wants a file's name");
		return;
	}
	bool is_ours = chat->saved && strcmp(chat->saved, argument) == 0;
	if (!is_ours && access(argument, F_OK) == 0) {
		fprintf(stderr, "%s exists; nothing was written (take another name)\n", argument);
		return;
	}
	if (kb_ctl_talk_save(&chat->talk, chat->model, &text)) {
		note("out of memory");
	} else if (kb_ctl_write_file(argument, text.data, text.len, 0600, &err)) {
		note(err.text);
	} else {
		remember_file(chat, argument);
		if (chat->is_terminal)
			fprintf(stderr, "%u messages written to %s\n", chat->talk.n, argument);
	}
	kb_buf_finish(&text);
}

static void command_load(struct chat *chat, const char *argument)
{
	struct kb_buf text = {0};
	struct kb_err err = {0};
	char *model = NULL;
	if (!argument[0]) {
		note("/load wants a file's name");
		return;
	}
	if (kb_ctl_read_file(argument, &text, &err)) {
		note(err.text);
	} else if (kb_ctl_talk_load(&chat->talk, (const char *)text.data, text.len, &model, &err)) {
		fprintf(stderr, "%s: %s\n", argument, err.text);
	} else {
		remember_file(chat, argument);
		if (model) {
			free(chat->model);
			chat->model = model;
		}
		if (chat->is_terminal)
			fprintf(stderr, "%u messages read from %s\n", chat->talk.n, argument);
	}
	kb_buf_finish(&text);
}

static void command_quit(struct chat *chat, const char *argument)
{
	(void)argument;
	chat->is_over = true;
}

static void command_help(struct chat *chat, const char *argument);

static const struct chat_command commands[] = {
	{"help", "", "this list", command_help},
	{"new", "", "forget the conversation (the system text stays)", command_new},
	{"system", "[TEXT]", "set the system text, or take it away", command_system},
	{"model", "[NAME]", "use another model, or list them", command_model},
	{"save", "FILE", "write the conversation as JSON", command_save},
	{"load", "FILE", "go on with a conversation written by /save", command_load},
	{"quit", "", "leave", command_quit},
	{NULL, NULL, NULL, NULL},
};

static void command_help(struct chat *chat, const char *argument)
{
	(void)chat;
	(void)argument;
	for (const struct chat_command *c = commands; c->name; c++)
		fprintf(stderr, "  /%-8s %-8s %s\n", c->name, c->argument, c->help);
	note("A line that ends with \\ goes on; \"\"\" begins and ends a block of lines, never a command; // begins a "
		 "message with a slash.\n"
		 "Ctrl-C stops the answer, Ctrl-D leaves.");
}

// True where the message was a command.
static bool run_command(struct chat *chat, const char *text)
{
	if (text[0] != '/' || text[1] == '/')
		return false;
	size_t len = strcspn(text + 1, " \t\n");
	const char *argument = text + 1 + len;
	argument += strspn(argument, " \t");
	for (const struct chat_command *c = commands; c->name; c++) {
		if (strlen(c->name) == len && memcmp(c->name, text + 1, len) == 0) {
			c->run(chat, argument);
			return true;
		}
	}
	fprintf(stderr, "there is no command /%.*s; /help lists them\n", len < 32 ? (int)len : 32, text + 1);
	return true;
}

// --- answers
static int write_piece(void *ctx, const char *text, size_t len)
{
	struct chat *chat = ctx;
	return kb_ctl_text_write(stdout, text, len, isatty(1) || chat->is_terminal);
}

static void answer(struct chat *chat, const char *text)
{
	const struct kb_ctl_value *o = chat->args->option;
	struct kb_ctl_ask ask = {.model = chat->model,
		.talk = &chat->talk,
		.max_tokens = o[KB_RUN_MAX_TOKENS],
		.temperature = o[KB_RUN_TEMPERATURE],
		.top_p = o[KB_RUN_TOP_P],
		.seed = o[KB_RUN_SEED]};
	struct kb_ctl_answer a = {.on_text = write_piece, .ctx = chat};
	int r = kb_ctl_talk_add(&chat->talk, "user", text);
	if (r) {
		chat->status =
			kb_ctl_fail(KB_CTL_FAILED, r == KB_ELIMIT ? "the conversation is too long: /new" : "out of memory");
		return;
	}
	kb_ctl_interrupted = 0;
	int status = kb_ctl_ask(chat->client, &ask, o[KB_RUN_WAIT].is_set ? o[KB_RUN_WAIT].count : 60, &a);
	kb_ctl_interrupted = 0;
	if (a.text.len > 0 && a.text.data[a.text.len - 1] != '\n')
		putchar('\n');
	if (status == KB_CTL_INTERRUPTED && chat->is_terminal)
		note("[stopped]");
	if (status == KB_CTL_OK && o[KB_RUN_STATS].is_set)
		kb_ctl_answer_stats(&a);
	// What was said stays said, also where it was stopped; without an answer the question is dropped, to ask again.
	const char *said = a.text.len > 0 ? kb_buf_cstr(&a.text) : NULL;
	if (!said || kb_ctl_talk_add(&chat->talk, "assistant", said))
		kb_ctl_talk_drop_last(&chat->talk);
	if (fflush(stdout))
		chat->is_over = true;
	if (status && !chat->is_terminal) { // a script should notice
		chat->is_over = true;
		chat->status = status;
	}
	kb_ctl_answer_finish(&a);
}

static void take_message(struct chat *chat)
{
	const char *text = (const char *)chat->input.text.data;
	if (text[strspn(text, " \t\n")] == 0)
		return;
	if (chat->input.is_quoted)
		answer(chat, text);
	else if (!run_command(chat, text))
		answer(chat, text[0] == '/' ? text + 1 : text);
}

static void talk(struct chat *chat)
{
	while (!chat->is_over) {
		bool is_done = false;
		kb_ctl_interrupted = 0;
		int r = kb_ctl_editor_read(chat->editor, chat->input.is_open ? "... " : "> ", &chat->line);
		if (r == KB_ECANCELLED) {
			kb_ctl_input_reset(&chat->input);
			putchar('\n');
			if (!chat->is_terminal) {
				chat->status = KB_CTL_INTERRUPTED;
				return;
			}
			continue;
		}
		if (r == KB_ECLOSED) {
			if (chat->is_terminal)
				putchar('\n');
			if (kb_ctl_input_end(&chat->input) && !chat->is_terminal)
				take_message(chat);
			return;
		}
		if (r == 0) {
			kb_ctl_editor_remember(chat->editor, (const char *)chat->line.data);
			r = kb_ctl_input_line(&chat->input, (const char *)chat->line.data, &is_done);
		}
		if (r) {
			chat->status = kb_ctl_fail(KB_CTL_FAILED, "%s", kb_err_message(r));
			return;
		}
		if (is_done) {
			take_message(chat);
			kb_ctl_input_reset(&chat->input);
		}
	}
}

static int begin(struct kb_ctl *ctl, struct chat *chat)
{
	struct kb_err err = {0};
	const struct kb_ctl_value *o = chat->args->option;
	int status = kb_ctl_box_open(ctl, &chat->client);
	if (status)
		return status;
	status = kb_ctl_default_model(chat->client, &chat->model);
	if (status)
		return status;
	if (o[KB_RUN_MODEL].is_set)
		command_model(chat, o[KB_RUN_MODEL].text);
	char *history = o[KB_CHAT_NO_HISTORY].is_set ? NULL : kb_ctl_path(ctl->client, "history");
	if (kb_ctl_talk_set_system(&chat->talk, o[KB_RUN_SYSTEM].text))
		status = kb_ctl_fail(KB_CTL_FAILED, "out of memory");
	else if (kb_ctl_editor_create(chat->is_terminal, history, &chat->editor, &err))
		status = kb_ctl_fail(KB_CTL_FAILED, "%s", err.text);
	free(history);
	return status;
}

static void greet(const struct chat *chat)
{
	struct kb_buf clean = {0};
	const char *model = chat->model ? chat->model : "the box's default model";
	if (kb_ctl_text_clean(&clean, model, strlen(model)) == 0 && kb_buf_cstr(&clean))
		fprintf(stderr, "%s. /help lists commands; Ctrl-D leaves.\n", (const char *)clean.data);
	kb_buf_finish(&clean);
}

int kb_ctl_chat(struct kb_ctl *ctl, const struct kb_ctl_args *args)
{
	struct chat chat = {.args = args, .is_terminal = isatty(0) && isatty(1)};
	kb_ctl_catch_interrupt(!chat.is_terminal);
	chat.status = begin(ctl, &chat);
	if (chat.status == KB_CTL_OK) {
		if (chat.is_terminal)
			greet(&chat);
		talk(&chat);
	}
	kb_ctl_editor_destroy(chat.editor);
	kb_http_client_destroy(chat.client);
	kb_ctl_talk_finish(&chat.talk);
	kb_buf_finish(&chat.input.text);
	kb_buf_finish(&chat.line);
	free(chat.model);
	free(chat.saved);
	return chat.status;
}
