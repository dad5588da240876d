/* see weights.h. Names: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, "Standardized tensor names". */
#include "model/weights.h"
#include "base/limits.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ALIGNMENT 16u // of a tensor in its segment: what the widest load of a shader needs

enum dim { DIM_ONE, DIM_WIDTH, DIM_Q, DIM_KV, DIM_HEAD, DIM_FF, DIM_VOCAB, DIM_PAIRS };

enum need {
	NEED_ALWAYS,
	NEED_OPTIONAL,  // used where it is there
	NEED_FEATURE,   // iff the family has the feature; there without it: not supported
	NEED_OR_MAY,    // must be there with the feature, may be there without
	NEED_FORBIDDEN, // would change the result in a way that the layer loop does not know
};

// One row a tensor of a layer.
struct tensor_row {
	const char *name; // after "blk.N."
	enum dim rows, cols;
	int slot; // enum kb_layer_vector where rows is DIM_ONE, else enum kb_layer_matrix
	enum need need;
	uint32_t feature;
};

static const struct tensor_row layer_tensors[] = {
	{"attn_norm.weight", DIM_ONE, DIM_WIDTH, KB_V_ATTN_NORM, NEED_ALWAYS, 0},
	{"attn_q.weight", DIM_Q, DIM_WIDTH, KB_W_Q, NEED_ALWAYS, 0},
	{"attn_k.weight", DIM_KV, DIM_WIDTH, KB_W_K, NEED_ALWAYS, 0},
	{"attn_v.weight", DIM_KV, DIM_WIDTH, KB_W_V, NEED_ALWAYS, 0},
	{"attn_q.bias", DIM_ONE, DIM_Q, KB_V_Q_BIAS, NEED_OR_MAY, KB_FEATURE_QKV_BIAS},
	{"attn_k.bias", DIM_ONE, DIM_KV, KB_V_K_BIAS, NEED_OR_MAY, KB_FEATURE_QKV_BIAS},
	{"attn_v.bias", DIM_ONE, DIM_KV, KB_V_V_BIAS, NEED_OR_MAY, KB_FEATURE_QKV_BIAS},
	{"attn_q_norm.weight", DIM_ONE, DIM_HEAD, KB_V_Q_NORM, NEED_FEATURE, KB_FEATURE_QK_NORM},
	{"attn_k_norm.weight", DIM_ONE, DIM_HEAD, KB_V_K_NORM, NEED_FEATURE, KB_FEATURE_QK_NORM},
	{"attn_output.weight", DIM_WIDTH, DIM_Q, KB_W_OUT, NEED_ALWAYS, 0},
	{"attn_output.bias", DIM_ONE, DIM_WIDTH, KB_V_OUT_BIAS, NEED_OPTIONAL, 0},
	{"post_attention_norm.weight", DIM_ONE, DIM_WIDTH, KB_V_POST_ATTN_NORM, NEED_FEATURE, KB_FEATURE_POST_NORMS},
	{"ffn_norm.weight", DIM_ONE, DIM_WIDTH, KB_V_FF_NORM, NEED_ALWAYS, 0},
	{"ffn_gate.weight", DIM_FF, DIM_WIDTH, KB_W_GATE, NEED_ALWAYS, 0},
	{"ffn_up.weight", DIM_FF, DIM_WIDTH, KB_W_UP, NEED_ALWAYS, 0},
	{"ffn_down.weight", DIM_WIDTH, DIM_FF, KB_W_DOWN, NEED_ALWAYS, 0},
	{"post_ffw_norm.weight", DIM_ONE, DIM_WIDTH, KB_V_POST_FF_NORM, NEED_FEATURE, KB_FEATURE_POST_NORMS},
	{"ffn_gate_inp.weight", DIM_ONE, DIM_ONE, 0, NEED_FORBIDDEN, 0}, // a mixture of experts
	{"ffn_gate.bias", DIM_ONE, DIM_ONE, 0, NEED_FORBIDDEN, 0},
	{"ffn_up.bias", DIM_ONE, DIM_ONE, 0, NEED_FORBIDDEN, 0},
	{"ffn_down.bias", DIM_ONE, DIM_ONE, 0, NEED_FORBIDDEN, 0},
	{"attn_norm.bias", DIM_ONE, DIM_ONE, 0, NEED_FORBIDDEN, 0}, // a LayerNorm
	{"attn_sinks.weight", DIM_ONE, DIM_ONE, 0, NEED_FORBIDDEN, 0},
};

struct loader {
	struct kb_weights *w;
	const struct kb_model_source *source;
	const struct kb_hparams *h;
	struct kb_err *err;
};

static uint32_t size_of(const struct kb_hparams *h, enum dim d)
{
	switch (d) {
	case DIM_ONE:
		return 1;
	case DIM_WIDTH:
		return h->width;
	case DIM_Q:
		return h->heads * h->head_dim;
	case DIM_KV:
		return h->kv_heads * h->head_dim;
	case DIM_HEAD:
		return h->head_dim;
	case DIM_FF:
		return h->ff;
	case DIM_VOCAB:
		return h->vocab;
	case DIM_PAIRS:
		return h->rot / 2;
	}
	return 0;
}

// Finds a tensor and checks that it has this shape and lies inside its segment. KB_ENOTFOUND is left to the caller.
static int find(struct loader *l, const char *name, enum dim row_dim, enum dim col_dim, struct kb_source_tensor *ret)
{
	struct kb_source_tensor t;
	uint32_t rows = size_of(l->h, row_dim), cols = size_of(l->h, col_dim);
	int e = l->source->tensor(l->source->ctx, name, &t);
	if (e == KB_ENOTFOUND)
		return e;
	if (e)
		return kb_fail(l->err, e, "tensor %s: %s", name, kb_err_message(e));
	if (t.rows != rows || t.cols != cols)
		return kb_fail(l->err, KB_EBAD, "tensor %s is %u x %u, not %u x %u as the metadata says", name, t.rows, t.cols,
			rows, cols);
	bool is_vector = row_dim == DIM_ONE;
	if ((unsigned)t.format >= KB_FMTS || (is_vector && t.format != KB_FMT_F32))
		return kb_fail(l->err, KB_EUNSUPPORTED, "tensor %s has format %u", name, (unsigned)t.format);
	uint64_t bytes = is_vector ? (uint64_t)cols * sizeof(float) : kb_format_bytes(t.format, rows, cols);
	if (bytes == 0)
		return kb_fail(l->err, KB_EUNSUPPORTED, "tensor %s: rows of %u do not fit the blocks of %s", name, cols,
			kb_formats[t.format].name);
	if (t.bytes != bytes)
		return kb_fail(l->err, KB_EBAD, "tensor %s has %llu bytes, not %llu", name, (unsigned long long)t.bytes,
			(unsigned long long)bytes);
	if (t.segment >= l->w->n_segments || t.offset % ALIGNMENT || t.bytes > l->w->segments[t.segment].size ||
		t.offset > l->w->segments[t.segment].size - t.bytes)
		return kb_fail(l->err, KB_EBAD, "tensor %s lies outside its segment %u (offset %llu), or is not aligned to %u",
			name, t.segment, (unsigned long long)t.offset, ALIGNMENT);
	*ret = t;
	return 0;
}

static int missing(struct loader *l, const char *name)
{
	return kb_fail(l->err, KB_EBAD, "tensor %s is missing", name);
}

static kb_addr address(struct loader *l, const struct kb_source_tensor *t)
{
	return l->w->segments[t->segment].addr + t->offset;
}

static struct kb_matrix matrix(struct loader *l, const struct kb_source_tensor *t)
{
	return (struct kb_matrix){.format = t->format, .rows = t->rows, .cols = t->cols, .addr = address(l, t)};
}

static void count(struct loader *l, const struct kb_source_tensor *t, bool is_read_each_token)
{
	l->w->parameters += (uint64_t)t->rows * t->cols;
	if (is_read_each_token)
		l->w->bytes_per_token += t->bytes;
}

static int resolve_layer_tensor(struct loader *l, uint32_t layer, const struct tensor_row *row)
{
	char name[KB_MAX_TENSOR_NAME + 1];
	struct kb_source_tensor t;
	bool has_feature = row->feature & l->h->family->features;
	snprintf(name, sizeof name, "blk.%u.%s", layer, row->name);
	if (row->need == NEED_FORBIDDEN || (row->need == NEED_FEATURE && !has_feature)) {
		if (l->source->tensor(l->source->ctx, name, &t) == KB_ENOTFOUND)
			return 0;
		return kb_fail(
			l->err, KB_EUNSUPPORTED, "tensor %s is not known in a model of architecture %s", name, l->h->family->arch);
	}
	int e = find(l, name, row->rows, row->cols, &t);
	if (e == KB_ENOTFOUND) {
		bool may_miss = row->need == NEED_OPTIONAL || (row->need == NEED_OR_MAY && !has_feature);
		return may_miss ? 0 : missing(l, name);
	}
	if (e)
		return e;
	count(l, &t, true);
	if (row->rows == DIM_ONE)
		l->w->layers[layer].vector[row->slot] = address(l, &t);
	else
		l->w->layers[layer].matrix[row->slot] = matrix(l, &t);
	return 0;
}

static int resolve_ends(struct loader *l)
{
	struct kb_source_tensor embed, output, norm;
	int e = find(l, "token_embd.weight", DIM_VOCAB, DIM_WIDTH, &embed);
	if (e)
		return e == KB_ENOTFOUND ? missing(l, "token_embd.weight") : e;
	e = find(l, "output_norm.weight", DIM_ONE, DIM_WIDTH, &norm);
	if (e)
		return e == KB_ENOTFOUND ? missing(l, "output_norm.weight") : e;
	e = find(l, "output.weight", DIM_VOCAB, DIM_WIDTH, &output);
	if (e && e != KB_ENOTFOUND)
		return e;
	bool is_tied = e == KB_ENOTFOUND;
	l->w->embed = matrix(l, &embed);
	l->w->output = is_tied ? l->w->embed : matrix(l, &output);
	l->w->output_norm = address(l, &norm);
	count(l, &embed, is_tied);
	if (!is_tied) {
		count(l, &output, true);
		l->w->bytes_per_token += embed.bytes / embed.rows;
	}
	count(l, &norm, true);
	return 0;
}

// llama3's scaling: the converter writes one divisor for each pair of dimensions.
static int resolve_rope_factors(struct loader *l)
{
	static const char name[] = "rope_freqs.weight";
	struct kb_source_tensor t;
	const void *bytes;
	uint64_t size;
	uint32_t n = l->h->rot / 2;
	int e = find(l, name, DIM_ONE, DIM_PAIRS, &t);
	if (e)
		return e == KB_ENOTFOUND ? 0 : e;
	e = l->source->segment(l->source->ctx, t.segment, &bytes, &size);
	if (e)
		return kb_fail(l->err, e, "tensor %s: %s", name, kb_err_message(e));
	l->w->rope_factors = malloc(n * sizeof *l->w->rope_factors);
	if (!l->w->rope_factors)
		return kb_fail(l->err, KB_ENOMEM, "no memory for tensor %s", name);
	memcpy(l->w->rope_factors, (const uint8_t *)bytes + t.offset, n * sizeof *l->w->rope_factors);
	for (uint32_t i = 0; i < n; i++)
		if (!(l->w->rope_factors[i] > 0 && l->w->rope_factors[i] < 1e6f))
			return kb_fail(l->err, KB_EBAD, "tensor %s: factor %u is %g", name, i, (double)l->w->rope_factors[i]);
	count(l, &t, true);
	return 0;
}

static int segment(struct loader *l, uint32_t i, const void **ret_bytes, uint64_t *ret_size)
{
	uint64_t size;
	int e = l->source->segment(l->source->ctx, i, ret_bytes, &size);
	if (e)
		return kb_fail(l->err, e, "segment %u of the weights: %s", i, kb_err_message(e));
	if (size > UINT64_MAX / KB_MAX_SEGMENTS)
		return kb_fail(l->err, KB_ELIMIT, "segment %u of the weights has %llu bytes", i, (unsigned long long)size);
	*ret_size = size;
	return 0;
}

static int import_segments(struct loader *l, struct kb_backend *backend, const struct kb_model_options *options)
{
	uint64_t total = 0, size;
	const void *bytes;
	for (uint32_t i = 0; i < l->source->n_segments; i++, total += size) {
		int e = segment(l, i, &bytes, &size);
		if (e)
			return e;
	}
	for (uint32_t i = 0; i < l->source->n_segments; i++) {
		int e = segment(l, i, &bytes, &size);
		if (!e)
			e = backend->ops->import(backend, bytes, size, l->err, &l->w->segments[i]);
		if (e)
			return e;
		l->w->n_segments = i + 1;
		l->w->bytes += size;
		if (options->progress)
			options->progress(options->progress_ctx, l->w->bytes, total);
	}
	return 0;
}

int kb__weights_init(struct kb_weights *w, struct kb_backend *backend, const struct kb_model_source *source,
	const struct kb_model_options *options, struct kb_hparams *h, struct kb_err *err)
{
	struct loader l = {.w = w, .source = source, .h = h, .err = err};
	struct kb_source_tensor embed;
	*w = (struct kb_weights){0};
	if (source->n_segments == 0 || source->n_segments > KB_MAX_SEGMENTS)
		return kb_fail(
			err, KB_ELIMIT, "%u segments of weights; supported are 1 to %u", source->n_segments, KB_MAX_SEGMENTS);
	if (h->vocab == 0 && source->tensor(source->ctx, "token_embd.weight", &embed) == 0) {
		if (embed.rows == 0 || embed.rows > KB_MAX_VOCAB)
			return kb_fail(err, KB_ELIMIT, "tensor token_embd.weight has %u rows; supported are 1 to %u", embed.rows,
				KB_MAX_VOCAB);
		h->vocab = embed.rows;
	}
	w->segments = calloc(source->n_segments, sizeof *w->segments);
	w->layers = calloc(h->layers, sizeof *w->layers);
	if (!w->segments || !w->layers)
		return kb_fail(err, KB_ENOMEM, "no memory for the table of weights");
	int e = import_segments(&l, backend, options);
	if (!e)
		e = resolve_ends(&l);
	if (!e)
		e = resolve_rope_factors(&l);
	for (uint32_t i = 0; i < h->layers && !e; i++)
		for (size_t row = 0; row < sizeof layer_tensors / sizeof *layer_tensors && !e; row++)
			e = resolve_layer_tensor(&l, i, &layer_tensors[row]);
	return e;
}

void kb__weights_finish(struct kb_weights *w, struct kb_backend *backend)
{
	for (uint32_t i = 0; i < w->n_segments; i++)
		backend->ops->free(backend, &w->segments[i]);
	free(w->segments);
	free(w->layers);
	free(w->rope_factors);
	*w = (struct kb_weights){0};
}
