// A state and a counter outside of it: changes count, an earlier copy of the state is found, lost power between the two
// is not mistaken for one.
#include "storage/epoch.h"
#include "storage/trust.h"
#include "unit/storage/keys.h"
#include "unit/storage/state_dir.h"

#include <sys/stat.h>

static struct fake {
	bool is_there, is_dead;
	uint64_t value;
	int advances_left; // then it fails; -1: never
} fake;

static int fake_read(void *ctx, uint64_t *ret, struct kb_err *err)
{
	const struct fake *f = ctx;
	if (f->is_dead)
		return kb_fail(err, KB_EIO, "dead");
	if (!f->is_there)
		return kb_fail(err, KB_ENOTFOUND, "none");
	*ret = f->value;
	return KB_OK;
}

static int fake_make(void *ctx, struct kb_err *err)
{
	struct fake *f = ctx;
	(void)err;
	f->is_there = true;
	f->value = 1000;
	return KB_OK;
}

static int fake_advance(void *ctx, struct kb_err *err)
{
	struct fake *f = ctx;
	if (f->is_dead || f->advances_left == 0)
		return kb_fail(err, KB_EIO, "dead");
	f->advances_left -= f->advances_left > 0;
	f->value++;
	return KB_OK;
}

static const struct kb_epoch_counter counter = {fake_read, fake_make, fake_advance, &fake};

static int guard(struct kb_state *s, bool adopt, struct kb_err *err)
{
	char lock[600];
	snprintf(lock, sizeof lock, "%s.epoch", state_path);
	*err = (struct kb_err){0};
	return kb_epoch_guard(s, &counter, lock, adopt, 5, err);
}

static struct kb_state *guarded(void)
{
	struct kb_err err;
	struct kb_state *s = open_state();
	if (guard(s, false, &err))
		fail_msg("%s", err.text);
	return s;
}

// A client that is paired and revoked: the second counts.
static int change(struct kb_state *s, uint8_t which, struct kb_err *err)
{
	struct kb_client c = {.created_s = 1};
	memset(c.fingerprint, which, sizeof c.fingerprint);
	snprintf(c.name, sizeof c.name, "c%u", which);
	snprintf(c.serial, sizeof c.serial, "%u", which);
	assert_int_equal(kb_state_add_client(s, &c, err), KB_OK);
	return kb_state_revoke(s, c.fingerprint, 5, err);
}

static struct kb_state *fresh(void)
{
	fake = (struct fake){.advances_left = -1};
	kb_state_close(fresh_state());
	return guarded();
}

static void changes_count(void **state)
{
	struct kb_err err = {0};
	(void)state;
	struct kb_state *s = fresh();
	assert_true(fake.is_there);
	assert_int_equal(fake.value, 1000);
	for (uint8_t i = 1; i <= 3; i++)
		assert_int_equal(change(s, i, &err), KB_OK);
	assert_int_equal(fake.value, 1003);
	kb_state_close(s);
	s = guarded();
	assert_int_equal(fake.value, 1003);
	assert_int_equal(change(s, 4, &err), KB_OK);
	assert_int_equal(fake.value, 1004);
	kb_state_close(s);
}

static void an_earlier_state_is_found(void **state)
{
	struct kb_err err = {0};
	size_t len;
	(void)state;
	struct kb_state *s = fresh();
	assert_int_equal(change(s, 1, &err), KB_OK);
	kb_state_close(s);
	uint8_t *copy = read_file(state_path, &len);
	s = guarded();
	assert_int_equal(change(s, 2, &err), KB_OK); // one change is enough
	kb_state_close(s);
	write_file(state_path, copy, len);
	s = open_state();
	assert_int_equal(guard(s, false, &err), KB_EDENIED);
	assert_non_null(strstr(err.text, "earlier day"));
	assert_int_equal(guard(s, true, &err), KB_OK); // the administrator meant it
	assert_int_equal(change(s, 3, &err), KB_OK);
	kb_state_close(s);
	kb_state_close(guarded());
	free(copy);
}

static void power_may_go_between(void **state)
{
	struct kb_err err = {0};
	(void)state;
	struct kb_state *s = fresh();
	fake.advances_left = 0; // written, not counted
	assert_int_equal(change(s, 1, &err), KB_OK);
	assert_int_equal(fake.value, 1000);
	fake.advances_left = -1;
	kb_state_close(s);
	s = guarded();
	assert_int_equal(fake.value, 1001);
	fake.advances_left = 0;
	assert_int_equal(change(s, 2, &err), KB_OK);
	assert_int_equal(change(s, 3, &err), KB_EIO); // it would be two ahead
	fake.advances_left = -1;
	assert_int_equal(kb_state_revoke(s, (const uint8_t[32]){0}, 5, &err), KB_ENOTFOUND); // no change, no count
	kb_state_close(s);
	kb_state_close(guarded());
	assert_int_equal(fake.value, 1002);
}

static void another_tpm_is_noticed(void **state)
{
	struct kb_err err = {0};
	(void)state;
	struct kb_state *s = fresh();
	fake.is_dead = true;
	assert_int_equal(change(s, 1, &err), KB_EIO);
	kb_state_close(s);
	s = open_state();
	assert_int_equal(guard(s, false, &err), KB_EIO);
	fake.is_dead = fake.is_there = false; // cleared
	assert_int_equal(guard(s, false, &err), KB_EDENIED);
	assert_non_null(strstr(err.text, "cleared"));
	fake.is_there = true;
	fake.value = 3;
	assert_int_equal(guard(s, false, &err), KB_EDENIED);
	assert_int_equal(guard(s, true, &err), KB_OK);
	assert_int_equal(change(s, 2, &err), KB_OK);
	assert_int_equal(fake.value, 4);
	kb_state_close(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(changes_count),
		cmocka_unit_test(an_earlier_state_is_found),
		cmocka_unit_test(power_may_go_between),
		cmocka_unit_test(another_tpm_is_noticed),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
