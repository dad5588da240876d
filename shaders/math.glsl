// Functions whose accuracy Vulkan leaves open, made from what it promises.

// f32 -> f16 bits, round to nearest even (packHalf2x16 may truncate). The same steps as runtime/base/half.h.
uint half_bits(float f)
{
	uint bits = floatBitsToUint(f);
	uint sign = bits >> 16 & 0x8000u;
	uint rest = bits & 0x7fffffffu;
	uint h;
	if (rest > 0x7f800000u)
		h = 0x7e00u | (rest >> 13 & 0x3ffu);
	else if (rest >= 0x477ff000u)
		h = 0x7c00u;
	else if (rest >= 0x38800000u) {
		uint half_ = rest - 0x38000000u;
		h = (half_ + 0xfffu + (half_ >> 13 & 1u)) >> 13;
	} else
		h = floatBitsToUint(uintBitsToFloat(rest) + 0.5) - 0x3f000000u;
	return sign | h;
}

// x less its nearest integer.
float turn_part(float x)
{
	precise float r = x - round(x);
	return r;
}

// The upper 12 bits of a float's 24: products of two such numbers are exact.
float upper_bits(float x)
{
	return uintBitsToFloat(floatBitsToUint(x) & 0xfffff000u);
}

// Cosine and sine of position * frequency, positions below 2^20. Drivers may not fuse fma(), so the angle is reduced
// without it: frequency / (2 pi) in three floats (Dekker's product), times the position's two halves; each product is
// exact and loses its whole turns before they are summed. Polynomials: Cephes (sinf.c, cosf.c; netlib.org/cephes).
vec2 cos_sin(uint position, float frequency)
{
	const float c = 0.15915493667125701904296875, c_rest = 6.420638326565253e-9; // 1 / (2 pi)
	precise float p = frequency * c;
	precise float a = upper_bits(frequency), a_rest = frequency - a, b = upper_bits(c), b_rest = c - b;
	precise float e = ((a * b - p) + a * b_rest + a_rest * b) + a_rest * b_rest + frequency * c_rest;
	precise float f1 = upper_bits(p), f2 = p - f1;
	float high = float(position & ~1023u), low = float(position & 1023u);
	precise float t = (turn_part(high * f1) + turn_part(low * f1)) + (turn_part(high * f2) + turn_part(low * f2)) +
		turn_part(float(position) * e);
	t = turn_part(t);
	float n = round(4.0 * t);
	precise float r = (t - 0.25 * n) * 6.283185307179586;
	float z = r * r;
	float s = fma(fma(fma(-1.9515295891e-4, z, 8.3321608736e-3), z, -1.6666654611e-1), z * r, r);
	float co = fma(fma(fma(2.443315711809948e-5, z, -1.388731625493765e-3), z, 4.166664568298827e-2), z * z,
		fma(-0.5, z, 1.0));
	uint quadrant = uint(int(n)) & 3u;
	vec2 cs = (quadrant & 1u) == 0u ? vec2(co, s) : vec2(s, co);
	if (quadrant == 1u || quadrant == 2u)
		cs.x = -cs.x;
	if (quadrant >= 2u)
		cs.y = -cs.y;
	return cs;
}

// All of it is precise, so that an activation has the same bits in whichever kernel it is.

// e^x: x = n ln 2 + r, then the polynomial of Cephes' expf. 0 below -87.3, held at e^88.7 above.
float exp_exact(float x)
{
	float c = clamp(x, -87.3, 88.7);
	precise float n = round(c * 1.44269504088896341);
	precise float r = fma(-n, 0.693359375, c);
	r = fma(-n, -2.12194440e-4, r);
	precise float p = 1.9875691500e-4;
	p = fma(p, r, 1.3981999507e-3);
	p = fma(p, r, 8.3334519073e-3);
	p = fma(p, r, 4.1665795894e-2);
	p = fma(p, r, 1.6666665459e-1);
	p = fma(p, r, 5.0000001201e-1);
	p = fma(p, r * r, r) + 1.0;
	return x < -87.3 ? 0.0 : uintBitsToFloat(uint(int(floatBitsToUint(p)) + (int(n) << 23)));
}

float tanh_exact(float x)
{
	precise float a = abs(x);
	precise float e = exp_exact(-2.0 * a);
	precise float z = x * x;
	precise float large = (1.0 - e) / (1.0 + e);
	// Near zero the quotient cancels: Cephes' tanhf polynomial.
	precise float p = fma(fma(fma(fma(-5.70498872745e-3, z, 2.06390887954e-2), z, -5.37397155531e-2), z, 1.33314422036e-1), z,
		-3.33332819422e-1);
	precise float small = fma(p * z, x, x);
	return a < 0.625 ? small : x < 0.0 ? -large : large;
}

// erf by Abramowitz and Stegun 7.1.26: absolute error below 1.5e-7.
float erf_exact(float x)
{
	precise float a = abs(x);
	precise float t = 1.0 / fma(0.3275911, a, 1.0);
	precise float p = fma(fma(fma(fma(1.061405429, t, -1.453152027), t, 1.421413741), t, -0.284496736), t, 0.254829592) * t;
	precise float r = 1.0 - p * exp_exact(-a * a);
	return x < 0.0 ? -r : r;
}

// kind: KB_ROWS_SILU and its neighbours, a constant.
float activate(uint kind, float g)
{
	precise float r;
	if (kind == KB_ROWS_SILU)
		r = g / (1.0 + exp_exact(-g));
	else if (kind == KB_ROWS_GELU_ERF)
		r = 0.5 * g * (1.0 + erf_exact(g * 0.70710678118654752));
	else
		r = 0.5 * g * (1.0 + tanh_exact(0.79788456080286536 * g * (1.0 + 0.044715 * g * g)));
	return r;
}
