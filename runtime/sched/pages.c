#include "sched/pages.h"
#include <assert.h>
#include <stdlib.h>

int kb_pages_init(struct kb_pages *p, uint32_t total)
{
	*p = (struct kb_pages){.total = total, .n_free = total};
	p->refs = calloc(total ? total : 1, sizeof *p->refs);
	p->is_kept = calloc(total ? total : 1, sizeof *p->is_kept);
	p->free = calloc(total ? total : 1, sizeof *p->free);
	if (!p->refs || !p->is_kept || !p->free) {
		free(p->refs);
		free(p->is_kept);
		free(p->free);
		*p = (struct kb_pages){0};
		return KB_ENOMEM;
	}
	for (uint32_t i = 0; i < total; i++)
		p->free[i] = total - 1 - i; // page 0 is handed out first
	return 0;
}

void kb_pages_finish(struct kb_pages *p)
{
	assert(p->n_free == p->total);
	free(p->refs);
	free(p->is_kept);
	free(p->free);
	*p = (struct kb_pages){0};
}

int kb_pages_take(struct kb_pages *p, uint32_t *ret_page)
{
	if (p->n_free == 0)
		return KB_EBUSY;
	uint32_t page = p->free[--p->n_free];
	assert(p->refs[page] == 0);
	p->refs[page] = 1;
	*ret_page = page;
	return 0;
}

void kb_pages_ref(struct kb_pages *p, uint32_t page)
{
	assert(page < p->total && p->refs[page] > 0 && p->refs[page] < UINT16_MAX);
	p->n_idle -= kb_pages_is_idle(p, page);
	p->refs[page]++;
}

void kb_pages_unref(struct kb_pages *p, uint32_t page)
{
	assert(page < p->total && p->refs[page] > 0 && !kb_pages_is_idle(p, page));
	if (--p->refs[page] == 0)
		p->free[p->n_free++] = page;
	p->n_idle += kb_pages_is_idle(p, page);
}

void kb_pages_keep(struct kb_pages *p, uint32_t page)
{
	assert(!p->is_kept[page]);
	kb_pages_ref(p, page);
	p->is_kept[page] = true;
}

void kb_pages_drop(struct kb_pages *p, uint32_t page)
{
	assert(kb_pages_is_idle(p, page));
	p->n_idle--;
	p->is_kept[page] = false;
	kb_pages_unref(p, page);
}

bool kb_pages_is_idle(const struct kb_pages *p, uint32_t page)
{
	return p->is_kept[page] && p->refs[page] == 1;
}

bool kb_pages_is_sound(const struct kb_pages *p)
{
	uint32_t n_free = 0, n_idle = 0;
	for (uint32_t i = 0; i < p->total; i++) {
		n_free += p->refs[i] == 0;
		n_idle += kb_pages_is_idle(p, i);
		if (p->is_kept[i] && p->refs[i] == 0)
			return false;
	}
	if (n_free != p->n_free || n_idle != p->n_idle)
		return false;
	for (uint32_t i = 0; i < p->n_free; i++)
		if (p->free[i] >= p->total || p->refs[p->free[i]] != 0)
			return false;
	return true;
}

int kb_page_list_reserve(struct kb_page_list *l, uint32_t n)
{
	if (n <= l->cap)
		return 0;
	uint32_t cap = l->cap ? l->cap : 8;
	while (cap < n)
		cap *= 2;
	uint32_t *page = realloc(l->page, cap * sizeof *page);
	if (!page)
		return KB_ENOMEM;
	l->page = page;
	l->cap = cap;
	return 0;
}

int kb_page_list_grow(struct kb_page_list *l, struct kb_pages *p, uint32_t n)
{
	int rc = kb_page_list_reserve(l, n);
	if (rc)
		return rc;
	while (l->n < n) {
		rc = kb_pages_take(p, &l->page[l->n]);
		if (rc)
			return rc;
		l->n++;
	}
	return 0;
}

void kb_page_list_clear(struct kb_page_list *l, struct kb_pages *p)
{
	while (l->n > 0)
		kb_pages_unref(p, l->page[--l->n]);
}

void kb_page_list_finish(struct kb_page_list *l, struct kb_pages *p)
{
	kb_page_list_clear(l, p);
	free(l->page);
	*l = (struct kb_page_list){0};
}
