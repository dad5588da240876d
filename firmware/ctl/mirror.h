// What `kotobako image serve` gives to others, and one connection of it: HTTP/1.1 over TLS with a client's certificate,
// GET and HEAD, parts by Range (RFC 9110, 14).
//   GET /       {"images": [{"name", "bytes"}]}
//   GET /NAME   the image, or catalog.kbc
// A connection is a process of its own: it begins with the TLS library untouched (net/tls.h), blocks where it likes,
// and takes nothing along when it dies.
#pragma once
#include "firmware/ctl/ctl.h"
#include "storage/bundle_view.h"
#include "storage/state.h"

#define KB_MIRROR_NAME_MAX 128u   // of an image: a model's name, its version, .kbm
#define KB_MIRROR_FILES_MAX 1024u // of a folder; further ones are left out
#define KB_MIRROR_VIEWS_MAX 64u   // installed models; each has a file open

struct kb_mirror_view {
	char name[KB_MIRROR_NAME_MAX + 1];
	uint8_t digest[KB_MANIFEST_HASH];
	struct kb_bundle_view *view;
	bool is_wanted;
};

struct kb_mirror {
	const struct kb_ctl *ctl;
	int dir; // of files; -1: the box's own installed models
	struct kb_mirror_view views[KB_MIRROR_VIEWS_MAX];
	uint32_t n_views;
	struct kb_buf catalog;  // the box's, as a file; empty where it has none
	struct timespec looked; // state.mdb's time when they were looked at
	// Credentials, as PEM.
	struct kb_buf ca, cert, key;
};

// Something to send: a file or a view.
struct kb_mirror_image {
	int fd;                            // -1: another one
	const struct kb_bundle_view *view; // NULL: another one
	const struct kb_buf *memory;
	uint64_t bytes;
};

// mirror_files.c
// Brings the views in line with what is installed. What cannot be shown is said in the log and left out.
KB_MUST_CHECK int kb_mirror_refresh(struct kb_mirror *m, struct kb_err *err);
void kb_mirror_finish(struct kb_mirror *m);
// Appends the list as JSON.
KB_MUST_CHECK int kb_mirror_list(const struct kb_mirror *m, struct kb_buf *ret);
// KB_ENOTFOUND. Close it.
KB_MUST_CHECK int kb_mirror_open(const struct kb_mirror *m, const char *name, struct kb_mirror_image *ret);
KB_MUST_CHECK int kb_mirror_read(
	const struct kb_mirror_image *i, uint64_t at, uint8_t *ret, size_t len, struct kb_err *err);
void kb_mirror_close(struct kb_mirror_image *i);

// mirror.c
// The life of a connection's process. Exit status 0 where the client left in order.
_Noreturn void kb_mirror_serve(const struct kb_mirror *m, int fd);
