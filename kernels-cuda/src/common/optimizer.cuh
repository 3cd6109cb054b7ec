// What the optimiser's kernels share: the numbers of a step, the guard, and their gradients, f32 or bf16.
#pragma once

#include "bf16.cuh"

// Written by the host before each step (StepScalars in optimizer/mod.rs).
struct StepScalars {
    unsigned step;    // counts from 0
    float lr;         // learning rate
    float step_size;  // lr / (1 - beta1^t), t = step + 1
    float root_scale; // 1 / sqrt(1 - beta2^t)
    float keep;       // 1 - lr * weight decay
    unsigned limit;   // bad steps in a row after which no step changes anything
    unsigned unused[2];
};

// Written by gradient_norm (Guard in optimizer/mod.rs).
struct Guard {
    float norm;        // of all gradients, before clipping
    float scale;       // what gradients are multiplied by
    unsigned applies;  // whether this step changes anything: its norm and losses are finite, and `in_a_row` has not come to the limit
    unsigned in_a_row; // steps up to this one that did not
};

__device__ __forceinline__ bool is_finite(float x) { return fabsf(x) <= 3.402823466e38f; }

// Four adjacent gradients, which no kernel needs again.
__device__ __forceinline__ float4 load_gradients(const float* g, size_t chunk) { return __ldcs(reinterpret_cast<const float4*>(g) + chunk); }
__device__ __forceinline__ float4 load_gradients(const bf16* g, size_t chunk) {
    uint2 words = __ldcs(reinterpret_cast<const uint2*>(g) + chunk);
    return make_float4(low_f32(words.x), high_f32(words.x), low_f32(words.y), high_f32(words.y));
}

// The sum of `x` over 256 threads, in a fixed order, in thread 0 alone.
__device__ __forceinline__ double block_sum_f64(double x, double* scratch256) {
    scratch256[threadIdx.x] = x;
    for (unsigned half = 128; half > 0; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half) scratch256[threadIdx.x] += scratch256[threadIdx.x + half];
    }
    return scratch256[0];
}
