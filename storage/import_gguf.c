/* see import_gguf.h */
#include "storage/import_gguf.h"
#include "base/limits.h"
#include "storage/gguf.h"
#include "storage/image.h"
#include "storage/image_write.h"
#include "storage/partial.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SEGMENT_BYTES (UINT64_C(256) << 20)
#define HEAD_FIRST (UINT64_C(1) << 20) // read first; doubled until the head is complete
#define READ_BYTES (1u << 20)          // source bytes read at once, or 16 rows where that is more

struct place {
	enum kb_format format;
	uint32_t segment;
	uint64_t offset, bytes;
};

struct import {
	const struct kb_import_options *options;
	struct kb_err *err;
	int fd;
	struct stat st;
	uint8_t *head;
	struct kb_gguf gguf;
	struct place *places;    // one a tensor
	uint64_t *segment_bytes; // one a segment
	uint32_t n_segments;
	uint64_t done, total; // source bytes of tensors
	uint8_t *rows;        // source rows being packed
	struct kb_partial partial;
	struct kb_image_writer *writer;
	struct kb_import_report report;
};

// --- the source --------------------------------------------------------------

static int read_at(const struct import *m, void *bytes, uint64_t n, uint64_t offset)
{
	for (uint64_t got = 0; got < n;) {
		ssize_t r = pread(m->fd, (uint8_t *)bytes + got, (size_t)(n - got), (off_t)(offset + got));
		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0)
			return kb_fail(m->err, kb_err_from_errno(errno), "reading at byte 0x%llx: %s",
				(unsigned long long)(offset + got), strerror(errno));
		if (r == 0)
			return kb_fail(m->err, KB_EBAD, "the file was cut off at byte 0x%llx while it was read",
				(unsigned long long)(offset + got));
		got += (uint64_t)r;
	}
	return 0;
}

static int open_source(struct import *m, const char *src)
{
	m->fd = open(src, O_RDONLY | O_CLOEXEC);
	if (m->fd < 0)
		return kb_fail(m->err, kb_err_from_errno(errno), "%s", strerror(errno));
	if (fstat(m->fd, &m->st) != 0 || !S_ISREG(m->st.st_mode))
		return kb_fail(m->err, KB_EBAD, "it is not a file");
	return 0;
}

static int read_head(struct import *m)
{
	uint64_t size = (uint64_t)m->st.st_size;
	for (uint64_t want = HEAD_FIRST;; want *= 2) {
		uint64_t len = want < size ? want : size;
		free(m->head);
		m->head = malloc(len ? len : 1);
		if (!m->head)
			return kb_fail(m->err, KB_ENOMEM, "no memory for %llu bytes of metadata", (unsigned long long)len);
		int r = read_at(m, m->head, len, 0);
		// NOLINTNEXTLINE(clang-analyzer-unix.Malloc): m->head belongs to the import and is freed with it
		r = r ? r : kb_gguf_parse(m->head, len, size, m->err, &m->gguf);
		if (r != KB_EPARTIAL)
			return r;
		if (want > KB_MAX_HEAD_BYTES)
			return kb_fail(m->err, KB_ELIMIT, "its metadata is over the limit of %u bytes", KB_MAX_HEAD_BYTES);
	}
}

static int check_unchanged(const struct import *m)
{
	struct stat now;
	if (fstat(m->fd, &now) != 0 || now.st_size != m->st.st_size || now.st_mtim.tv_sec != m->st.st_mtim.tv_sec ||
		now.st_mtim.tv_nsec != m->st.st_mtim.tv_nsec)
		return kb_fail(m->err, KB_EBAD, "the file changed while it was read");
	return 0;
}

static int check_contents(const struct import *m)
{
	struct kb_meta_source meta = kb_gguf_meta_source(&m->gguf);
	struct kb_str arch;
	uint64_t parts;
	if (m->gguf.n_tensors == 0)
		return kb_fail(m->err, KB_EUNSUPPORTED, "it holds no weights, only a vocabulary or metadata");
	if (kb_meta_u64(&meta, "split.count", &parts) == 0 && parts > 1)
		return kb_fail(m->err, KB_EUNSUPPORTED, "it is one of %llu parts: join them first (llama-gguf-split --merge)",
			(unsigned long long)parts);
	if (kb_meta_str(&meta, "general.architecture", &arch) != 0)
		return kb_fail(m->err, KB_EBAD, "the key 'general.architecture' is missing or no string");
	return 0;
}

// --- the plan ----------------------------------------------------------------

static uint64_t align_up(uint64_t n)
{
	return (n + KB_TENSOR_ALIGN - 1) / KB_TENSOR_ALIGN * KB_TENSOR_ALIGN;
}

static int place_tensor(struct import *m, const struct kb_gguf_tensor *t, struct place *p, uint64_t target)
{
	int len = (int)t->name.len;
	p->format = t->rows == 1 ? KB_FMT_F32 : t->kind->format;
	p->bytes = kb_record_tensor_bytes(p->format, t->rows, t->cols);
	if (p->bytes == 0)
		return kb_fail(m->err, KB_EUNSUPPORTED, "tensor '%.*s' has rows of %u values; matrices need a multiple of %u",
			len, t->name.data, t->cols, KB_BLOCK_COLS);
	if (p->bytes > kb_image_segment_max())
		return kb_fail(m->err, KB_ELIMIT, "tensor '%.*s' takes %llu MB; an image holds at most %llu MB in one piece",
			len, t->name.data, (unsigned long long)(p->bytes >> 20),
			(unsigned long long)(kb_image_segment_max() >> 20));
	uint64_t *open = m->n_segments ? &m->segment_bytes[m->n_segments - 1] : NULL;
	if (!open || align_up(*open) + p->bytes > target) {
		if (m->n_segments == KB_MAX_SEGMENTS)
			return kb_fail(m->err, KB_ELIMIT, "the model is larger than %u segments", KB_MAX_SEGMENTS);
		open = &m->segment_bytes[m->n_segments++];
		*open = 0;
	}
	p->segment = m->n_segments - 1;
	p->offset = align_up(*open);
	*open = p->offset + p->bytes;
	return 0;
}

static int plan(struct import *m)
{
	uint32_t n = m->gguf.n_tensors;
	uint64_t target = m->options->segment_bytes ? m->options->segment_bytes : SEGMENT_BYTES;
	m->places = calloc(n, sizeof *m->places);
	m->segment_bytes = calloc(n, sizeof *m->segment_bytes);
	if (!m->places || !m->segment_bytes)
		return kb_fail(m->err, KB_ENOMEM, "no memory for %u tensors", n);
	uint64_t most = READ_BYTES;
	for (uint32_t i = 0; i < n; i++) {
		const struct kb_gguf_tensor *t = &m->gguf.tensors[i];
		int r = place_tensor(m, t, &m->places[i], target);
		if (r)
			return r;
		uint64_t panel = t->bytes / t->rows * (t->rows < KB_PANEL_ROWS ? t->rows : KB_PANEL_ROWS);
		most = panel > most ? panel : most;
		m->total += t->bytes;
	}
	m->rows = malloc(most);
	return m->rows ? 0 : kb_fail(m->err, KB_ENOMEM, "no memory for %llu bytes of weights", (unsigned long long)most);
}

static int make_room(struct import *m, const char *dst, uint64_t *ret_bound)
{
	uint64_t room, segments = 0, meta = 0;
	for (uint32_t i = 0; i < m->n_segments; i++)
		segments += m->segment_bytes[i];
	for (uint32_t i = 0; i < m->gguf.n_meta; i++)
		meta += m->gguf.meta[i].encoded.len;
	uint64_t need = kb_image_write_bound(m->n_segments, segments, m->gguf.n_tensors, m->gguf.n_meta, meta);
	int r = kb_partial_create(dst, m->err, &m->partial);
	if (r)
		return r;
	r = kb_partial_room(dst, m->err, &room);
	if (r)
		return r;
	// Reserving can also fail where the file system cannot reserve: then only the count above speaks.
	int full = fallocate(m->partial.fd, FALLOC_FL_KEEP_SIZE, 0, (off_t)need) != 0 && errno == ENOSPC;
	if (need > room || full)
		return kb_fail(m->err, KB_ENOSPACE, "not enough room at %s: needs %llu MB, has %llu MB", dst,
			(unsigned long long)(need >> 20) + 1, (unsigned long long)(room >> 20));
	*ret_bound = need;
	return 0;
}

// --- packing -----------------------------------------------------------------

struct rms {
	double error2, sum2;
};

// Adds how far the packed rows [first, first + n) are from the source's.
static int measure(struct import *m, const struct kb_gguf_tensor *t, const uint8_t *src, const uint8_t *packed,
	uint32_t n, struct rms *rms)
{
	size_t stride = t->bytes / t->rows;
	float *a = malloc(t->cols * sizeof *a), *b = malloc(t->cols * sizeof *b);
	int r = a && b ? 0 : kb_fail(m->err, KB_ENOMEM, "no memory to measure rows of %u values", t->cols);
	for (uint32_t row = 0; row < n && !r; row++) {
		kb_ggml_decode_row(t->kind, src + row * stride, t->cols, a);
		kb_quant_decode_row(t->kind->format, packed, t->cols, row, b);
		for (uint32_t c = 0; c < t->cols; c++) {
			double e = (double)a[c] - (double)b[c];
			rms->error2 += e * e;
			rms->sum2 += (double)a[c] * (double)a[c];
		}
	}
	free(a);
	free(b);
	if (!r && !isfinite(rms->error2 + rms->sum2))
		r = kb_fail(m->err, KB_EBAD, "tensor '%.*s' has weights that are not finite", (int)t->name.len, t->name.data);
	return r;
}

static int pack_matrix(struct import *m, const struct kb_gguf_tensor *t, uint8_t *data, struct rms *rms)
{
	size_t stride = t->bytes / t->rows, panel = kb_format_panel_bytes(t->kind->format, t->cols);
	uint32_t step = (uint32_t)(READ_BYTES / stride / KB_PANEL_ROWS) * KB_PANEL_ROWS;
	step = step ? step : KB_PANEL_ROWS;
	for (uint32_t row = 0; row < t->rows; row += step) {
		uint32_t n = t->rows - row < step ? t->rows - row : step;
		int r = read_at(m, m->rows, n * stride, t->offset + row * stride);
		if (r)
			return r;
		for (uint32_t i = 0; i < n; i += KB_PANEL_ROWS, data += panel) {
			uint32_t rows = n - i < KB_PANEL_ROWS ? n - i : KB_PANEL_ROWS;
			const uint8_t *src = m->rows + i * stride;
			kb_quant_pack_panel(t->kind, src, stride, rows, t->cols, data);
			r = t->kind->is_exact ? 0 : measure(m, t, src, data, rows, rms);
			if (r)
				return r;
		}
		m->done += n * stride;
		char name[KB_MAX_TENSOR_NAME + 1];
		snprintf(name, sizeof name, "%.*s", (int)t->name.len, t->name.data);
		if (kb_progress_step(&m->options->progress, m->done, m->total, name))
			return kb_fail(m->err, KB_ECANCELLED, "stopped on request");
	}
	return 0;
}

static int widen_vector(struct import *m, const struct kb_gguf_tensor *t, uint8_t *data)
{
	int r = read_at(m, m->rows, t->bytes, t->offset);
	if (r)
		return r;
	// A segment's data is page-aligned and a tensor 256-aligned in it, but the writer's copy need not be.
	float *row = malloc(t->cols * sizeof *row);
	if (!row)
		return kb_fail(m->err, KB_ENOMEM, "no memory for a row of %u values", t->cols);
	kb_ggml_decode_row(t->kind, m->rows, t->cols, row);
	memcpy(data, row, t->cols * sizeof *row);
	free(row);
	m->done += t->bytes;
	return 0;
}

static int count_kind(struct import *m, const struct kb_gguf_tensor *t, const struct kb_image_tensor *out)
{
	struct kb_import_report *r = &m->report;
	uint32_t i = 0;
	while (i < r->n_kinds && (r->kinds[i].from != t->kind || r->kinds[i].to != out->format))
		i++;
	if (i == KB_IMPORT_KINDS)
		return kb_fail(m->err, KB_ELIMIT, "more than %d kinds of weights", KB_IMPORT_KINDS);
	struct kb_import_kind *k = &r->kinds[i];
	if (i == r->n_kinds)
		*k = (struct kb_import_kind){.from = t->kind, .to = out->format, .is_exact = true};
	r->n_kinds += i == r->n_kinds;
	k->tensors++;
	k->bytes_in += t->bytes;
	k->bytes_out += out->bytes;
	k->is_exact &= out->is_exact;
	k->rms_error = fmax(k->rms_error, out->rms_error);
	r->tensors++;
	r->parameters += (uint64_t)t->rows * t->cols;
	return 0;
}

static int write_tensor(struct import *m, uint32_t i, uint8_t *segment)
{
	const struct kb_gguf_tensor *t = &m->gguf.tensors[i];
	const struct place *p = &m->places[i];
	struct rms rms = {0};
	struct kb_image_tensor out = {
		.name = t->name,
		.format = p->format,
		.source = t->kind,
		.n_dims = t->n_dims,
		.dims = {t->dims[0], t->dims[1], t->dims[2], t->dims[3]},
		.rows = t->rows,
		.cols = t->cols,
		.offset = p->offset,
		.bytes = p->bytes,
		.is_exact = t->rows == 1 || t->kind->is_exact,
	};
	int r = t->rows == 1 ? widen_vector(m, t, segment + p->offset) : pack_matrix(m, t, segment + p->offset, &rms);
	if (r)
		return r;
	out.rms_error = rms.sum2 > 0 ? sqrt(rms.error2 / rms.sum2) : 0;
	r = kb_image_writer_tensor(m->writer, &out, m->err);
	return r ? r : count_kind(m, t, &out);
}

static int write_image(struct import *m)
{
	uint32_t i = 0;
	int r = 0;
	for (uint32_t s = 0; s < m->n_segments && !r; s++) {
		uint8_t *segment;
		r = kb_image_writer_segment(m->writer, m->segment_bytes[s], m->err, &segment);
		for (; !r && i < m->gguf.n_tensors && m->places[i].segment == s; i++)
			r = write_tensor(m, i, segment);
		r = r ? r : kb_image_writer_segment_end(m->writer, m->err);
	}
	for (uint32_t k = 0; k < m->gguf.n_meta && !r; k++)
		r = kb_image_writer_meta(m->writer, m->gguf.meta[k].key, m->gguf.meta[k].encoded, k, m->err);
	r = r ? r : check_unchanged(m);
	return r ? r : kb_image_writer_finish(m->writer, m->err);
}

// Gives back what was reserved and not used, and reads the image as everybody will.
static int finish_file(struct import *m)
{
	struct kb_image *image;
	struct stat st;
	if (fstat(m->partial.fd, &st) != 0 || ftruncate(m->partial.fd, st.st_size) != 0)
		return kb_fail(m->err, kb_err_from_errno(errno), "finishing %s: %s", m->partial.path, strerror(errno));
	int r = kb_image_open(m->partial.path, m->err, &image);
	if (r)
		return r;
	kb_image_close(image);
	m->report.segments = m->n_segments;
	m->report.bytes_in = (uint64_t)m->st.st_size;
	m->report.bytes_out = (uint64_t)st.st_size;
	return 0;
}

static int import(struct import *m, const char *src, const char *dst)
{
	uint64_t bound = 0;
	int r = open_source(m, src);
	r = r ? r : read_head(m);
	r = r ? r : check_contents(m);
	r = r ? r : plan(m);
	if (!r && !m->options->replace && access(dst, F_OK) == 0)
		r = kb_fail(m->err, KB_EEXISTS, "%s exists already", dst);
	r = r ? r : make_room(m, dst, &bound);
	r = r ? r : kb_image_writer_create(m->partial.path, bound, m->err, &m->writer);
	r = r ? r : write_image(m);
	kb_image_writer_destroy(m->writer);
	r = r ? r : finish_file(m);
	return r ? r : kb_partial_commit(&m->partial, m->options->replace, m->err);
}

int kb_import_gguf(const char *src, const char *dst, const struct kb_import_options *options, struct kb_err *err,
	struct kb_import_report *ret_report)
{
	static const struct kb_import_options none = {0};
	struct kb_err ignored;
	struct import m = {
		.options = options ? options : &none, .err = err ? err : &ignored, .fd = -1, .partial = {.fd = -1}};
	int r = import(&m, src, dst);
	kb_partial_abandon(&m.partial);
	if (m.fd >= 0)
		close(m.fd);
	kb_gguf_finish(&m.gguf);
	free(m.head);
	free(m.places);
	free(m.segment_bytes);
	free(m.rows);
	if (r) {
		kb_err_wrap(m.err, "importing %s: ", src);
		return r;
	}
	if (ret_report)
		*ret_report = m.report;
	return 0;
}

void kb_import_kind_text(const struct kb_import_kind *k, char *ret_text, size_t size)
{
	const char *to = kb_formats[k->to].name, *s = k->tensors == 1 ? "" : "s";
	if (k->is_exact)
		snprintf(ret_text, size, "%s -> %s, exact: %u tensor%s", k->from->name, to, k->tensors, s);
	else
		snprintf(ret_text, size, "%s -> %s, re-quantised, RMS error %.2f %%: %u tensor%s", k->from->name, to,
			100 * k->rms_error, k->tensors, s);
}
