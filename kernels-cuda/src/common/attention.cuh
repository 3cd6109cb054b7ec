// Tiles of attention: rows of D bf16 in shared memory, and the fragments that warps take of them.
//
// Eight rows that `ldmatrix` reads at once must lie in different banks, so the 16-byte chunks of a row are permuted by the row (`tile_at`).
// A warp owns 32 rows of its tile, as two fragments of 16, so that each fragment of the other operand is loaded once for two products:
// with 16 rows shared memory would be the limit, not the tensor cores.
#pragma once

#include "bf16.cuh"
#include "memory.cuh"
#include "mma.cuh"

#ifdef __CUDACC__
// 2^x to 2 units in the last place; results below the smallest normal number are 0.
__device__ __forceinline__ float exp2_fast(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
#else
inline float exp2_fast(float x) { return exp2f(x); }
#endif

#define LOG2_E 1.4426950408889634f
#define LN_2 0.6931471805599453f
#define INFINITE __int_as_float(0x7f800000)

// The element at which chunk `chunk` (8 elements) of row `row` begins.
template <int D>
__device__ __forceinline__ int tile_at(int row, int chunk) {
    return row * D + ((chunk ^ (D == 32 ? (unsigned)row / 2 % 4 : (unsigned)row % 8)) << 3);
}

// Starts copying rows `first..first + ROWS` of a matrix with `rows` rows of `columns` (a multiple of 8) elements; the rest of the tile becomes zero.
// A matrix is one sequence: elements are counted in 32 bits, which saves registers.
template <int D, int ROWS, int THREADS>
__device__ __forceinline__ void load_tile(bf16* tile, const bf16* matrix, int stride, int first, int rows, int columns) {
    constexpr int chunks = D / 8, step = THREADS / chunks;
    int row = threadIdx.x / chunks, chunk = threadIdx.x % chunks;
#pragma unroll
    for (int i = 0; i < ROWS / step; i++, row += step) {
        bool valid = first + row < rows && chunk * 8 < columns;
        copy_async16(tile + tile_at<D>(row, chunk), matrix + (valid ? (first + row) * stride + chunk * 8 : 0), valid);
    }
}

// Fragment A of rows `row..row + 16` and columns `16 k..`; also two fragments B, of columns `16 k..` and the next 8 of a product that sums over rows,
// if it is loaded transposed. Rows begin at a multiple of 8, so which chunk is where depends on the lane; `k` then changes bits that nothing else does.
template <int D>
__device__ __forceinline__ const bf16* rows_at(const bf16* tile, int row, int k) {
    int lane = threadIdx.x % 32;
    return tile + ((row * D + tile_at<D>(lane % 16, lane / 16)) ^ (k << 4));
}

// Two fragments B, of rows `row..row + 8` and the next 8, of a product that sums over columns `16 k..`.
template <int D>
__device__ __forceinline__ const bf16* columns_at(const bf16* tile, int row, int k) {
    int lane = threadIdx.x % 32;
    return tile + ((row * D + tile_at<D>(lane % 8 + lane / 16 * 8, lane / 8 % 2)) ^ (k << 4));
}

// c[m][n], c[m][n + 1] += a[m] · b, b as two fragments.
template <int N>
__device__ __forceinline__ void multiply_two(float (&c)[2][N][4], int n, const unsigned (&a)[2][4], const unsigned (&b)[4]) {
    unsigned left[2] = {b[0], b[1]}, right[2] = {b[2], b[3]};
#pragma unroll
    for (int m = 0; m < 2; m++) {
        mma_bf16(c[m][n], a[m], left);
        mma_bf16(c[m][n + 1], a[m], right);
    }
}

// c += rows `a_row..a_row + 32` of `a_tile` times the transposed rows `b_row..b_row + 8 N` of `b_tile`.
template <int D, int N>
__device__ __forceinline__ void multiply_rows(float (&c)[2][N][4], const bf16* a_tile, int a_row, const bf16* b_tile, int b_row) {
#pragma unroll
    for (int k = 0; k < D / 16; k++) {
        unsigned a[2][4];
#pragma unroll
        for (int m = 0; m < 2; m++) load_matrices(a[m], rows_at<D>(a_tile, a_row + 16 * m, k));
#pragma unroll
        for (int n = 0; n < N; n += 2) {
            unsigned b[4];
            load_matrices(b, columns_at<D>(b_tile, b_row + 8 * n, k));
            multiply_two(c, n, a, b);
        }
    }
}

// The same with the fragments of `a` in registers.
template <int D, int N>
__device__ __forceinline__ void multiply_kept(float (&c)[2][N][4], const unsigned (&a)[D / 16][2][4], const bf16* b_tile, int b_row) {
#pragma unroll
    for (int k = 0; k < D / 16; k++) {
#pragma unroll
        for (int n = 0; n < N; n += 2) {
            unsigned b[4];
            load_matrices(b, columns_at<D>(b_tile, b_row + 8 * n, k));
            multiply_two(c, n, a[k], b);
        }
    }
}

// sums += a (32 x 16 K, in registers) times rows `b_row..b_row + 16 K` of `b_tile`.
template <int D, int K>
__device__ __forceinline__ void multiply_columns(float (&sums)[2][D / 8][4], const unsigned (&a)[K][2][4], const bf16* b_tile, int b_row) {
#pragma unroll
    for (int k = 0; k < K; k++) {
#pragma unroll
        for (int n = 0; n < D / 8; n += 2) {
            unsigned b[4];
            load_matrices_transposed(b, rows_at<D>(b_tile, b_row + 16 * k, n / 2));
            multiply_two(sums, n, a[k], b);
        }
    }
}

// Results of two products as bf16 fragments A of the next.
template <int N>
__device__ __forceinline__ void pack_fragments(unsigned (&a)[N / 2][2][4], const float (&c)[2][N][4]) {
#pragma unroll
    for (int k = 0; k < N / 2; k++) {
#pragma unroll
        for (int m = 0; m < 2; m++) {
            a[k][m][0] = pack_bf16(c[m][2 * k][0], c[m][2 * k][1]);
            a[k][m][1] = pack_bf16(c[m][2 * k][2], c[m][2 * k][3]);
            a[k][m][2] = pack_bf16(c[m][2 * k + 1][0], c[m][2 * k + 1][1]);
            a[k][m][3] = pack_bf16(c[m][2 * k + 1][2], c[m][2 * k + 1][3]);
        }
    }
}

// sums ← 0.
template <int N>
__device__ __forceinline__ void clear(float (&c)[2][N][4]) {
#pragma unroll
    for (int i = 0; i < 8 * N; i++) c[i / (4 * N)][i / 4 % N][i % 4] = 0.0f;
}

// Turns the gradient of 32 rotated rows back. Row r of the warp is position `first + r`; the halves of a head are in the same thread.
template <int D>
__device__ __forceinline__ void turn_back(float (&x)[2][D / 8][4], const float* cosines, const float* sines, int first, int positions) {
    constexpr int pairs = D / 16;
    int lane = threadIdx.x % 32;
#pragma unroll
    for (int half = 0; half < 4; half++) {
        int m = half / 2, e = half % 2 * 2, position = first + 16 * m + half % 2 * 8 + lane / 4;
        if (position >= positions) continue;
#pragma unroll
        for (int n = 0; n < pairs; n++) {
            size_t at = (size_t)position * (D / 2) + 8 * n + lane % 4 * 2;
            float2 c = *reinterpret_cast<const float2*>(cosines + at), s = *reinterpret_cast<const float2*>(sines + at);
            float a0 = x[m][n][e], a1 = x[m][n][e + 1], b0 = x[m][n + pairs][e], b1 = x[m][n + pairs][e + 1];
            x[m][n][e] = a0 * c.x + b0 * s.x;
            x[m][n][e + 1] = a1 * c.y + b1 * s.y;
            x[m][n + pairs][e] = b0 * c.x - a0 * s.x;
            x[m][n + pairs][e + 1] = b1 * c.y - a1 * s.y;
        }
    }
}

// Writes 32 rows of a warp, each element times `factor[...]` of its row, as bf16, to rows `first..` of a matrix with `rows` rows of `columns` elements.
// On the way they pass through rows `row..row + 32` of `tile`, which no other warp may be using.
template <int D>
__device__ __forceinline__ void store_rows(bf16* tile, int row, const float (&x)[2][D / 8][4], const float (&factor)[4], bf16* matrix, int stride,
                                           int first, int rows, int columns) {
    int lane = threadIdx.x % 32;
    __syncwarp();
#pragma unroll
    for (int half = 0; half < 4; half++) {
        int m = half / 2, e = half % 2 * 2, at = row + 16 * m + half % 2 * 8 + lane / 4;
#pragma unroll
        for (int n = 0; n < D / 8; n++) {
            unsigned pair = pack_bf16(x[m][n][e] * factor[half], x[m][n][e + 1] * factor[half]);
            *reinterpret_cast<unsigned*>(tile + tile_at<D>(at, n) + lane % 4 * 2) = pair;
        }
    }
    __syncwarp();
#pragma unroll
    for (int i = 0; i < D / 8; i++) {
        int r = (32 * i + lane) / (D / 8), chunk = (32 * i + lane) % (D / 8);
        if (first + r < rows && chunk * 8 < columns)
            *reinterpret_cast<uint4*>(matrix + (first + r) * stride + chunk * 8) = *reinterpret_cast<const uint4*>(tile + tile_at<D>(row + r, chunk));
    }
}

// Which tile of which head (counted over all sequences) is this block's: heads in sections of `section`, within a section tile by tile.
__device__ __forceinline__ void pick_tile(int tiles, int heads, int section, int& tile, int& head) {
    int index = blockIdx.x, first = index / (section * tiles) * section, rest = index - first * tiles;
    int width = min(section, heads - first);
    tile = rest / width;
    head = first + rest % width;
}
