// target: sm_80
// The ends of the network: rows of the embedding, and y[t, r] = (Σ_k w[r,k] · x[t,k]) · step[r] over the vocabulary, with the largest.
//
// Sums have the CPU's bits: lane k mod 16 is a chain of fused multiply-adds in the order of k, and the lanes are folded 8-4-2-1. For that a
// thread owns a row and its sixteen chains. A matrix is tiles of 32 rows; a tile is [cols / 16][parts][32 rows][16 bytes], so that a warp reads 512 bytes in
// a row and a thread sixteen columns of its own (a part is 16 bytes: one of int8, two of f16 and bf16, four of f32).
//
// Bytes: the matrix once (128256 x 2560: 328 MB as int8, 110 µs at 3 TB/s). Instructions a weight: 1 multiply-add and, of int8, 2.25 to make a
// float: 3.3 of int8 at 13 weights a cycle and multiprocessor are 43 of the 128 lanes that issue.
// One block on each multiprocessor, of 16 warps (of 12 for several tokens), takes neighbouring tiles, a warp one after the other, through a ring of 4 KB of its own in
// shared memory (why not registers: weight_ring.cuh), which is filled before the wait for the kernel ahead. Every block norms x for itself. The last block to end compares the
// blocks' largest.
#include "memory.cuh"
#include "bf16.cuh"
#include "reduce.cuh"

#include "exact.cuh"
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

// `x` `[tokens, cols]`; `logits` `[tokens, vocab]` or null; `bests` `[gridDim.x, tokens, 2]`; `best_ids` `[tokens]`.
// Unless `advance` is 0, the last token's id goes to `ids[position + advance]`, and `position` moves on by so many, if both stay within `room`.
template <int TYPE, int TOKENS, unsigned THREADS>
__device__ __forceinline__ void head(const unsigned char* weights, const float* steps, unsigned vocab, unsigned cols, const float* x, const float* norm,
                                     float eps, unsigned tokens, float* logits, float* bests, unsigned* counter, unsigned* best_ids, unsigned* ids,
                                     unsigned* position, unsigned room, unsigned advance) {
    constexpr unsigned WARPS = THREADS / 32;
    __shared__ float values[WARPS][TOKENS], reciprocals[TOKENS];
    __shared__ unsigned found[WARPS][TOKENS], last;
    DYNAMIC_SHARED(unsigned char, shared);
    float* xs = reinterpret_cast<float*>(shared + WARPS * RING_BYTES);
    unsigned vectors = (cols + LANES - 1) / LANES, padded = vectors * LANES, tiles = (vocab + ROWS - 1) / ROWS;
    unsigned warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    unsigned first = (unsigned)((unsigned long long)tiles * blockIdx.x / gridDim.x);
    unsigned end = (unsigned)((unsigned long long)tiles * (blockIdx.x + 1) / gridDim.x);

    Stream<TYPE, WARPS> stream(weights, vectors, first + warp, end, shared);
    grid_wait();
    grid_launch_dependents();

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

    Best best[TOKENS];
#pragma unroll
    for (int t = 0; t < TOKENS; t++) best[t] = {-INFINITY, 0xffffffffu};
    unsigned slot = 0;
    for (unsigned tile = first + warp; tile < end; tile += WARPS) {
        unsigned row = tile * ROWS + lane;
        float step = TYPE == INT8 && row < vocab ? __ldg(steps + row) : 1.0f;
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
            float y = add_rn(add_rn(four[0], four[2]), add_rn(four[1], four[3]));
            if (TYPE == INT8) y = mul_rn(y, step);
            if (row < vocab && (unsigned)t < tokens) {
                if (logits) logits[(size_t)t * vocab + row] = y;
                best[t].take(y, row);
            }
        }
    }

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
        float* to = bests + (blockIdx.x * tokens + threadIdx.x) * 2;
        to[0] = block.value;
        to[1] = of_bits(block.id);
        fence_device();
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        fence_device();
        last = atomicAdd(counter, 1u) + 1 == gridDim.x;
    }
    __syncthreads();
    if (!last || warp >= tokens) return;
    fence_device();
    // Warp t compares for token t.
    Best all = {-INFINITY, 0xffffffffu};
    for (unsigned block = lane; block < gridDim.x; block += 32) {
        const float* from = bests + (block * tokens + warp) * 2;
        all.take(load_fresh(from), bits_of(load_fresh(from + 1)));
    }
    all.over_warp();
    if (lane != 0) return;
    // Where no logit is a number, the first.
    unsigned id = all.id < vocab ? all.id : 0;
    best_ids[warp] = id;
    if (warp != tokens - 1) return;
    *counter = 0;
    if (advance) {
        unsigned next = *position + advance;
        if (next < room) ids[next] = id;
        if (next <= room) *position = next;
    }
}

#define HEAD(name, type, count, threads, blocks)                                                                                               \
    extern "C" __global__ void __launch_bounds__(threads, blocks)                                                                                      \
        name(const unsigned char* weights, const float* steps, unsigned vocab, unsigned cols, const float* x, const float* norm, float eps,             \
             unsigned tokens, float* logits, float* bests, unsigned* counter, unsigned* best_ids, unsigned* ids, unsigned* position, unsigned room,     \
             unsigned advance) {                                                                                                                       \
        head<type, count, threads>(weights, steps, vocab, cols, x, norm, eps, tokens, logits, bests, counter, best_ids, ids, position, room,     \
                                          advance);                                                                                                    \
    }
// One token: so few registers that the kernel ahead still has room on the multiprocessor.
HEAD(head_f32_1, F32, 1, 384, 2)
HEAD(head_f16_1, F16, 1, 512, 2)
HEAD(head_bf16_1, BF16, 1, 512, 2)
HEAD(head_int8_1, INT8, 1, 512, 2)
HEAD(head_f32_4, F32, 4, 384, 1)
HEAD(head_f16_4, F16, 4, 384, 1)
HEAD(head_bf16_4, BF16, 4, 384, 1)
HEAD(head_int8_4, INT8, 4, 384, 1)

// x[t] = row ids[position + t] of the embedding, `[tokens, cols]`: a block a token, a thread sixteen columns.
template <int TYPE>
__device__ __forceinline__ void embed(const unsigned char* weights, const float* steps, unsigned vocab, unsigned cols, const unsigned* ids,
                                      const unsigned* position, unsigned room, float* x) {
    grid_wait();
    grid_launch_dependents();
    unsigned vectors = (cols + LANES - 1) / LANES;
    unsigned at = *position + blockIdx.x;
    unsigned id = at < room ? ids[at] : 0;
    // Ids were compared with the vocabulary before; one that was not gives the first row.
    if (id >= vocab) id = 0;
    float step = TYPE == INT8 ? steps[id] : 1.0f;
    for (unsigned vector = threadIdx.x; vector < vectors; vector += blockDim.x) {
        Vector<TYPE> v;
        v.load(vector_at<TYPE>(weights, vectors, id / ROWS, vector, id % ROWS));
#pragma unroll
        for (int q = 0; q < 4; q++) {
            float w[4];
            v.open(q, w);
#pragma unroll
            for (int i = 0; i < 4; i++) {
                unsigned column = vector * LANES + 4 * q + i;
                if (column < cols) x[(size_t)blockIdx.x * cols + column] = TYPE == INT8 ? mul_rn(w[i], step) : w[i];
            }
        }
    }
}

#define EMBED(name, type)                                                                                                                              \
    extern "C" __global__ void name(const unsigned char* weights, const float* steps, unsigned vocab, unsigned cols, const unsigned* ids,              \
                                    const unsigned* position, unsigned room, float* x) {                                                                              \
        embed<type>(weights, steps, vocab, cols, ids, position, room, x);                                                                                    \
    }
EMBED(embed_f32, F32)
EMBED(embed_f16, F16)
EMBED(embed_bf16, BF16)
EMBED(embed_int8, INT8)
