#include "storage/epoch.h"
#include "storage/fields.h"
#include "storage/state_db.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#define EPOCH "epoch"

struct kb_epoch {
	struct kb_epoch_counter counter;
	int lock;              // against other processes
	pthread_mutex_t mutex; // against threads of this one
};

static int get(struct kb_state *s, MDB_txn *txn, struct kb_err *err, uint64_t *ret)
{
	MDB_val v;
	int r = kb__state_get(txn, s->trust, EPOCH, sizeof EPOCH - 1, err, &v);
	if (r == KB_OK && v.mv_size != 8)
		return kb_fail(err, KB_ECORRUPT, "state.mdb: its number of changes is damaged");
	*ret = r == KB_OK ? kb_field_get(v.mv_data, 8) : 0;
	return r;
}

static int put(struct kb_state *s, MDB_txn *txn, uint64_t epoch, struct kb_err *err)
{
	uint8_t bytes[8];
	kb_field_put(bytes, epoch, sizeof bytes);
	return kb__state_put(txn, s->trust, EPOCH, sizeof EPOCH - 1, bytes, sizeof bytes, err);
}

static int lock(struct kb_epoch *e, struct kb_err *err)
{
	pthread_mutex_lock(&e->mutex);
	int r;
	do
		r = flock(e->lock, LOCK_EX);
	while (r && errno == EINTR);
	if (r == 0)
		return KB_OK;
	pthread_mutex_unlock(&e->mutex);
	return kb_fail(err, KB_EIO, "locking the number of changes: %s", strerror(errno));
}

static void unlock(struct kb_epoch *e)
{
	flock(e->lock, LOCK_UN);
	pthread_mutex_unlock(&e->mutex);
}

// Brings the counter to where the state is, or says that they do not belong together.
static int compare(struct kb_epoch *e, uint64_t epoch, struct kb_err *err)
{
	uint64_t counted = 0;
	int r = e->counter.read(e->counter.ctx, &counted, err);
	if (r == KB_ENOTFOUND)
		return kb_fail(err, KB_EDENIED,
			"the TPM has no counter of this box: it was changed or cleared; if that was meant, kotobako root adopt");
	if (r || epoch == counted)
		return r;
	if (epoch == counted + 1) // the power went between the two
		return e->counter.advance(e->counter.ctx, err);
	return kb_fail(err, KB_EDENIED,
		"the state is at change %" PRIu64 ", the TPM's counter at %" PRIu64
		": the disk was put back to an earlier day, or the TPM is another one; if that was meant, kotobako root adopt",
		epoch, counted);
}

// The first time, and when the administrator says so.
static int adopt(struct kb_state *s, MDB_txn *txn, uint64_t now_s, struct kb_err *err)
{
	struct kb_audit_entry e = {.event = "counter adopted", .subject = "TPM", .time_s = now_s};
	struct kb_epoch_counter *c = &s->epoch->counter;
	uint64_t counted = 0;
	int r = c->read(c->ctx, &counted, err);
	if (r == KB_ENOTFOUND) {
		r = c->make(c->ctx, err);
		r = r ? r : c->read(c->ctx, &counted, err);
	}
	e.version = counted;
	r = r ? r : put(s, txn, counted, err);
	return r ? r : kb__audit_put(s, txn, &e, err);
}

static int begin(struct kb_state *s, bool wants_adopt, uint64_t now_s, struct kb_err *err)
{
	MDB_txn *txn;
	uint64_t epoch = 0;
	int r = kb__state_begin(s, 0, "comparing the number of changes", err, &txn);
	if (r)
		return r;
	r = get(s, txn, err, &epoch);
	if (r == KB_ENOTFOUND || (r == KB_OK && wants_adopt))
		return kb__state_end(txn, adopt(s, txn, now_s, err), "adopting the counter", err);
	mdb_txn_abort(txn);
	return r ? r : compare(s->epoch, epoch, err);
}

/* see state_db.h */
void kb__epoch_free(struct kb_state *s)
{
	if (!s->epoch)
		return;
	close(s->epoch->lock);
	pthread_mutex_destroy(&s->epoch->mutex);
	free(s->epoch);
	s->epoch = NULL;
}

/* see epoch.h */
int kb_epoch_guard(struct kb_state *s, const struct kb_epoch_counter *counter, const char *lock_path, bool wants_adopt,
	uint64_t now_s, struct kb_err *err)
{
	struct kb_epoch *e = calloc(1, sizeof *e);
	if (!e)
		return kb_fail(err, KB_ENOMEM, "out of memory");
	e->counter = *counter;
	pthread_mutex_init(&e->mutex, NULL);
	e->lock = open(lock_path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	s->epoch = e;
	int r = e->lock < 0 ? kb_fail(err, kb_err_from_errno(errno), "%s: %s", lock_path, strerror(errno)) : lock(e, err);
	if (r == KB_OK) {
		r = begin(s, wants_adopt, now_s, err);
		unlock(e);
	}
	if (r)
		kb__epoch_free(s);
	return r;
}

/* see state_db.h */
int kb__epoch_begin(struct kb_state *s, const char *what, struct kb_err *err, MDB_txn **ret)
{
	int r = s->epoch ? lock(s->epoch, err) : KB_OK;
	if (r)
		return r;
	r = kb__state_begin(s, 0, what, err, ret);
	if (r && s->epoch)
		unlock(s->epoch);
	return r;
}

/* see state_db.h */
int kb__epoch_end(struct kb_state *s, MDB_txn *txn, int rc, const char *what, struct kb_err *err)
{
	uint64_t epoch = 0;
	if (!s->epoch)
		return kb__state_end(txn, rc, what, err);
	rc = rc ? rc : get(s, txn, err, &epoch);
	rc = rc ? rc : compare(s->epoch, epoch, err);
	rc = rc ? rc : put(s, txn, epoch + 1, err);
	rc = kb__state_end(txn, rc, what, err);
	// Done is done: a counter that does not follow now follows before the next change.
	if (rc == KB_OK)
		(void)!s->epoch->counter.advance(s->epoch->counter.ctx, NULL);
	unlock(s->epoch);
	return rc;
}
