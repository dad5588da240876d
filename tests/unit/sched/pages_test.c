#include "harness/kt.h"
#include "sched/pages.h"

static void takes_every_page_once_then_is_busy(void **state)
{
	(void)state;
	struct kb_pages p;
	assert_int_equal(kb_pages_init(&p, 5), 0);
	bool is_seen[5] = {false};
	uint32_t page = 99;
	for (int i = 0; i < 5; i++) {
		assert_int_equal(kb_pages_take(&p, &page), 0);
		assert_true(page < 5 && !is_seen[page]);
		is_seen[page] = true;
	}
	uint32_t last = page;
	assert_int_equal(kb_pages_take(&p, &page), KB_EBUSY);
	assert_int_equal(page, last); // untouched on failure
	assert_true(kb_pages_is_sound(&p));
	for (uint32_t i = 0; i < 5; i++)
		kb_pages_unref(&p, i);
	assert_int_equal(p.n_free, 5);
	assert_true(kb_pages_is_sound(&p));
	kb_pages_finish(&p);
}

static void shared_page_is_free_after_its_last_reference(void **state)
{
	(void)state;
	struct kb_pages p;
	uint32_t a, b;
	assert_int_equal(kb_pages_init(&p, 2), 0);
	assert_int_equal(kb_pages_take(&p, &a), 0);
	kb_pages_ref(&p, a);
	kb_pages_unref(&p, a);
	assert_int_equal(p.n_free, 1);
	assert_int_equal(kb_pages_take(&p, &b), 0);
	assert_int_not_equal(a, b);
	kb_pages_unref(&p, a);
	assert_int_equal(p.n_free, 1);
	kb_pages_unref(&p, b);
	kb_pages_finish(&p);
}

static void list_that_cannot_grow_keeps_what_it_has(void **state)
{
	(void)state;
	struct kb_pages p;
	struct kb_page_list l = {0}, m = {0};
	assert_int_equal(kb_pages_init(&p, 40), 0);
	assert_int_equal(kb_page_list_grow(&l, &p, 30), 0);
	assert_int_equal(kb_page_list_grow(&l, &p, 7), 0); // already longer
	assert_int_equal(l.n, 30);
	assert_int_equal(kb_page_list_grow(&m, &p, 11), KB_EBUSY);
	assert_int_equal(m.n, 10);
	assert_int_equal(p.n_free, 0);
	kb_page_list_clear(&l, &p);
	assert_int_equal(kb_page_list_grow(&m, &p, 11), 0);
	assert_true(kb_pages_is_sound(&p));
	kb_page_list_finish(&m, &p);
	kb_page_list_finish(&l, &p);
	kb_pages_finish(&p);
}

static void soundness_check_sees_damage(void **state)
{
	(void)state;
	struct kb_pages p;
	uint32_t a;
	assert_int_equal(kb_pages_init(&p, 3), 0);
	assert_int_equal(kb_pages_take(&p, &a), 0);
	p.refs[a] = 0; // a page that nobody has and that is not free either
	assert_false(kb_pages_is_sound(&p));
	p.refs[a] = 1;
	kb_pages_unref(&p, a);
	kb_pages_finish(&p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(takes_every_page_once_then_is_busy),
		cmocka_unit_test(shared_page_is_free_after_its_last_reference),
		cmocka_unit_test(list_that_cannot_grow_keeps_what_it_has),
		cmocka_unit_test(soundness_check_sees_damage),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
