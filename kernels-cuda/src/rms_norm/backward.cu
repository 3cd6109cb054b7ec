// target: sm_80
// The backward of RMSNorm, with the residual stream's gradient and the branch's (mod.rs has the formulas).
//
//   residual_norm_backward   bytes an element: dy 2 (+ 2), x 4, dres 4 read and 4 written, branch 2
//   norm_backward            dy 2, x 2, dx 2
//   column_sums              the partial sums of a weight's gradient, 4 bytes each, once
//
// About 20 operations an element; memory is the limit. A warp has a row of up to 512 elements, a block a longer one (the registers of a warp would not hold it
// beside the sums), 16 elements a thread up to 6144 and 32 from there on. A group (warp or block) has rows `group, group + groups, …` and keeps its sum of the weight's
// gradient in registers (in shared memory where 32 f32 elements a thread leave no room). In the end a block writes a row of partial sums: that of its eight warps in
// order, or its own.
#include "memory.cuh"
#include "philox.cuh"
#include "row.cuh"

// Writes a block's sums to its row of `partials`.
template <class Row, int E, int N>
__device__ __forceinline__ void write_partials(const Row& at, const float (&sums)[N], float* __restrict__ partials, unsigned cols) {
    float* to = partials + (unsigned long long)blockIdx.x * cols;
    if (Row::IS_WARP) {
        __shared__ float total[32 * (Row::IS_WARP ? N : 1)];
        for (unsigned warp = 0; warp < blockDim.x / 32; warp++) {
            if (threadIdx.x / 32 == warp) {
#pragma unroll
                for (int i = 0; i < N; i++) {
                    unsigned j = at.rank() + i * 32;
                    total[j] = warp == 0 ? sums[i] : total[j] + sums[i];
                }
            }
            __syncthreads();
        }
        // Element k of vector i of a lane lies at `(i * E + k) * 32 + lane`.
        for (unsigned j = threadIdx.x; j < cols; j += blockDim.x) {
            unsigned vector = j / E, k = j % E;
            to[j] = total[(vector / 32 * E + k) * 32 + vector % 32];
        }
    } else {
#pragma unroll
        for (int i = 0; i < N / E; i++) {
            unsigned j = (at.rank() + i * at.size()) * E;
            if (j >= cols) break;
#pragma unroll
            for (int k = 0; k < E; k += 4)
                *reinterpret_cast<float4*>(to + j + k) = make_float4(sums[i * E + k], sums[i * E + k + 1], sums[i * E + k + 2], sums[i * E + k + 3]);
        }
    }
}

// Four elements of dy, and those of a second one if there is one.
__device__ __forceinline__ void sum_of(const unsigned* words, const bf16* __restrict__ dy2, unsigned long long at, float (&g)[4]) {
    unpack(words[0], g);
    unpack(words[1], g + 2);
    if (dy2 == nullptr) return;
    float more[4];
    load_bf16<4>(dy2 + at, more);
#pragma unroll
    for (int k = 0; k < 4; k++) g[k] += more[k];
}

template <class Row, int N>
__device__ __forceinline__ void residual_norm_backward_rows(const bf16* __restrict__ dy, const bf16* __restrict__ dy2, const float* __restrict__ x,
                                                            const float* __restrict__ rstd, const float* __restrict__ weight, float* __restrict__ dres, unsigned fresh,
                                                            bf16* __restrict__ branch, float factor, const unsigned* __restrict__ step, unsigned long long seed,
                                                            unsigned purpose, unsigned threshold, float keep, float* __restrict__ partials, unsigned rows,
                                                            unsigned cols) {
    __shared__ float scratch[2][ROW_SCRATCH];
    const Row at;
    __shared__ Words key;
    if (step != nullptr && threadIdx.x == 0) key = dropout_key(*step, seed, purpose);
    __syncthreads();
    // Beside 32 elements of a row, the registers would not hold their sums; these lie in shared memory then, where only the thread itself reads them.
    constexpr bool SHARED = N == 32;
    float dw[N] = {};
    DYNAMIC_SHARED(float4, sums);
    if constexpr (SHARED) {
        for (int i = 0; i < N / 4; i++) sums[i * blockDim.x + threadIdx.x] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    }
    unsigned turn = 0;
    for (unsigned row = at.group(); row < rows; row += at.groups(), turn ^= 1) {
        const unsigned long long base = (unsigned long long)row * cols;
        float v[N] = {};
        unsigned words[N / 2] = {};  // dy as it lies in memory; a second one is rare, and read when it is needed
#pragma unroll
        for (int i = 0; i < N / 4; i++) {
            unsigned j = (at.rank() + i * at.size()) * 4;
            if (j >= cols) break;
            load_f32<4>(x + base + j, v + 4 * i);
            load_words<4>(dy + base + j, words + 2 * i);
        }
        const float r = rstd[row];
        float products = 0.0f;
#pragma unroll
        for (int i = 0; i < N / 4; i++) {
            unsigned j = (at.rank() + i * at.size()) * 4;
            if (j >= cols) break;
            float w[4], g[4];
            load_f32<4>(weight + j, w);
            sum_of(words + 2 * i, dy2, base + j, g);
#pragma unroll
            for (int k = 0; k < 4; k++) products = fmaf(g[k] * w[k], v[4 * i + k], products);
        }
        const float mean = at.sum(products, scratch[turn]) * r / (float)cols;
        // Several vectors at a time, whose loads all come before the first store: the compiler could not move them there.
        const int BATCH = 4;
#pragma unroll
        for (int batch = 0; batch < N / 4; batch += BATCH) {
            float d[4 * BATCH] = {};
#pragma unroll
            for (int i = 0; i < BATCH; i++) {
                unsigned j = (at.rank() + (batch + i) * at.size()) * 4;
                if (j < cols && !fresh) load_f32<4>(dres + base + j, d + 4 * i);
            }
#pragma unroll
            for (int i = 0; i < BATCH; i++) {
                unsigned j = (at.rank() + (batch + i) * at.size()) * 4;
                if (j >= cols) break;
                float w[4], g[4];
                load_f32<4>(weight + j, w);
                sum_of(words + 2 * (batch + i), dy2, base + j, g);
                float4* shared = &sums[(batch + i) * blockDim.x + threadIdx.x];
                float* sum = dw + 4 * (batch + i);
                if constexpr (SHARED) sum[0] = shared->x, sum[1] = shared->y, sum[2] = shared->z, sum[3] = shared->w;
#pragma unroll
                for (int k = 0; k < 4; k++) {
                    float normed = v[4 * (batch + i) + k] * r;
                    sum[k] = fmaf(g[k], normed, sum[k]);
                    d[4 * i + k] += r * (g[k] * w[k] - normed * mean);
                }
                if constexpr (SHARED) *shared = make_float4(sum[0], sum[1], sum[2], sum[3]);
                *reinterpret_cast<float4*>(dres + base + j) = make_float4(d[4 * i], d[4 * i + 1], d[4 * i + 2], d[4 * i + 3]);
                if (branch == nullptr) continue;
#pragma unroll
                for (int k = 0; k < 4; k++) d[4 * i + k] *= factor;
                if (step != nullptr) drop(key, base + j, threshold, keep, d + 4 * i);
                store_bf16<4>(branch + base + j, d + 4 * i);
            }
        }
    }
    if constexpr (SHARED) {
#pragma unroll
        for (int i = 0; i < N / 4; i++) {
            float4 sum = sums[i * blockDim.x + threadIdx.x];
            dw[4 * i] = sum.x, dw[4 * i + 1] = sum.y, dw[4 * i + 2] = sum.z, dw[4 * i + 3] = sum.w;
        }
    }
    write_partials<Row, 4, N>(at, dw, partials, cols);
}

#define RESIDUAL_NORM_BACKWARD(NAME, ROW, N, THREADS, BLOCKS)                                                                                                             \
    extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)                                                                                                         \
        NAME(const bf16* __restrict__ dy, const bf16* __restrict__ dy2, const float* __restrict__ x, const float* __restrict__ rstd,                              \
             const float* __restrict__ weight, float* __restrict__ dres, unsigned fresh, bf16* __restrict__ branch, float factor,                                 \
             const unsigned* __restrict__ step, unsigned long long seed, unsigned purpose, unsigned threshold, float keep, float* __restrict__ partials,          \
             unsigned rows, unsigned cols) {                                                                                                                      \
        residual_norm_backward_rows<ROW, N>(dy, dy2, x, rstd, weight, dres, fresh, branch, factor, step, seed, purpose, threshold, keep, partials, rows, cols);   \
    }

RESIDUAL_NORM_BACKWARD(residual_norm_backward_warp16, WarpRow, 16, 256, 2)
RESIDUAL_NORM_BACKWARD(residual_norm_backward_block16, BlockRow, 16, 384, 2)
RESIDUAL_NORM_BACKWARD(residual_norm_backward_block32, BlockRow, 32, 512, 1)

template <class Row, int N>
__device__ __forceinline__ void norm_backward_rows(const bf16* __restrict__ dy, const bf16* __restrict__ x, unsigned long long stride, const float* __restrict__ weight,
                                                   const float* __restrict__ rstd, bf16* __restrict__ dx, float* __restrict__ partials, unsigned rows, unsigned cols) {
    __shared__ float scratch[2][ROW_SCRATCH];
    const Row at;
    float dw[N] = {};
    unsigned turn = 0;
    for (unsigned row = at.group(); row < rows; row += at.groups(), turn ^= 1) {
        const unsigned long long base = (unsigned long long)row * cols, from = row * stride;
        unsigned v[N / 2] = {}, g[N / 2] = {};
#pragma unroll
        for (int i = 0; i < N / 8; i++) {
            unsigned j = (at.rank() + i * at.size()) * 8;
            if (j >= cols) break;
            load_words<8>(x + from + j, v + 4 * i);
            load_words<8>(dy + base + j, g + 4 * i);
        }
        const float r = rstd[row];
        float products = 0.0f;
#pragma unroll
        for (int i = 0; i < N / 8; i++) {
            unsigned j = (at.rank() + i * at.size()) * 8;
            if (j >= cols) break;
            float w[8];
            load_f32<8>(weight + j, w);
#pragma unroll
            for (int k = 0; k < 4; k++) {
                products = fmaf(low_f32(g[4 * i + k]) * w[2 * k], low_f32(v[4 * i + k]), products);
                products = fmaf(high_f32(g[4 * i + k]) * w[2 * k + 1], high_f32(v[4 * i + k]), products);
            }
        }
        const float mean = at.sum(products, scratch[turn]) * r / (float)cols;
#pragma unroll
        for (int i = 0; i < N / 8; i++) {
            unsigned j = (at.rank() + i * at.size()) * 8;
            if (j >= cols) break;
            float w[8], d[8];
            load_f32<8>(weight + j, w);
#pragma unroll
            for (int k = 0; k < 8; k++) {
                unsigned gk = g[4 * i + k / 2], vk = v[4 * i + k / 2];
                float gradient = k % 2 ? high_f32(gk) : low_f32(gk), normed = (k % 2 ? high_f32(vk) : low_f32(vk)) * r;
                dw[8 * i + k] = fmaf(gradient, normed, dw[8 * i + k]);
                d[k] = r * (gradient * w[k] - normed * mean);
            }
            store_bf16<8>(dx + from + j, d);
        }
    }
    write_partials<Row, 8, N>(at, dw, partials, cols);
}

#define NORM_BACKWARD(NAME, ROW, N, THREADS, BLOCKS)                                                                                                                     \
    extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)                                                                                                        \
        NAME(const bf16* __restrict__ dy, const bf16* __restrict__ x, unsigned long long stride, const float* __restrict__ weight, const float* __restrict__ rstd, \
             bf16* __restrict__ dx, float* __restrict__ partials, unsigned rows, unsigned cols) {                                                                \
        norm_backward_rows<ROW, N>(dy, x, stride, weight, rstd, dx, partials, rows, cols);                                                                       \
    }

NORM_BACKWARD(norm_backward_warp16, WarpRow, 16, 256, 2)
NORM_BACKWARD(norm_backward_block16, BlockRow, 16, 384, 2)
NORM_BACKWARD(norm_backward_block32, BlockRow, 32, 512, 1)

// `total[j] = (accumulate ? total[j] : 0) + Σ_i partials[i, j]`: a block has 32 columns, each of its 32 warps adds a run of rows, and one thread the 32 runs in order.
extern "C" __global__ void __launch_bounds__(1024)
    column_sums(const float* __restrict__ partials, float* __restrict__ total, unsigned accumulate, unsigned rows, unsigned cols) {
    __shared__ float runs[32][33];
    unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32, column = blockIdx.x * 32 + lane;
    unsigned run = (rows + 31) / 32, end = (warp + 1) * run < rows ? (warp + 1) * run : rows;
    float sum = 0.0f;
    if (column < cols) {
#pragma unroll 8
        for (unsigned i = warp * run; i < end; i++) sum += partials[(unsigned long long)i * cols + column];
    }
    runs[warp][lane] = sum;
    __syncthreads();
    if (warp != 0 || column >= cols) return;
    sum = accumulate ? total[column] : 0.0f;
    for (int i = 0; i < 32; i++) sum += runs[i][lane];
    total[column] = sum;
}
