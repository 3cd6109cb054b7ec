// 2^x by the special function unit, within 2 units in the last place; results below 2^-126 are 0, and 2^-inf is 0, 2^inf inf, 2^NaN NaN.
#pragma once

#ifdef __CUDACC__
__device__ __forceinline__ float exp2_fast(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
#else
// On the host: the rounded result, with the same flush to zero.
inline float exp2_fast(float x) {
    float y = exp2f(x);
    return y < 1.17549435e-38f ? 0.0f : y;
}
#endif
