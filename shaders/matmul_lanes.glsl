// y[t] = W x[t] for devices whose loads are done lane by lane (lavapipe): a lane owns pairs of rows and goes through
// all columns alone, so nothing is shared or reduced; x is loaded once a group, two elements a lane, and handed round by
// broadcasts with constant lanes. Groups: (units of 2 * PAIRS * SG rows, rows of x / NT).
// Every variant does the same operations in the same order for one output: per half block a sum of q * x from zero,
// then y += a * sum, and at the end of the block y += b * (sum of x). `precise` keeps them from being fused.
// Loops test at their end: lavapipe runs a body once more after a test at its top.
// Sizes are those of the largest variant (glslang cannot size globals by such constants); the rest goes unused.
float acc[32];  // pair, row, token
float s[32];    // the same, of a half block
float gate[32]; // what acc was for the gate
float x[64];    // token, piece, element: of piece j lane l holds columns 2 * (SG * j + l) and the next
float xsum[16]; // token, half of the block
Pair w[4];
uint touched = 0;

float x_of(uint t, uint k)
{
	return subgroupBroadcast(x[t * (32 / SG) + k / (2 * SG) * 2 + k % 2], k / 2 % SG);
}

void add(uint i, float term)
{
	precise float sum = acc[i] + term;
	acc[i] = sum;
}

// The lanes' sums of x, for b; in an order that does not depend on NT.
void sum_x(uint t)
{
	precise float pair[8], sum;
	[[unroll]] for (uint j = 0; j < 16 / SG; j++) pair[j] = x[t * (32 / SG) + 2 * j] + x[t * (32 / SG) + 2 * j + 1];
#if SCALES == 1
	[[unroll]] for (uint j = 1; j < 16 / SG; j++) pair[0] = pair[0] + pair[j];
	sum = subgroupBroadcast(pair[0], 0);
	[[unroll]] for (uint l = 1; l < SG; l++) sum = sum + subgroupBroadcast(pair[0], l);
	xsum[2 * t] = sum;
#else
	[[unroll]] for (uint h = 0; h < 2; h++) {
		sum = subgroupBroadcast(pair[8 * h / SG], 8 * h % SG);
		[[unroll]] for (uint i = 1; i < 8; i++) sum = sum + subgroupBroadcast(pair[(8 * h + i) / SG], (8 * h + i) % SG);
		xsum[2 * t + h] = sum;
	}
#endif
}

void load_x(uint t, uint64_t at, vec2 scale)
{
	[[unroll]] for (uint j = 0; j < 16 / SG; j++) {
		uvec2 two = unpackUint2x32(Long(at).v[j * SG]);
		x[t * (32 / SG) + 2 * j] = uintBitsToFloat(two.x);
		x[t * (32 / SG) + 2 * j + 1] = uintBitsToFloat(two.y);
	}
#if OFFSET
	sum_x(t);
#endif
#if IN_PLACE
	[[unroll]] for (uint j = 0; j < 16 / SG; j++) {
		x[t * (32 / SG) + 2 * j] *= scale.x;
		x[t * (32 / SG) + 2 * j + 1] *= scale.y;
	}
#endif
}

// One token and wide weights: they are read a piece before they are used, because all at once they would not stay in
// registers, and reading would not overlap with reckoning.
const bool BY_PIECE = LO > 4 && NT == 1;

// Row of its panel that pair j begins with.
uint row_of(uint row, uint j)
{
	return (row + j * 2 * SG) % KB_PANEL;
}

// at: addresses of the pairs' blocks; row: the lane's first.
void half_block(uint first, uint64_t at[4], uint row)
{
	[[unroll]] for (uint i = 0; i < PAIRS * 2 * NT; i++) s[i] = 0.0;
	[[unroll]] for (uint k = first; k < first + 16; k++) {
		if (BY_PIECE && k % PIECE == 0)
			[[unroll]] for (uint j = 0; j < PAIRS; j++) pair_read(w[j], at[j], row_of(row, j), k);
		[[unroll]] for (uint j = 0; j < PAIRS * 2; j++) {
			float q = pair_quant(w[j / 2], j % 2, k);
			[[unroll]] for (uint t = 0; t < NT; t++) {
				precise float sum = s[j * NT + t] + q * x_of(t, k);
				s[j * NT + t] = sum;
			}
		}
	}
	[[unroll]] for (uint j = 0; j < PAIRS * 2; j++) {
		[[unroll]] for (uint t = 0; t < NT; t++) {
#if FMT > 2
			precise float part = w[j / 2].a[j % 2 * SCALES + (SCALES > 1 ? first / 16 : 0)] * s[j * NT + t];
			add(j * NT + t, part);
#else
			add(j * NT + t, s[j * NT + t]);
#endif
		}
	}
}

void offsets()
{
#if OFFSET
	[[unroll]] for (uint j = 0; j < PAIRS * 2; j++) {
		[[unroll]] for (uint t = 0; t < NT; t++) {
			[[unroll]] for (uint h = 0; h < SCALES; h++) {
				precise float part = w[j / 2].b[j % 2 * SCALES + h] * xsum[2 * t + h];
				add(j * NT + t, part);
			}
		}
	}
#endif
}

void matmul_store(Part m, uint out_row, uint j, uint t0, uint count)
{
	float bias = m.has_bias && out_row < m.rows ? Floats(m.bias).v[out_row] : 0.0;
	[[unroll]] for (uint t = 0; t < NT; t++) {
		precise float y = acc[j * NT + t] + bias;
		if (out_row < m.rows && t0 + t < count)
			Floats(m.y).v[(t0 + t) * m.rows + out_row] = y;
	}
}

// Few rows of x: weights stream from memory and are used once. Gathers, which is what loads by lane become, wait for few
// lines at a time and do not teach the processor's prefetcher; ordinary loads do both, and 8-bit loads are what lavapipe
// makes ordinary loads of. So each lane first touches a byte of one line of the block (of several, where there are
// more lines than lanes).
const bool DO_TOUCH = NT <= 2;
const uint LINES = (BLOCK_BYTES + 63) / 64;
const uint TOUCHES = DO_TOUCH ? (2 * PAIRS * SG / KB_PANEL * LINES + SG - 1) / SG : 0;

uint64_t line_of(kb_push_matmul p, Part m, uint i)
{
	uint line = i * SG + gl_SubgroupInvocationID, last = (m.rows - 1) / KB_PANEL;
	uint panel = min(m.unit * (2 * PAIRS * SG / KB_PANEL) + min(line / LINES, 2 * PAIRS * SG / KB_PANEL - 1), last);
	return m.w + uint64_t(panel) * (4 * p.panel_words) + line % LINES * 64;
}

// acc = this lane's rows of W x.
void rows_of_product(kb_push_matmul p, Part m, uint first, uint t0, uint count)
{
	uint lane = gl_SubgroupInvocationID, blocks = p.cols / 32;
	uint64_t at[4], super_at[4], xat[8];
	vec2 scale = vec2(place_scale(2 * lane), place_scale(2 * lane + 1));
	[[unroll]] for (uint j = 0; j < PAIRS; j++) {
		// Lanes past the last panel read the last one again.
		uint panel = min(first + j * 2 * SG, m.rows - 1) / KB_PANEL;
		at[j] = super_at[j] = m.w + uint64_t(panel) * (4 * p.panel_words);
	}
	[[unroll]] for (uint t = 0; t < NT; t++) xat[t] = p.x + uint64_t(min(t0 + t, count - 1)) * (4 * p.cols) + lane * 8;
	[[unroll]] for (uint i = 0; i < PAIRS * 2 * NT; i++) acc[i] = 0.0;
	uint64_t lines[16];
	[[unroll]] for (uint j = 0; j < TOUCHES; j++) lines[j] = line_of(p, m, j);
	uint i = 0;
	do {
		[[unroll]] for (uint j = 0; j < TOUCHES; j++)
			touched |= uint(Bytes(lines[j] + block_word(0, i) * 4).v[0]);
#if SUPER
		bool is_first = i % SUPER_BLOCKS == 0;
		[[unroll]] for (uint j = 0; j < PAIRS; j++) {
			super_at[j] = is_first ? at[j] : super_at[j];
			at[j] += is_first ? 4 * SUPER : 0;
		}
#endif
		[[unroll]] for (uint t = 0; t < NT; t++) {
			load_x(t, xat[t], scale);
			xat[t] += 128;
		}
		[[unroll]] for (uint j = 0; j < PAIRS; j++) w[j] = pair_begin(at[j], super_at[j], row_of(first, j));
		if (!BY_PIECE)
			[[unroll]] for (uint k = 0; k < 32; k += PIECE)
				[[unroll]] for (uint j = 0; j < PAIRS; j++) pair_read(w[j], at[j], row_of(first, j), k);
		half_block(0, at, first);
		half_block(16, at, first);
		offsets();
		[[unroll]] for (uint j = 0; j < PAIRS; j++) at[j] += BLOCK_BYTES;
		i++;
	} while (i < blocks);
}

// is_glu: matrices 0 and 1 are gate and up, y0 = act(gate) * up; act: KB_ROWS_*, a constant.
void matmul_lanes(kb_push_matmul p, uvec2 group, bool is_glu, uint act)
{
	uint unit_rows = 2 * PAIRS * SG, count = row_count(p), t0 = group.y * NT;
	Part m = part_of(p, group.x, unit_rows);
	uint first = m.unit * unit_rows + 2 * gl_SubgroupInvocationID;
	uint pass = is_glu ? 0 : 1;
	[[unroll]] for (uint i = 0; i < PAIRS * 2 * NT; i++) gate[i] = 0.0;
	do { // one copy of the code for both matrices
		rows_of_product(p, m, first, t0, count);
		[[unroll]] for (uint i = 0; i < PAIRS * 2 * NT; i++) {
			precise float glu = activate(act, gate[i]) * acc[i];
			gate[i] = acc[i];
			acc[i] = is_glu ? glu : acc[i];
		}
		m.w = p.w1;
	} while (++pass < 2);
	// Never so; but the compiler must keep the loads.
	if (DO_TOUCH && touched == 0x4b6f746fu && count == 0xffffffffu)
		acc[0] = 0.0;
	[[unroll]] for (uint j = 0; j < PAIRS * 2; j++) matmul_store(m, first + j / 2 * 2 * SG + j % 2, j, t0, count);
}
