// Which matrix a group of a matmul serves. Up to three matrices that read the same x lie side by side, each cut into
// units of unit_rows rows.
struct Part {
	KB_WORDS w;
	KB_FLOATS y, bias;
	uint rows, unit; // unit of this matrix
	bool has_bias;
};

Part part_of(kb_push_matmul p, uint unit, uint unit_rows)
{
	uint n0 = (p.rows0 + unit_rows - 1) / unit_rows;
	uint n1 = (p.rows1 + unit_rows - 1) / unit_rows;
	if (unit < n0)
		return Part(p.w0, p.y0, p.bias0, p.rows0, unit, (p.flags & KB_MM_BIAS) != 0);
	if (unit < n0 + n1)
		return Part(p.w1, p.y1, p.bias1, p.rows1, unit - n0, (p.flags & KB_MM_BIAS << 1) != 0);
	return Part(p.w2, p.y2, p.bias2, p.rows2, unit - n0 - n1, (p.flags & KB_MM_BIAS << 2) != 0);
}

uint row_count(kb_push_matmul p)
{
	uint i = (p.flags & KB_MM_COUNT_OUT) != 0 ? KB_HEAD_OUT : KB_HEAD_TOKENS;
#ifdef KB_RAW_POINTERS
	return Words(p.head).v[i];
#else
	return p.head.v[i];
#endif
}

// Columns are cut into slices of so many blocks, each summed up by itself.
#define SLICES 32
uint slice_blocks(uint blocks)
{
	return (blocks + SLICES - 1) / SLICES;
}
