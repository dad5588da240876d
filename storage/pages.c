/* see pages.h */
#include "storage/pages.h"
#include "base/limits.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define MAGIC 0xbeefc0deu
#define DATA_VERSION 1u
#define HEADER 16u      // of a page
#define NODE_HEADER 8u  // lo, hi, flags, key size: four u16
#define DB_BYTES 48u    // struct MDB_db
#define META_BYTES 136u // struct MDB_meta
#define MIN_PAGE 512u
#define MAX_PAGE 32768u
#define MAX_KEY 511u
#define MAX_DEPTH 16u
#define NO_PAGE UINT64_MAX

enum { PAGE_BRANCH = 1, PAGE_LEAF = 2, PAGE_OVERFLOW = 4, PAGE_META = 8 };
enum { NODE_BIG = 1, NODE_SUBDB = 2 };

struct walk {
	const uint8_t *bytes;
	uint64_t pages; // whole pages in the file
	uint32_t psize;
	uint8_t *seen; // a bit a page
	struct kb_err *err;
};

static uint16_t u16_at(const uint8_t *p)
{
	uint16_t v;
	memcpy(&v, p, 2);
	return v;
}

static uint32_t u32_at(const uint8_t *p)
{
	uint32_t v;
	memcpy(&v, p, 4);
	return v;
}

static uint64_t u64_at(const uint8_t *p)
{
	uint64_t v;
	memcpy(&v, p, 8);
	return v;
}

static int bad(const struct walk *w, uint64_t page, const char *what)
{
	return kb_fail(w->err, KB_EBAD, "page %llu of the file is damaged: %s", (unsigned long long)page, what);
}

// Marks n pages from first as reached. False where one is outside the file or was reached before.
static bool reach(struct walk *w, uint64_t first, uint64_t n)
{
	if (first < 2 || first >= w->pages || n > w->pages - first)
		return false;
	for (uint64_t i = first; i < first + n; i++) {
		if (w->seen[i / 8] >> (i % 8) & 1)
			return false;
		w->seen[i / 8] |= (uint8_t)(1u << i % 8);
	}
	return true;
}

struct node {
	uint32_t lo_hi; // leaf: data size; branch: low bits of the page number
	uint16_t flags, key_len;
	const uint8_t *key;
	uint32_t room; // bytes of the page after the key
};

static bool read_node(const struct walk *w, const uint8_t *page, uint32_t i, struct node *ret)
{
	uint32_t upper = u16_at(page + 14), at = u16_at(page + HEADER + 2 * (size_t)i);
	if (at < upper || at % 2 != 0 || at > w->psize - NODE_HEADER)
		return false;
	struct node n = {.lo_hi = u16_at(page + at) | (uint32_t)u16_at(page + at + 2) << 16,
		.flags = u16_at(page + at + 4),
		.key_len = u16_at(page + at + 6),
		.key = page + at + NODE_HEADER};
	if (n.key_len > MAX_KEY || n.key_len > w->psize - NODE_HEADER - at)
		return false;
	n.room = w->psize - NODE_HEADER - at - n.key_len;
	*ret = n;
	return true;
}

static int compare_keys(const struct node *a, const struct node *b)
{
	int r = memcmp(a->key, b->key, a->key_len < b->key_len ? a->key_len : b->key_len);
	return r ? r : (int)a->key_len - (int)b->key_len;
}

static int check_db(struct walk *w, uint64_t at_page, const uint8_t *db, bool is_main);

static int check_leaf_node(struct walk *w, uint64_t number, const struct node *n, bool is_main)
{
	const uint8_t *data = n->key + n->key_len;
	if (n->key_len == 0)
		return bad(w, number, "an empty key");
	if (n->flags == NODE_SUBDB) {
		if (!is_main || n->lo_hi != DB_BYTES || n->room < DB_BYTES)
			return bad(w, number, "a database record of the wrong size or place");
		return check_db(w, number, data, false);
	}
	if (n->flags == NODE_BIG) {
		if (n->room < 8 || n->lo_hi > KB_MAX_VALUE_BYTES)
			return bad(w, number, "a value over 1 GiB, or no page number for it");
		uint64_t first = u64_at(data), pages = ((uint64_t)n->lo_hi + HEADER - 1) / w->psize + 1;
		if (!reach(w, first, pages))
			return bad(w, number, "a value outside the file or shared with another");
		const uint8_t *over = w->bytes + first * w->psize;
		if (u64_at(over) != first || u16_at(over + 10) != PAGE_OVERFLOW || u32_at(over + 12) < pages)
			return bad(w, first, "not the overflow page that its value needs");
		return 0;
	}
	if (n->flags != 0 || n->lo_hi > n->room)
		return bad(w, number, "a value outside its page, or of an unknown kind");
	return 0;
}

static int check_tree(struct walk *w, uint64_t number, uint32_t depth, bool is_main)
{
	struct node n, last = {0};
	if (!reach(w, number, 1))
		return bad(w, number, "outside the file, or reached twice");
	const uint8_t *page = w->bytes + number * w->psize;
	uint32_t kind = u16_at(page + 10), lower = u16_at(page + 12), upper = u16_at(page + 14);
	if (u64_at(page) != number || (kind != PAGE_BRANCH && kind != PAGE_LEAF))
		return bad(w, number, "neither branch nor leaf, or not the page it says it is");
	if (lower < HEADER || lower % 2 != 0 || lower > upper || upper > w->psize)
		return bad(w, number, "impossible bounds");
	uint32_t keys = (lower - HEADER) / 2;
	if (keys < (kind == PAGE_BRANCH ? 2u : 1u) || depth > MAX_DEPTH)
		return bad(w, number, "too few keys, or too deep a tree");
	for (uint32_t i = 0; i < keys; i++, last = n) {
		if (!read_node(w, page, i, &n))
			return bad(w, number, "an entry outside the page");
		// The first key of a branch is not used.
		if (i > (kind == PAGE_BRANCH ? 1u : 0u) && compare_keys(&last, &n) >= 0)
			return bad(w, number, "keys out of order");
		int r = kind == PAGE_LEAF ? check_leaf_node(w, number, &n, is_main)
								  : check_tree(w, n.lo_hi | (uint64_t)n.flags << 32, depth + 1, is_main);
		if (r)
			return r;
	}
	return 0;
}

// struct MDB_db: u32 pad; u16 flags, depth; u64 branch, leaf, overflow pages, entries, root.
static int check_db(struct walk *w, uint64_t at_page, const uint8_t *db, bool is_main)
{
	uint64_t root = u64_at(db + 40);
	if (u16_at(db + 4) != 0)
		return bad(w, at_page, "a database with flags that images do not use");
	return root == NO_PAGE ? 0 : check_tree(w, root, 1, is_main);
}

// struct MDB_meta, HEADER into its page: u32 magic, version; u64 address, map size; MDB_db free, main; u64 last page,
// transaction. The free database's pad is the page size, its flags are the environment's.
static int check_meta(const uint8_t *bytes, uint64_t len, uint64_t number, uint64_t at, struct kb_err *err)
{
	struct walk w = {.err = err};
	if (at > len || len - at < HEADER + META_BYTES)
		return kb_fail(err, KB_EBAD, "this is not a model image (too short: %llu bytes)", (unsigned long long)len);
	const uint8_t *page = bytes + at, *meta = page + HEADER;
	if (u16_at(page + 10) != PAGE_META || u32_at(meta) != MAGIC)
		return kb_fail(err, KB_EBAD, "this is not a model image (no LMDB file)");
	if (u32_at(meta + 4) != DATA_VERSION)
		return kb_fail(err, KB_EUNSUPPORTED, "an LMDB file of version %u; only 1 is supported", u32_at(meta + 4));
	uint32_t psize = u32_at(meta + 24), flags = u16_at(meta + 28);
	if (psize < MIN_PAGE || psize > MAX_PAGE || (psize & (psize - 1)) != 0)
		return bad(&w, number, "impossible page size");
	if (flags & 1)
		return bad(&w, number, "it wants a fixed address");
	if (u64_at(meta + 120) > UINT64_MAX / MAX_PAGE - 1)
		return bad(&w, number, "impossible last page");
	return 0;
}

int kb_pages_check(const uint8_t *bytes, uint64_t len, struct kb_err *err)
{
	int r = check_meta(bytes, len, 0, 0, err);
	if (r)
		return r;
	uint32_t psize = u32_at(bytes + HEADER + 24);
	r = check_meta(bytes, len, 1, psize, err);
	if (r)
		return r;
	struct walk w = {.bytes = bytes, .pages = len / psize, .psize = psize, .err = err};
	const uint8_t *first = bytes + HEADER, *second = bytes + psize + HEADER;
	if (u32_at(second + 24) != psize)
		return bad(&w, 1, "another page size than page 0");
	// As LMDB picks: the second only where its transaction is later.
	const uint8_t *meta = u64_at(second + 128) > u64_at(first + 128) ? second : first;
	uint64_t last = u64_at(meta + 120);
	if (last < w.pages)
		w.pages = last + 1; // LMDB refuses pages past the last
	w.seen = calloc(w.pages / 8 + 1, 1);
	if (!w.seen)
		return kb_fail(err, KB_ENOMEM, "no memory to check %llu pages", (unsigned long long)w.pages);
	r = check_db(&w, meta == second, meta + 72, true);
	free(w.seen);
	return r;
}
