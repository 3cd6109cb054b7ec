// target: sm_80
// The forward of RMSNorm with what stands around it: residual addition and dropout before, the quantiser behind (mod.rs has the formulas).
//
//   residual_norm   f32 rows plus a bf16 branch: reads 4 (+ 2) bytes an element, writes (4 +) 1 for int8, 2 for each bf16 form
//   norm            bf16 rows: reads 2 bytes an element, writes as above
//
// About 25 operations an element (40 more with dropout); memory is the limit. A warp has a row of up to 1024 elements, 16 or 32 a lane; a block has a longer one, 16 a
// thread up to 6144 elements and 32 from there on. The row stays in registers: each byte is read once. Two reductions a row: sum of squares, largest magnitude.
#include "memory.cuh"
#include "philox.cuh"
#include "row.cuh"

// Normalises the row in `v` and writes it.
template <class Row, int E, int N>
__device__ __forceinline__ void normalize_row(const Row& at, float (&v)[N], const float* __restrict__ weight, float eps, float* __restrict__ rstd, const RowOutputs& out,
                                              unsigned long long row, unsigned cols, float (*scratch)[ROW_SCRATCH]) {
    float squares = 0.0f;
#pragma unroll
    for (int i = 0; i < N; i++) squares = fmaf(v[i], v[i], squares);
    squares = at.sum(squares, scratch[0]);
    float r = 1.0f / sqrtf(squares / (float)cols + eps);
    // Of a row of zeros it is written as 0, for its gradient (mod.rs).
    if (at.rank() == 0) rstd[row] = squares == 0.0f ? 0.0f : r;
#pragma unroll
    for (int i = 0; i < N / E; i++) {
        unsigned j = (at.rank() + i * at.size()) * E;
        if (j >= cols) break;
        float w[E];
        load_f32<E>(weight + j, w);
#pragma unroll
        for (int k = 0; k < E; k++) v[i * E + k] = v[i * E + k] * r * w[k];
    }
    write_row<Row, E, N>(at, out, row, cols, v, scratch[1]);
}

template <class Row, int N>
__device__ __forceinline__ void residual_norm_rows(const float* x, const bf16* __restrict__ branch, float* sum, float factor, const unsigned* __restrict__ step,
                                                   unsigned long long seed, unsigned purpose, unsigned threshold, float keep, const float* __restrict__ weight, float eps,
                                                   float* __restrict__ rstd, const RowOutputs& out, unsigned rows, unsigned cols) {
    __shared__ float scratch[2][ROW_SCRATCH];
    __shared__ Words key;
    if (step != nullptr) {
        if (threadIdx.x == 0) key = dropout_key(*step, seed, purpose);
        __syncthreads();
    }
    const Row at;
    const unsigned long long row = at.group(), base = row * cols;
    if (row >= rows) return;
    float v[N] = {};
#pragma unroll
    for (int i = 0; i < N / 4; i++) {
        unsigned j = (at.rank() + i * at.size()) * 4;
        if (j < cols) load_f32<4>(x + base + j, v + 4 * i);
    }
    if (branch != nullptr) {
        unsigned words[N / 2];
#pragma unroll
        for (int i = 0; i < N / 4; i++) {
            unsigned j = (at.rank() + i * at.size()) * 4;
            if (j < cols) load_words<4>(branch + base + j, words + 2 * i);
        }
#pragma unroll
        for (int i = 0; i < N / 4; i++) {
            unsigned j = (at.rank() + i * at.size()) * 4;
            if (j >= cols) break;
            float b[4];
            unpack(words[2 * i], b);
            unpack(words[2 * i + 1], b + 2);
            if (step != nullptr) drop(key, base + j, threshold, keep, b);
#pragma unroll
            for (int k = 0; k < 4; k++) v[4 * i + k] = fmaf(factor, b[k], v[4 * i + k]);
            *reinterpret_cast<float4*>(sum + base + j) = make_float4(v[4 * i], v[4 * i + 1], v[4 * i + 2], v[4 * i + 3]);
        }
    }
    normalize_row<Row, 4, N>(at, v, weight, eps, rstd, out, row, cols, scratch);
}

#define RESIDUAL_NORM(NAME, ROW, N, THREADS)                                                                                                                   \
    extern "C" __global__ void __launch_bounds__(THREADS)                                                                                                      \
        NAME(const float* x, const bf16* __restrict__ branch, float* sum, float factor, const unsigned* __restrict__ step, unsigned long long seed,            \
             unsigned purpose, unsigned threshold, float keep, const float* __restrict__ weight, float eps, float* __restrict__ rstd, signed char* codes,      \
             float* steps, bf16* plain, bf16* blend, const float* anneal, unsigned rows, unsigned cols) {                                                      \
        residual_norm_rows<ROW, N>(x, branch, sum, factor, step, seed, purpose, threshold, keep, weight, eps, rstd, RowOutputs{codes, steps, plain, blend, anneal}, \
                                   rows, cols);                                                                                                                \
    }

RESIDUAL_NORM(residual_norm_warp16, WarpRow, 16, 256)
RESIDUAL_NORM(residual_norm_warp32, WarpRow, 32, 256)
RESIDUAL_NORM(residual_norm_block16, BlockRow, 16, 384)
RESIDUAL_NORM(residual_norm_block32, BlockRow, 32, 512)

template <class Row, int N>
__device__ __forceinline__ void norm_rows(const bf16* __restrict__ x, unsigned long long stride, const float* __restrict__ weight, float eps, float* __restrict__ rstd,
                                          const RowOutputs& out, unsigned rows, unsigned cols) {
    __shared__ float scratch[2][ROW_SCRATCH];
    const Row at;
    const unsigned long long row = at.group();
    if (row >= rows) return;
    float v[N] = {};
#pragma unroll
    for (int i = 0; i < N / 8; i++) {
        unsigned j = (at.rank() + i * at.size()) * 8;
        if (j < cols) load_bf16<8>(x + row * stride + j, v + 8 * i);
    }
    normalize_row<Row, 8, N>(at, v, weight, eps, rstd, out, row, cols, scratch);
}

#define NORM(NAME, ROW, N, THREADS)                                                                                                                          \
    extern "C" __global__ void __launch_bounds__(THREADS)                                                                                                    \
        NAME(const bf16* __restrict__ x, unsigned long long stride, const float* __restrict__ weight, float eps, float* __restrict__ rstd, signed char* codes, \
             float* steps, bf16* plain, bf16* blend, const float* anneal, unsigned rows, unsigned cols) {                                                    \
        norm_rows<ROW, N>(x, stride, weight, eps, rstd, RowOutputs{codes, steps, plain, blend, anneal}, rows, cols);                                         \
    }

NORM(norm_warp16, WarpRow, 16, 256)
NORM(norm_warp32, WarpRow, 32, 256)
NORM(norm_block16, BlockRow, 16, 384)
NORM(norm_block32, BlockRow, 32, 512)
