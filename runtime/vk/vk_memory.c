#include "vk/vk_memory.h"
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define CHUNK (16ull << 20) // bytes copied before their pages are given back

static VkResult create_buffer(struct kb_vk *vk, uint64_t size, bool external, VkBuffer *ret)
{
	VkExternalMemoryBufferCreateInfo ext = {
		.sType = VK_STRUCTURE_TYPE_EXTERNAL_MEMORY_BUFFER_CREATE_INFO,
		.handleTypes = VK_EXTERNAL_MEMORY_HANDLE_TYPE_HOST_ALLOCATION_BIT_EXT,
	};
	VkBufferCreateInfo info = {
		.sType = VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO,
		.pNext = external ? &ext : NULL,
		.size = size,
		.usage = VK_BUFFER_USAGE_STORAGE_BUFFER_BIT | VK_BUFFER_USAGE_TRANSFER_SRC_BIT |
				 VK_BUFFER_USAGE_TRANSFER_DST_BIT | VK_BUFFER_USAGE_INDIRECT_BUFFER_BIT |
				 VK_BUFFER_USAGE_SHADER_DEVICE_ADDRESS_BIT,
	};
	return vkCreateBuffer(vk->device, &info, NULL, ret);
}

// Order of preference: each row is tried in turn over the types that the buffer allows.
static int find_type(struct kb_vk *vk, enum kb_vk_place place, uint32_t bits)
{
	const VkMemoryPropertyFlags host = VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT | VK_MEMORY_PROPERTY_HOST_COHERENT_BIT;
	const VkMemoryPropertyFlags local = VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT;
	const VkMemoryPropertyFlags wanted[2][3] = {
		[KB_VK_HOST] = {host | VK_MEMORY_PROPERTY_HOST_CACHED_BIT, host | local, host},
		[KB_VK_DEVICE] = {host | local, local, host},
	};
	// With memory of its own a discrete GPU keeps the small visible window for others.
	size_t first = place == KB_VK_DEVICE && vk->caps.type == KB_VK_DISCRETE ? 1 : 0;
	for (size_t w = first; w < 3; w++)
		for (uint32_t i = 0; i < vk->memory.memoryTypeCount; i++)
			if ((bits >> i & 1) && (vk->memory.memoryTypes[i].propertyFlags & wanted[place][w]) == wanted[place][w])
				return (int)i;
	return -1;
}

static uint64_t address_of(struct kb_vk *vk, VkBuffer buffer)
{
	VkBufferDeviceAddressInfo info = {.sType = VK_STRUCTURE_TYPE_BUFFER_DEVICE_ADDRESS_INFO, .buffer = buffer};
	return vkGetBufferDeviceAddress(vk->device, &info);
}

// Records with fn, submits, waits.
static int run_once(struct kb_vk *vk, void (*fn)(VkCommandBuffer cmd, void *ctx), void *ctx, struct kb_err *err)
{
	VkCommandBufferAllocateInfo info = {
		.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO,
		.commandPool = vk->pool,
		.level = VK_COMMAND_BUFFER_LEVEL_PRIMARY,
		.commandBufferCount = 1,
	};
	VkCommandBufferBeginInfo begin = {
		.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO, .flags = VK_COMMAND_BUFFER_USAGE_ONE_TIME_SUBMIT_BIT};
	VkCommandBuffer cmd = NULL;
	VkResult r = vkAllocateCommandBuffers(vk->device, &info, &cmd);
	if (!r)
		r = vkBeginCommandBuffer(cmd, &begin);
	if (!r) {
		fn(cmd, ctx);
		r = vkEndCommandBuffer(cmd);
	}
	int rc = r ? kb_vk_fail(vk, err, r, "recording a copy") : kb_vk_submit(vk, cmd, err);
	if (cmd && !vk->lost)
		vkFreeCommandBuffers(vk->device, vk->pool, 1, &cmd);
	return rc;
}

static void record_zero(VkCommandBuffer cmd, void *ctx)
{
	const struct kb_vk_buffer *b = ctx;
	vkCmdFillBuffer(cmd, b->buffer, 0, VK_WHOLE_SIZE, 0);
}

// Where the driver's memory is shared memory of the kernel (lavapipe), its pages are given back instead of written:
// they read as zeros and become resident only when something is put there, which matters for the KV cache.
static void zero_mapped(struct kb_vk_buffer *b)
{
	const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
	uintptr_t from = (uintptr_t)b->host, to = from + b->size;
	uintptr_t first = (from + page - 1) & ~(page - 1), last = to & ~(page - 1);
	if (last <= first || madvise((void *)first, last - first, MADV_REMOVE)) {
		memset(b->host, 0, b->size);
		return;
	}
	memset((void *)from, 0, first - from);
	memset((void *)last, 0, to - last);
}

static int allocate(
	struct kb_vk *vk, enum kb_vk_place place, const char *what, struct kb_err *err, struct kb_vk_buffer *b)
{
	VkMemoryRequirements req;
	VkMemoryAllocateFlagsInfo flags = {
		.sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_FLAGS_INFO, .flags = VK_MEMORY_ALLOCATE_DEVICE_ADDRESS_BIT};
	vkGetBufferMemoryRequirements(vk->device, b->buffer, &req);
	int type = find_type(vk, place, req.memoryTypeBits);
	if (type < 0)
		return kb_fail(err, KB_EUNSUPPORTED, "Vulkan: no memory type for %s", what);
	VkMemoryAllocateInfo info = {
		.sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO,
		.pNext = &flags,
		.allocationSize = req.size,
		.memoryTypeIndex = (uint32_t)type,
	};
	VkResult r = vkAllocateMemory(vk->device, &info, NULL, &b->memory);
	if (r == VK_ERROR_OUT_OF_DEVICE_MEMORY || r == VK_ERROR_OUT_OF_HOST_MEMORY)
		return kb_fail(err, KB_ENOMEM, "Vulkan: %s: %llu MiB of device memory are not free", what,
			(unsigned long long)(req.size >> 20));
	if (!r)
		r = vkBindBufferMemory(vk->device, b->buffer, b->memory, 0);
	if (!r && (vk->memory.memoryTypes[type].propertyFlags & VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT))
		r = vkMapMemory(vk->device, b->memory, 0, VK_WHOLE_SIZE, 0, &b->host);
	if (r)
		return kb_vk_fail(vk, err, r, what);
	b->address = address_of(vk, b->buffer);
	return KB_OK;
}

/* see vk_memory.h */
int kb_vk_buffer_create(struct kb_vk *vk, enum kb_vk_place place, uint64_t size, const char *what, struct kb_err *err,
	struct kb_vk_buffer *ret)
{
	uint64_t most = vk->caps.allocation_max < KB_VK_ALLOCATION_MAX ? vk->caps.allocation_max : KB_VK_ALLOCATION_MAX;
	struct kb_vk_buffer b = {.size = (size + 15) & ~15ull};
	if (!size || size > most)
		return kb_fail(err, size ? KB_ELIMIT : KB_EARG, "Vulkan: %s: %llu bytes, at most %llu in one piece", what,
			(unsigned long long)size, (unsigned long long)most);
	VkResult r = create_buffer(vk, b.size, false, &b.buffer);
	int rc = r ? kb_vk_fail(vk, err, r, what) : allocate(vk, place, what, err, &b);
	if (rc == KB_OK && b.host)
		zero_mapped(&b);
	else if (rc == KB_OK)
		rc = run_once(vk, record_zero, &b, err);
	if (rc != KB_OK) {
		kb_vk_buffer_destroy(vk, &b);
		return rc;
	}
	*ret = b;
	return KB_OK;
}

static int import_memory(struct kb_vk *vk, void *bytes, uint64_t size, struct kb_err *err, struct kb_vk_buffer *b)
{
	VkMemoryRequirements req;
	VkMemoryHostPointerPropertiesEXT host = {.sType = VK_STRUCTURE_TYPE_MEMORY_HOST_POINTER_PROPERTIES_EXT};
	const VkExternalMemoryHandleTypeFlagBits kind = VK_EXTERNAL_MEMORY_HANDLE_TYPE_HOST_ALLOCATION_BIT_EXT;
	VkResult r = vk->host_pointer_properties(vk->device, kind, bytes, &host);
	if (r)
		return kb_vk_fail(vk, err, r, "importing host memory");
	vkGetBufferMemoryRequirements(vk->device, b->buffer, &req);
	uint32_t bits = host.memoryTypeBits & req.memoryTypeBits;
	if (!bits)
		return kb_fail(err, KB_EUNSUPPORTED, "Vulkan: no memory type takes host memory");
	VkMemoryAllocateFlagsInfo flags = {
		.sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_FLAGS_INFO, .flags = VK_MEMORY_ALLOCATE_DEVICE_ADDRESS_BIT};
	VkImportMemoryHostPointerInfoEXT import = {
		.sType = VK_STRUCTURE_TYPE_IMPORT_MEMORY_HOST_POINTER_INFO_EXT,
		.pNext = &flags,
		.handleType = kind,
		.pHostPointer = bytes,
	};
	VkMemoryAllocateInfo info = {
		.sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO,
		.pNext = &import,
		.allocationSize = size,
		.memoryTypeIndex = (uint32_t)__builtin_ctz(bits),
	};
	r = vkAllocateMemory(vk->device, &info, NULL, &b->memory);
	if (!r)
		r = vkBindBufferMemory(vk->device, b->buffer, b->memory, 0);
	if (r)
		return kb_vk_fail(vk, err, r, "importing host memory");
	b->address = address_of(vk, b->buffer);
	return KB_OK;
}

/* see vk_memory.h */
int kb_vk_buffer_import(
	struct kb_vk *vk, const void *bytes, uint64_t size, struct kb_err *err, struct kb_vk_buffer *ret)
{
	uint64_t align = vk->caps.import_alignment;
	struct kb_vk_buffer b = {.in_place = true};
	if (!vk->host_pointer_properties || !align)
		return kb_fail(err, KB_EUNSUPPORTED, "Vulkan: this device cannot use host memory in place");
	if ((uintptr_t)bytes % align || align > (uint64_t)sysconf(_SC_PAGESIZE))
		return kb_fail(err, KB_EUNSUPPORTED, "Vulkan: host memory must be aligned to %llu", (unsigned long long)align);
	b.size = (size + align - 1) / align * align; // within the last page
	if (!size || b.size > KB_VK_ALLOCATION_MAX)
		return kb_fail(err, KB_ELIMIT, "Vulkan: a segment of %llu bytes, at most 1 GiB", (unsigned long long)size);
	VkResult r = create_buffer(vk, b.size, true, &b.buffer);
	int rc = r ? kb_vk_fail(vk, err, r, "importing host memory")
			   : import_memory(vk, (void *)(uintptr_t)bytes, b.size, err, &b);
	if (rc != KB_OK) {
		kb_vk_buffer_destroy(vk, &b);
		return rc;
	}
	b.host = (void *)(uintptr_t)bytes; // for reading: the caller's pages may be read-only
	*ret = b;
	return KB_OK;
}

struct copy {
	VkBuffer from, to;
	uint64_t offset, size;
};

static void record_copy(VkCommandBuffer cmd, void *ctx)
{
	const struct copy *c = ctx;
	VkBufferCopy region = {.dstOffset = c->offset, .size = c->size};
	vkCmdCopyBuffer(cmd, c->from, c->to, 1, &region);
}

/* see vk_memory.h */
int kb_vk_buffer_write(struct kb_vk *vk, struct kb_vk_buffer *b, const void *bytes, uint64_t size, struct kb_err *err)
{
	struct kb_vk_buffer staging = {0};
	const uint8_t *from = bytes;
	const uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
	int rc = KB_OK;
	if (size > b->size || b->in_place)
		return kb_fail(err, KB_EARG, "Vulkan: a write of %llu bytes does not fit", (unsigned long long)size);
	if (!b->host)
		rc = kb_vk_buffer_create(vk, KB_VK_HOST, size < CHUNK ? size : CHUNK, "staging", err, &staging);
	for (uint64_t at = 0; rc == KB_OK && at < size; at += CHUNK) {
		uint64_t n = size - at < CHUNK ? size - at : CHUNK;
		if (b->host) {
			memcpy((uint8_t *)b->host + at, from + at, n);
		} else {
			struct copy c = {.from = staging.buffer, .to = b->buffer, .offset = at, .size = n};
			memcpy(staging.host, from + at, n);
			rc = run_once(vk, record_copy, &c, err);
		}
		// PAGEOUT, not DONTNEED: it frees pages of files and leaves anonymous bytes whole. A hint: failure is fine.
		if ((uintptr_t)from % page == 0)
			(void)madvise((void *)(uintptr_t)(from + at), n / page * page, MADV_PAGEOUT);
	}
	kb_vk_buffer_destroy(vk, &staging);
	return rc;
}

/* see vk_memory.h */
void kb_vk_buffer_destroy(struct kb_vk *vk, struct kb_vk_buffer *b)
{
	vkDestroyBuffer(vk->device, b->buffer, NULL);
	vkFreeMemory(vk->device, b->memory, NULL); // unmaps
	*b = (struct kb_vk_buffer){0};
}
