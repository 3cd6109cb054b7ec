// What the exact sums of a ternary product become: the same arithmetic behind every kernel that makes such sums.
#pragma once

#include "exact.cuh"

// What a row's results become. The last two find the gate where they put what it makes of them.
enum Epilogue : unsigned { STORE = 0, ADD = 1, RELU2 = 2, GATED_RELU2 = 3, GATED_SILU = 4, BY_GATE_RELU2 = 5, BY_GATE_SILU = 6 };
// Whether gate and up are tiles side by side; whether what lies in the output is read.
__device__ __forceinline__ bool of_pairs(unsigned epilogue) { return epilogue == GATED_RELU2 || epilogue == GATED_SILU; }
__device__ __forceinline__ bool reads_output(unsigned epilogue) { return epilogue == ADD || epilogue >= BY_GATE_RELU2; }

// Codes: how the weights lie (ternary_gemv/kernel.cu).
constexpr int B1 = 1, T2 = 2, T3 = 3, I8 = 8;

// A tile's γ, where its rows go, and how many it has.
template <int CODE>
struct Tile {
    float gamma;
    unsigned first, rows, unused;

    __device__ __forceinline__ float factor(unsigned) const { return gamma; }
};
// Of bytes, a step for each row in the place of γ.
template <>
struct Tile<I8> {
    unsigned first, rows, unused[2];
    float steps[8];

    __device__ __forceinline__ float factor(unsigned row) const { return steps[row]; }
};

// A sum, rounded to f32 if it is beyond 2^24, times γ / s.
__device__ __forceinline__ float scaled(float sum, float gamma, float step) { return mul_rn(sum, div_rn(gamma, step)); }

// The output of `y`: `up` is what gated epilogues take besides, `old` what `ADD` adds to, or the gate.
__device__ __forceinline__ float epilogue_of(unsigned epilogue, float y, float up, float factor, float old) {
    if (epilogue == ADD) return fmaf(factor, y, old);
    if (epilogue >= BY_GATE_RELU2) {
        up = y;
        y = old;
        epilogue -= BY_GATE_RELU2 - GATED_RELU2;
    }
    if (epilogue == STORE) return y;
    if (epilogue == GATED_SILU) return mul_rn(mul_rn(y, sigmoid_exact(y)), up);
    float r = 0.0f > y ? 0.0f : y, square = mul_rn(r, r);
    return epilogue == RELU2 ? square : mul_rn(square, up);
}
