/* see hparams.h. Keys: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, "LLM". */
#include "model/hparams.h"
#include "base/limits.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

struct reader {
	const struct kb_meta_source *meta;
	struct kb_err *err;
	const char *arch;
	char key[KB_MAX_META_KEY_BYTES + 1]; // the one being read
	int failed;                          // the first failure; later reads do nothing
};

static const char *key_of(struct reader *r, const char *suffix)
{
	snprintf(r->key, sizeof r->key, "%s.%s", r->arch, suffix);
	return r->key;
}

// A whole number from 1 to max. With a fallback, the key may be missing.
static uint32_t number_or(struct reader *r, const char *suffix, uint64_t max, const uint32_t *fallback)
{
	uint64_t value = 0;
	if (r->failed)
		return 1;
	int e = kb_meta_u64(r->meta, key_of(r, suffix), &value);
	if (e == KB_ENOTFOUND && fallback)
		return *fallback;
	if (e == KB_ENOTFOUND)
		r->failed = kb_fail(r->err, KB_EBAD, "%s is missing from the model's metadata", r->key);
	else if (e)
		r->failed = kb_fail(
			r->err, KB_EUNSUPPORTED, "%s is not one whole number (a list for each layer, or another type)", r->key);
	else if (value == 0)
		r->failed = kb_fail(r->err, KB_EBAD, "%s is 0", r->key);
	else if (value > max)
		r->failed = kb_fail(r->err, KB_ELIMIT, "%s is %llu; the most supported is %llu", r->key,
			(unsigned long long)value, (unsigned long long)max);
	return r->failed ? 1 : (uint32_t)value;
}

static uint32_t number(struct reader *r, const char *suffix, uint64_t max)
{
	return number_or(r, suffix, max, NULL);
}

// A finite number from min to max, or the fallback where the key is missing; fallback NAN: it must be there.
static double real_or(struct reader *r, const char *suffix, double min, double max, double fallback)
{
	double value = 0;
	if (r->failed)
		return 1;
	int e = kb_meta_f64(r->meta, key_of(r, suffix), &value);
	if (e == KB_ENOTFOUND && !isnan(fallback))
		return fallback;
	if (e == KB_ENOTFOUND)
		r->failed = kb_fail(r->err, KB_EBAD, "%s is missing from the model's metadata", r->key);
	else if (e || !(value >= min && value <= max))
		r->failed = kb_fail(r->err, KB_EBAD, "%s is not a number from %g to %g", r->key, min, max);
	return r->failed ? 1 : value;
}

static int read_family(const struct kb_meta_source *meta, struct kb_err *err, const struct kb_family **ret)
{
	struct kb_str arch;
	char known[128];
	int e = kb_meta_str(meta, "general.architecture", &arch);
	if (e)
		return kb_fail(err, KB_EBAD, "general.architecture is missing from the model's metadata, or is not a string");
	const struct kb_family *family = kb__family_find(arch);
	if (!family) {
		kb__family_names(known, sizeof known);
		return kb_fail(err, KB_EUNSUPPORTED, "general.architecture is \"%.*s\"; supported are %s",
			(int)(arch.len > 40 ? 40 : arch.len), arch.data, known);
	}
	*ret = family;
	return 0;
}

static void read_shape(struct reader *r, struct kb_hparams *h)
{
	h->layers = number(r, "block_count", KB_MAX_LAYERS);
	h->context = number(r, "context_length", KB_MAX_CONTEXT);
	h->width = number(r, "embedding_length", KB_MAX_WIDTH);
	h->ff = number(r, "feed_forward_length", KB_MAX_FEED_FORWARD);
	h->heads = number(r, "attention.head_count", KB_MAX_HEADS);
	h->kv_heads = number_or(r, "attention.head_count_kv", KB_MAX_HEADS, &h->heads);
	if (!r->failed && h->heads % h->kv_heads)
		r->failed = kb_fail(r->err, KB_EBAD, "%s.attention.head_count %u is not a multiple of head_count_kv %u",
			r->arch, h->heads, h->kv_heads);
	uint32_t share = h->width % h->heads ? 0 : h->width / h->heads;
	h->head_dim = number_or(r, "attention.key_length", KB_MAX_HEAD_DIM, &share);
	uint32_t value_dim = number_or(r, "attention.value_length", KB_MAX_HEAD_DIM, &h->head_dim);
	if (r->failed)
		return;
	if (h->head_dim == 0 || h->head_dim % 2 || h->head_dim > KB_MAX_HEAD_DIM)
		r->failed = kb_fail(r->err, KB_EBAD,
			"%s.attention.key_length (or embedding_length / head_count) is %u: an even number up to %u is needed",
			r->arch, h->head_dim, KB_MAX_HEAD_DIM);
	else if (value_dim != h->head_dim)
		r->failed = kb_fail(r->err, KB_EUNSUPPORTED, "%s.attention.value_length %u differs from key_length %u", r->arch,
			value_dim, h->head_dim);
}

static void read_vocab(struct reader *r, struct kb_hparams *h)
{
	struct kb_meta_value tokens;
	uint32_t none = 0;
	h->vocab = number_or(r, "vocab_size", KB_MAX_VOCAB, &none);
	if (r->failed || r->meta->find(r->meta->ctx, "tokenizer.ggml.tokens", &tokens) || !tokens.is_array)
		return;
	if (tokens.count == 0 || tokens.count > KB_MAX_VOCAB)
		r->failed = kb_fail(r->err, KB_ELIMIT, "tokenizer.ggml.tokens has %llu tokens; supported are 1 to %u",
			(unsigned long long)tokens.count, KB_MAX_VOCAB);
	else if (h->vocab && h->vocab != tokens.count)
		r->failed = kb_fail(r->err, KB_EBAD, "%s.vocab_size is %u, but tokenizer.ggml.tokens has %llu", r->arch,
			h->vocab, (unsigned long long)tokens.count);
	else
		h->vocab = (uint32_t)tokens.count;
}

static void read_rope(struct reader *r, struct kb_hparams *h)
{
	struct kb_str kind;
	const struct kb_family *f = h->family;
	h->rot = number_or(r, "rope.dimension_count", KB_MAX_HEAD_DIM, &h->head_dim);
	h->rope_base = real_or(r, "rope.freq_base", 1, 1e12, 10000);
	h->rope_factor = 1;
	if (r->failed)
		return;
	if (h->rot > h->head_dim || h->rot % 2) {
		r->failed =
			kb_fail(r->err, KB_EBAD, "%s.rope.dimension_count is %u: an even number up to the head's %u is needed",
				r->arch, h->rot, h->head_dim);
		return;
	}
	int e = kb_meta_str(r->meta, key_of(r, "rope.scaling.type"), &kind);
	bool is_linear = !e && kind.len == 6 && memcmp(kind.data, "linear", 6) == 0;
	bool is_none = e == KB_ENOTFOUND || (!e && kind.len == 4 && memcmp(kind.data, "none", 4) == 0);
	if (!is_linear && !is_none) {
		r->failed = kb_fail(r->err, KB_EUNSUPPORTED,
			"%s is \"%.*s\"; supported are none, linear, and factors in rope_freqs.weight (llama3)", r->key,
			e ? 1 : (int)(kind.len > 40 ? 40 : kind.len), e ? "?" : kind.data);
		return;
	}
	// Files of before rope.scaling.type have rope.scale_linear.
	double older = real_or(r, "rope.scale_linear", 0, 1e6, 1);
	h->rope_factor = is_linear || e ? real_or(r, "rope.scaling.factor", 0, 1e6, older) : 1;
	if (h->rope_factor == 0) // written for "none" by some converters
		h->rope_factor = 1;
	h->window_rope_base =
		real_or(r, "rope.freq_base_swa", 1, 1e12, f->window_rope_base > 0 ? (double)f->window_rope_base : h->rope_base);
	h->window_rope_factor = f->window_rope_base > 0 ? 1 : h->rope_factor;
}

static void read_attention(struct reader *r, struct kb_hparams *h)
{
	const struct kb_family *f = h->family;
	uint32_t scale_of = h->layers == f->wide_scale_layers ? h->width / h->heads : h->head_dim;
	h->attention_scale = (float)(1 / sqrt((double)scale_of));
	h->eps = (float)real_or(r, "attention.layer_norm_rms_epsilon", 0, 1, (double)NAN);
	h->score_softcap = (float)real_or(r, "attn_logit_softcapping", 0, 1e6, (double)f->score_softcap);
	h->logit_softcap = (float)real_or(r, "final_logit_softcapping", 0, 1e6, (double)f->logit_softcap);
	if (f->window_period == 0)
		return;
	h->window = number_or(r, "attention.sliding_window", KB_MAX_CONTEXT, &f->window_default);
	h->window_period = number_or(r, "attention.sliding_window_pattern", KB_MAX_LAYERS, &f->window_period);
}

// Things that would change the result and that no family here has.
static void refuse_unknown(struct reader *r)
{
	static const char *const keys[] = {"expert_count", "attention.scale", "logit_scale", "residual_scale",
		"embedding_scale", "attention.max_alibi_bias", "attention.clamp_kqv"};
	double value;
	bool is_causal;
	for (size_t i = 0; i < sizeof keys / sizeof *keys && !r->failed; i++) {
		int e = kb_meta_f64(r->meta, key_of(r, keys[i]), &value);
		if (e != KB_ENOTFOUND && (e || value != 0))
			r->failed = kb_fail(r->err, KB_EUNSUPPORTED, "%s is set: this model needs what is not supported", r->key);
	}
	if (!r->failed && kb_meta_bool(r->meta, key_of(r, "attention.causal"), &is_causal) == 0 && !is_causal)
		r->failed = kb_fail(r->err, KB_EUNSUPPORTED, "%s is false: this model does not generate text", r->key);
}

int kb__hparams_read(const struct kb_meta_source *meta, struct kb_err *err, struct kb_hparams *ret)
{
	struct kb_hparams h = {0};
	int e = read_family(meta, err, &h.family);
	if (e)
		return e;
	struct reader r = {.meta = meta, .err = err, .arch = h.family->arch};
	read_shape(&r, &h);
	read_vocab(&r, &h);
	read_rope(&r, &h);
	read_attention(&r, &h);
	refuse_unknown(&r);
	if (r.failed)
		return r.failed;
	h.embed_scale = h.family->scales_embedding ? sqrtf((float)h.width) : 1;
	*ret = h;
	return 0;
}
