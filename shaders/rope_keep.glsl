// Rotates q and k in place and writes k and v to the cache: rope and kv_write in one, where all dimensions turn. A lane
// owns two neighbouring pairs, so that it has whole words of the cache.
// The four values of a lane: pairs (x.x, y.x) and (x.y, y.y), wherever they lie.
struct RopeFour {
	vec2 x, y;
};

RopeFour rope_fetch(kb_push_rope p, Floats v, uint at, uint i)
{
	if (HALVES != 0)
		return RopeFour(vec2(v.v[at + i], v.v[at + i + 1]), vec2(v.v[at + i + p.rot / 2], v.v[at + i + p.rot / 2 + 1]));
	return RopeFour(vec2(v.v[at + 2 * i], v.v[at + 2 * i + 2]), vec2(v.v[at + 2 * i + 1], v.v[at + 2 * i + 3]));
}

void rope_put(kb_push_rope p, Floats v, uint at, uint i, RopeFour f)
{
	uint a = HALVES != 0 ? i : 2 * i, step_ = HALVES != 0 ? p.rot / 2 : 1, next = HALVES != 0 ? 1 : 2;
	v.v[at + a] = f.x.x;
	v.v[at + a + next] = f.x.y;
	v.v[at + a + step_] = f.y.x;
	v.v[at + a + next + step_] = f.y.y;
}

RopeFour rope_turn(RopeFour f, vec2 c, vec2 s)
{
	precise vec2 a = f.x * c, b = f.y * s, d = f.x * s, e = f.y * c;
	precise vec2 x = a - b, y = d + e;
	return RopeFour(x, y);
}

// Two words of the cache.
void rope_store(kb_push_rope p, Words cache, uint at, uint i, RopeFour f)
{
	if (HALVES != 0) {
		cache.v[(at + i) / 2] = half_bits(f.x.x) | half_bits(f.x.y) << 16;
		cache.v[(at + i + p.rot / 2) / 2] = half_bits(f.y.x) | half_bits(f.y.y) << 16;
	} else {
		cache.v[at / 2 + i] = half_bits(f.x.x) | half_bits(f.y.x) << 16;
		cache.v[at / 2 + i + 1] = half_bits(f.x.y) | half_bits(f.y.y) << 16;
	}
}

// i: the first of the lane's two pairs; t: the token; heads h0, h0 + step, ... of q and of k. h0 < kv_heads.
void rope_keep(kb_push_rope p, uint i, uint t, uint h0, uint step_)
{
	if (i >= p.rot / 2)
		return;
	uint position = Words(p.position).v[t], slot = Words(p.slot).v[t];
	vec2 c0 = cos_sin(position, Floats(p.inv_freq).v[i]) * p.mscale;
	vec2 c1 = cos_sin(position, Floats(p.inv_freq).v[i + 1]) * p.mscale;
	vec2 c = vec2(c0.x, c1.x), s = vec2(c0.y, c1.y);
	Floats q = Floats(p.q), k = Floats(p.k), v = Floats(p.v);
	uint h = h0;
	do {
		uint at = (t * p.heads + h) * p.head_dim;
		rope_put(p, q, at, i, rope_turn(rope_fetch(p, q, at, i), c, s));
		h += step_;
	} while (h < p.heads);
	h = h0;
	do {
		uint at = (t * p.kv_heads + h) * p.head_dim;
		RopeFour f = rope_turn(rope_fetch(p, k, at, i), c, s);
		rope_put(p, k, at, i, f);
		if (slot != 0xffffffffu) {
			uint to = slot * p.kv_heads * p.head_dim + h * p.head_dim;
			rope_store(p, Words(p.k_cache), to, i, f);
			rope_store(p, Words(p.v_cache), to, i, rope_fetch(p, v, at, i));
		}
		h += step_;
	} while (h < p.kv_heads);
}
