// KV pages: who has which. A pool hands out page numbers with a reference count; a list is the pages of one
// sequence, in order of position. Pure bookkeeping: the memory itself belongs to the model.
// A page may be kept for later (prefix.h): that is one more reference; while it is the only one, the page is idle.
#pragma once
#include "base/err.h"
#include <stdbool.h>
#include <stdint.h>

struct kb_pages {
	uint32_t total, n_free, n_idle;
	uint16_t *refs; // (total) 0: free
	bool *is_kept;  // (total)
	uint32_t *free; // (total) the first n_free are free, used as a stack
};

KB_MUST_CHECK int kb_pages_init(struct kb_pages *p, uint32_t total);
// Asserts that every page came back. Safe on a zeroed struct.
void kb_pages_finish(struct kb_pages *p);

// A free page with one reference; KB_EBUSY where there is none.
KB_MUST_CHECK int kb_pages_take(struct kb_pages *p, uint32_t *ret_page);
void kb_pages_ref(struct kb_pages *p, uint32_t page);
// The last reference frees the page.
void kb_pages_unref(struct kb_pages *p, uint32_t page);
// Keeps a page that somebody holds, and drops one that is idle: it is free then.
void kb_pages_keep(struct kb_pages *p, uint32_t page);
void kb_pages_drop(struct kb_pages *p, uint32_t page);
bool kb_pages_is_idle(const struct kb_pages *p, uint32_t page);
// True when the counts and the free stack agree. For tests and assertions; O(total).
bool kb_pages_is_sound(const struct kb_pages *p);

// Zero-initialise. Holds one reference to each of its pages.
struct kb_page_list {
	uint32_t *page;
	uint32_t n, cap;
};

// Makes place for n entries; takes no pages. KB_ENOMEM.
KB_MUST_CHECK int kb_page_list_reserve(struct kb_page_list *l, uint32_t n);
// Takes pages from p until the list has n of them. KB_EBUSY where p runs out (what was taken stays: call again, or
// clear), KB_ENOMEM.
KB_MUST_CHECK int kb_page_list_grow(struct kb_page_list *l, struct kb_pages *p, uint32_t n);
// Gives all pages back; the list can be used again.
void kb_page_list_clear(struct kb_page_list *l, struct kb_pages *p);
// clear, and frees the list's own memory.
void kb_page_list_finish(struct kb_page_list *l, struct kb_pages *p);
