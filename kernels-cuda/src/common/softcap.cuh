// The soft-cap of logits, cap tanh(x / cap) (Gemma 2, 2024), with the bits of the CPU's (kernels-cpu/src/softcap).
#pragma once
#include "exact.cuh"

// By the CPU's polynomial below 0.6 and its exponential above.
__device__ __forceinline__ float tanh_exact(float x) {
    float z = mul_rn(x, x);
    float p = fmaf(-0.00626912f, z, 0.02111096f);
    p = fmaf(p, z, -0.05387395f);
    p = fmaf(p, z, 0.13332915f);
    p = fmaf(p, z, -0.3333333f);
    float near = mul_rn(x, fmaf(z, p, 1.0f));
    float size = fabsf(x);
    float far = add_rn(1.0f, -div_rn(2.0f, add_rn(exp_exact(add_rn(size, size)), 1.0f)));
    return size > 0.6f ? (0.0f > x ? -far : far) : near;
}

// `slope` is the derivative at x, 1 - tanh(x / cap)^2.
__device__ __forceinline__ float softcap(float x, float cap, float& slope) {
    float t = tanh_exact(div_rn(x, cap));
    slope = fmaf(-t, t, 1.0f);
    return mul_rn(cap, t);
}

__device__ __forceinline__ float softcap(float x, float cap) { return mul_rn(cap, tanh_exact(div_rn(x, cap))); }
