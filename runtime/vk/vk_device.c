#include "vk/vk_device.h"
#include "base/log.h"
#include "vk/vk_pipeline.h"
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LAYER "VK_LAYER_KHRONOS_validation"
#define KB_VK_MATRICES_MAX 128u // kinds of cooperative matrices looked at; drivers have some dozens

static const struct {
	VkResult result;
	const char *name;
	int code;
} results[] = {
	{VK_ERROR_OUT_OF_HOST_MEMORY, "VK_ERROR_OUT_OF_HOST_MEMORY", KB_ENOMEM},
	{VK_ERROR_OUT_OF_DEVICE_MEMORY, "VK_ERROR_OUT_OF_DEVICE_MEMORY", KB_ENOMEM},
	{VK_ERROR_INITIALIZATION_FAILED, "VK_ERROR_INITIALIZATION_FAILED", KB_EDEVICE},
	{VK_ERROR_DEVICE_LOST, "VK_ERROR_DEVICE_LOST", KB_EDEVICE},
	{VK_ERROR_LAYER_NOT_PRESENT, "VK_ERROR_LAYER_NOT_PRESENT", KB_EUNSUPPORTED},
	{VK_ERROR_EXTENSION_NOT_PRESENT, "VK_ERROR_EXTENSION_NOT_PRESENT", KB_EUNSUPPORTED},
	{VK_ERROR_FEATURE_NOT_PRESENT, "VK_ERROR_FEATURE_NOT_PRESENT", KB_EUNSUPPORTED},
	{VK_ERROR_INCOMPATIBLE_DRIVER, "VK_ERROR_INCOMPATIBLE_DRIVER", KB_EUNSUPPORTED},
	{VK_ERROR_TOO_MANY_OBJECTS, "VK_ERROR_TOO_MANY_OBJECTS", KB_ELIMIT},
	{VK_ERROR_INVALID_EXTERNAL_HANDLE, "VK_ERROR_INVALID_EXTERNAL_HANDLE", KB_EUNSUPPORTED},
	{VK_TIMEOUT, "VK_TIMEOUT", KB_EDEVICE},
};

/* see vk_device.h */
int kb_vk_fail(struct kb_vk *vk, struct kb_err *err, VkResult r, const char *doing)
{
	if (vk && (r == VK_ERROR_DEVICE_LOST || r == VK_TIMEOUT))
		vk->lost = true;
	for (size_t i = 0; i < sizeof results / sizeof *results; i++)
		if (results[i].result == r)
			return kb_fail(err, results[i].code, "Vulkan: %s: %s", doing, results[i].name);
	return kb_fail(err, KB_EDEVICE, "Vulkan: %s: VkResult %d", doing, (int)r);
}

static bool has_layer(const char *name)
{
	uint32_t n = 0;
	bool found = false;
	if (vkEnumerateInstanceLayerProperties(&n, NULL) || !n)
		return false;
	VkLayerProperties *list = calloc(n, sizeof *list);
	if (list && vkEnumerateInstanceLayerProperties(&n, list) == VK_SUCCESS)
		for (uint32_t i = 0; i < n; i++)
			found |= !strcmp(list[i].layerName, name);
	free(list);
	return found;
}

static bool has_extension(VkPhysicalDevice gpu, const char *name)
{
	uint32_t n = 0;
	bool found = false;
	if (vkEnumerateDeviceExtensionProperties(gpu, NULL, &n, NULL) || !n)
		return false;
	VkExtensionProperties *list = calloc(n, sizeof *list);
	if (list && vkEnumerateDeviceExtensionProperties(gpu, NULL, &n, list) >= 0)
		for (uint32_t i = 0; i < n; i++)
			found |= !strcmp(list[i].extensionName, name);
	free(list);
	return found;
}

static VKAPI_ATTR VkBool32 VKAPI_CALL on_message(VkDebugUtilsMessageSeverityFlagBitsEXT severity,
	VkDebugUtilsMessageTypeFlagsEXT type, const VkDebugUtilsMessengerCallbackDataEXT *data, void *user)
{
	struct kb_vk *vk = user;
	(void)severity;
	(void)type;
	vk->messages++;
	if (vk->message)
		vk->message(vk->message_ctx, data->pMessage);
	return VK_FALSE;
}

// lavapipe compiles for 256-bit vectors unless told otherwise. Our kernels are written for any width, and with the
// registers of AVX-512 they measure 1.1 to 1.25 times as fast. No other driver looks at this.
static void widen_lavapipe(void)
{
#if defined __x86_64__
	if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl"))
		setenv("LP_NATIVE_VECTOR_WIDTH", "512", 0);
#endif
}

// vk NULL: without layers, for listing.
static int create_instance(struct kb_vk *vk, bool validate, struct kb_err *err, VkInstance *ret)
{
	const char *layers[] = {LAYER};
	const char *extensions[] = {VK_EXT_DEBUG_UTILS_EXTENSION_NAME, VK_EXT_VALIDATION_FEATURES_EXTENSION_NAME};
	VkValidationFeatureEnableEXT enable[] = {VK_VALIDATION_FEATURE_ENABLE_SYNCHRONIZATION_VALIDATION_EXT};
	VkDebugUtilsMessengerCreateInfoEXT m = {
		.sType = VK_STRUCTURE_TYPE_DEBUG_UTILS_MESSENGER_CREATE_INFO_EXT,
		.messageSeverity =
			VK_DEBUG_UTILS_MESSAGE_SEVERITY_WARNING_BIT_EXT | VK_DEBUG_UTILS_MESSAGE_SEVERITY_ERROR_BIT_EXT,
		.messageType = VK_DEBUG_UTILS_MESSAGE_TYPE_VALIDATION_BIT_EXT,
		.pfnUserCallback = on_message,
		.pUserData = vk,
	};
	VkValidationFeaturesEXT features = {
		.sType = VK_STRUCTURE_TYPE_VALIDATION_FEATURES_EXT,
		.pNext = &m,
		.enabledValidationFeatureCount = 1,
		.pEnabledValidationFeatures = enable,
	};
	VkApplicationInfo app = {
		.sType = VK_STRUCTURE_TYPE_APPLICATION_INFO,
		.pApplicationName = "kotobako",
		.apiVersion = VK_API_VERSION_1_3,
	};
	VkInstanceCreateInfo info = {.sType = VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO, .pApplicationInfo = &app};
	VkInstance instance = NULL;
	widen_lavapipe();
	if (validate) {
		if (!has_layer(LAYER))
			return kb_fail(err, KB_EUNSUPPORTED,
				"Vulkan: validation was asked for, but layer " LAYER " is missing (package "
				"vulkan-validationlayers)");
		info.pNext = &features;
		info.enabledLayerCount = 1;
		info.ppEnabledLayerNames = layers;
		info.enabledExtensionCount = 2;
		info.ppEnabledExtensionNames = extensions;
	}
	VkResult r = vkCreateInstance(&info, NULL, &instance);
	if (r)
		return kb_vk_fail(vk, err, r, "opening Vulkan (is a driver such as mesa-vulkan-drivers installed?)");
	*ret = instance;
	if (validate) {
		m.pNext = NULL;
		PFN_vkCreateDebugUtilsMessengerEXT create = (PFN_vkCreateDebugUtilsMessengerEXT)(void (*)(
			void))vkGetInstanceProcAddr(instance, "vkCreateDebugUtilsMessengerEXT");
		if (create)
			r = create(instance, &m, NULL, &vk->messenger);
		if (!create || r)
			return kb_fail(err, KB_EUNSUPPORTED, "Vulkan: validation messages cannot be received");
	}
	return KB_OK;
}

static void read_heaps(VkPhysicalDevice gpu, struct kb_vk_caps *c)
{
	VkPhysicalDeviceMemoryProperties m;
	vkGetPhysicalDeviceMemoryProperties(gpu, &m);
	c->n_heaps = m.memoryHeapCount < KB_VK_HEAPS_MAX ? m.memoryHeapCount : KB_VK_HEAPS_MAX;
	for (uint32_t i = 0; i < c->n_heaps; i++) {
		c->heaps[i].bytes = m.memoryHeaps[i].size;
		c->heaps[i].device_local = m.memoryHeaps[i].flags & VK_MEMORY_HEAP_DEVICE_LOCAL_BIT;
	}
	for (uint32_t i = 0; i < m.memoryTypeCount; i++)
		if (m.memoryTypes[i].heapIndex < c->n_heaps &&
			(m.memoryTypes[i].propertyFlags & VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT))
			c->heaps[m.memoryTypes[i].heapIndex].host_visible = true;
}

static uint32_t compute_family(VkPhysicalDevice gpu, uint32_t *ret_timestamp_bits)
{
	VkQueueFamilyProperties q[16];
	uint32_t n = 16, best = UINT32_MAX;
	vkGetPhysicalDeviceQueueFamilyProperties(gpu, &n, q);
	for (uint32_t i = 0; i < n; i++) {
		if (!(q[i].queueFlags & VK_QUEUE_COMPUTE_BIT))
			continue;
		// A queue of its own for compute is better shared with nobody; else the first that can.
		if (best == UINT32_MAX ||
			(!(q[i].queueFlags & VK_QUEUE_GRAPHICS_BIT) && (q[best].queueFlags & VK_QUEUE_GRAPHICS_BIT)))
			best = i;
	}
	if (best != UINT32_MAX && ret_timestamp_bits)
		*ret_timestamp_bits = q[best].timestampValidBits;
	return best;
}

static void read_properties(VkPhysicalDevice gpu, struct kb_vk_caps *c)
{
	static const enum kb_vk_type types[] = {
		[VK_PHYSICAL_DEVICE_TYPE_OTHER] = KB_VK_OTHER,
		[VK_PHYSICAL_DEVICE_TYPE_INTEGRATED_GPU] = KB_VK_INTEGRATED,
		[VK_PHYSICAL_DEVICE_TYPE_DISCRETE_GPU] = KB_VK_DISCRETE,
		[VK_PHYSICAL_DEVICE_TYPE_VIRTUAL_GPU] = KB_VK_VIRTUAL,
		[VK_PHYSICAL_DEVICE_TYPE_CPU] = KB_VK_CPU,
	};
	bool host = has_extension(gpu, VK_EXT_EXTERNAL_MEMORY_HOST_EXTENSION_NAME);
	VkPhysicalDeviceExternalMemoryHostPropertiesEXT ext = {
		.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_EXTERNAL_MEMORY_HOST_PROPERTIES_EXT};
	VkPhysicalDeviceVulkan13Properties p13 = {
		.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_3_PROPERTIES, .pNext = host ? &ext : NULL};
	VkPhysicalDeviceVulkan12Properties p12 = {
		.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_PROPERTIES, .pNext = &p13};
	VkPhysicalDeviceVulkan11Properties p11 = {
		.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_1_PROPERTIES, .pNext = &p12};
	VkPhysicalDeviceProperties2 p = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PROPERTIES_2, .pNext = &p11};
	VkPhysicalDeviceProperties plain;
	vkGetPhysicalDeviceProperties(gpu, &plain);
	if (plain.apiVersion < VK_API_VERSION_1_3)
		p.pNext = NULL; // the structs of 1.3 are not for it; it will be refused
	vkGetPhysicalDeviceProperties2(gpu, &p);
	const VkPhysicalDeviceLimits *l = &p.properties.limits;
	snprintf(c->name, sizeof c->name, "%s", p.properties.deviceName);
	if (p12.driverInfo[0])
		snprintf(c->driver, sizeof c->driver, "%.60s %.60s", p12.driverName, p12.driverInfo);
	c->type = p.properties.deviceType < sizeof types / sizeof *types ? types[p.properties.deviceType] : KB_VK_OTHER;
	c->api_major = VK_API_VERSION_MAJOR(p.properties.apiVersion);
	c->api_minor = VK_API_VERSION_MINOR(p.properties.apiVersion);
	c->api_patch = VK_API_VERSION_PATCH(p.properties.apiVersion);
	c->vendor_id = p.properties.vendorID;
	c->device_id = p.properties.deviceID;
	c->driver_version = p.properties.driverVersion;
	memcpy(c->cache_uuid, p.properties.pipelineCacheUUID, 16);
	c->storage_range_max = l->maxStorageBufferRange;
	c->allocation_max = p11.maxMemoryAllocationSize;
	c->shared_max = l->maxComputeSharedMemorySize;
	c->invocations_max = l->maxComputeWorkGroupInvocations;
	c->push_max = l->maxPushConstantsSize;
	memcpy(c->groups_max, l->maxComputeWorkGroupCount, sizeof c->groups_max);
	c->subgroup = p11.subgroupSize;
	c->subgroup_min = p13.minSubgroupSize;
	c->subgroup_max = p13.maxSubgroupSize;
	if (p11.subgroupSupportedStages & VK_SHADER_STAGE_COMPUTE_BIT)
		c->subgroup_ops = p11.subgroupSupportedOperations;
	// Known to work only where memory is the host's own: see ARCHITECTURE.md, "Memory of models".
	c->import = host && c->type == KB_VK_CPU;
	c->import_alignment = ext.minImportedHostPointerAlignment;
}

static bool are_byte_matrices(const VkCooperativeMatrixPropertiesKHR *p)
{
	return p->MSize == 16 && p->NSize == 16 && p->KSize == 32 && p->AType == VK_COMPONENT_TYPE_SINT8_KHR &&
		   p->BType == VK_COMPONENT_TYPE_SINT8_KHR && p->CType == VK_COMPONENT_TYPE_SINT32_KHR &&
		   p->ResultType == VK_COMPONENT_TYPE_SINT32_KHR && p->scope == VK_SCOPE_SUBGROUP_KHR;
}

// Whether the device has the matrices of kb_vk_caps.byte_matrices, and what a shader needs beside them.
static bool has_byte_matrices(VkInstance instance, VkPhysicalDevice gpu)
{
	VkPhysicalDeviceCooperativeMatrixFeaturesKHR m = {
		.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_COOPERATIVE_MATRIX_FEATURES_KHR};
	VkPhysicalDeviceVulkan12Features f12 = {
		.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_FEATURES, .pNext = &m};
	VkPhysicalDeviceFeatures2 f = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2, .pNext = &f12};
	VkCooperativeMatrixPropertiesKHR list[KB_VK_MATRICES_MAX];
	uint32_t n = KB_VK_MATRICES_MAX;
	bool found = false;
	PFN_vkGetPhysicalDeviceCooperativeMatrixPropertiesKHR get =
		(PFN_vkGetPhysicalDeviceCooperativeMatrixPropertiesKHR)(void (*)(void))vkGetInstanceProcAddr(
			instance, "vkGetPhysicalDeviceCooperativeMatrixPropertiesKHR");
	if (!get || !has_extension(gpu, VK_KHR_COOPERATIVE_MATRIX_EXTENSION_NAME))
		return false;
	vkGetPhysicalDeviceFeatures2(gpu, &f);
	for (uint32_t i = 0; i < n; i++)
		list[i] = (VkCooperativeMatrixPropertiesKHR){.sType = VK_STRUCTURE_TYPE_COOPERATIVE_MATRIX_PROPERTIES_KHR};
	if (!m.cooperativeMatrix || !f12.shaderInt8 || get(gpu, &n, list) < 0)
		return false;
	for (uint32_t i = 0; i < n; i++)
		found |= are_byte_matrices(&list[i]);
	return found;
}

static void read_caps(VkInstance instance, VkPhysicalDevice gpu, uint32_t index, struct kb_vk_caps *c)
{
	*c = (struct kb_vk_caps){.index = index};
	read_properties(gpu, c);
	read_heaps(gpu, c);
	VkPhysicalDeviceVulkan13Features f13 = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_3_FEATURES};
	VkPhysicalDeviceVulkan12Features f12 = {
		.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_FEATURES, .pNext = &f13};
	VkPhysicalDeviceFeatures2 f = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2, .pNext = &f12};
	bool new_enough = c->api_major > 1 || c->api_minor >= 3;
	if (new_enough)
		vkGetPhysicalDeviceFeatures2(gpu, &f);
	c->int64 = f.features.shaderInt64;
	c->storage8 = f12.storageBuffer8BitAccess;
	c->addresses = f12.bufferDeviceAddress;
	c->subgroup_control = f13.subgroupSizeControl;
	c->sync2 = f13.synchronization2;
	c->byte_matrices = new_enough && has_byte_matrices(instance, gpu);
	if (!new_enough)
		snprintf(c->reason, sizeof c->reason, "refused: Vulkan %u.%u, 1.3 is needed", c->api_major, c->api_minor);
	else if (!c->addresses)
		snprintf(c->reason, sizeof c->reason, "refused: no buffer device addresses");
	else if (!c->sync2)
		snprintf(c->reason, sizeof c->reason, "refused: no synchronization2");
	else if (compute_family(gpu, NULL) == UINT32_MAX)
		snprintf(c->reason, sizeof c->reason, "refused: no compute queue");
	else if (c->invocations_max < 256 || c->shared_max < 16384)
		snprintf(c->reason, sizeof c->reason, "refused: %u invocations, %u bytes shared; 256 and 16384 are needed",
			c->invocations_max, c->shared_max);
	else
		c->usable = true;
	if (c->usable)
		kb_vk_choose_path(c);
}

static int rank(const struct kb_vk_caps *c)
{
	static const int ranks[] = {
		[KB_VK_DISCRETE] = 4, [KB_VK_INTEGRATED] = 3, [KB_VK_VIRTUAL] = 2, [KB_VK_CPU] = 1, [KB_VK_OTHER] = 0};
	return c->usable ? ranks[c->type] : -1;
}

static bool contains_nocase(const char *hay, const char *needle)
{
	size_t n = strlen(needle);
	for (; *hay; hay++) {
		size_t i = 0;
		while (i < n && hay[i] && tolower((unsigned char)hay[i]) == tolower((unsigned char)needle[i]))
			i++;
		if (i == n)
			return true;
	}
	return false;
}

static bool is_wished(const struct kb_vk_caps *c, const char *wish)
{
	char *end;
	unsigned long i = strtoul(wish, &end, 10);
	if (end != wish && !*end)
		return c->index == i;
	return contains_nocase(c->name, wish);
}

// Writes `used` and the reasons. Returns the place of the device taken, or -1.
static int choose(struct kb_vk_caps *list, uint32_t n, const char *wish)
{
	int best = -1;
	for (uint32_t i = 0; i < n; i++)
		if (list[i].usable && (!wish || is_wished(&list[i], wish)) && (best < 0 || rank(&list[i]) > rank(&list[best])))
			best = (int)i;
	for (uint32_t i = 0; i < n; i++) {
		struct kb_vk_caps *c = &list[i];
		c->used = (int)i == best;
		if (!c->usable)
			continue;
		if (c->used && wish)
			snprintf(c->reason, sizeof c->reason, "used: it was asked for (\"%.64s\")", wish);
		else if (c->used)
			snprintf(c->reason, sizeof c->reason, "used: the best kind present (%s)", kb_vk_type_names[c->type]);
		else if (wish)
			snprintf(c->reason, sizeof c->reason, "not used: \"%.64s\" was asked for", wish);
		else
			snprintf(c->reason, sizeof c->reason, "not used: device %u is preferred", list[best].index);
	}
	return best;
}

static int list_devices(VkInstance instance, const char *wish, struct kb_err *err, VkPhysicalDevice *gpus,
	struct kb_vk_caps *ret, uint32_t *ret_n, int *ret_best)
{
	uint32_t n = KB_VK_DEVICES_MAX;
	VkResult r = vkEnumeratePhysicalDevices(instance, &n, gpus);
	if (r && r != VK_INCOMPLETE)
		return kb_vk_fail(NULL, err, r, "listing devices");
	for (uint32_t i = 0; i < n; i++)
		read_caps(instance, gpus[i], i, &ret[i]);
	*ret_best = choose(ret, n, wish);
	*ret_n = n;
	return KB_OK;
}

/* see vk_caps.h */
int kb_vk_enumerate(const char *wish, struct kb_err *err, struct kb_vk_caps ret[KB_VK_DEVICES_MAX], uint32_t *ret_n)
{
	VkInstance instance = NULL;
	VkPhysicalDevice gpus[KB_VK_DEVICES_MAX];
	int best;
	int rc = create_instance(NULL, false, err, &instance);
	if (rc == KB_OK) {
		rc = list_devices(instance, wish, err, gpus, ret, ret_n, &best);
		vkDestroyInstance(instance, NULL);
	}
	return rc;
}

static int pick(struct kb_vk *vk, const char *wish, struct kb_err *err)
{
	VkPhysicalDevice gpus[KB_VK_DEVICES_MAX];
	struct kb_vk_caps *list = calloc(KB_VK_DEVICES_MAX, sizeof *list);
	uint32_t n = 0;
	int best = -1;
	if (!list)
		return kb_fail(err, KB_ENOMEM, "Vulkan: out of memory");
	int rc = list_devices(vk->instance, wish, err, gpus, list, &n, &best);
	if (rc == KB_OK && best >= 0) {
		vk->gpu = gpus[best];
		vk->caps = list[best];
	} else if (rc == KB_OK) {
		rc = kb_fail(err, KB_EUNSUPPORTED, "Vulkan: none of %u devices can be used%s%s%s%s; `kotobako doctor` says why",
			n, wish ? " for \"" : "", wish ? wish : "", wish ? "\"" : "", n ? "" : " (no driver found)");
	}
	free(list);
	return rc;
}

static int create_device(struct kb_vk *vk, bool import, struct kb_err *err)
{
	float priority = 1.0f;
	const char *extensions[2];
	uint32_t bits = 0;
	VkPhysicalDeviceProperties p;
	VkPhysicalDeviceCooperativeMatrixFeaturesKHR matrices = {
		.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_COOPERATIVE_MATRIX_FEATURES_KHR, .cooperativeMatrix = VK_TRUE};
	VkPhysicalDeviceVulkan13Features f13 = {
		.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_3_FEATURES,
		.pNext = vk->caps.byte_matrices ? &matrices : NULL,
		.shaderIntegerDotProduct = VK_TRUE, // 1.3 promises it
		.synchronization2 = VK_TRUE,
		.maintenance4 = VK_TRUE, // 1.3 promises it; group sizes by specialization need it
		.subgroupSizeControl = vk->caps.subgroup_control,
	};
	VkPhysicalDeviceVulkan12Features f12 = {
		.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_FEATURES,
		.pNext = &f13,
		.bufferDeviceAddress = VK_TRUE,
		.storageBuffer8BitAccess = vk->caps.storage8,
		.shaderInt8 = vk->caps.byte_matrices,
	};
	VkPhysicalDeviceFeatures2 f = {
		.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2,
		.pNext = &f12,
		.features.shaderInt64 = vk->caps.int64,
	};
	vk->family = compute_family(vk->gpu, &bits);
	VkDeviceQueueCreateInfo q = {
		.sType = VK_STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO,
		.queueFamilyIndex = vk->family,
		.queueCount = 1,
		.pQueuePriorities = &priority,
	};
	VkDeviceCreateInfo info = {
		.sType = VK_STRUCTURE_TYPE_DEVICE_CREATE_INFO,
		.pNext = &f,
		.queueCreateInfoCount = 1,
		.pQueueCreateInfos = &q,
	};
	vk->caps.import &= import;
	if (vk->caps.import)
		extensions[info.enabledExtensionCount++] = VK_EXT_EXTERNAL_MEMORY_HOST_EXTENSION_NAME;
	if (vk->caps.byte_matrices)
		extensions[info.enabledExtensionCount++] = VK_KHR_COOPERATIVE_MATRIX_EXTENSION_NAME;
	info.ppEnabledExtensionNames = extensions;
	VkResult r = vkCreateDevice(vk->gpu, &info, NULL, &vk->device);
	if (r)
		return kb_vk_fail(vk, err, r, "opening the device");
	vkGetDeviceQueue(vk->device, vk->family, 0, &vk->queue);
	vkGetPhysicalDeviceMemoryProperties(vk->gpu, &vk->memory);
	vkGetPhysicalDeviceProperties(vk->gpu, &p);
	vk->timestamp_ns = bits ? p.limits.timestampPeriod : 0;
	if (vk->caps.import)
		vk->host_pointer_properties = (PFN_vkGetMemoryHostPointerPropertiesEXT)(void (*)(void))vkGetDeviceProcAddr(
			vk->device, "vkGetMemoryHostPointerPropertiesEXT");
	return KB_OK;
}

static int create_objects(struct kb_vk *vk, struct kb_err *err)
{
	VkCommandPoolCreateInfo pool = {
		.sType = VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO,
		.flags = VK_COMMAND_POOL_CREATE_RESET_COMMAND_BUFFER_BIT,
		.queueFamilyIndex = vk->family,
	};
	VkFenceCreateInfo fence = {.sType = VK_STRUCTURE_TYPE_FENCE_CREATE_INFO};
	VkPushConstantRange push = {.stageFlags = VK_SHADER_STAGE_COMPUTE_BIT, .size = KB_VK_PUSH_MAX};
	VkPipelineLayoutCreateInfo layout = {
		.sType = VK_STRUCTURE_TYPE_PIPELINE_LAYOUT_CREATE_INFO,
		.pushConstantRangeCount = 1,
		.pPushConstantRanges = &push,
	};
	VkResult r = vkCreateCommandPool(vk->device, &pool, NULL, &vk->pool);
	if (!r)
		r = vkCreateFence(vk->device, &fence, NULL, &vk->fence);
	if (!r)
		r = vkCreatePipelineLayout(vk->device, &layout, NULL, &vk->layout);
	return r ? kb_vk_fail(vk, err, r, "setting up the device") : KB_OK;
}

/* see vk_device.h */
int kb_vk_create(const struct kb_vk_options *o, struct kb_err *err, struct kb_vk **ret)
{
	struct kb_vk *vk = calloc(1, sizeof *vk);
	if (!vk)
		return kb_fail(err, KB_ENOMEM, "Vulkan: out of memory");
	vk->message = o->message;
	vk->message_ctx = o->message_ctx;
	vk->wait_ns = o->wait_ns ? o->wait_ns : 60000000000ull;
	int rc = KB_OK;
	if (o->cache_path && !(vk->cache_path = strdup(o->cache_path)))
		rc = kb_fail(err, KB_ENOMEM, "Vulkan: out of memory");
	if (rc == KB_OK)
		rc = create_instance(vk, o->validate, err, &vk->instance);
	if (rc == KB_OK)
		rc = pick(vk, o->device, err);
	if (rc == KB_OK)
		rc = create_device(vk, o->import, err);
	if (rc == KB_OK)
		rc = create_objects(vk, err);
	if (rc == KB_OK)
		rc = kb_vk_cache_open(vk, err);
	if (rc != KB_OK) {
		kb_vk_destroy(vk);
		return rc;
	}
	kb_debug("vk", "device %u %s, %s kernels", vk->caps.index, vk->caps.name, vk->caps.path);
	*ret = vk;
	return KB_OK;
}

/* see vk_device.h */
void kb_vk_destroy(struct kb_vk *vk)
{
	if (!vk)
		return;
	if (vk->device) {
		if (!vk->lost)
			vkDeviceWaitIdle(vk->device);
		vkDestroyPipelineCache(vk->device, vk->cache, NULL);
		vkDestroyPipelineLayout(vk->device, vk->layout, NULL);
		vkDestroyFence(vk->device, vk->fence, NULL);
		vkDestroyCommandPool(vk->device, vk->pool, NULL);
		vkDestroyDevice(vk->device, NULL);
	}
	if (vk->messenger) {
		PFN_vkDestroyDebugUtilsMessengerEXT destroy = (PFN_vkDestroyDebugUtilsMessengerEXT)(void (*)(
			void))vkGetInstanceProcAddr(vk->instance, "vkDestroyDebugUtilsMessengerEXT");
		if (destroy)
			destroy(vk->instance, vk->messenger, NULL);
	}
	if (vk->instance)
		vkDestroyInstance(vk->instance, NULL);
	if (vk->cache_file)
		fclose(vk->cache_file);
	free(vk->cache_path);
	free(vk);
}

/* see vk_device.h */
int kb_vk_submit(struct kb_vk *vk, VkCommandBuffer cmd, struct kb_err *err)
{
	VkSubmitInfo submit = {.sType = VK_STRUCTURE_TYPE_SUBMIT_INFO, .commandBufferCount = 1, .pCommandBuffers = &cmd};
	if (vk->lost)
		return kb_fail(err, KB_EDEVICE, "Vulkan: the device was lost");
	VkResult r = vkQueueSubmit(vk->queue, 1, &submit, vk->fence);
	if (!r)
		r = vkWaitForFences(vk->device, 1, &vk->fence, VK_TRUE, vk->wait_ns);
	if (!r)
		r = vkResetFences(vk->device, 1, &vk->fence);
	return r ? kb_vk_fail(vk, err, r, "running a submission") : KB_OK;
}
