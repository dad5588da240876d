#include "firmware/engine/engine.h"
#include "base/clock.h"
#include "base/hex.h"
#include "base/log.h"
#include "firmware/engine/shared.h"
#include "storage/verity_kernel.h"
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static bool is_reference(const struct kb_engine_options *o)
{
	return o->device && strcmp(o->device, "reference") == 0;
}

static int open_device(struct kb_engine *e, struct kb_err *err)
{
	const struct kb_engine_options *o = e->options;
	if (is_reference(o))
		return kb_op_ref_create(err, &e->backend);
	// lavapipe keeps compiled code in Mesa's cache; as one file it is opened with the device, before seccomp.
	if (e->sandbox.cache_dir) {
		setenv("MESA_SHADER_CACHE_DIR", e->sandbox.cache_dir, 1);
		setenv("MESA_DISK_CACHE_SINGLE_FILE", "1", 1);
	} else {
		setenv("MESA_SHADER_CACHE_DISABLE", "true", 1);
	}
	const struct kb_op_vk_options options = {
		.device = o->device,
		.path = o->path,
		.no_import = o->no_import,
		.cache_path = o->cache,
	};
	return kb_op_vk_create(&options, err, &e->backend);
}

// A signed image is proven before a byte of it is used: by the kernel, page by page from then on, or here, all of it.
static int prove(const struct kb_engine_options *o, struct kb_err *err)
{
	uint8_t digest[KB_VERITY_HASH];
	uint64_t from_ns = kb_clock_ns();
	bool by_kernel = false;
	if (kb_unhex(o->digest, digest, sizeof digest))
		return kb_fail(err, KB_EARG, "--digest wants 64 hexadecimal digits");
	int rc = kb_verity_check(o->image, digest, 0, err, &by_kernel);
	if (rc == 0)
		kb_info("engine", "the image is the signed one, %s; %.3f s",
			by_kernel ? "and the kernel proves each page" : "all of it was read",
			(double)(kb_clock_ns() - from_ns) / 1e9);
	return rc;
}

// What reads nothing that others wrote but the image's page structure.
static int open_files(struct kb_engine *e, struct kb_err *err)
{
	e->statm = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
	e->page_bytes = (uint64_t)sysconf(_SC_PAGESIZE);
	int rc = e->options->digest && e->options->image ? prove(e->options, err) : 0;
	if (rc == 0 && e->options->image)
		rc = kb_image_open(e->options->image, err, &e->image);
	return rc ? rc : open_device(e, err);
}

static int close_sandbox(struct kb_engine *e, struct kb_err *err)
{
	if (e->options->no_sandbox)
		return 0;
	bool has_nvidia = !is_reference(e->options) && kb_op_vk_caps(e->backend)->vendor_id == 0x10de;
	return kb_sandbox_close(has_nvidia, err);
}

static int load(struct kb_engine *e, void (*progress)(void *ctx, uint64_t done, uint64_t total), void *progress_ctx,
	struct kb_err *err)
{
	const struct kb_engine_options *o = e->options;
	struct kb_model_options options = {
		.kv_tokens = o->kv_tokens,
		.max_tokens = o->max_tokens,
		.max_seqs = o->max_seqs,
		.progress = progress,
		.progress_ctx = progress_ctx,
	};
	e->source = kb_source_of_image(e->image);
	if (!options.kv_tokens)
		options.kv_tokens = KB_ENGINE_KV_TOKENS;
	int rc = kb_tok_create(&e->source.meta, err, &e->tok);
	if (rc)
		return rc;
	if (kb_chat_find(&e->source.meta, &e->chat_error, &e->chat)) {
		kb_info("engine", "no chat with this model: %s", e->chat_error.text);
		e->chat = NULL;
	}
	rc = kb_ping_create(e->backend, err, &e->ping);
	if (rc)
		return rc;
	return kb_model_create(e->backend, &e->source, &options, err, &e->model);
}

int kb_engine_open(struct kb_engine *e, const struct kb_engine_options *o,
	void (*progress)(void *ctx, uint64_t done, uint64_t total), void *progress_ctx, struct kb_err *err)
{
	*e = (struct kb_engine){.options = o, .statm = -1, .sandbox = {.image = o->image}};
	if (o->cache) {
		const char *slash = strrchr(o->cache, '/');
		e->cache_dir = slash ? strndup(o->cache, slash == o->cache ? 1 : (size_t)(slash - o->cache)) : strdup(".");
		e->sandbox.cache_dir = e->cache_dir;
	}
	int rc = o->shared_system ? kb_shared_read(o->shared_system, err, &e->shared_system) : 0;
	if (rc == 0 && !o->no_sandbox)
		rc = kb_sandbox_begin(&e->sandbox, err);
	if (rc == 0 && !o->no_sandbox && !e->sandbox.has_landlock)
		kb_info("engine", "this kernel has no landlock: the sandbox is seccomp alone");
	if (rc == 0)
		rc = open_files(e, err);
	if (rc == 0)
		rc = close_sandbox(e, err);
	if (rc == 0 && e->image)
		rc = load(e, progress, progress_ctx, err);
	if (rc)
		kb_engine_close(e);
	return rc;
}

void kb_engine_close(struct kb_engine *e)
{
	kb_model_destroy(e->model);
	kb_ping_destroy(e->ping);
	kb_tok_destroy(e->tok);
	if (e->backend)
		e->backend->ops->destroy(e->backend);
	kb_image_close(e->image);
	if (e->statm >= 0)
		close(e->statm);
	free(e->cache_dir);
	kb_buf_finish(&e->shared_system);
	*e = (struct kb_engine){.statm = -1};
}

uint64_t kb_engine_resident(const struct kb_engine *e)
{
	char line[128];
	unsigned long long size, resident;
	ssize_t n = e->statm < 0 ? -1 : pread(e->statm, line, sizeof line - 1, 0);
	if (n <= 0)
		return 0;
	line[n] = 0;
	if (sscanf(line, "%llu %llu", &size, &resident) != 2)
		return 0;
	return resident * e->page_bytes;
}
