#include "text/chat.h"

#include <string.h>

enum kind { SYSTEM, USER, ASSISTANT, KINDS };

enum system_place {
	OWN_TURN,  // system messages are turns like others
	IN_PROMPT, // the first message only, put before the first user's content
};

// before/after: text around the content of a turn of each kind.
struct kb_chat_frame {
	const char *name;
	const char *marks[2]; // both are in the model's template; NULL: not asked for
	const char *opening;
	const char *default_system; // when the first turn is not the system's
	struct {
		const char *before, *after;
	} turn[KINDS];
	const char *generation;
	const char *stop;
	enum system_place system;
	bool trims;      // content loses white space at both ends
	bool alternates; // user and assistant take turns, the user first
};

#define CHATML                                                      \
	.turn = {[SYSTEM] = {"<|im_start|>system\n", "<|im_end|>\n"},   \
		[USER] = {"<|im_start|>user\n", "<|im_end|>\n"},            \
		[ASSISTANT] = {"<|im_start|>assistant\n", "<|im_end|>\n"}}, \
	.generation = "<|im_start|>assistant\n"

// The first row whose marks are in the template is taken: rows with more particular marks come first.
static const struct kb_chat_frame frames[] = {
	{.name = "smollm",
		.marks = {"<|im_start|>", "named SmolLM, trained by Hugging Face"},
		.default_system = "You are a helpful AI assistant named SmolLM, trained by Hugging Face",
		CHATML},
	{.name = "qwen2.5",
		.marks = {"<|im_start|>", "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."},
		.default_system = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.",
		CHATML},
	{.name = "qwen2",
		.marks = {"<|im_start|>", "<|im_start|>system\nYou are a helpful assistant"},
		.default_system = "You are a helpful assistant.",
		CHATML},
	{.name = "chatml", .marks = {"<|im_start|>", "<|im_end|>"}, CHATML},
	{.name = "gemma",
		.marks = {"<start_of_turn>", "<end_of_turn>"},
		.turn = {[SYSTEM] = {"", "\n\n"},
			[USER] = {"<start_of_turn>user\n", "<end_of_turn>\n"},
			[ASSISTANT] = {"<start_of_turn>model\n", "<end_of_turn>\n"}},
		.generation = "<start_of_turn>model\n",
		.system = IN_PROMPT,
		.trims = true,
		.alternates = true},
	{.name = "llama3",
		.marks = {"<|start_header_id|>", "<|eot_id|>"},
		.turn = {[SYSTEM] = {"<|start_header_id|>system<|end_header_id|>\n\n", "<|eot_id|>"},
			[USER] = {"<|start_header_id|>user<|end_header_id|>\n\n", "<|eot_id|>"},
			[ASSISTANT] = {"<|start_header_id|>assistant<|end_header_id|>\n\n", "<|eot_id|>"}},
		.generation = "<|start_header_id|>assistant<|end_header_id|>\n\n",
		.trims = true},
	{.name = "llm-jp-3",
		.marks = {"### 指示:", "### 応答:"},
		.default_system = "以下は、タスクを説明する指示です。要求を適切に満たす応答を書きなさい。",
		.turn = {[SYSTEM] = {"", ""}, [USER] = {"\n\n### 指示:\n", ""}, [ASSISTANT] = {"\n\n### 応答:\n", "</s>"}},
		.generation = "\n\n### 応答:\n",
		.stop = "\n\n### 指示:",
		.alternates = true},
	{.name = "plain",
		.turn = {[SYSTEM] = {"", "\n\n"}, [USER] = {"User: ", "\n"}, [ASSISTANT] = {"Assistant: ", "\n"}},
		.generation = "Assistant:",
		.stop = "\nUser:",
		.trims = true},
};

static bool has(struct kb_str text, const char *mark)
{
	return !mark || memmem(text.data, text.len, mark, strlen(mark)) != NULL;
}

static bool equals(struct kb_str s, const char *text)
{
	return s.len == strlen(text) && memcmp(s.data, text, s.len) == 0;
}

const struct kb_chat_frame *kb_chat_by_name(const char *name)
{
	for (size_t i = 0; i < sizeof frames / sizeof *frames; i++)
		if (strcmp(frames[i].name, name) == 0)
			return &frames[i];
	return NULL;
}

int kb_chat_find(const struct kb_meta_source *meta, struct kb_err *err, const struct kb_chat_frame **ret)
{
	struct kb_str template, arch = {"", 0};
	if (kb_meta_str(meta, "tokenizer.chat_template", &template)) {
		int r = kb_meta_str(meta, "general.architecture", &arch);
		*ret = kb_chat_by_name(r == 0 && arch.len >= 5 && memcmp(arch.data, "gemma", 5) == 0 ? "gemma" : "plain");
		return 0;
	}
	// Llama 3.1's frame writes dates and tool lists into its system turn: not the plain row of Llama 3.
	bool is_dated = has(template, "Cutting Knowledge Date");
	for (size_t i = 0; !is_dated && i < sizeof frames / sizeof *frames; i++) {
		if (!frames[i].marks[0] || !has(template, frames[i].marks[0]) || !has(template, frames[i].marks[1]))
			continue;
		*ret = &frames[i];
		return 0;
	}
	return kb_fail(err, KB_EUNSUPPORTED,
		"the model's chat template is none of the built-in frames; use completions, or "
		"choose a frame by name");
}

const char *kb_chat_name(const struct kb_chat_frame *f)
{
	return f->name;
}

const char *kb_chat_stop(const struct kb_chat_frame *f)
{
	return f->stop;
}

struct out {
	struct kb_span *spans;
	size_t n, cap;
	bool is_full;
};

static void put(struct out *o, const char *data, size_t len, bool trusted)
{
	if (!len)
		return;
	if (o->n == o->cap) {
		o->is_full = true;
		return;
	}
	o->spans[o->n++] = (struct kb_span){data, len, trusted};
}

static void put_piece(struct out *o, const char *piece)
{
	if (piece)
		put(o, piece, strlen(piece), true);
}

static bool is_space(char c)
{
	return c == ' ' || (c >= '\t' && c <= '\r');
}

static void put_content(struct out *o, const struct kb_chat_frame *f, struct kb_str s)
{
	while (f->trims && s.len && is_space(s.data[0])) {
		s.data++;
		s.len--;
	}
	while (f->trims && s.len && is_space(s.data[s.len - 1]))
		s.len--;
	put(o, s.data, s.len, false);
}

static int kind_of(struct kb_str role)
{
	if (equals(role, "system") || equals(role, "developer"))
		return SYSTEM;
	return equals(role, "user") ? USER : equals(role, "assistant") ? ASSISTANT : -1;
}

static int check_turns(const struct kb_chat_frame *f, const struct kb_chat_turn *turns, size_t n, struct kb_err *err)
{
	int expected = USER;
	if (n == 0)
		return kb_fail(err, KB_EARG, "messages is empty");
	if (n > KB_CHAT_TURNS_MAX)
		return kb_fail(err, KB_ELIMIT, "%zu messages; %u at most", n, KB_CHAT_TURNS_MAX);
	for (size_t i = 0; i < n; i++) {
		int kind = kind_of(turns[i].role);
		int len = (int)(turns[i].role.len < 32 ? turns[i].role.len : 32);
		if (kind < 0)
			return kb_fail(err, KB_EARG, "messages[%zu]: role '%.*s' is not supported; system, user and assistant are",
				i, len, turns[i].role.data);
		if (kind == SYSTEM && (f->system == IN_PROMPT || f->alternates) && i > 0)
			return kb_fail(err, KB_EARG, "messages[%zu]: this model takes a system message only as the first", i);
		if (kind == SYSTEM || !f->alternates)
			continue;
		if (kind != expected)
			return kb_fail(
				err, KB_EARG, "messages[%zu]: this model wants user and assistant in turn, the user first", i);
		expected = kind == USER ? ASSISTANT : USER;
	}
	return 0;
}

int kb_chat_render(const struct kb_chat_frame *f, const struct kb_chat_turn *turns, size_t n, struct kb_span *spans,
	size_t cap, struct kb_err *err, size_t *ret_n)
{
	struct out o = {.spans = spans, .cap = cap};
	const struct kb_chat_turn *system = NULL;
	int r = check_turns(f, turns, n, err);
	if (r)
		return r;
	put_piece(&o, f->opening);
	if (f->default_system && kind_of(turns[0].role) != SYSTEM) {
		put_piece(&o, f->turn[SYSTEM].before);
		put_piece(&o, f->default_system);
		put_piece(&o, f->turn[SYSTEM].after);
	}
	for (size_t i = 0; i < n; i++) {
		int kind = kind_of(turns[i].role);
		if (kind == SYSTEM && f->system == IN_PROMPT) {
			system = &turns[i];
			continue;
		}
		put_piece(&o, f->turn[kind].before);
		if (system) {
			put_piece(&o, f->turn[SYSTEM].before);
			put(&o, system->content.data, system->content.len, false);
			put_piece(&o, f->turn[SYSTEM].after);
			system = NULL;
		}
		put_content(&o, f, turns[i].content);
		put_piece(&o, f->turn[kind].after);
	}
	put_piece(&o, f->generation);
	if (o.is_full)
		return kb_fail(err, KB_ELIMIT, "%zu messages need more than %zu spans", n, cap);
	*ret_n = o.n;
	return 0;
}
