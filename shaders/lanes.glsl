// What kernels by lanes have in common.
#extension GL_EXT_shader_8bit_storage : require
#extension GL_KHR_shader_subgroup_basic : require
#extension GL_KHR_shader_subgroup_ballot : require
#extension GL_KHR_shader_subgroup_arithmetic : require
layout(buffer_reference, std430, buffer_reference_align = 8) buffer Long {
	uint64_t v[];
};
layout(buffer_reference, std430, buffer_reference_align = 1) buffer Bytes {
	uint8_t v[];
};
