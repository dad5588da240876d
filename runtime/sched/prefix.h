// The prefix cache: K and V of what was read before, found again by what it is.
//
// A tree of whole pages. A page's place in it is its parent (the page before it in the text), whose it is (scope), and
// the tokens in it; so two texts share exactly the pages in which all tokens so far agree. K and V of a token depend on
// the tokens before it alone and are the same bits in whatever step they were made (the model is batch-invariant), so
// an answer with the cache is the answer without it. Pages are shared read-only: a sequence writes only behind its last
// whole page, in pages of its own, so nothing is ever copied.
//
// Scopes keep clients apart: nobody's pages, and nobody's time to first token, tell what another has asked. The first
// pages of a text that the administrator has declared shared are everyone's.
//
// When pages run out, the kept page that was not used for longest, is used by nobody and has no page behind it goes.
#pragma once
#include "op/op.h"
#include "sched/pages.h"

#define KB_PREFIX_NONE UINT32_MAX // no page

struct kb_prefix_scope {
	uint32_t n_pages; // kept in its name; must outlive them
};

struct kb_prefix_node {
	struct kb_prefix_scope *scope; // NULL: the page is not kept
	uint32_t parent;               // a page, or KB_PREFIX_NONE: the text begins here
	uint32_t n_children;
	uint32_t next;         // of the same bucket
	uint32_t newer, older; // by use; a page is newer than all behind it in the text
	uint32_t token[KB_KV_PAGE_TOKENS];
};

struct kb_prefix {
	struct kb_pages *pages;
	struct kb_prefix_scope shared;
	struct kb_prefix_node *node; // (pages->total) by page number
	uint32_t *bucket, mask;      // (mask + 1) first page of each hash
	uint32_t newest, oldest;
};

// A text as the tree sees it: the first n_shared pages are everyone's, the others the scope's.
struct kb_prefix_text {
	struct kb_prefix_scope *scope;
	uint32_t n_shared;
	const uint32_t *token;
	uint32_t n_tokens; // only whole pages of them count
};

// pages must outlive the cache. finish drops what is kept (nobody else may hold it); safe on a zeroed struct.
KB_MUST_CHECK int kb_prefix_init(struct kb_prefix *c, struct kb_pages *pages);
void kb_prefix_finish(struct kb_prefix *c);

// The kept pages that the text begins with, with a reference each, into an empty list. KB_ENOMEM: none was taken.
KB_MUST_CHECK int kb_prefix_match(struct kb_prefix *c, const struct kb_prefix_text *t, struct kb_page_list *ret);
// Keeps the text's pages, which are the first of the list. Where the same was kept already, the list gets that page for
// its own: the content is the same. Returns true when the list has changed.
bool kb_prefix_insert(struct kb_prefix *c, const struct kb_prefix_text *t, struct kb_page_list *list);
// Drops idle pages until n are free, or none is left to drop. Returns how many went.
uint32_t kb_prefix_make_room(struct kb_prefix *c, uint32_t n);
// True when tree, order and counts agree. For tests and assertions; O(total).
bool kb_prefix_is_sound(const struct kb_prefix *c);
