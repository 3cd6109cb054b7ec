// Arithmetic in the order and with the roundings of the CPU runtime (ARCHITECTURE.md 2.2), so that both give the same bits: sums in
// sixteen or 64 lanes, its exponential, and products that the compiler does not fuse with a sum.
#pragma once

#ifdef __CUDACC__
__device__ __forceinline__ float mul_rn(float a, float b) { return __fmul_rn(a, b); }
__device__ __forceinline__ float add_rn(float a, float b) { return __fadd_rn(a, b); }
__device__ __forceinline__ float div_rn(float a, float b) { return __fdiv_rn(a, b); }
__device__ __forceinline__ float sqrt_rn(float a) { return __fsqrt_rn(a); }
__device__ __forceinline__ unsigned bits_of(float x) { return __float_as_uint(x); }
__device__ __forceinline__ float of_bits(unsigned x) { return __uint_as_float(x); }
// Half precision as its 16 bits: exact widening, rounding to nearest even.
__device__ __forceinline__ float f16_to_f32(unsigned short x) {
    float y;
    asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x));
    return y;
}
__device__ __forceinline__ unsigned short f32_to_f16(float x) {
    unsigned short y;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y) : "f"(x));
    return y;
}
// Byte `i` of `packed` as a signed number: as the low bits of 2^23 + 128, less that.
template <int i>
__device__ __forceinline__ float byte_to_f32(unsigned packed) {
    return __uint_as_float(__byte_perm(packed ^ 0x80808080u, 0x4b000000u, 0x7650 + i)) - 8388736.0f;
}
// Byte 0 of each, `a` lowest.
__device__ __forceinline__ unsigned low_bytes(unsigned a, unsigned b, unsigned c, unsigned d) {
    return __byte_perm(__byte_perm(a, b, 0x0040), __byte_perm(c, d, 0x0040), 0x5410);
}
// Bytes 1 and 3 of `even` as bytes 0 and 2, and bytes 1 and 3 of `odd` as bytes 1 and 3.
__device__ __forceinline__ unsigned high_bytes(unsigned even, unsigned odd) { return __byte_perm(even, odd, 0x7351); }
#else
// The empty statement keeps a compiler from joining a product with a sum.
__device__ inline float apart(float x) {
    __asm__("" : "+m"(x));
    return x;
}
__device__ inline float mul_rn(float a, float b) { return apart(a * b); }
__device__ inline float add_rn(float a, float b) { return apart(apart(a) + apart(b)); }
__device__ inline float div_rn(float a, float b) { return apart(a / b); }
__device__ inline float sqrt_rn(float a) { return apart(sqrtf(a)); }
__device__ inline unsigned bits_of(float x) { return __builtin_bit_cast(unsigned, x); }
__device__ inline float of_bits(unsigned x) { return __builtin_bit_cast(float, x); }
__device__ inline float f16_to_f32(unsigned short x) { return (float)__builtin_bit_cast(_Float16, x); }
__device__ inline unsigned short f32_to_f16(float x) { return __builtin_bit_cast(unsigned short, (_Float16)x); }
template <int i>
__device__ inline float byte_to_f32(unsigned packed) { return (float)(signed char)(packed >> (8 * i)); }
__device__ inline unsigned low_bytes(unsigned a, unsigned b, unsigned c, unsigned d) {
    return (a & 255) | (b & 255) << 8 | (c & 255) << 16 | d << 24;
}
__device__ inline unsigned high_bytes(unsigned even, unsigned odd) { return ((even >> 8) & 0x00ff00ffu) | (odd & 0xff00ff00u); }
#endif

// The sum of the lanes 0 to 15 of a warp, folded 8-4-2-1, in lane 0.
__device__ __forceinline__ float fold_lanes(float x) {
#pragma unroll
    for (int lane = 8; lane > 0; lane /= 2) x = add_rn(x, __shfl_down_sync(0xffffffffu, x, lane));
    return x;
}

// The sum of squares of `x`, in lane 0: one chain of fused multiply-adds in each of 64 lanes, two of them a thread's, folded 32-16-8-4-2-1.
__device__ __forceinline__ float squares_of(const float* x, unsigned n) {
    // Steps of 64 whose loads are under way while those before them are added.
    constexpr unsigned AHEAD = 8;
    unsigned lane = threadIdx.x % 32, whole = n / (64 * AHEAD) * (64 * AHEAD);
    float low = 0.0f, high = 0.0f, now[2 * AHEAD], next[2 * AHEAD];
    auto add = [&](const float (&v)[2 * AHEAD]) {
#pragma unroll
        for (unsigned u = 0; u < AHEAD; u++) {
            low = fmaf(v[2 * u], v[2 * u], low);
            high = fmaf(v[2 * u + 1], v[2 * u + 1], high);
        }
    };
    auto load = [&](float (&v)[2 * AHEAD], unsigned at) {
#pragma unroll
        for (unsigned u = 0; u < 2 * AHEAD; u++) v[u] = x[at + 32 * u + lane];
    };
    if (whole) load(now, 0);
#pragma unroll 1
    for (unsigned at = 0; at < whole; at += 64 * AHEAD) {
        load(next, at + 64 * AHEAD < whole ? at + 64 * AHEAD : at);
        add(now);
#pragma unroll
        for (unsigned u = 0; u < 2 * AHEAD; u++) now[u] = next[u];
    }
    if (whole < n) {
        // A square of 0 changes nothing: no sum is -0.
#pragma unroll
        for (unsigned u = 0; u < 2 * AHEAD; u++) now[u] = whole + 32 * u + lane < n ? x[whole + 32 * u + lane] : 0.0f;
        add(now);
    }
    float sum = add_rn(low, high);
    __syncwarp();
    return fold_lanes(add_rn(sum, __shfl_down_sync(0xffffffffu, sum, 16)));
}

// 1 / sqrt(squares / n + eps)
__device__ __forceinline__ float reciprocal_rms(float squares, unsigned n, float eps) {
    return div_rn(1.0f, sqrt_rn(add_rn(div_rn(squares, (float)n), eps)));
}

// e^x by the CPU's polynomial.
__device__ __forceinline__ float exp_exact(float x) {
    float low = 89.0f < x ? 89.0f : x;
    low = -104.0f > low ? -104.0f : low;
    float n = rintf(mul_rn(low, 1.44269504088896340736f));
    float r = fmaf(-n, 1.4286068e-6f, fmaf(-n, 0.69314575f, low));
    float q = fmaf(0.0001989108f, r, 0.0013933731f);
    q = fmaf(q, r, 0.00833331f);
    q = fmaf(q, r, 0.041666463f);
    q = fmaf(q, r, 0.16666667f);
    q = fmaf(q, r, 0.5f);
    float y = add_rn(fmaf(mul_rn(r, r), q, r), 1.0f);
    float half = rintf(mul_rn(n, 0.5f));
    float first = of_bits((unsigned)((int)half + 127) << 23);
    float second = of_bits((unsigned)((int)add_rn(n, -half) + 127) << 23);
    return mul_rn(mul_rn(y, first), second);
}

// 1 / (1 + e^-x)
__device__ __forceinline__ float sigmoid_exact(float x) {
    float e = exp_exact(-fabsf(x));
    return div_rn(0.0f > x ? e : 1.0f, add_rn(1.0f, e));
}

// clamp(round(y · scale), -128, 127)
__device__ __forceinline__ int quantize_i8(float y, float scale) {
    float v = rintf(mul_rn(y, scale));
    v = v > -128.0f ? v : -128.0f;
    v = v < 127.0f ? v : 127.0f;
    return (int)v;
}

// `quantize_i8` of four values none of which is larger than what `scale` was made of: then nothing needs a clamp, and adding 1.5 · 2^23
// rounds to the nearest even integer and leaves it in the low bits.
__device__ __forceinline__ unsigned pack_i8(float a, float b, float c, float d, float scale) {
    constexpr float ROUND = 12582912.0f;
    return low_bytes(bits_of(add_rn(mul_rn(a, scale), ROUND)), bits_of(add_rn(mul_rn(b, scale), ROUND)), bits_of(add_rn(mul_rn(c, scale), ROUND)),
                     bits_of(add_rn(mul_rn(d, scale), ROUND)));
}
