// A matrix over the vocabulary as kernels read it, its products with the CPU's bits, and the largest of them.
//
// Sums: lane k mod 16 is a chain of fused multiply-adds in the order of k, and the lanes are folded 8-4-2-1. For that a
// thread owns a row and its sixteen chains. A matrix is tiles of 32 rows; a tile is [cols / 16][parts][32 rows][16 bytes], so that a warp reads 512 bytes in
// a row and a thread sixteen columns of its own (a part is 16 bytes: one of int8, two of f16 and bf16, four of f32).
#pragma once

#include "bf16.cuh"
#include "exact.cuh"
#include "memory.cuh"
#include "stream.cuh"

constexpr unsigned LANES = 16;
constexpr unsigned ROWS = 32, PART_BYTES = 512;

enum Type : int { F32 = 0, F16 = 1, BF16 = 2, INT8 = 3 };
template <int TYPE>
constexpr int PARTS = TYPE == F32 ? 4 : TYPE == INT8 ? 1 : 2;
// Bytes of a warp's ring, and how many vectors of 32 rows it holds.
constexpr unsigned RING_BYTES = 4096;
template <int TYPE>
constexpr unsigned SLOTS = RING_BYTES / (PARTS<TYPE> * PART_BYTES);

// Sixteen columns of a row.
template <int TYPE>
struct Vector {
    uint4 part[PARTS<TYPE>];

    __device__ __forceinline__ void load(const unsigned char* at) {
#pragma unroll
        for (int i = 0; i < PARTS<TYPE>; i++) part[i] = load_stream16(at + i * PART_BYTES);
    }
    // From the ring.
    __device__ __forceinline__ void take(const unsigned char* at) {
#pragma unroll
        for (int i = 0; i < PARTS<TYPE>; i++) part[i] = *reinterpret_cast<const uint4*>(at + i * PART_BYTES);
    }
    // Columns 4q to 4q + 3 as floats.
    __device__ __forceinline__ void open(int q, float (&w)[4]) const {
        if (TYPE == INT8) {
            unsigned v = q == 0 ? part[0].x : q == 1 ? part[0].y : q == 2 ? part[0].z : part[0].w;
            w[0] = byte_to_f32<0>(v);
            w[1] = byte_to_f32<1>(v);
            w[2] = byte_to_f32<2>(v);
            w[3] = byte_to_f32<3>(v);
        } else if (TYPE == F32) {
            uint4 v = part[q % PARTS<TYPE>];
            w[0] = of_bits(v.x);
            w[1] = of_bits(v.y);
            w[2] = of_bits(v.z);
            w[3] = of_bits(v.w);
        } else {
            uint4 v = part[q / 2 % PARTS<TYPE>];
            unsigned low = q % 2 ? v.z : v.x, high = q % 2 ? v.w : v.y;
            w[0] = TYPE == BF16 ? of_bits(low << 16) : f16_to_f32((unsigned short)low);
            w[1] = TYPE == BF16 ? of_bits(low & 0xffff0000u) : f16_to_f32((unsigned short)(low >> 16));
            w[2] = TYPE == BF16 ? of_bits(high << 16) : f16_to_f32((unsigned short)high);
            w[3] = TYPE == BF16 ? of_bits(high & 0xffff0000u) : f16_to_f32((unsigned short)(high >> 16));
        }
    }
};

template <int TYPE>
__device__ __forceinline__ const unsigned char* vector_at(const unsigned char* weights, unsigned vectors, unsigned tile, unsigned vector, unsigned row) {
    return weights + (((size_t)tile * vectors + vector) * PARTS<TYPE> * ROWS + row) * 16;
}

// What a warp's ring is filled with: its lane's part of every vector of tiles `tile`, `tile + WARPS`, … before `end`.
template <int TYPE, unsigned WARPS>
struct Stream {
    static constexpr unsigned BYTES = PARTS<TYPE> * PART_BYTES;
    const unsigned char* from;
    unsigned char* ring;
    unsigned tile, end, vectors, left;

    __device__ __forceinline__ Stream(const unsigned char* weights, unsigned vectors, unsigned tile, unsigned end, unsigned char* rings)
        : from(vector_at<TYPE>(weights, vectors, tile, 0, threadIdx.x % 32)),
          ring(rings + threadIdx.x / 32 * RING_BYTES + threadIdx.x % 32 * 16),
          tile(tile),
          end(end),
          vectors(vectors),
          left(vectors) {
#pragma unroll 1
        for (unsigned slot = 0; slot < SLOTS<TYPE>; slot++) fetch(slot);
    }
    __device__ __forceinline__ void fetch(unsigned slot) {
        if (tile < end) {
#pragma unroll
            for (int i = 0; i < PARTS<TYPE>; i++) copy_async16(ring + slot * BYTES + i * PART_BYTES, from + i * PART_BYTES);
            from += BYTES;
            if (--left == 0) {
                left = vectors;
                tile += WARPS;
                from += (size_t)(WARPS - 1) * vectors * BYTES;
            }
        }
        copy_async_commit();
    }
    // The oldest of what was fetched; then comes the next `fetch` of its slot.
    __device__ __forceinline__ void take(unsigned slot, Vector<TYPE>& now) const {
        copy_async_wait<SLOTS<TYPE> - 1>();
        now.take(ring + slot * BYTES);
    }
};

// The larger of two logits, of equals the one with the lower id.
struct Best {
    float value;
    unsigned id;

    __device__ __forceinline__ void take(float other, unsigned other_id) {
        if (other > value || (other == value && other_id < id)) {
            value = other;
            id = other_id;
        }
    }
    __device__ __forceinline__ void over_warp() {
#pragma unroll
        for (int lane = 16; lane > 0; lane /= 2) {
            float other = __shfl_xor_sync(0xffffffffu, value, lane);
            unsigned other_id = __shfl_xor_sync(0xffffffffu, id, lane);
            take(other, other_id);
        }
    }
};

// The norm of `tokens` tokens of `x`, `[tokens, cols]`, with weights `norm`, as rows of `padded` floats of shared memory filled up with zeros.
template <int TOKENS, unsigned THREADS>
__device__ __forceinline__ void norm_tokens(const float* x, const float* norm, float eps, unsigned tokens, unsigned cols, unsigned padded, float* xs,
                                            float* reciprocals) {
    unsigned warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    for (unsigned i = threadIdx.x; i < TOKENS * padded; i += THREADS) {
        unsigned token = i / padded, column = i % padded;
        xs[i] = token < tokens && column < cols ? x[(size_t)token * cols + column] : 0.0f;
    }
    __syncthreads();
    if (warp < TOKENS) {
        float squares = squares_of(xs + warp * padded, cols);
        if (lane == 0) reciprocals[warp] = reciprocal_rms(squares, cols, eps);
    }
    __syncthreads();
    for (unsigned i = threadIdx.x; i < TOKENS * padded; i += THREADS) {
        unsigned column = i % padded;
        if (column < cols) xs[i] = mul_rn(mul_rn(xs[i], reciprocals[i / padded]), norm[column]);
    }
    __syncthreads();
}

// The products of a row with each token of `xs`: the row is what `stream` gives next.
template <int TYPE, int TOKENS, unsigned WARPS>
__device__ __forceinline__ void row_products(Stream<TYPE, WARPS>& stream, unsigned& slot, const float* xs, unsigned padded, unsigned vectors,
                                             float (&y)[TOKENS]) {
    float sums[TOKENS][LANES];
#pragma unroll
    for (int t = 0; t < TOKENS; t++)
#pragma unroll
        for (int i = 0; i < (int)LANES; i++) sums[t][i] = 0.0f;
#pragma unroll 1
    for (unsigned vector = 0; vector < vectors; vector++) {
        Vector<TYPE> now;
        stream.take(slot, now);
#pragma unroll
        for (int q = 0; q < 4; q++) {
            float w[4];
            now.open(q, w);
#pragma unroll
            for (int t = 0; t < TOKENS; t++) {
                float4 v = *reinterpret_cast<const float4*>(xs + t * padded + vector * LANES + 4 * q);
                sums[t][4 * q] = fmaf(w[0], v.x, sums[t][4 * q]);
                sums[t][4 * q + 1] = fmaf(w[1], v.y, sums[t][4 * q + 1]);
                sums[t][4 * q + 2] = fmaf(w[2], v.z, sums[t][4 * q + 2]);
                sums[t][4 * q + 3] = fmaf(w[3], v.w, sums[t][4 * q + 3]);
            }
        }
        stream.fetch(slot);
        slot = (slot + 1) % SLOTS<TYPE>;
    }
#pragma unroll
    for (int t = 0; t < TOKENS; t++) {
        float eight[8], four[4];
#pragma unroll
        for (int i = 0; i < 8; i++) eight[i] = add_rn(sums[t][i], sums[t][i + 8]);
#pragma unroll
        for (int i = 0; i < 4; i++) four[i] = add_rn(eight[i], eight[i + 4]);
        y[t] = add_rn(add_rn(four[0], four[2]), add_rn(four[1], four[3]));
    }
}

// Where the largest of each token goes: `best_ids` `[tokens]`; unless `advance` is 0, the last token's id goes to `ids[position + advance]`, and `position` moves on
// by so many, if both stay within `room`. `bests` `[gridDim.x, tokens, 2]` and `counter` are between blocks.
struct Chosen {
    float* bests;
    unsigned* counter;
    unsigned* best_ids;
    unsigned* ids;
    unsigned* position;
    unsigned room, advance;
};

// From each thread's largest to those of all blocks, by the last block to end.
template <int TOKENS, unsigned WARPS>
__device__ __forceinline__ void choose(Best (&best)[TOKENS], unsigned tokens, unsigned vocab, const Chosen& to) {
    __shared__ float values[WARPS][TOKENS];
    __shared__ unsigned found[WARPS][TOKENS], last;
    unsigned warp = threadIdx.x / 32, lane = threadIdx.x % 32;
#pragma unroll
    for (int t = 0; t < TOKENS; t++) {
        best[t].over_warp();
        if (lane == 0) {
            values[warp][t] = best[t].value;
            found[warp][t] = best[t].id;
        }
    }
    __syncthreads();
    if (threadIdx.x < tokens) {
        Best block = {values[0][threadIdx.x], found[0][threadIdx.x]};
        for (unsigned w = 1; w < WARPS; w++) block.take(values[w][threadIdx.x], found[w][threadIdx.x]);
        float* at = to.bests + (blockIdx.x * tokens + threadIdx.x) * 2;
        at[0] = block.value;
        at[1] = of_bits(block.id);
        fence_device();
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        fence_device();
        last = atomicAdd(to.counter, 1u) + 1 == gridDim.x;
    }
    __syncthreads();
    if (!last || warp >= tokens) return;
    fence_device();
    // Warp t compares for token t.
    Best all = {-INFINITY, 0xffffffffu};
    for (unsigned block = lane; block < gridDim.x; block += 32) {
        const float* from = to.bests + (block * tokens + warp) * 2;
        all.take(load_fresh(from), bits_of(load_fresh(from + 1)));
    }
    all.over_warp();
    if (lane != 0) return;
    // Where no logit is a number, the first.
    unsigned id = all.id < vocab ? all.id : 0;
    to.best_ids[warp] = id;
    if (warp != tokens - 1) return;
    *to.counter = 0;
    if (to.advance) {
        unsigned next = *to.position + to.advance;
        if (next < to.room) to.ids[next] = id;
        if (next <= to.room) *to.position = next;
    }
}
