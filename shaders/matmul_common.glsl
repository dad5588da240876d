// Which matrix and panel a group of a matmul serves. Up to three matrices that read the same x lie side by side.
struct Part {
	Words w;
	Floats y, bias;
	uint rows, panel; // panel of this matrix
	bool has_bias;
};

Part part_of(kb_push_matmul p, uint panel)
{
	uint n0 = (p.rows0 + KB_PANEL - 1) / KB_PANEL;
	uint n1 = (p.rows1 + KB_PANEL - 1) / KB_PANEL;
	if (panel < n0)
		return Part(p.w0, p.y0, p.bias0, p.rows0, panel, (p.flags & KB_MM_BIAS) != 0);
	if (panel < n0 + n1)
		return Part(p.w1, p.y1, p.bias1, p.rows1, panel - n0, (p.flags & KB_MM_BIAS << 1) != 0);
	return Part(p.w2, p.y2, p.bias2, p.rows2, panel - n0 - n1, (p.flags & KB_MM_BIAS << 2) != 0);
}

uint row_count(kb_push_matmul p)
{
	return p.head.v[(p.flags & KB_MM_COUNT_OUT) != 0 ? KB_HEAD_OUT : KB_HEAD_TOKENS];
}
