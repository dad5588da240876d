// The layer loop: from weights and a family's row to the nodes of a graph.
#pragma once
#include "model/model_impl.h"

// Bytes of scratch for max_tokens; where `base` is not 0, also lays m->s out from there.
uint64_t kb__forward_scratch(struct kb_model *m, kb_addr base);

// Names of the nodes of every layer, once a model. Freed with free().
KB_MUST_CHECK int kb__forward_names(const struct kb_model *m, struct kb_err *err, char (**ret_names)[24]);

// Fills ret_nodes (kb__forward_nodes_max of them) and returns how many. Without logits, the graph ends when the last
// layer's K and V are written.
uint32_t kb__forward_nodes_max(const struct kb_model *m);
uint32_t kb__forward_build(const struct kb_model *m, bool has_logits, struct kb_node *ret_nodes);
