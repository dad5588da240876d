#include "storage/bundle_head.h"
#include "storage/fields.h"
#include "storage/verity.h"
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAGIC "KBBUNDL1"
#define HEAD_BYTES 16u
#define PAIR_BYTES 8u
#define READ_BYTES (256u << 10) // at once

// Something with its signatures at *at, of which it is moved past.
static int take_pair(const uint8_t *bytes, size_t len, size_t most, size_t *at, struct kb_err *err, struct kb_signed *s)
{
	if (len - *at < PAIR_BYTES)
		return KB_EPARTIAL;
	s->len = kb_field_get(bytes + *at, 4);
	s->signatures_len = kb_field_get(bytes + *at + 4, 4);
	if (s->len == 0 || s->len > most || s->signatures_len > KB_SIGNATURES_BYTES_MAX)
		return kb_fail(err, KB_ELIMIT, "image, at byte %zu: %zu bytes with %zu of signatures; at most %zu and %u", *at,
			s->len, s->signatures_len, most, KB_SIGNATURES_BYTES_MAX);
	if (len - *at - PAIR_BYTES < s->len + s->signatures_len)
		return KB_EPARTIAL;
	s->bytes = bytes + *at + PAIR_BYTES;
	s->signatures = s->bytes + s->len;
	*at += PAIR_BYTES + s->len + s->signatures_len;
	return KB_OK;
}

/* see bundle_head.h */
int kb_bundle_head_parse(const uint8_t *bytes, size_t len, struct kb_err *err, struct kb_bundle_head *ret)
{
	size_t at = HEAD_BYTES;
	int rc = KB_OK;
	if (len < HEAD_BYTES)
		return KB_EPARTIAL;
	uint64_t n = kb_field_get(bytes + 8, 4), encoding = kb_field_get(bytes + 12, 4);
	if (memcmp(bytes, MAGIC, 8) != 0)
		return kb_fail(err, KB_EBAD, "this is no signed model image");
	if (n == 0 || n > KB_CHAIN_ROOTS_MAX)
		return kb_fail(err, KB_EBAD, "%" PRIu64 " roots, 1 to %u are possible", n, KB_CHAIN_ROOTS_MAX);
	if (encoding >= KB_BUNDLE_ENCODINGS)
		return kb_fail(
			err, KB_EUNSUPPORTED, "its payload is encoded as %" PRIu64 ", which needs a newer firmware", encoding);
	ret->encoding = (uint32_t)encoding;
	ret->chain.n = (uint32_t)n;
	for (uint32_t i = 0; i < n && rc == KB_OK; i++)
		rc = take_pair(bytes, len, KB_ROOT_MAX, &at, err, &ret->chain.roots[i]);
	if (rc == KB_OK)
		rc = take_pair(bytes, len, KB_MANIFEST_MAX, &at, err, &ret->manifest);
	ret->len = at;
	return rc;
}

/* see bundle_head.h */
int kb_bundle_head_write(const struct kb_bundle_head *h, struct kb_err *err, struct kb_buf *ret)
{
	static const uint8_t zeros[KB_SIGNATURES_BYTES_MAX];
	const size_t least = 8 + KB_BUNDLE_SIGNERS * (KB_KEY_ID + 4 + KB_SIGNATURE_MAX);
	uint8_t head[HEAD_BYTES] = MAGIC;
	struct kb_signed m = h->manifest;
	size_t begin = ret->len;
	kb_field_put(head + 8, h->chain.n, 4);
	kb_field_put(head + 12, h->encoding, 4);
	int rc = kb_buf_append(ret, head, sizeof head) ? kb_fail(err, KB_ENOMEM, "out of memory") : KB_OK;
	for (uint32_t i = 0; i < h->chain.n && rc == KB_OK; i++)
		rc = kb_signed_write(&h->chain.roots[i], err, ret);
	if (rc != KB_OK)
		return rc;
	size_t room = m.signatures_len > least ? m.signatures_len : least, at = ret->len - begin + PAIR_BYTES + m.len;
	room += (KB_VERITY_BLOCK - (at + room) % KB_VERITY_BLOCK) % KB_VERITY_BLOCK;
	if (room > KB_SIGNATURES_BYTES_MAX)
		return kb_fail(err, KB_ELIMIT, "too many signatures for one image");
	m.signatures = zeros;
	m.signatures_len = room;
	rc = kb_signed_write(&m, err, ret);
	if (rc == KB_OK)
		memcpy(ret->data + ret->len - room, h->manifest.signatures, h->manifest.signatures_len);
	return rc;
}

/* see bundle_head.h */
int kb_bundle_head_read(int fd, struct kb_err *err, struct kb_buf *ret_bytes, struct kb_bundle_head *ret)
{
	struct kb_buf b = {.max = KB_BUNDLE_HEAD_MAX + READ_BYTES};
	ssize_t n = 1;
	int rc;
	while ((rc = kb_bundle_head_parse(b.data, b.len, err, ret)) == KB_EPARTIAL && n != 0) {
		if (kb_buf_reserve(&b, READ_BYTES)) {
			rc = kb_fail(err, KB_ENOMEM, "out of memory");
			break;
		}
		n = pread(fd, b.data + b.len, READ_BYTES, (off_t)b.len);
		if (n < 0 && errno != EINTR) {
			rc = kb_fail(err, KB_EIO, "reading the image: %s", strerror(errno));
			break;
		}
		b.len += n > 0 ? (size_t)n : 0;
	}
	if (rc == KB_EPARTIAL)
		rc = kb_fail(err, KB_EBAD, "the image ends at byte %zu, before its payload", b.len);
	if (rc != KB_OK) {
		kb_buf_finish(&b);
		return rc;
	}
	*ret_bytes = b;
	return KB_OK;
}

static int write_room(int fd, const uint8_t *block, size_t room, size_t at, struct kb_err *err)
{
	for (size_t done = 0; done < room;) {
		ssize_t n = pwrite(fd, block + done, room - done, (off_t)(at + done));
		if (n < 0 && errno != EINTR)
			return kb_fail(err, kb_err_from_errno(errno), "writing the signatures: %s", strerror(errno));
		done += n > 0 ? (size_t)n : 0;
	}
	return fsync(fd) ? kb_fail(err, kb_err_from_errno(errno), "writing the signatures: %s", strerror(errno)) : KB_OK;
}

/* see bundle_head.h */
int kb_bundle_head_sign(int fd, const struct kb_signature *s, struct kb_err *err)
{
	struct kb_bundle_head *h = calloc(1, sizeof *h);
	struct kb_buf bytes = {0};
	int rc = h ? kb_bundle_head_read(fd, err, &bytes, h) : kb_fail(err, KB_ENOMEM, "out of memory");
	if (rc == KB_OK) {
		const size_t room = h->manifest.signatures_len, at = h->len - room; // they end the head
		rc = kb_signatures_put(bytes.data + at, room, s, err);
		if (rc == KB_OK)
			rc = write_room(fd, bytes.data + at, room, at, err);
	}
	kb_buf_finish(&bytes);
	free(h);
	return rc;
}
