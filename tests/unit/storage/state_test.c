// The daemon's environment: what is written is there after closing and opening again, and only that.
#include "harness/kt.h"
#include "storage/state.h"
#include "storage/state_record.h"
#include <lmdb.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char path[512];

static void fresh(void)
{
	char lock[600];
	const char *dir = getenv("KB_TMP");
	snprintf(path, sizeof path, "%s/state.mdb", dir ? dir : ".");
	snprintf(lock, sizeof lock, "%s-lock", path);
	unlink(path);
	unlink(lock);
}

static struct kb_state *reopen(struct kb_state *s)
{
	struct kb_err err;
	kb_state_close(s);
	if (kb_state_open(path, &s, &err))
		fail_msg("%s", err.text);
	return s;
}

static struct kb_client client(uint8_t tag, const char *name)
{
	struct kb_client c = {.created_s = 1000 + tag};
	memset(c.fingerprint, tag, 32);
	snprintf(c.name, sizeof c.name, "%s", name);
	snprintf(c.serial, sizeof c.serial, "%032x", tag);
	return c;
}

static int count(void *ctx, const struct kb_client *c)
{
	(void)c;
	++*(int *)ctx;
	return 0;
}

static void clients_come_and_go(void **state)
{
	(void)state;
	struct kb_err err;
	struct kb_client a = client(1, "ann"), b = client(2, "bob"), got;
	fresh();
	struct kb_state *s = reopen(NULL);
	assert_int_equal(kb_state_get_client(s, a.fingerprint, &got), KB_ENOTFOUND);
	assert_int_equal(kb_state_add_client(s, &a, &err), 0);
	assert_int_equal(kb_state_add_client(s, &b, &err), 0);
	s = reopen(s);
	assert_int_equal(kb_state_get_client(s, a.fingerprint, &got), 0);
	assert_string_equal(got.name, "ann");
	assert_string_equal(got.serial, a.serial);
	assert_int_equal(got.created_s, 1001);
	struct kb_client again = client(3, "ann");
	assert_int_equal(kb_state_add_client(s, &again, &err), KB_EEXISTS);
	assert_non_null(strstr(err.text, "ann"));
	assert_int_equal(kb_state_revoke(s, a.fingerprint, 77, &err), 0);
	assert_int_equal(kb_state_revoke(s, a.fingerprint, 99, &err), 0); // the first time stays
	assert_int_equal(kb_state_revoke(s, again.fingerprint, 99, &err), KB_ENOTFOUND);
	s = reopen(s);
	assert_int_equal(kb_state_get_client(s, a.fingerprint, &got), 0);
	assert_int_equal(got.revoked_s, 77);
	assert_int_equal(kb_state_find_client(s, "ann", &got), KB_ENOTFOUND);
	assert_int_equal(kb_state_add_client(s, &again, &err), 0); // the name is free again
	assert_int_equal(kb_state_add_client(s, &a, &err), KB_EEXISTS);
	assert_int_equal(kb_state_find_client(s, "ann", &got), 0);
	assert_int_equal(got.fingerprint[0], 3);
	int n = 0;
	assert_int_equal(kb_state_each_client(s, count, &n, &err), 0);
	assert_int_equal(n, 3);
	kb_state_close(s);
}

static void bearer_keys_follow_their_client(void **state)
{
	(void)state;
	struct kb_err err;
	struct kb_client a = client(1, "ann"), got;
	uint8_t one[32], two[32];
	memset(one, 0xa1, 32);
	memset(two, 0xa2, 32);
	fresh();
	struct kb_state *s = reopen(NULL);
	assert_int_equal(kb_state_add_client(s, &a, &err), 0);
	assert_int_equal(kb_state_set_bearer(s, a.fingerprint, one, &err), 0);
	assert_int_equal(kb_state_find_bearer(s, one, &got), 0);
	assert_string_equal(got.name, "ann");
	assert_int_equal(kb_state_set_bearer(s, a.fingerprint, two, &err), 0);
	s = reopen(s);
	assert_int_equal(kb_state_find_bearer(s, one, &got), KB_ENOTFOUND); // replaced
	assert_int_equal(kb_state_find_bearer(s, two, &got), 0);
	assert_int_equal(kb_state_revoke(s, a.fingerprint, 5, &err), 0);
	assert_int_equal(kb_state_find_bearer(s, two, &got), KB_ENOTFOUND);
	assert_int_equal(kb_state_set_bearer(s, a.fingerprint, one, &err), KB_EDENIED);
	kb_state_close(s);
}

static void settings_and_schema(void **state)
{
	(void)state;
	struct kb_err err;
	struct kb_buf b = {0};
	struct stat st;
	fresh();
	struct kb_state *s = reopen(NULL);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	assert_int_equal(kb_state_get_setting(s, "colour", &b), KB_ENOTFOUND);
	assert_int_equal(kb_state_set_setting(s, "colour", "blue", 4, &err), 0);
	s = reopen(s);
	assert_int_equal(kb_state_get_setting(s, "colour", &b), 0);
	assert_string_equal(kb_buf_cstr(&b), "blue");
	assert_int_equal(kb_state_set_setting(s, "", "x", 1, &err), KB_EARG);
	// The release before this one had schema 1: what it wrote stays, and from now on it is ours.
	struct kb_client a = client(1, "ann"), got;
	assert_int_equal(kb_state_add_client(s, &a, &err), 0);
	assert_int_equal(kb_state_set_setting(s, "schema", "1", 1, &err), 0);
	s = reopen(s);
	b.len = 0;
	assert_int_equal(kb_state_get_setting(s, "schema", &b), 0);
	assert_string_equal(kb_buf_cstr(&b), "2");
	assert_int_equal(kb_state_get_client(s, a.fingerprint, &got), 0);
	assert_int_equal(kb_state_set_setting(s, "schema", "3", 1, &err), 0);
	kb_state_close(s);
	assert_int_equal(kb_state_open(path, &s, &err), KB_EUNSUPPORTED);
	assert_non_null(strstr(err.text, "newer"));
	kb_buf_finish(&b);
}

static void damaged_files_are_refused(void **state)
{
	(void)state;
	struct kb_err err;
	struct kb_state *s;
	struct kb_client got, a = client(1, "ann");
	uint8_t record[KB_CLIENT_RECORD_LEN];
	fresh();
	FILE *f = fopen(path, "w");
	assert_non_null(f);
	for (int i = 0; i < 3000; i++)
		fputs("nonsense", f);
	fclose(f);
	assert_true(kb_state_open(path, &s, &err) != 0);
	assert_non_null(strstr(err.text, path));
	kb_client_pack(&a, record);
	assert_int_equal(kb_client_unpack(a.fingerprint, record, sizeof record, &got), 0);
	assert_int_equal(kb_client_unpack(a.fingerprint, record, sizeof record - 1, &got), KB_ECORRUPT);
	record[0] = 9;
	assert_int_equal(kb_client_unpack(a.fingerprint, record, sizeof record, &got), KB_ECORRUPT);
}

// A process is killed while it writes as fast as it can: what it had acknowledged through the pipe is there.
static void survives_kill(void **state)
{
	(void)state;
	for (int round = 0; round < 5; round++) {
		int fds[2], acknowledged = -1, i;
		struct kb_err err;
		struct kb_buf b = {0};
		fresh();
		assert_int_equal(pipe(fds), 0);
		pid_t pid = fork();
		assert_true(pid >= 0);
		if (pid == 0) {
			struct kb_state *s;
			if (kb_state_open(path, &s, &err))
				_exit(1);
			for (i = 0;; i++) {
				char text[64];
				snprintf(text, sizeof text, "%d", i);
				if (kb_state_set_setting(s, "count", text, strlen(text), &err) || write(fds[1], &i, sizeof i) < 0)
					_exit(1);
			}
		}
		close(fds[1]);
		for (int n = 0; n < 3 + round * 7 && read(fds[0], &i, sizeof i) == sizeof i; n++)
			acknowledged = i;
		kill(pid, SIGKILL);
		while (read(fds[0], &i, sizeof i) == sizeof i)
			acknowledged = i;
		close(fds[0]);
		waitpid(pid, NULL, 0);
		struct kb_state *s = reopen(NULL);
		assert_int_equal(kb_state_get_setting(s, "count", &b), 0);
		long stored = strtol(kb_buf_cstr(&b), NULL, 10);
		assert_true(stored == acknowledged || stored == acknowledged + 1);
		kb_state_close(s);
		kb_buf_finish(&b);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(clients_come_and_go),
		cmocka_unit_test(bearer_keys_follow_their_client),
		cmocka_unit_test(settings_and_schema),
		cmocka_unit_test(damaged_files_are_refused),
		cmocka_unit_test(survives_kill),
	};
	return cmocka_run_group_tests_name("storage/state", tests, NULL, NULL);
}
