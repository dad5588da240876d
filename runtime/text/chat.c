#include "text/chat.h"

#include <string.h>

enum kind { SYSTEM, USER, ASSISTANT, KINDS };

enum system_place {
	OWN_TURN,      // system messages are turns like others
	FIRST_TURN,    // likewise, but only as the first
	IN_FIRST_USER, // the first message only, put before the first user's content
	IN_LAST_USER,  // likewise, before the last user's
};

struct kb_chat_frame {
	const char *name;
	// All of marks and none of nots are in the model's template. A newline also stands for its escape, "\n".
	// No marks: taken by name only.
	const char *marks[3], *nots[6];
	const char *default_system; // when the first turn is not the system's
	struct {
		const char *before, *after;
	} turn[KINDS];
	const char *later_user; // before every user's turn but the first
	const char *generation;
	const char *stop;
	enum system_place system;
	bool trims;           // content loses white space at both ends
	bool joins_system;    // trims the user's content and the system's before it as one
	bool alternates;      // user and assistant take turns, the user first
	bool strips_thoughts; // an earlier answer is what comes after its </think>
};

#define CHATML                                                      \
	.turn = {[SYSTEM] = {"<|im_start|>system\n", "<|im_end|>\n"},   \
		[USER] = {"<|im_start|>user\n", "<|im_end|>\n"},            \
		[ASSISTANT] = {"<|im_start|>assistant\n", "<|im_end|>\n"}}, \
	.generation = "<|im_start|>assistant\n"

#define LLAMA3_TURNS                                                         \
	[USER] = {"<|start_header_id|>user<|end_header_id|>\n\n", "<|eot_id|>"}, \
	[ASSISTANT] = {"<|start_header_id|>assistant<|end_header_id|>\n\n", "<|eot_id|>"}

#define PHI3                                             \
	.turn = {[SYSTEM] = {"<|system|>\n", "<|end|>\n"},   \
		[USER] = {"<|user|>\n", "<|end|>\n"},            \
		[ASSISTANT] = {"<|assistant|>\n", "<|end|>\n"}}, \
	.generation = "<|assistant|>\n"

#define INSTRUCTION "\n\n### 指示:\n"
#define RESPONSE "\n\n### 応答:\n"
#define TASK "以下は、タスクを説明する指示です。要求を適切に満たす応答を書きなさい。"

// The first row that fits is taken: rows with more particular marks come first. Sources: the models' own templates
// (tests/data/make_chat_golden.py names them) and, for rows without marks, the models' cards.
static const struct kb_chat_frame frames[] = {
	{.name = "smollm",
		.marks = {"<|im_start|>", "named SmolLM, trained by Hugging Face<|im_end|>"},
		.nots = {"think"},
		.default_system = "You are a helpful AI assistant named SmolLM, trained by Hugging Face",
		CHATML},
	{.name = "qwen2.5",
		.marks = {"<|im_start|>", "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>"},
		.nots = {"think"},
		.default_system = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.",
		CHATML},
	{.name = "qwen2",
		.marks = {"<|im_start|>system\nYou are a helpful assistant.<|im_end|>"},
		.nots = {"think"},
		.default_system = "You are a helpful assistant.",
		CHATML},
	{.name = "qwen1.5",
		.marks = {"<|im_start|>system\nYou are a helpful assistant<|im_end|>"},
		.nots = {"think"},
		.default_system = "You are a helpful assistant",
		CHATML},
	{.name = "qwen3",
		.marks = {"<|im_start|>", "enable_thinking is false", "ns.last_query_index"},
		.nots = {"render_content", "<think>\n' }}"},
		.strips_thoughts = true,
		CHATML},
	{.name = "chatml",
		.marks = {"<|im_start|>", "<|im_end|>"},
		.nots = {"think", "You are", "<|im_sep|>", "strftime_now", "content | trim", "content|trim"},
		CHATML},
	{.name = "gemma",
		.marks = {"<start_of_turn>", "<end_of_turn>\n"},
		.nots = {"tools"},
		.turn = {[SYSTEM] = {"", "\n\n"},
			[USER] = {"<start_of_turn>user\n", "<end_of_turn>\n"},
			[ASSISTANT] = {"<start_of_turn>model\n", "<end_of_turn>\n"}},
		.generation = "<start_of_turn>model\n",
		.system = IN_FIRST_USER,
		.trims = true,
		.alternates = true},
	{.name = "llama3.1", // also 3.2 and 3.3; its date is the template's own, for there is no clock here
		.marks = {"<|start_header_id|>", "Cutting Knowledge Date: December 2023\n", "26 Jul 2024"},
		.default_system = "",
		.turn = {[SYSTEM] = {"<|start_header_id|>system<|end_header_id|>\n\n"
							 "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n",
					 "<|eot_id|>"},
			LLAMA3_TURNS},
		.generation = "<|start_header_id|>assistant<|end_header_id|>\n\n",
		.system = FIRST_TURN,
		.trims = true},
	{.name = "llama3",
		.marks = {"<|start_header_id|>", "<|eot_id|>"},
		.nots = {"Cutting Knowledge", "functions", "You are", "think"},
		.turn = {[SYSTEM] = {"<|start_header_id|>system<|end_header_id|>\n\n", "<|eot_id|>"}, LLAMA3_TURNS},
		.generation = "<|start_header_id|>assistant<|end_header_id|>\n\n",
		.trims = true},
	{.name = "llama2", // also ELYZA's of the Llama 2 line
		.marks = {"<<SYS>>\n", "'[INST] ' + content.strip() + ' [/INST]'", "' ' + content.strip() + ' ' + eos_token"},
		.nots = {"true == true", "You are"},
		.turn = {[SYSTEM] = {"<<SYS>>\n", "\n<</SYS>>\n\n"},
			[USER] = {"[INST] ", " [/INST]"},
			[ASSISTANT] = {" ", " </s>"}},
		.later_user = "<s>",
		.system = IN_FIRST_USER,
		.trims = true,
		.joins_system = true,
		.alternates = true},
	{.name = "mistral-v1",
		.marks = {"'[INST] ' + message['content'] + ' [/INST]'", "message['content'] + eos_token}}"},
		.nots = {"<<SYS>>", "message['content'] | trim", "system_message"},
		.turn = {[SYSTEM] = {"", "\n\n"}, [USER] = {"[INST] ", " [/INST]"}, [ASSISTANT] = {"", "</s>"}},
		.system = IN_FIRST_USER,
		.alternates = true},
	{.name = "mistral-v3-tekken",
		.marks = {"\"[INST]\" + system_message + \"\n\n\"", "\"[INST]\" + message[\"content\"] + \"[/INST]\"",
			"loop.last and system_message is defined"},
		.turn = {[SYSTEM] = {"", "\n\n"}, [USER] = {"[INST]", "[/INST]"}, [ASSISTANT] = {"", "</s>"}},
		.system = IN_LAST_USER,
		.alternates = true},
	{.name = "mistral-v7",
		.marks = {"'[SYSTEM_PROMPT] ' + message['content'] + '[/SYSTEM_PROMPT]'",
			"'[INST] ' + message['content'] + '[/INST]'", "' ' + message['content'] + eos_token"},
		.turn = {[SYSTEM] = {"[SYSTEM_PROMPT] ", "[/SYSTEM_PROMPT]"},
			[USER] = {"[INST] ", "[/INST]"},
			[ASSISTANT] = {" ", "</s>"}}},
	{.name = "phi3",
		.marks = {"<|user|>\n", "<|end|>\n", "<|assistant|>\n"},
		.nots = {"think", "You are", "tools"},
		PHI3},
	{.name = "phi3", .marks = {"'<|user|>' + '\n' + message['content'] + '<|end|>' + '\n'"}, PHI3},
	{.name = "phi3", .marks = {"'<|' + message['role'] + '|>' + '\n' + message['content'] + '<|end|>\n'"}, PHI3},
	{.name = "sarashina2.2",
		.marks = {"'<|user|>' + message['content'] + eos_token", "'<|system|>' + message['content'] + eos_token",
			"'<|assistant|>' + message['content'] + eos_token"},
		.turn =
			{[SYSTEM] = {"<|system|>", "</s>"}, [USER] = {"<|user|>", "</s>"}, [ASSISTANT] = {"<|assistant|>", "</s>"}},
		.generation = "<|assistant|>"},
	{.name = "llm-jp-3", // its template writes TASK in place of any system message; here that is the default
		.marks = {"'" INSTRUCTION "' + message['content']", "'" RESPONSE "' + message['content'] + eos_token", TASK},
		.default_system = TASK,
		.turn = {[USER] = {INSTRUCTION, ""}, [ASSISTANT] = {RESPONSE, "</s>"}},
		.generation = RESPONSE,
		.stop = "\n\n### 指示:",
		.system = FIRST_TURN},
	{.name = "llm-jp-3.1",
		.marks = {"'" INSTRUCTION "' + message['content']", "'" RESPONSE "' + message['content'] + eos_token",
			"{{ message['content'] }}"},
		.turn = {[USER] = {INSTRUCTION, ""}, [ASSISTANT] = {RESPONSE, "</s>"}},
		.generation = RESPONSE,
		.stop = "\n\n### 指示:"},
	{.name = "weblab", // also Tanuki: llm-jp's without the last newline
		.default_system = TASK,
		.turn = {[USER] = {INSTRUCTION, ""}, [ASSISTANT] = {"\n\n### 応答:", "</s>"}},
		.generation = "\n\n### 応答:",
		.stop = "\n\n### 指示:",
		.system = FIRST_TURN,
		.alternates = true},
	{.name = "calm2",
		.turn = {[SYSTEM] = {"", "\n"}, [USER] = {"USER: ", "\n"}, [ASSISTANT] = {"ASSISTANT: ", "<|endoftext|>\n"}},
		.generation = "ASSISTANT: ",
		.stop = "\nUSER:",
		.system = FIRST_TURN,
		.alternates = true},
	{.name = "stockmark-13b",
		.turn = {[SYSTEM] = {"", "\n\n"}, [USER] = {"### Input:\n", "\n\n"}, [ASSISTANT] = {"### Output:\n", "\n\n"}},
		.generation = "### Output:\n",
		.stop = "\n\n### Input:",
		.system = FIRST_TURN,
		.alternates = true},
	{.name = "stockmark-100b",
		.turn = {[SYSTEM] = {"", "\n\n"}, [USER] = {"### 指示:\n", "\n\n"}, [ASSISTANT] = {"### 応答:\n", "\n\n"}},
		.generation = "### 応答:\n",
		.stop = "\n\n### 指示:",
		.system = FIRST_TURN,
		.alternates = true},
	{.name = "plain",
		.turn = {[SYSTEM] = {"", "\n\n"}, [USER] = {"User: ", "\n"}, [ASSISTANT] = {"Assistant: ", "\n"}},
		.generation = "Assistant:",
		.stop = "\nUser:",
		.trims = true},
};

// Does mark begin text? A newline of mark may also be the two characters of its escape.
static bool begins_with(struct kb_str text, const char *mark)
{
	size_t at = 0;
	for (; *mark; mark++) {
		if (*mark == '\n' && text.len - at >= 2 && text.data[at] == '\\' && text.data[at + 1] == 'n')
			at += 2;
		else if (at < text.len && text.data[at] == *mark)
			at++;
		else
			return false;
	}
	return true;
}

static bool has(struct kb_str text, const char *mark)
{
	for (; text.len; text.data++, text.len--)
		if (begins_with(text, mark))
			return true;
	return false;
}

static bool fits(const struct kb_chat_frame *f, struct kb_str template)
{
	if (!f->marks[0])
		return false;
	for (size_t i = 0; i < sizeof f->marks / sizeof *f->marks; i++)
		if (f->marks[i] && !has(template, f->marks[i]))
			return false;
	for (size_t i = 0; i < sizeof f->nots / sizeof *f->nots; i++)
		if (f->nots[i] && has(template, f->nots[i]))
			return false;
	return true;
}

static bool equals(struct kb_str s, const char *text)
{
	return s.len == strlen(text) && memcmp(s.data, text, s.len) == 0;
}

const struct kb_chat_frame *kb_chat_at(size_t i)
{
	return i < sizeof frames / sizeof *frames ? &frames[i] : NULL;
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
	for (size_t i = 0; i < sizeof frames / sizeof *frames; i++) {
		if (!fits(&frames[i], template))
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

static struct kb_str trim(struct kb_str s, bool left)
{
	while (left && s.len && is_space(s.data[0])) {
		s.data++;
		s.len--;
	}
	while (s.len && is_space(s.data[s.len - 1]))
		s.len--;
	return s;
}

static struct kb_str after_thoughts(struct kb_str s)
{
	static const char end[] = "</think>";
	bool found = false;
	for (const char *p; (p = memmem(s.data, s.len, end, sizeof end - 1)); found = true) {
		s.len -= (size_t)(p - s.data) + sizeof end - 1;
		s.data = p + sizeof end - 1;
	}
	for (; found && s.len && s.data[0] == '\n'; s.data++)
		s.len--;
	return s;
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
		if (kind == SYSTEM && (f->system != OWN_TURN || f->alternates) && i > 0)
			return kb_fail(err, KB_EARG, "messages[%zu]: this model takes a system message only as the first", i);
		if (kind == SYSTEM || !f->alternates)
			continue;
		if (kind != expected)
			return kb_fail(
				err, KB_EARG, "messages[%zu]: this model wants user and assistant in turn, the user first", i);
		expected = kind == USER ? ASSISTANT : USER;
	}
	if (f->strips_thoughts && kind_of(turns[n - 1].role) == ASSISTANT)
		return kb_fail(err, KB_EARG, "messages[%zu]: this model wants the user to have the last word", n - 1);
	return 0;
}

// The user's turn that takes the system message in; n: none.
static size_t host_of_system(const struct kb_chat_frame *f, const struct kb_chat_turn *turns, size_t n)
{
	size_t host = n;
	if ((f->system == IN_FIRST_USER || f->system == IN_LAST_USER) && kind_of(turns[0].role) == SYSTEM)
		for (size_t i = 1; i < n && (host == n || f->system == IN_LAST_USER); i++)
			if (kind_of(turns[i].role) == USER)
				host = i;
	return host;
}

static void put_system(struct out *o, const struct kb_chat_frame *f, struct kb_str content)
{
	put_piece(o, f->turn[SYSTEM].before);
	put(o, content.data, content.len, false);
	put_piece(o, f->turn[SYSTEM].after);
}

static void put_turn(
	struct out *o, const struct kb_chat_frame *f, const struct kb_chat_turn *turn, const struct kb_chat_turn *system)
{
	int kind = kind_of(turn->role);
	struct kb_str content = turn->content;
	if (kind == ASSISTANT && f->strips_thoughts)
		content = after_thoughts(content);
	if (f->trims)
		content = trim(content, !(system && f->joins_system));
	put_piece(o, f->turn[kind].before);
	if (system)
		put_system(o, f, system->content);
	put(o, content.data, content.len, false);
	put_piece(o, f->turn[kind].after);
}

int kb_chat_render(const struct kb_chat_frame *f, const struct kb_chat_turn *turns, size_t n, struct kb_span *spans,
	size_t cap, struct kb_err *err, size_t *ret_n)
{
	struct out o = {.spans = spans, .cap = cap};
	bool has_user = false;
	int r = check_turns(f, turns, n, err);
	if (r)
		return r;
	size_t host = host_of_system(f, turns, n);
	if (host == n && (f->system == IN_FIRST_USER || f->system == IN_LAST_USER) && kind_of(turns[0].role) == SYSTEM)
		return kb_fail(err, KB_EARG, "messages: this model takes a system message only with a user's message");
	if (f->default_system && kind_of(turns[0].role) != SYSTEM) {
		put_piece(&o, f->turn[SYSTEM].before);
		put_piece(&o, f->default_system);
		put_piece(&o, f->turn[SYSTEM].after);
	}
	for (size_t i = 0; i < n; i++) {
		int kind = kind_of(turns[i].role);
		if (i == 0 && host < n)
			continue;
		if (kind == USER && has_user)
			put_piece(&o, f->later_user);
		has_user |= kind == USER;
		put_turn(&o, f, &turns[i], i == host ? &turns[0] : NULL);
	}
	put_piece(&o, f->generation);
	if (o.is_full)
		return kb_fail(err, KB_ELIMIT, "%zu messages need more than %zu spans", n, cap);
	*ret_n = o.n;
	return 0;
}
