#include "text/tok.h"

#include "text/tok_internal.h"

#include <stdlib.h>
#include <string.h>

#define TOKENS_MAX (1u << 22) // the largest published vocabularies are below 2^19

// Names that end an answer whatever the metadata says: the habit of llama.cpp (src/llama-vocab.cpp, special_eog_ids).
// "</s>" only where sentences begin with "<s>" or it is a control token: else it is an HTML tag (Gemma 3, Qwen 2).
static const char *const eog_names[] = {"<|eot_id|>", "<|im_end|>", "<|end|>", "<|return|>", "<|call|>", "<|calls|>",
	"<|flush|>", "<end_of_turn>", "<|endoftext|>", "<|end_of_text|>", "<|eom_id|>", "<EOT>", "_<EOT>", "[EOT]", "[EOS]",
	"<end_of_utterance>", "<turn|>", "<|tool_response>", "<｜end▁of▁sentence｜>", "[e~[", "<|END_OF_TURN_TOKEN|>",
	"<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]", "<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>",
	"<reponame>", "<|file_sep|>"};

// Names that frames are made of. Where a file calls one of these a word of the user's, it is a control token anyway:
// otherwise typing it would begin a turn.
static const char *const frame_names[] = {"<|im_start|>", "<start_of_turn>", "<|start_header_id|>", "<|end_header_id|>",
	"<|begin_of_text|>", "<|system|>", "<|user|>", "<|assistant|>", "[INST]", "[/INST]", "[SYSTEM_PROMPT]",
	"[/SYSTEM_PROMPT]", "<|START_OF_TURN_TOKEN|>"};

uint64_t kb__hash(const void *data, size_t len)
{
	const uint8_t *p = data;
	uint64_t h = 0xcbf29ce484222325u; // FNV-1a, then a finisher
	for (size_t i = 0; i < len; i++)
		h = (h ^ p[i]) * 0x100000001b3u;
	h ^= h >> 32;
	return h * 0x9e3779b97f4a7c15u >> 16;
}

int kb__map_init(struct kb__map *m, uint32_t entries)
{
	uint32_t size = 16;
	while (size < 2 * entries)
		size *= 2;
	m->slots = calloc(size, sizeof *m->slots);
	m->mask = size - 1;
	return m->slots ? 0 : KB_ENOMEM;
}

static struct kb_str key_of(const struct kb_tok *t, uint32_t id)
{
	return t->is_bbpe ? t->piece[id] : t->raw[id];
}

uint32_t kb__tok_lookup(const struct kb_tok *t, const char *text, size_t len)
{
	for (uint64_t h = kb__hash(text, len);; h++) {
		uint32_t slot = t->by_text.slots[h & t->by_text.mask];
		if (!slot)
			return KB_TOK_NONE;
		struct kb_str key = key_of(t, slot - 1);
		if (key.len == len && memcmp(key.data, text, len) == 0)
			return slot - 1;
	}
}

static void index_text(struct kb_tok *t, uint32_t id)
{
	struct kb_str key = key_of(t, id);
	if (kb__tok_lookup(t, key.data, key.len) != KB_TOK_NONE)
		return; // the first of two equal texts is the token, the other is only decoded
	uint64_t h = kb__hash(key.data, key.len);
	while (t->by_text.slots[h & t->by_text.mask])
		h++;
	t->by_text.slots[h & t->by_text.mask] = id + 1;
}

bool kb__tok_is_text(const struct kb_tok *t, uint32_t id)
{
	return t->type[id] != KB__CONTROL && t->type[id] != KB__UNKNOWN && t->type[id] != KB__BYTE;
}

int kb__tok_index(struct kb_tok *t)
{
	int r = kb__map_init(&t->by_text, t->n);
	if (r)
		return r;
	// Some vocabularies list a text twice, in the byte alphabet and as it is: merges make the former.
	for (uint32_t id = 0; id < t->n; id++)
		if (!t->is_bbpe || t->piece[id].data != t->raw[id].data)
			index_text(t, id);
	for (uint32_t id = 0; t->is_bbpe && id < t->n; id++)
		if (t->piece[id].data == t->raw[id].data)
			index_text(t, id);
	return 0;
}

static int load_table(struct kb_tok *t, const struct kb_meta_source *meta, struct kb_err *err)
{
	struct kb_meta_value tokens, types;
	if (meta->find(meta->ctx, "tokenizer.ggml.tokens", &tokens) || !tokens.is_array || tokens.type != KB_META_STRING)
		return kb_fail(err, KB_EBAD, "tokenizer.ggml.tokens is missing or not a list of strings");
	if (tokens.count == 0 || tokens.count > TOKENS_MAX)
		return kb_fail(err, KB_ELIMIT, "tokenizer.ggml.tokens has %llu entries; 1 to %u are supported",
			(unsigned long long)tokens.count, TOKENS_MAX);
	t->n = (uint32_t)tokens.count;
	t->raw = calloc(t->n, sizeof *t->raw);
	t->piece = calloc(t->n, sizeof *t->piece);
	t->type = malloc(t->n);
	t->is_eog = calloc(t->n, sizeof *t->is_eog);
	if (!t->raw || !t->piece || !t->type || !t->is_eog)
		return kb_fail(err, KB_ENOMEM, "no memory for %u tokens", t->n);
	size_t cursor = 0;
	for (uint32_t i = 0; i < t->n; i++)
		if (!kb_meta_array_next_str(&tokens, &cursor, &t->raw[i]))
			return kb_fail(err, KB_EBAD, "tokenizer.ggml.tokens ends at entry %u of %u", i, t->n);
	memset(t->type, KB__NORMAL, t->n);
	int r = meta->find(meta->ctx, "tokenizer.ggml.token_type", &types);
	if (r == 0 && (!types.is_array || types.type == KB_META_STRING || types.count != t->n))
		return kb_fail(err, KB_EBAD, "tokenizer.ggml.token_type does not have one number for each of %u tokens", t->n);
	for (uint32_t i = 0; r == 0 && i < t->n; i++) {
		int64_t type = kb_meta_array_i64(&types, i);
		t->type[i] = type >= KB__NORMAL && type <= KB__BYTE ? (uint8_t)type : KB__NORMAL;
	}
	return 0;
}

static uint32_t load_id(const struct kb_tok *t, const struct kb_meta_source *meta, const char *key)
{
	uint64_t id;
	return kb_meta_u64(meta, key, &id) == 0 && id < t->n ? (uint32_t)id : KB_TOK_NONE;
}

static void load_flag(const struct kb_meta_source *meta, const char *key, bool *flag)
{
	bool value;
	if (kb_meta_bool(meta, key, &value) == 0)
		*flag = value;
}

// Makes the token of that name a control token where it can be meant as one: where the file has it apart from words, or
// where the name is nobody's word. KB_TOK_NONE: there is no such token.
static uint32_t make_control(struct kb_tok *t, const char *name)
{
	uint32_t id = kb__tok_lookup(t, name, strlen(name));
	bool is_word = strncmp(name, "<|", 2) != 0 && strcmp(name, "<end_of_turn>") != 0;
	if (id == KB_TOK_NONE || (t->type[id] == KB__NORMAL && is_word) || t->type[id] == KB__BYTE)
		return KB_TOK_NONE;
	t->type[id] = KB__CONTROL;
	return id;
}

static void load_ends(struct kb_tok *t, const struct kb_meta_source *meta)
{
	static const char *const keys[] = {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id",
		"tokenizer.ggml.eom_token_id", "tokenizer.ggml.fim_pad_token_id", "tokenizer.ggml.fim_rep_token_id",
		"tokenizer.ggml.fim_sep_token_id"};
	uint32_t id, end, slash_s = kb__tok_lookup(t, "</s>", 4);
	t->bos = load_id(t, meta, "tokenizer.ggml.bos_token_id");
	t->eos = load_id(t, meta, keys[0]);
	t->unk = load_id(t, meta, "tokenizer.ggml.unknown_token_id");
	for (size_t i = 0; i < sizeof eog_names / sizeof *eog_names; i++)
		if ((id = make_control(t, eog_names[i])) != KB_TOK_NONE)
			t->is_eog[id] = true;
	bool has_s = t->bos != KB_TOK_NONE && t->raw[t->bos].len == 3 && memcmp(t->raw[t->bos].data, "<s>", 3) == 0;
	if (slash_s != KB_TOK_NONE && ((has_s && t->type[slash_s] == KB__USER) || t->type[slash_s] == KB__CONTROL)) {
		t->type[slash_s] = KB__CONTROL;
		t->is_eog[slash_s] = true;
	}
	end = kb__tok_lookup(t, "<|end|>", 7);
	if (end != KB_TOK_NONE && kb__tok_lookup(t, "<|return|>", 10) != KB_TOK_NONE)
		t->is_eog[end] = false; // Harmony: it ends a message, the answer goes on
	for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
		if ((id = load_id(t, meta, keys[i])) != KB_TOK_NONE)
			t->is_eog[id] = true;
	for (size_t i = 0; i < sizeof frame_names / sizeof *frame_names; i++)
		(void)make_control(t, frame_names[i]);
	const uint32_t both[] = {t->bos, t->eos};
	for (int i = 0; i < 2; i++)
		if (both[i] != KB_TOK_NONE && t->type[both[i]] == KB__USER)
			t->type[both[i]] = KB__CONTROL;
}

static int by_text(const void *a, const void *b, void *ctx)
{
	const struct kb_tok *t = ctx;
	struct kb_str x = t->raw[*(const uint32_t *)a], y = t->raw[*(const uint32_t *)b];
	int order = memcmp(x.data, y.data, x.len < y.len ? x.len : y.len);
	return order ? order : x.len < y.len ? -1 : x.len > y.len;
}

static int longest_first(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
	return x > y ? -1 : x < y;
}

static int index_specials(struct kb_tok *t)
{
	for (uint32_t i = 0; i < t->n; i++)
		t->n_special += t->type[i] >= KB__UNKNOWN && t->type[i] <= KB__USER && t->raw[i].len > 0;
	t->special = calloc(t->n_special + 1, sizeof *t->special);
	if (!t->special)
		return KB_ENOMEM;
	for (uint32_t i = 0, k = 0; i < t->n; i++)
		if (t->type[i] >= KB__UNKNOWN && t->type[i] <= KB__USER && t->raw[i].len > 0)
			t->special[k++] = i;
	t->special_lens = malloc((t->n_special + 1) * sizeof *t->special_lens);
	if (!t->special_lens)
		return KB_ENOMEM;
	for (uint32_t i = 0; i < t->n_special; i++)
		t->special_lens[i] = (uint32_t)t->raw[t->special[i]].len;
	qsort(t->special_lens, t->n_special, sizeof *t->special_lens, longest_first);
	for (uint32_t i = 0; i < t->n_special; i++)
		if (i == 0 || t->special_lens[i] != t->special_lens[i - 1])
			t->special_lens[t->n_special_lens++] = t->special_lens[i];
	qsort_r(t->special, t->n_special, sizeof *t->special, by_text, t);
	for (uint32_t byte = 0, k = 0; byte < 256; byte++) {
		t->special_begin[byte] = k;
		while (k < t->n_special && (uint8_t)t->raw[t->special[k]].data[0] == byte)
			k++;
		t->special_begin[byte + 1] = k;
	}
	return 0;
}

static int load(struct kb_tok *t, const struct kb_meta_source *meta, struct kb_err *err)
{
	struct kb_str model;
	if (kb_meta_str(meta, "tokenizer.ggml.model", &model))
		return kb_fail(err, KB_EBAD, "tokenizer.ggml.model is missing: the file has no tokenizer");
	t->is_bbpe = model.len == 4 && memcmp(model.data, "gpt2", 4) == 0;
	if (!t->is_bbpe && !(model.len == 5 && memcmp(model.data, "llama", 5) == 0))
		return kb_fail(err, KB_EUNSUPPORTED, "tokenizer kind '%.*s' is not supported; gpt2 and llama are",
			(int)(model.len < 32 ? model.len : 32), model.data);
	int r = load_table(t, meta, err);
	if (r)
		return r;
	r = t->is_bbpe ? kb__bbpe_load(t, meta, err) : kb__spbpe_load(t, meta, err);
	if (r)
		return r;
	load_flag(meta, "tokenizer.ggml.add_bos_token", &t->add_bos);
	load_flag(meta, "tokenizer.ggml.add_eos_token", &t->add_eos);
	load_flag(meta, "tokenizer.ggml.add_space_prefix", &t->add_space);
	load_ends(t, meta);
	t->add_bos = t->add_bos && t->bos != KB_TOK_NONE;
	if (index_specials(t))
		return kb_fail(err, KB_ENOMEM, "no memory for the tokenizer");
	return 0;
}

int kb_tok_create(const struct kb_meta_source *meta, struct kb_err *err, struct kb_tok **ret)
{
	struct kb_tok *t = calloc(1, sizeof *t);
	if (!t)
		return kb_fail(err, KB_ENOMEM, "no memory for the tokenizer");
	for (int i = 0; i < 256; i++)
		t->byte_id[i] = KB_TOK_NONE;
	int r = load(t, meta, err);
	if (r) {
		kb_tok_destroy(t);
		return r;
	}
	*ret = t;
	return 0;
}

void kb_tok_destroy(struct kb_tok *t)
{
	if (!t)
		return;
	free(t->by_text.slots);
	free(t->by_pair.slots);
	free(t->raw);
	free(t->piece);
	free(t->type);
	free(t->is_eog);
	free(t->score);
	free(t->pool);
	free(t->merges);
	free(t->special);
	free(t->special_lens);
	free(t);
}

uint32_t kb_tok_size(const struct kb_tok *t)
{
	return t->n;
}

size_t kb_tok_bound(size_t bytes)
{
	return 4 * bytes +
		   8; // a space may fall back to the three bytes of U+2581, and so may one put after a control token
}

struct kb_str kb_tok_piece(const struct kb_tok *t, uint32_t id)
{
	return id < t->n ? t->piece[id] : (struct kb_str){"", 0};
}

bool kb_tok_is_control(const struct kb_tok *t, uint32_t id)
{
	return id < t->n && (t->type[id] == KB__CONTROL || t->type[id] == KB__UNKNOWN);
}

bool kb_tok_is_eog(const struct kb_tok *t, uint32_t id)
{
	return id < t->n && t->is_eog[id];
}

uint32_t kb_tok_find(const struct kb_tok *t, const char *text, size_t len)
{
	return kb__tok_lookup(t, text, len);
}

uint32_t kb_tok_bos(const struct kb_tok *t)
{
	return t->bos;
}

uint32_t kb_tok_eos(const struct kb_tok *t)
{
	return t->eos;
}

bool kb_tok_adds_bos(const struct kb_tok *t)
{
	return t->add_bos;
}

bool kb_tok_adds_space(const struct kb_tok *t)
{
	return t->add_space;
}
