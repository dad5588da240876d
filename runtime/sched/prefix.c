#include "sched/prefix.h"
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define PAGE_BYTES (KB_KV_PAGE_TOKENS * sizeof(uint32_t))

int kb_prefix_init(struct kb_prefix *c, struct kb_pages *pages)
{
	uint32_t n = 1;
	while (n < pages->total)
		n *= 2;
	*c = (struct kb_prefix){.pages = pages, .mask = n - 1, .newest = KB_PREFIX_NONE, .oldest = KB_PREFIX_NONE};
	c->node = calloc(pages->total ? pages->total : 1, sizeof *c->node);
	c->bucket = malloc(n * sizeof *c->bucket);
	if (!c->node || !c->bucket) {
		free(c->node);
		free(c->bucket);
		*c = (struct kb_prefix){0};
		return KB_ENOMEM;
	}
	memset(c->bucket, 0xff, n * sizeof *c->bucket); // KB_PREFIX_NONE
	return 0;
}

void kb_prefix_finish(struct kb_prefix *c)
{
	if (!c->node)
		return;
	kb_prefix_make_room(c, c->pages->total);
	assert(c->oldest == KB_PREFIX_NONE && c->shared.n_pages == 0);
	free(c->node);
	free(c->bucket);
	*c = (struct kb_prefix){0};
}

// --- order of use -------------------------------------------------------------------

static void unlink_page(struct kb_prefix *c, uint32_t page)
{
	const struct kb_prefix_node *n = &c->node[page];
	*(n->newer == KB_PREFIX_NONE ? &c->newest : &c->node[n->newer].older) = n->older;
	*(n->older == KB_PREFIX_NONE ? &c->oldest : &c->node[n->older].newer) = n->newer;
}

static void link_newest(struct kb_prefix *c, uint32_t page)
{
	c->node[page].newer = KB_PREFIX_NONE;
	c->node[page].older = c->newest;
	*(c->newest == KB_PREFIX_NONE ? &c->oldest : &c->node[c->newest].newer) = page;
	c->newest = page;
}

// From the last page to the first, so that each is newer than what is behind it.
static void touch(struct kb_prefix *c, const struct kb_page_list *list, uint32_t n)
{
	while (n > 0) {
		unlink_page(c, list->page[--n]);
		link_newest(c, list->page[n]);
	}
}

// --- the tree -----------------------------------------------------------------------

// FNV-1a (Fowler, Noll, Vo) over words. Colliding on purpose makes the caller's own look-ups slow, by at most the
// number of its pages.
static uint32_t hash_of(
	const struct kb_prefix *c, const struct kb_prefix_scope *scope, uint32_t parent, const uint32_t *token)
{
	uint64_t h = 0xcbf29ce484222325u;
	h = (h ^ (uint64_t)(uintptr_t)scope) * 0x100000001b3u;
	h = (h ^ parent) * 0x100000001b3u;
	for (uint32_t i = 0; i < KB_KV_PAGE_TOKENS; i++)
		h = (h ^ token[i]) * 0x100000001b3u;
	return (uint32_t)(h ^ h >> 32) & c->mask;
}

// Page i of the text, behind `parent`.
struct place {
	struct kb_prefix_scope *scope;
	uint32_t parent;
	const uint32_t *token;
};

static struct place place_of(struct kb_prefix *c, const struct kb_prefix_text *t, uint32_t i, uint32_t parent)
{
	return (struct place){i < t->n_shared ? &c->shared : t->scope, parent, t->token + (size_t)i * KB_KV_PAGE_TOKENS};
}

static uint32_t find(const struct kb_prefix *c, const struct place *at)
{
	uint32_t page = c->bucket[hash_of(c, at->scope, at->parent, at->token)];
	while (page != KB_PREFIX_NONE) {
		const struct kb_prefix_node *n = &c->node[page];
		if (n->scope == at->scope && n->parent == at->parent && memcmp(n->token, at->token, PAGE_BYTES) == 0)
			break;
		page = n->next;
	}
	return page;
}

static void add(struct kb_prefix *c, const struct place *at, uint32_t page)
{
	struct kb_prefix_node *n = &c->node[page];
	assert(!n->scope);
	uint32_t *bucket = &c->bucket[hash_of(c, at->scope, at->parent, at->token)];
	*n = (struct kb_prefix_node){.scope = at->scope, .parent = at->parent, .next = *bucket};
	memcpy(n->token, at->token, PAGE_BYTES);
	*bucket = page;
	if (at->parent != KB_PREFIX_NONE)
		c->node[at->parent].n_children++;
	at->scope->n_pages++;
	link_newest(c, page);
	kb_pages_keep(c->pages, page);
}

static void drop(struct kb_prefix *c, uint32_t page)
{
	struct kb_prefix_node *n = &c->node[page];
	uint32_t *at = &c->bucket[hash_of(c, n->scope, n->parent, n->token)];
	while (*at != page)
		at = &c->node[*at].next;
	*at = n->next;
	if (n->parent != KB_PREFIX_NONE)
		c->node[n->parent].n_children--;
	n->scope->n_pages--;
	n->scope = NULL;
	unlink_page(c, page);
	kb_pages_drop(c->pages, page);
}

int kb_prefix_match(struct kb_prefix *c, const struct kb_prefix_text *t, struct kb_page_list *ret)
{
	uint32_t n = t->n_tokens / KB_KV_PAGE_TOKENS, parent = KB_PREFIX_NONE;
	assert(ret->n == 0);
	int rc = kb_page_list_reserve(ret, n);
	if (rc)
		return rc;
	for (uint32_t i = 0; i < n; i++) {
		struct place at = place_of(c, t, i, parent);
		parent = find(c, &at);
		if (parent == KB_PREFIX_NONE)
			break;
		kb_pages_ref(c->pages, parent);
		ret->page[ret->n++] = parent;
	}
	touch(c, ret, ret->n);
	return 0;
}

bool kb_prefix_insert(struct kb_prefix *c, const struct kb_prefix_text *t, struct kb_page_list *list)
{
	uint32_t n = t->n_tokens / KB_KV_PAGE_TOKENS, parent = KB_PREFIX_NONE;
	bool has_changed = false;
	assert(n <= list->n);
	for (uint32_t i = 0; i < n; i++) {
		struct place at = place_of(c, t, i, parent);
		uint32_t page = find(c, &at);
		if (page == KB_PREFIX_NONE) {
			add(c, &at, list->page[i]);
		} else if (page != list->page[i]) {
			kb_pages_ref(c->pages, page);
			kb_pages_unref(c->pages, list->page[i]);
			list->page[i] = page;
			has_changed = true;
		}
		parent = list->page[i];
	}
	touch(c, list, n);
	return has_changed;
}

uint32_t kb_prefix_make_room(struct kb_prefix *c, uint32_t n)
{
	uint32_t n_dropped = 0, page = c->oldest;
	while (page != KB_PREFIX_NONE && c->pages->n_free < n) {
		uint32_t newer = c->node[page].newer;
		if (c->node[page].n_children == 0 && kb_pages_is_idle(c->pages, page)) {
			drop(c, page);
			n_dropped++;
		}
		page = newer;
	}
	return n_dropped;
}

bool kb_prefix_is_sound(const struct kb_prefix *c)
{
	uint32_t n_kept = 0, n_linked = 0, n_found = 0, last = KB_PREFIX_NONE;
	for (uint32_t i = 0; i < c->pages->total; i++) {
		const struct kb_prefix_node *n = &c->node[i];
		if ((n->scope != NULL) != c->pages->is_kept[i])
			return false;
		if (!n->scope)
			continue;
		n_kept++;
		if (n->parent != KB_PREFIX_NONE && (!c->node[n->parent].scope || c->node[n->parent].n_children == 0))
			return false;
		// Who holds a page holds those before it: otherwise an idle page could not be dropped.
		if (n->parent != KB_PREFIX_NONE && kb_pages_is_idle(c->pages, n->parent) && !kb_pages_is_idle(c->pages, i))
			return false;
		const struct place at = {n->scope, n->parent, n->token};
		n_found += find(c, &at) == i;
	}
	for (uint32_t page = c->oldest; page != KB_PREFIX_NONE; page = c->node[page].newer) {
		if (c->node[page].older != last || n_linked++ > n_kept)
			return false;
		last = page;
	}
	return last == c->newest && n_linked == n_kept && n_found == n_kept;
}
