// A row that stays in the registers of a warp or of a block between its reductions, and the forms in which it is written.
//
// A thread of a group of G has vectors `rank, rank + G, rank + 2G, …` of a row, E elements each (4 where the row is f32, 8 where it is bf16: 16 bytes), N elements in
// all: `v[i * E + k]` is element `(rank + i * G) * E + k`. Rows are multiples of E; vectors at or behind their end are zeros that are neither read nor written.
#pragma once

#include "bf16.cuh"
#include "reduce.cuh"

// A warp that has a row.
struct WarpRow {
    static const bool IS_WARP = true;
    __device__ __forceinline__ unsigned size() const { return 32; }
    __device__ __forceinline__ unsigned rank() const { return threadIdx.x % 32; }
    // Rows in hand at once in the grid, and which of them is this group's.
    __device__ __forceinline__ unsigned groups() const { return gridDim.x * (blockDim.x / 32); }
    __device__ __forceinline__ unsigned group() const { return blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32; }
    __device__ __forceinline__ float sum(float x, float*) const { return warp_sum(x); }
    __device__ __forceinline__ float max(float x, float*) const { return warp_max(x); }
};

// A block that has a row. `scratch` is 16 floats of shared memory; between two uses of the same ones lies another barrier of the block.
struct BlockRow {
    static const bool IS_WARP = false;
    __device__ __forceinline__ unsigned size() const { return blockDim.x; }
    __device__ __forceinline__ unsigned rank() const { return threadIdx.x; }
    __device__ __forceinline__ unsigned groups() const { return gridDim.x; }
    __device__ __forceinline__ unsigned group() const { return blockIdx.x; }
    __device__ __forceinline__ float sum(float x, float* scratch) const {
        x = warp_sum(x);
        if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = x;
        __syncthreads();
        float total = 0.0f;
        for (unsigned warp = 0; warp < blockDim.x / 32; warp++) total += scratch[warp];
        return total;
    }
    __device__ __forceinline__ float max(float x, float* scratch) const {
        x = warp_max(x);
        if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = x;
        __syncthreads();
        float largest = scratch[0];
        for (unsigned warp = 1; warp < blockDim.x / 32; warp++) largest = fmaxf(largest, scratch[warp]);
        return largest;
    }
};

// Floats of shared memory that a block of at most 512 threads takes for one reduction.
#define ROW_SCRATCH 16

// ---- vectors of E elements ----

template <int E>
__device__ __forceinline__ void load_f32(const float* p, float* v) {
#pragma unroll
    for (int k = 0; k < E; k += 4) {
        float4 x = *reinterpret_cast<const float4*>(p + k);
        v[k] = x.x, v[k + 1] = x.y, v[k + 2] = x.z, v[k + 3] = x.w;
    }
}

__device__ __forceinline__ void unpack(unsigned packed, float* v) { v[0] = low_f32(packed), v[1] = high_f32(packed); }

// bf16 as it lies in memory, two elements a word.
template <int E>
__device__ __forceinline__ void load_words(const bf16* p, unsigned* words) {
    if (E == 4) {
        uint2 x = *reinterpret_cast<const uint2*>(p);
        words[0] = x.x, words[1] = x.y;
    } else {
        uint4 x = *reinterpret_cast<const uint4*>(p);
        words[0] = x.x, words[1] = x.y, words[2] = x.z, words[3] = x.w;
    }
}

template <int E>
__device__ __forceinline__ void load_bf16(const bf16* p, float* v) {
    unsigned words[E / 2];
    load_words<E>(p, words);
#pragma unroll
    for (int k = 0; k < E / 2; k++) unpack(words[k], v + 2 * k);
}

template <int E>
__device__ __forceinline__ void store_bf16(bf16* p, const float* v) {
    if (E == 4)
        *reinterpret_cast<uint2*>(p) = make_uint2(pack_bf16(v[0], v[1]), pack_bf16(v[2], v[3]));
    else
        *reinterpret_cast<uint4*>(p) = make_uint4(pack_bf16(v[0], v[1]), pack_bf16(v[2], v[3]), pack_bf16(v[4], v[5]), pack_bf16(v[6], v[7]));
}

// `clamp(round(y * s), -128, 127)`, ties to even; a NaN becomes -128.
__device__ __forceinline__ int quantized(float y, float s) { return __float2int_rn(fminf(fmaxf(y * s, -128.0f), 127.0f)); }

__device__ __forceinline__ unsigned quantized4(const float* y, float s) {
    return ((unsigned)quantized(y[0], s) & 255u) | ((unsigned)quantized(y[1], s) & 255u) << 8 | ((unsigned)quantized(y[2], s) & 255u) << 16 |
           (unsigned)quantized(y[3], s) << 24;
}

// ---- the forms in which a row is written; pointers that are null are not ----

struct RowOutputs {
    signed char* codes;
    float* steps;
    bf16* plain;
    bf16* blend;
    const float* anneal;
};

// Writes row `row`, `y`, of `cols` elements. `scratch` as for `Row::max`.
template <class Row, int E, int N>
__device__ __forceinline__ void write_row(const Row& at, const RowOutputs& out, unsigned long long row, unsigned cols, const float (&y)[N], float* scratch) {
    const unsigned long long base = row * cols;
    float s = 0.0f, step = 0.0f, a = 0.0f;
    if (out.codes != nullptr || out.blend != nullptr) {
        float largest = 0.0f;
#pragma unroll
        for (int i = 0; i < N; i++) largest = fmaxf(fabsf(y[i]), largest);
        largest = at.max(largest, scratch);
        s = 127.0f / fmaxf(largest, 1e-5f);
        step = 1.0f / s;
        if (out.steps != nullptr && at.rank() == 0) out.steps[row] = step;
        if (out.blend != nullptr) a = *out.anneal;
    }
#pragma unroll
    for (int i = 0; i < N / E; i++) {
        unsigned j = (at.rank() + i * at.size()) * E;
        if (j >= cols) break;
        const float* v = y + i * E;
        if (out.codes != nullptr) {
            if (E == 4)
                *reinterpret_cast<unsigned*>(out.codes + base + j) = quantized4(v, s);
            else
                *reinterpret_cast<uint2*>(out.codes + base + j) = make_uint2(quantized4(v, s), quantized4(v + E - 4, s));
        }
        if (out.plain != nullptr) store_bf16<E>(out.plain + base + j, v);
        if (out.blend != nullptr) {
            float mixed[E];
#pragma unroll
            for (int k = 0; k < E; k++) mixed[k] = fmaf(a, (float)quantized(v[k], s) * step, (1.0f - a) * v[k]);
            store_bf16<E>(out.blend + base + j, mixed);
        }
    }
}
