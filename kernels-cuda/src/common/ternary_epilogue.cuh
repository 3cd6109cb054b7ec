// What the exact sums of a ternary product become: the same arithmetic behind every kernel that makes such sums.
#pragma once

#include "exact.cuh"

// What a row's results become.
enum Epilogue : unsigned { STORE = 0, ADD = 1, RELU2 = 2, GATED_RELU2 = 3, GATED_SILU = 4 };

// A tile's γ, where its rows go, and how many it has.
struct Tile {
    float gamma;
    unsigned first, rows, unused;
};

// A sum, rounded to f32 if it is beyond 2^24, times γ / s.
__device__ __forceinline__ float scaled(float sum, float gamma, float step) { return mul_rn(sum, div_rn(gamma, step)); }

// The output of `y`: `up` is what gated epilogues take besides, `old` what `ADD` adds to.
__device__ __forceinline__ float epilogue_of(unsigned epilogue, float y, float up, float factor, float old) {
    if (epilogue == ADD) return fmaf(factor, y, old);
    if (epilogue == STORE) return y;
    if (epilogue == GATED_SILU) return mul_rn(mul_rn(y, sigmoid_exact(y)), up);
    float r = 0.0f > y ? 0.0f : y, square = mul_rn(r, r);
    return epilogue == RELU2 ? square : mul_rn(square, up);
}
