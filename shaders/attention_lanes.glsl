// Paged causal attention for devices whose loads are done lane by lane (lavapipe). One subgroup serves HEADS query heads
// that share a kv head, for one token. Page by page: lanes are positions for the scores, then dimensions for the values.
// Groups: (heads / HEADS, tokens). Positions outside the window read a position inside it and weigh nothing, so that
// stale cache contents cannot matter. Loops test at their end: lavapipe runs a body once more after a test at its top.
const uint QS = (DIM + 2 * SG - 1) / (2 * SG); // pieces of two floats that a lane holds of a query head
const uint VS = (DIM + 4 * SG - 1) / (4 * SG); // pieces of four halves that a lane owns of a value
const uint STEPS = KB_PAGE / SG;               // score registers of a page

float att_q[128];   // head, piece, element
float att_acc[128]; // head, piece, element
float att_s[64];    // head, step: scores, then weights
float att_top[16], att_total[16];

float att_q_of(uint h, uint d)
{
	return subgroupBroadcast(att_q[(h * QS + d / (2 * SG)) * 2 + d % 2], d / 2 % SG);
}

void att_scores(kb_push_attention p, uint64_t page, uint row_bytes, uint low, uint high)
{
	uint lane = gl_SubgroupInvocationID;
	[[unroll]] for (uint j = 0; j < STEPS; j++) {
		Long k = Long(page + clamp(j * SG + lane, low, high) * row_bytes);
		precise float sum[16];
		[[unroll]] for (uint h = 0; h < HEADS; h++) sum[h] = 0.0;
		[[unroll]] for (uint c = 0; c < DIM / 4; c++) {
			uvec2 two = unpackUint2x32(k.v[c]);
			vec2 a = unpackHalf2x16(two.x), b = unpackHalf2x16(two.y);
			[[unroll]] for (uint h = 0; h < HEADS; h++) {
				sum[h] = sum[h] + att_q_of(h, 4 * c) * a.x;
				sum[h] = sum[h] + att_q_of(h, 4 * c + 1) * a.y;
				sum[h] = sum[h] + att_q_of(h, 4 * c + 2) * b.x;
				sum[h] = sum[h] + att_q_of(h, 4 * c + 3) * b.y;
			}
		}
		bool seen = j * SG + lane >= low && j * SG + lane <= high;
		[[unroll]] for (uint h = 0; h < HEADS; h++) {
			precise float v = sum[h] * p.scale;
			if (CAPPED != 0)
				v = p.softcap * tanh_exact(v / p.softcap);
			att_s[h * STEPS + j] = seen ? v : -3.0e38;
		}
	}
}

// subgroupMax, unrolled: as a group operation it is a loop with branches here.
float most_of(float v)
{
	float r = subgroupBroadcast(v, 0);
	[[unroll]] for (uint l = 1; l < SG; l++) r = max(r, subgroupBroadcast(v, l));
	return r;
}

// Scores -> weights, with sums so far brought to the new maximum.
void att_weigh()
{
	[[unroll]] for (uint h = 0; h < HEADS; h++) {
		float most = att_s[h * STEPS];
		[[unroll]] for (uint j = 1; j < STEPS; j++) most = max(most, att_s[h * STEPS + j]);
		most = max(att_top[h], most_of(most));
		precise float keep = exp_exact(att_top[h] - most);
		precise float sum = att_total[h] * keep;
		att_top[h] = most;
		[[unroll]] for (uint j = 0; j < STEPS; j++) {
			// A score of -3e38 is below every other by more than exp_exact's reach: 0.
			att_s[h * STEPS + j] = exp_exact(att_s[h * STEPS + j] - most);
			sum = sum + att_s[h * STEPS + j];
		}
		att_total[h] = sum;
		[[unroll]] for (uint i = 0; i < VS * 4; i++) {
			precise float kept = att_acc[h * VS * 4 + i] * keep;
			att_acc[h * VS * 4 + i] = kept;
		}
	}
}

void att_values(uint64_t page, uint row_bytes, uint low, uint high)
{
	uint lane = gl_SubgroupInvocationID;
	[[unroll]] for (uint c = 0; c < VS; c++) {
		uint64_t at = page + min(c * SG + lane, DIM / 4 - 1) * 8;
		[[unroll]] for (uint j = 0; j < KB_PAGE; j++) {
			uvec2 two = unpackUint2x32(Long(at + clamp(j, low, high) * row_bytes).v[0]);
			vec2 a = unpackHalf2x16(two.x), b = unpackHalf2x16(two.y);
			[[unroll]] for (uint h = 0; h < HEADS; h++) {
				float w = subgroupBroadcast(att_s[h * STEPS + j / SG], j % SG);
				uint i = (h * VS + c) * 4;
				precise float s0 = att_acc[i] + w * a.x, s1 = att_acc[i + 1] + w * a.y;
				precise float s2 = att_acc[i + 2] + w * b.x, s3 = att_acc[i + 3] + w * b.y;
				att_acc[i] = s0;
				att_acc[i + 1] = s1;
				att_acc[i + 2] = s2;
				att_acc[i + 3] = s3;
			}
		}
	}
}

void attention_lanes(kb_push_attention p, uvec2 group)
{
	uint lane = gl_SubgroupInvocationID, head = group.x * HEADS, t = group.y;
	uint kv_head = head / (p.heads / p.kv_heads);
	uint position = Words(p.position).v[t];
	uint first = p.window > 0 && position + 1 > p.window ? position + 1 - p.window : 0;
	uint row_bytes = p.kv_heads * DIM * 2;
	uint64_t table = p.page_table + uint64_t(Words(p.seq).v[t]) * (4 * Words(p.head).v[KB_HEAD_PAGES]);
	uint64_t from = p.q + uint64_t(t * p.heads + head) * (4 * DIM);
	[[unroll]] for (uint h = 0; h < HEADS; h++) {
		[[unroll]] for (uint i = 0; i < QS; i++) {
			uvec2 two = unpackUint2x32(Long(from + h * 4 * DIM).v[min(i * SG + lane, DIM / 2 - 1)]);
			att_q[(h * QS + i) * 2] = uintBitsToFloat(two.x);
			att_q[(h * QS + i) * 2 + 1] = uintBitsToFloat(two.y);
		}
		att_top[h] = -3.0e38;
		att_total[h] = 0.0;
		[[unroll]] for (uint i = 0; i < VS * 4; i++) att_acc[h * VS * 4 + i] = 0.0;
	}
	uint page = first / KB_PAGE;
	do {
		uint at = page * KB_PAGE;
		uint low = max(first, at) - at, high = min(position, at + KB_PAGE - 1) - at;
		uint64_t skip = uint64_t(Words(table).v[page]) * (KB_PAGE * row_bytes) + kv_head * DIM * 2;
		att_scores(p, p.k_cache + skip, row_bytes, low, high);
		att_weigh();
		att_values(p.v_cache + skip, row_bytes, low, high);
		page++;
	} while (page * KB_PAGE <= position);
	[[unroll]] for (uint h = 0; h < HEADS; h++) {
		precise float sum = subgroupAdd(att_total[h]);
		uint to = (t * p.heads + head + h) * DIM;
		[[unroll]] for (uint c = 0; c < VS; c++) {
			uint d = (c * SG + lane) * 4;
			if (d < DIM) {
				[[unroll]] for (uint e = 0; e < 4; e++)
					Floats(p.outp).v[to + d + e] = att_acc[(h * VS + c) * 4 + e] / sum;
			}
		}
	}
}
