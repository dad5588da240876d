// The journal of the two slots: every way that an update can go, and that it can be cut off in.
#include "storage/os_state.h"
#include "unit/storage/state_dir.h"
#include <stdio.h>
#include <string.h>

static const char facts[] =
	"slot=a\ndefault=b\narmed=1\nversion=12\nboard=qemu-x86_64\ndevice=/dev/vda3\ntrial=its kernel\n";

static struct kb_os_boot boot_of(int slot, int by_default, uint64_t version)
{
	struct kb_os_boot b = {.slot = slot, .default_slot = by_default, .version = version};
	snprintf(b.board, sizeof b.board, "box");
	return b;
}

// Version 2 is written to slot b of a box that runs 1 from slot a.
static struct kb_os_state written(void)
{
	struct kb_os_state s = {
		.slot = {{.phase = KB_OS_GOOD, .version = 1}, {.phase = KB_OS_WRITTEN, .version = 2, .floor = 2}}};
	memset(s.slot[1].digest, 2, KB_OS_DIGEST);
	return s;
}

static void reads_what_the_start_was(void **state)
{
	struct kb_os_boot b;
	struct kb_err err = {0};
	(void)state;
	assert_int_equal(kb_os_boot_parse(facts, sizeof facts - 1, &err, &b), KB_OK);
	assert_int_equal(b.slot, 0);
	assert_int_equal(b.default_slot, 1);
	assert_true(b.is_armed);
	assert_int_equal(b.version, 12);
	assert_string_equal(b.board, "qemu-x86_64");
	assert_string_equal(b.device, "/dev/vda3");
	assert_string_equal(b.trial, "its kernel");
	static const char *const wrong[] = {"slot=c\n", "slot=ab\n", "armed=2\n", "version=\n", "version=1x\n",
		"version=-1\n", "version=123456789012345678901\n", "slot=a\nslot=a\n"};
	for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
		assert_int_equal(kb_os_boot_parse(wrong[i], strlen(wrong[i]), &err, &b), KB_EBAD);
	for (size_t n = 0; n + 13 < sizeof facts; n++) // without the last key
		assert_int_equal(kb_os_boot_parse(facts, n, &err, &b), KB_EBAD);
}

static void a_first_start_is_clean(void **state)
{
	struct kb_os_state s = {0};
	const struct kb_os_boot a = boot_of(0, 0, 1);
	(void)state;
	assert_int_equal(kb_os_settle(&s, &a, 5), KB_OS_CLEAN);
	assert_int_equal(s.slot[0].phase, KB_OS_GOOD);
	assert_int_equal(s.slot[0].version, 1);
	assert_int_equal(s.slot[1].phase, KB_OS_EMPTY);
}

static void a_good_update(void **state)
{
	struct kb_os_state s = written();
	struct kb_os_boot a = boot_of(0, 0, 1), b = boot_of(1, 0, 2);
	struct kb_err err = {0};
	uint8_t digest[KB_OS_DIGEST] = {9};
	(void)state;
	assert_int_equal(kb_os_settle(&s, &a, 5), KB_OS_TO_ARM);
	kb_os_armed(&s, &a);
	assert_int_equal(kb_os_settle(&s, &b, 6), KB_OS_ON_TRIAL);
	assert_int_equal(kb_os_allow(&s, &b, "box", 3, digest, false, &err), KB_EBUSY);
	kb_os_proven(&s, &b);
	assert_int_equal(s.floor, 0); // until it has started by itself, the old one may come back
	b.default_slot = 1;
	assert_int_equal(kb_os_settle(&s, &b, 7), KB_OS_CLEAN);
	assert_int_equal(s.slot[1].phase, KB_OS_GOOD);
	assert_int_equal(s.floor, 2);
	assert_int_equal(s.failed_version, 0);
	assert_int_equal(kb_os_allow(&s, &b, "box", 3, digest, false, &err), KB_OK);
	assert_int_equal(kb_os_allow(&s, &b, "other", 3, digest, false, &err), KB_EDENIED);
	assert_int_equal(kb_os_allow(&s, &b, "box", 2, digest, false, &err), KB_EEXISTS);
	assert_int_equal(kb_os_allow(&s, &b, "box", 1, digest, false, &err), KB_EDENIED);
	assert_non_null(strstr(err.text, "floor"));
}

static void the_power_goes(void **state)
{
	const struct kb_os_boot a = boot_of(0, 0, 1), b = boot_of(1, 0, 2), b_default = boot_of(1, 1, 2);
	(void)state;
	// ...after the firmware was told, before the journal was: the trial begins all the same.
	struct kb_os_state s = written();
	assert_int_equal(kb_os_settle(&s, &b, 6), KB_OS_ON_TRIAL);
	// ...then once more, on trial: again b only if somebody starts it so; by itself it is a.
	assert_int_equal(kb_os_settle(&s, &b, 6), KB_OS_ON_TRIAL);
	assert_int_equal(kb_os_settle(&s, &a, 7), KB_OS_RETURNED);
	assert_int_equal(s.slot[1].phase, KB_OS_BAD);
	// ...after the variable that makes it the default, before the journal.
	s = written();
	kb_os_armed(&s, &a);
	assert_int_equal(kb_os_settle(&s, &b_default, 6), KB_OS_CLEAN);
	assert_int_equal(s.slot[1].phase, KB_OS_GOOD);
	// ...armed, journal written, but the box was not restarted by us: the one-shot is still there.
	s = written();
	kb_os_armed(&s, &a);
	struct kb_os_boot armed = a;
	armed.is_armed = true;
	assert_int_equal(kb_os_settle(&s, &armed, 6), KB_OS_TO_ARM);
	// ...while it was being written: nothing is under way, and it is not started.
	s = written();
	s.slot[1].phase = KB_OS_WRITING;
	assert_int_equal(kb_os_settle(&s, &a, 6), KB_OS_CLEAN);
	assert_int_equal(s.slot[1].phase, KB_OS_WRITING);
}

static void a_bad_one_is_not_tried_again(void **state)
{
	struct kb_os_state s = written();
	struct kb_os_boot a = boot_of(0, 0, 1);
	struct kb_err err = {0};
	uint8_t digest[KB_OS_DIGEST];
	(void)state;
	memcpy(digest, s.slot[1].digest, sizeof digest);
	kb_os_armed(&s, &a);
	snprintf(a.trial, sizeof a.trial, "its root was not verified");
	assert_int_equal(kb_os_settle(&s, &a, 77), KB_OS_RETURNED);
	assert_string_equal(s.reason, "its root was not verified");
	assert_int_equal(s.failed_version, 2);
	assert_int_equal(s.failed_s, 77);
	a.trial[0] = 0;
	assert_int_equal(kb_os_settle(&s, &a, 78), KB_OS_CLEAN);
	assert_int_equal(s.slot[1].phase, KB_OS_BAD);
	assert_int_equal(kb_os_allow(&s, &a, "box", 2, digest, false, &err), KB_EDENIED);
	assert_non_null(strstr(err.text, "its root was not verified"));
	assert_int_equal(kb_os_allow(&s, &a, "box", 2, digest, true, &err), KB_OK);
	// The last eight are remembered, each once.
	for (uint8_t i = 10; i < 20; i++)
		for (int twice = 0; twice < 2; twice++) {
			memset(s.slot[1].digest, i, KB_OS_DIGEST);
			kb_os_failed(&s, 1, "x", 1);
		}
	assert_int_equal(s.n_bad, KB_OS_BAD_MAX);
	assert_int_equal(s.bad[0][0], 12);
	assert_int_equal(s.bad[KB_OS_BAD_MAX - 1][0], 19);
	assert_int_equal(kb_os_allow(&s, &a, "box", 2, digest, false, &err), KB_OK);
}

static void the_recovery_kernel_was_here(void **state)
{
	struct kb_os_state s = {.slot = {{.phase = KB_OS_GOOD, .version = 1}, {.phase = KB_OS_GOOD, .version = 2}}};
	struct kb_os_boot a = boot_of(0, 0, 1);
	(void)state;
	snprintf(a.trial, sizeof a.trial, "the firmware did not start app_b.efi");
	assert_int_equal(kb_os_settle(&s, &a, 5), KB_OS_RETURNED);
	assert_int_equal(s.slot[1].phase, KB_OS_BAD);
	assert_int_equal(s.slot[0].phase, KB_OS_GOOD);
	// An update that was refused before its journal said that it was armed.
	s = written();
	assert_int_equal(kb_os_settle(&s, &a, 5), KB_OS_RETURNED);
}

static void a_disk_that_was_written_anew(void **state)
{
	struct kb_os_state s = {
		.slot = {{.phase = KB_OS_GOOD, .version = 1, .floor = 1}, {.phase = KB_OS_GOOD, .version = 2}}};
	const struct kb_os_boot a = boot_of(0, 0, 9);
	(void)state;
	assert_int_equal(kb_os_settle(&s, &a, 5), KB_OS_CLEAN);
	assert_int_equal(s.slot[0].version, 9);
	assert_int_equal(s.slot[0].floor, 0);
}

static void what_is_kept_is_read(void **state)
{
	struct kb_state *db = fresh_state();
	struct kb_os_state s = written(), t;
	struct kb_err err = {0};
	struct kb_buf bytes = {0};
	(void)state;
	assert_int_equal(kb_os_load(db, &err, &t), KB_OK);
	assert_int_equal(t.slot[0].phase, KB_OS_EMPTY);
	kb_os_failed(&s, 1, "because", 7);
	s.floor = 4;
	assert_int_equal(kb_os_store(db, &s, &err), KB_OK);
	assert_int_equal(kb_os_load(db, &err, &t), KB_OK);
	assert_memory_equal(&t, &s, sizeof s);
	assert_int_equal(kb_state_get_setting(db, "os", &bytes), KB_OK);
	bytes.data[7]++; // a later form of it
	assert_int_equal(kb_state_set_setting(db, "os", bytes.data, bytes.len, &err), KB_OK);
	assert_int_equal(kb_os_load(db, &err, &t), KB_EUNSUPPORTED);
	assert_int_equal(kb_state_set_setting(db, "os", bytes.data, 3, &err), KB_OK);
	assert_int_equal(kb_os_load(db, &err, &t), KB_EBAD);
	bytes.data[7]--;
	bytes.data[8] = KB_OS_PHASES;
	assert_int_equal(kb_state_set_setting(db, "os", bytes.data, bytes.len, &err), KB_OK);
	assert_int_equal(kb_os_load(db, &err, &t), KB_EBAD);
	kb_buf_finish(&bytes);
	kb_state_close(db);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(reads_what_the_start_was),
		cmocka_unit_test(a_first_start_is_clean),
		cmocka_unit_test(a_good_update),
		cmocka_unit_test(the_power_goes),
		cmocka_unit_test(a_bad_one_is_not_tried_again),
		cmocka_unit_test(the_recovery_kernel_was_here),
		cmocka_unit_test(a_disk_that_was_written_anew),
		cmocka_unit_test(what_is_kept_is_read),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
