#include "vk/vk_pipeline.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CACHE_BYTES_MAX (64u << 20)

// Of the file. A driver checks its own part too, but crashes on damaged bytes have been seen: so a checksum.
struct cache_head {
	char magic[8];
	uint32_t vendor_id, device_id, driver_version, bytes;
	uint8_t uuid[16];
	uint64_t checksum;
};
_Static_assert(sizeof(struct cache_head) == 48, "the cache file's layout");

static const char cache_magic[8] = "kbvkpc1";

// FNV-1a, 64 bits: against damage, not against forgery. http://www.isthe.com/chongo/tech/comp/fnv/
static uint64_t checksum(const void *data, size_t n)
{
	const uint8_t *p = data;
	uint64_t h = 0xcbf29ce484222325ull;
	for (size_t i = 0; i < n; i++)
		h = (h ^ p[i]) * 0x100000001b3ull;
	return h;
}

static void make_head(const struct kb_vk *vk, const void *data, size_t n, struct cache_head *h)
{
	*h = (struct cache_head){
		.vendor_id = vk->caps.vendor_id,
		.device_id = vk->caps.device_id,
		.driver_version = vk->caps.driver_version,
		.bytes = (uint32_t)n,
		.checksum = checksum(data, n),
	};
	memcpy(h->magic, cache_magic, 8);
	memcpy(h->uuid, vk->caps.cache_uuid, 16);
}

// NULL: nothing usable. The caller frees.
static uint8_t *read_cache(const struct kb_vk *vk, size_t *ret_n)
{
	struct cache_head head, expected;
	uint8_t *data = NULL;
	FILE *f = vk->cache_file;
	if (fread(&head, sizeof head, 1, f) == 1 && head.bytes <= CACHE_BYTES_MAX)
		data = malloc(head.bytes ? head.bytes : 1);
	if (data && fread(data, 1, head.bytes, f) == head.bytes && fgetc(f) == EOF) {
		make_head(vk, data, head.bytes, &expected);
		if (!memcmp(&head, &expected, sizeof head)) {
			*ret_n = head.bytes;
			return data;
		}
	}
	free(data);
	return NULL;
}

/* see vk_pipeline.h */
int kb_vk_cache_open(struct kb_vk *vk, struct kb_err *err)
{
	size_t n = 0;
	// Kept open: a sandbox may forbid opening files later. A file that may only be read still serves.
	int fd = vk->cache_path ? open(vk->cache_path, O_RDWR | O_CREAT | O_CLOEXEC, 0600) : -1;
	if (fd < 0 && vk->cache_path)
		fd = open(vk->cache_path, O_RDONLY | O_CLOEXEC);
	vk->cache_file = fd < 0 ? NULL : fdopen(fd, "rb");
	if (fd >= 0 && !vk->cache_file)
		close(fd);
	uint8_t *data = vk->cache_file ? read_cache(vk, &n) : NULL;
	VkPipelineCacheCreateInfo info = {
		.sType = VK_STRUCTURE_TYPE_PIPELINE_CACHE_CREATE_INFO,
		.initialDataSize = data ? n : 0,
		.pInitialData = data,
	};
	VkResult r = vkCreatePipelineCache(vk->device, &info, NULL, &vk->cache);
	if (r && data) { // the driver did not like it: begin anew
		info.initialDataSize = 0;
		info.pInitialData = NULL;
		n = 0;
		r = vkCreatePipelineCache(vk->device, &info, NULL, &vk->cache);
	}
	free(data);
	vk->cache_loaded = data ? n : 0;
	return r ? kb_vk_fail(vk, err, r, "creating the pipeline cache") : KB_OK;
}

static int write_all(int fd, const void *data, size_t n, off_t at)
{
	const char *p = data;
	while (n > 0) {
		ssize_t k = pwrite(fd, p, n, at);
		if (k < 0 && errno == EINTR)
			continue;
		if (k <= 0)
			return -1;
		p += k;
		n -= (size_t)k;
		at += k;
	}
	return 0;
}

// In place. Whoever reads it half-written, or after a crash in here, finds a wrong checksum and begins anew.
static int write_file(struct kb_vk *vk, const struct cache_head *head, const void *data, size_t n, struct kb_err *err)
{
	int fd = fileno(vk->cache_file);
	if (write_all(fd, head, sizeof *head, 0) || write_all(fd, data, n, sizeof *head) ||
		ftruncate(fd, (off_t)(sizeof *head + n)))
		return kb_fail(err, kb_err_from_errno(errno), "writing pipeline cache %s: %s", vk->cache_path, strerror(errno));
	return KB_OK;
}

/* see vk_pipeline.h */
int kb_vk_cache_save(struct kb_vk *vk, struct kb_err *err)
{
	struct cache_head head;
	size_t n = 0;
	if (!vk->cache_file || vk->lost)
		return KB_OK;
	VkResult r = vkGetPipelineCacheData(vk->device, vk->cache, &n, NULL);
	void *data = r ? NULL : malloc(n ? n : 1);
	if (!r && !data)
		return kb_fail(err, KB_ENOMEM, "pipeline cache: out of memory");
	if (!r)
		r = vkGetPipelineCacheData(vk->device, vk->cache, &n, data);
	int rc = r ? kb_vk_fail(vk, err, r, "reading the pipeline cache") : KB_OK;
	if (rc == KB_OK && data && n <= CACHE_BYTES_MAX) {
		make_head(vk, data, n, &head);
		rc = write_file(vk, &head, data, n, err);
	}
	free(data);
	return rc;
}

/* see vk_pipeline.h */
int kb_vk_pipeline_create(struct kb_vk *vk, const struct kb_vk_pipeline_desc *d, struct kb_err *err, VkPipeline *ret)
{
	VkSpecializationMapEntry entries[KB_VK_SPEC_MAX];
	VkShaderModule module = NULL;
	VkShaderModuleCreateInfo m = {
		.sType = VK_STRUCTURE_TYPE_SHADER_MODULE_CREATE_INFO, .codeSize = d->spirv_bytes, .pCode = d->spirv};
	VkPipelineShaderStageRequiredSubgroupSizeCreateInfo size = {
		.sType = VK_STRUCTURE_TYPE_PIPELINE_SHADER_STAGE_REQUIRED_SUBGROUP_SIZE_CREATE_INFO,
		.requiredSubgroupSize = d->subgroup,
	};
	// Where the size cannot differ there is nothing to require.
	bool require = d->subgroup && vk->caps.subgroup_control && vk->caps.subgroup_min != vk->caps.subgroup_max;
	for (uint32_t i = 0; i < d->n_spec; i++)
		entries[i] = (VkSpecializationMapEntry){.constantID = i, .offset = 4 * i, .size = 4};
	VkSpecializationInfo spec = {
		.mapEntryCount = d->n_spec, .pMapEntries = entries, .dataSize = 4 * d->n_spec, .pData = d->spec};
	VkResult r = vkCreateShaderModule(vk->device, &m, NULL, &module);
	if (r)
		return kb_vk_fail(vk, err, r, d->name);
	VkComputePipelineCreateInfo info = {
		.sType = VK_STRUCTURE_TYPE_COMPUTE_PIPELINE_CREATE_INFO,
		.stage =
			{
				.sType = VK_STRUCTURE_TYPE_PIPELINE_SHADER_STAGE_CREATE_INFO,
				.pNext = require ? &size : NULL,
				.stage = VK_SHADER_STAGE_COMPUTE_BIT,
				.module = module,
				.pName = "main",
				.pSpecializationInfo = d->n_spec ? &spec : NULL,
			},
		.layout = vk->layout,
	};
	r = vkCreateComputePipelines(vk->device, vk->cache, 1, &info, NULL, ret);
	vkDestroyShaderModule(vk->device, module, NULL);
	return r ? kb_vk_fail(vk, err, r, d->name) : KB_OK;
}
