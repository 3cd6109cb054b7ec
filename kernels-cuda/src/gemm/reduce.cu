// target: sm_80
// Adds the pieces of a product whose sums were cut along k: out[m, n] = (piece 0 + piece 1 + ...)[m, n], scaled and converted as an uncut product is.
// The order is that of the pieces, always. Pieces of int8 products are i32, and converted when they are added up.
//
// Cost: 4·splits·m·n bytes read, the output written once (and read, where it is added to).
// A thread makes four adjacent columns of a row.
#include "product.cuh"

// `pieces` is [splits][..][(n + 3) / 4 * 4], one piece being `piece` elements behind the one before.
template <typename Sum>
__device__ __forceinline__ void reduce(const Sum* pieces, unsigned splits, size_t piece, ProductOutput to) {
    unsigned fours = (to.n + 3) / 4;
    unsigned index = blockIdx.x * blockDim.x + threadIdx.x;
    unsigned row = index / fours, col = index % fours * 4;
    if (row >= to.m) return;
    const Sum* at = pieces + (size_t)row * fours * 4 + col;
    Sum sums[4] = {};
#pragma unroll 4
    for (unsigned split = 0; split < splits; split++) {
        uint4 bits = __ldcs(reinterpret_cast<const uint4*>(at + split * piece));
        __align__(16) Sum four[4];
        *reinterpret_cast<uint4*>(four) = bits;
#pragma unroll
        for (int j = 0; j < 4; j++) sums[j] += four[j];
    }
    if (col + 4 <= to.n) {
        write_four(to, row, col, sums, column_factors(to, col), old_values(to, row, col));
    } else {
#pragma unroll
        for (unsigned j = 0; j < 4; j++)
            if (col + j < to.n) write_one(to, row, col + j, sums[j]);
    }
}

#define REDUCE(name, Sum)                                                                                                                      \
    extern "C" __global__ void __launch_bounds__(128) name(const Sum* pieces, unsigned splits, size_t piece, void* out, size_t out_stride,     \
                                                           const float* rows, const float* cols, float alpha, unsigned m, unsigned n,         \
                                                           unsigned mode) {                                                                    \
        ProductOutput to = {out, out_stride, rows, cols, alpha, m, n, mode};                                                                   \
        reduce(pieces, splits, piece, to);                                                                                                     \
    }

REDUCE(gemm_reduce_f32, float)
REDUCE(gemm_reduce_i32, int)
