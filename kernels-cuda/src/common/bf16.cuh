// bfloat16 as its 16 bits: arithmetic is in f32, and storing rounds to nearest, ties to even.
#pragma once

typedef unsigned short bf16;

#ifdef __CUDACC__
__device__ __forceinline__ float to_f32(bf16 x) { return __uint_as_float((unsigned)x << 16); }

// `low` in the lower half, which is the one at the lower address.
__device__ __forceinline__ unsigned pack_bf16(float low, float high) {
    unsigned packed;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
    return packed;
}

__device__ __forceinline__ bf16 to_bf16(float x) {
    bf16 rounded;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(rounded) : "f"(x));
    return rounded;
}

__device__ __forceinline__ float low_f32(unsigned packed) { return __uint_as_float(packed << 16); }
__device__ __forceinline__ float high_f32(unsigned packed) { return __uint_as_float(packed & 0xffff0000u); }
#endif
