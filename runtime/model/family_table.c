/* see family.h. Facts: the checkpoints' own config.json and modelling code in transformers (models/llama, qwen2,
 * qwen3, gemma2, gemma3), and what llama.cpp's converters write into GGUF: they permute the llama family's q and k for
 * KB_ROPE_PAIRS, and fold Gemma's "1 +" into the norms' weights. */
#include "model/family.h"

#include <stdio.h>
#include <string.h>

// clang-format off
static const struct kb_family families[] = {
	// Llama 1 to 3, Mistral 7B (its GGUF files say llama), SmolLM2, llm-jp, sarashina2, calm2, ...
	{
		.arch = "llama",
		.rope = KB_ROPE_PAIRS,
		.act = KB_ACT_SILU,
	},
	{
		.arch = "qwen2",
		.rope = KB_ROPE_HALVES,
		.act = KB_ACT_SILU,
		.features = KB_FEATURE_QKV_BIAS,
	},
	{
		.arch = "qwen3",
		.rope = KB_ROPE_HALVES,
		.act = KB_ACT_SILU,
		.features = KB_FEATURE_QK_NORM,
	},
	{
		.arch = "gemma2",
		.rope = KB_ROPE_HALVES,
		.act = KB_ACT_GELU_TANH,
		.features = KB_FEATURE_POST_NORMS,
		.scales_embedding = true,
		.window_period = 2,
		.window_default = 4096,
		.score_softcap = 50,
		.logit_softcap = 30,
		.wide_scale_layers = 46, // 27B: query_pre_attn_scalar is 144, not 128
	},
	{
		.arch = "gemma3",
		.rope = KB_ROPE_HALVES,
		.act = KB_ACT_GELU_TANH,
		.features = KB_FEATURE_QK_NORM | KB_FEATURE_POST_NORMS,
		.scales_embedding = true,
		.window_period = 6,
		.window_rope_base = 10000, // and without the scaling that 4B and larger have on the others
		.wide_scale_layers = 62,   // 27B: query_pre_attn_scalar is 168, not 128
	},
};
// clang-format on

#define N_FAMILIES (sizeof families / sizeof *families)

const struct kb_family *kb__family_find(struct kb_str arch)
{
	for (size_t i = 0; i < N_FAMILIES; i++)
		if (arch.len == strlen(families[i].arch) && memcmp(arch.data, families[i].arch, arch.len) == 0)
			return &families[i];
	return NULL;
}

void kb__family_names(char *ret_text, size_t size)
{
	size_t used = 0;
	ret_text[0] = '\0';
	for (size_t i = 0; i < N_FAMILIES && used < size; i++) {
		int n = snprintf(ret_text + used, size - used, "%s%s", i ? ", " : "", families[i].arch);
		used += n > 0 ? (size_t)n : 0;
	}
}
