// target: sm_80
// The ends of the network: rows of the embedding, and y[t, r] = (Σ_k w[r,k] · x[t,k]) · step[r] over the vocabulary, with the largest (vocabulary.cuh);
// y = cap tanh(y / cap) where the cap is not 0.
//
// Bytes: the matrix once (128256 x 2560: 328 MB as int8, 110 µs at 3 TB/s). Instructions a weight: 1 multiply-add and, of int8, 2.25 to make a
// float: 3.3 of int8 at 13 weights a cycle and multiprocessor are 43 of the 128 lanes that issue.
// One block on each multiprocessor, of 16 warps (of 12 for several tokens, of 8 for more than four), takes neighbouring tiles, a warp one after the other, through a ring of 4 KB of its own in
// shared memory (why not registers: weight_ring.cuh), which is filled before the wait for the kernel ahead. Every block norms x for itself. The last block to end compares the
// blocks' largest.
#include "softcap.cuh"
#include "vocabulary.cuh"

// `x` `[tokens, cols]`; `logits` `[tokens, vocab]` or null.
template <int TYPE, int TOKENS, unsigned THREADS>
__device__ __forceinline__ void head(const unsigned char* weights, const float* steps, unsigned vocab, unsigned cols, const float* x, const float* norm,
                                     float eps, float cap, unsigned tokens, float* logits, const Chosen& chosen) {
    constexpr unsigned WARPS = THREADS / 32;
    __shared__ float reciprocals[TOKENS];
    DYNAMIC_SHARED(unsigned char, shared);
    float* xs = reinterpret_cast<float*>(shared + WARPS * RING_BYTES);
    unsigned vectors = (cols + LANES - 1) / LANES, padded = vectors * LANES, tiles = (vocab + ROWS - 1) / ROWS;
    unsigned warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    unsigned first = (unsigned)((unsigned long long)tiles * blockIdx.x / gridDim.x);
    unsigned end = (unsigned)((unsigned long long)tiles * (blockIdx.x + 1) / gridDim.x);

    Stream<TYPE, WARPS> stream(weights, vectors, first + warp, end, shared);
    grid_wait();
    grid_launch_dependents();
    norm_tokens<TOKENS, THREADS>(x, norm, eps, tokens, cols, padded, xs, reciprocals);

    Best best[TOKENS];
#pragma unroll
    for (int t = 0; t < TOKENS; t++) best[t] = {-INFINITY, 0xffffffffu};
    unsigned slot = 0;
    for (unsigned tile = first + warp; tile < end; tile += WARPS) {
        unsigned row = tile * ROWS + lane;
        float step = TYPE == INT8 && row < vocab ? __ldg(steps + row) : 1.0f;
        float sums[TOKENS];
        row_products(stream, slot, xs, padded, vectors, sums);
#pragma unroll
        for (int t = 0; t < TOKENS; t++) {
            float y = TYPE == INT8 ? mul_rn(sums[t], step) : sums[t];
            if (cap > 0.0f) y = softcap(y, cap);
            if (row < vocab && (unsigned)t < tokens) {
                if (logits) logits[(size_t)t * vocab + row] = y;
                best[t].take(y, row);
            }
        }
    }
    choose<TOKENS, WARPS>(best, tokens, vocab, chosen);
}

#define HEAD(name, type, count, threads, blocks)                                                                                               \
    extern "C" __global__ void __launch_bounds__(threads, blocks)                                                                                      \
        name(const unsigned char* weights, const float* steps, unsigned vocab, unsigned cols, const float* x, const float* norm, float eps,             \
             float cap, unsigned tokens, float* logits, float* bests, unsigned* counter, unsigned* best_ids, unsigned* ids, unsigned* position, unsigned room,     \
             unsigned advance) {                                                                                                                       \
        head<type, count, threads>(weights, steps, vocab, cols, x, norm, eps, cap, tokens, logits,                                                          \
                                   {bests, counter, best_ids, ids, position, room, advance});                                                          \
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
// 128 chains a thread; 32 loads of activations and 128 multiply-adds for sixteen weights.
HEAD(head_f32_8, F32, 8, 256, 1)
HEAD(head_f16_8, F16, 8, 256, 1)
HEAD(head_bf16_8, BF16, 8, 256, 1)
HEAD(head_int8_8, INT8, 8, 256, 1)

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
