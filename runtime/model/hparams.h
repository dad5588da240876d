// A model's numbers, read from metadata and checked: whatever is here may be multiplied and allocated without
// further thought.
#pragma once
#include "model/family.h"

struct kb_hparams {
	const struct kb_family *family;
	uint32_t layers, width, heads, kv_heads, head_dim, ff, context;
	uint32_t vocab; // 0 where the file does not say: the embedding's rows
	uint32_t rot;   // dimensions of a head that rotate; even
	uint32_t window, window_period;
	float eps, embed_scale, attention_scale;
	float score_softcap, logit_softcap; // 0: none
	// Rotation of the layers that see everything, and of the windowed ones: angle of pair i is
	// position * base^(-2 i / rot) / factor.
	double rope_base, rope_factor, window_rope_base, window_rope_factor;
};

// Errors name the key: KB_EBAD missing or nonsense, KB_ELIMIT too large, KB_EUNSUPPORTED valid but not known here.
KB_MUST_CHECK int kb__hparams_read(const struct kb_meta_source *meta, struct kb_err *err, struct kb_hparams *ret);

// Does layer i see only the window?
static inline bool kb__hparams_is_windowed(const struct kb_hparams *h, uint32_t i)
{
	return h->window > 0 && h->window_period > 0 && (i + 1) % h->window_period != 0;
}
