// What kernels of matrix products share: copies of which only a part is wanted, and the way of a sum to the output.
#pragma once

#include "bf16.cuh"
#include "memory.cuh"

#ifdef __CUDACC__
// Copies the first `bytes` (0 to 16) of 16 bytes into shared memory, and zeros behind them; what lies behind `bytes` is not read, and with 0 nothing is.
// In an emulation: at the latest when the group that it belongs to is waited for, memcpy(shared, global, bytes) and memset(shared + bytes, 0, 16 - bytes).
__device__ __forceinline__ void copy_async16_part(void* shared, const void* global, int bytes) {
    asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(shared_address(shared)), "l"(global), "r"(bytes) : "memory");
}
#endif

// Where sums go, in the numbers that the launch functions pass.
enum OutputMode : unsigned {
    OUTPUT_BF16 = 0,
    OUTPUT_F32 = 1,
    OUTPUT_F32_ACCUMULATE = 2, // f32, added to what is there
    OUTPUT_PARTIAL = 3,        // sums as they are (f32 or i32), for a kernel that adds the pieces
};

struct ProductOutput {
    void* out;
    size_t stride;     // elements from row to row
    const float* rows; // a factor for each row, or null
    const float* cols; // a factor for each column, or null
    float alpha;
    unsigned m, n;
    unsigned mode;
};

__device__ __forceinline__ float sum_to_f32(float sum) { return sum; }
__device__ __forceinline__ float sum_to_f32(int sum) { return (float)sum; }
__device__ __forceinline__ unsigned sum_bits(float sum) { return __float_as_uint(sum); }
__device__ __forceinline__ unsigned sum_bits(int sum) { return (unsigned)sum; }

// The factors of columns col .. col + 3 with alpha in them, and alpha for those that there are not.
__device__ __forceinline__ float4 column_factors(const ProductOutput& to, unsigned col) {
    float f[4];
#pragma unroll
    for (unsigned j = 0; j < 4; j++) f[j] = to.cols && col + j < to.n ? to.alpha * __ldg(to.cols + col + j) : to.alpha;
    return make_float4(f[0], f[1], f[2], f[3]);
}

__device__ __forceinline__ float row_factor(const ProductOutput& to, unsigned row) { return to.rows ? __ldg(to.rows + row) : 1.0f; }

// What is in columns col .. col + 3 of row `row`, if the sums are to be added to it.
__device__ __forceinline__ float4 old_values(const ProductOutput& to, unsigned row, unsigned col) {
    if (to.mode != OUTPUT_F32_ACCUMULATE) return make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    return *reinterpret_cast<const float4*>(static_cast<const float*>(to.out) + (size_t)row * to.stride + col);
}

// Writes four sums to columns col .. col + 3 (all there, col a multiple of 4) of row `row`: scaled, added to `old`, converted as the mode says.
template <typename Sum>
__device__ __forceinline__ void write_four(const ProductOutput& to, unsigned row, unsigned col, const Sum (&sums)[4], float4 factors, float4 old) {
    size_t at = (size_t)row * to.stride + col;
    if (to.mode == OUTPUT_PARTIAL) {
        *reinterpret_cast<uint4*>(static_cast<unsigned*>(to.out) + at) =
            make_uint4(sum_bits(sums[0]), sum_bits(sums[1]), sum_bits(sums[2]), sum_bits(sums[3]));
        return;
    }
    float factor = row_factor(to, row);
    float x = sum_to_f32(sums[0]) * factor * factors.x, y = sum_to_f32(sums[1]) * factor * factors.y;
    float z = sum_to_f32(sums[2]) * factor * factors.z, w = sum_to_f32(sums[3]) * factor * factors.w;
    if (to.mode == OUTPUT_BF16) {
        *reinterpret_cast<uint2*>(static_cast<bf16*>(to.out) + at) = make_uint2(pack_bf16(x, y), pack_bf16(z, w));
    } else {
        *reinterpret_cast<float4*>(static_cast<float*>(to.out) + at) = make_float4(old.x + x, old.y + y, old.z + z, old.w + w);
    }
}

// The same for one sum, and not for partial sums (whose rows are whole fours).
template <typename Sum>
__device__ __forceinline__ void write_one(const ProductOutput& to, unsigned row, unsigned col, Sum sum) {
    size_t at = (size_t)row * to.stride + col;
    float factor = to.cols ? to.alpha * __ldg(to.cols + col) : to.alpha;
    float x = sum_to_f32(sum) * row_factor(to, row) * factor;
    if (to.mode == OUTPUT_BF16) {
        static_cast<bf16*>(to.out)[at] = to_bf16(x);
    } else {
        float* out = static_cast<float*>(to.out) + at;
        *out = (to.mode == OUTPUT_F32_ACCUMULATE ? *out : 0.0f) + x;
    }
}
