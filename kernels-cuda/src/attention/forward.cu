// target: sm_80
// Causal grouped-query attention, forward: o = softmax(q·kᵀ / sqrt(head_dim)) · v and the log-sum-exp of each row.
//
// A block has 128 queries of a head, a warp 32 of them; all walk over the keys up to their last query in steps of 64, of which two are in shared memory:
// while one is multiplied the next is on its way. Scores and probabilities stay in registers, where the result of the first product has the shape of
// an operand of the second.
//
// The running maximum of a row is raised only when a score is more than 8 (in powers of two) above it, so most steps neither reduce a maximum over
// lanes nor rescale the output: sums are f32, and a probability of up to 2^8 is as exact in bf16 as one below 1.
//
// Operations: 4·head_dim·seq²/2 a head, and seq²/2 exponentials. Memory: q, k, v, o once (2 bytes an element), keys and values again from the
// second-level cache for every 128 queries.
#include "attention.cuh"

template <int D>
__device__ __forceinline__ void attend(const bf16* __restrict__ qkv, bf16* __restrict__ o, float* __restrict__ lse, int batch, int seq, int heads, int kv_heads,
                                       int head_dim, int section, float scale) {
    constexpr int QUERIES = 128, KEYS = 64, THREADS = 128;
    constexpr bool KEEP = D <= 64; // the queries' fragments stay in registers
    DYNAMIC_SHARED(bf16, queries);
    bf16* keys = queries + QUERIES * D;
    bf16* values = keys + 2 * KEYS * D;
    __shared__ int head_of_block; // for the end: kept in a register it, or what follows from it, would be spilled

    int tiles = (seq + QUERIES - 1) / QUERIES, tile, which;
    pick_tile(tiles, batch * heads, section, tile, which);
    tile = tiles - 1 - tile; // the last queries see the most keys
    int sequence = which / heads, head = which % heads, kv_head = head / (heads / kv_heads);
    if (threadIdx.x == 0) head_of_block = which;
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    int first = tile * QUERIES, warp_first = first + 32 * warp;

    int stride = (heads + 2 * kv_heads) * head_dim;
    const bf16* q = qkv + (size_t)sequence * seq * stride + head * head_dim;
    const bf16* k = qkv + (size_t)sequence * seq * stride + (heads + kv_head) * head_dim;
    const bf16* v = k + kv_heads * head_dim;

    load_tile<D, QUERIES, THREADS>(queries, q, stride, first, seq, head_dim);
    load_tile<D, KEYS, THREADS>(keys, k, stride, 0, seq, head_dim);
    load_tile<D, KEYS, THREADS>(values, v, stride, 0, seq, head_dim);
    copy_async_commit();

    unsigned kept[D / 16][2][4];
    float sums[2][D / 8][4];
    clear(sums);
    // Of rows lane/4, +8, +16, +24: the maximum, and this lane's part of the sum. The maximum begins as a finite number, so that no difference is undefined.
    float most[4], total[4];
#pragma unroll
    for (int i = 0; i < 4; i++) most[i] = -1e30f, total[i] = 0.0f;
    const float to_log2 = scale * LOG2_E;

    const int end = min(first + QUERIES, seq);
#pragma unroll 1
    for (int key = 0; key < end; key += KEYS) {
        copy_async_wait<0>();
        __syncthreads();
        int stage = key % (2 * KEYS); // where the step's rows begin
        if (key + KEYS < end) {
            int other = (KEYS - stage) * D;
            load_tile<D, KEYS, THREADS>(keys + other, k, stride, key + KEYS, seq, head_dim);
            load_tile<D, KEYS, THREADS>(values + other, v, stride, key + KEYS, seq, head_dim);
            copy_async_commit();
        }
        if (KEEP && key == 0) {
#pragma unroll
            for (int i = 0; i < D / 16; i++) {
                load_matrices(kept[i][0], rows_at<D>(queries, 32 * warp, i));
                load_matrices(kept[i][1], rows_at<D>(queries, 32 * warp + 16, i));
            }
        }
        if (key > warp_first + 31 || warp_first >= seq) continue; // nothing that these queries see, or no queries

        float scores[2][KEYS / 8][4];
        clear(scores);
        if constexpr (KEEP) {
            multiply_kept<D>(scores, kept, keys, stage);
        } else {
            multiply_rows<D>(scores, queries, 32 * warp, keys, stage);
        }
        if (key + KEYS - 1 > warp_first) {
#pragma unroll
            for (int m = 0; m < 2; m++)
#pragma unroll
                for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
                    for (int e = 0; e < 4; e++) {
                        int ahead = key - warp_first + lane % 4 * 2 - lane / 4; // of the key before the query, in the first element
                        if (ahead > 16 * m + e / 2 * 8 - 8 * n - e % 2) scores[m][n][e] = -INFINITE;
                    }
        }

        float largest[4];
        bool raise = false;
#pragma unroll
        for (int i = 0; i < 4; i++) {
            float x = scores[i / 2][0][i % 2 * 2];
#pragma unroll
            for (int n = 0; n < KEYS / 8; n++) x = fmaxf(fmaxf(x, scores[i / 2][n][i % 2 * 2]), scores[i / 2][n][i % 2 * 2 + 1]);
            largest[i] = x;
            raise |= (x - most[i]) * to_log2 > 8.0f;
        }
        if (__any_sync(0xffffffffu, raise)) {
#pragma unroll
            for (int i = 0; i < 4; i++) {
                float x = fmaxf(largest[i], __shfl_xor_sync(0xffffffffu, largest[i], 1));
                x = fmaxf(fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 2)), most[i]);
                float factor = exp2_fast((most[i] - x) * to_log2);
                most[i] = x;
                total[i] *= factor;
#pragma unroll
                for (int n = 0; n < D / 8; n++) {
                    sums[i / 2][n][i % 2 * 2] *= factor;
                    sums[i / 2][n][i % 2 * 2 + 1] *= factor;
                }
            }
        }
#pragma unroll
        for (int i = 0; i < 4; i++) {
            float shift = most[i] * to_log2;
#pragma unroll
            for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
                for (int e = i % 2 * 2; e < i % 2 * 2 + 2; e++) {
                    float p = exp2_fast(fmaf(scores[i / 2][n][e], to_log2, -shift));
                    scores[i / 2][n][e] = p;
                    total[i] += p;
                }
        }
        unsigned probabilities[KEYS / 16][2][4];
        pack_fragments(probabilities, scores);
        multiply_columns<D>(sums, probabilities, values, stage);
    }

    if (warp_first >= seq) return;
    which = head_of_block, sequence = which / heads, head = which % heads;
    float inverse[4];
#pragma unroll
    for (int i = 0; i < 4; i++) {
        float x = total[i] + __shfl_xor_sync(0xffffffffu, total[i], 1);
        x += __shfl_xor_sync(0xffffffffu, x, 2);
        inverse[i] = 1.0f / x;
        int row = warp_first + 8 * i + lane / 4;
        if (lane % 4 == 0 && row < seq) lse[(size_t)which * seq + row] = most[i] * scale + logf(x);
    }
    int o_stride = heads * head_dim;
    store_rows<D>(queries, 32 * warp, sums, inverse, o + (size_t)sequence * seq * o_stride + head * head_dim, o_stride, warp_first, seq, head_dim);
}

#define ATTENTION(D)                                                                                                                            \
    extern "C" __global__ void __launch_bounds__(128, 2) attention_##D(const bf16* qkv, bf16* o, float* lse, unsigned batch, unsigned seq,       \
                                                                       unsigned heads, unsigned kv_heads, unsigned head_dim, unsigned section,  \
                                                                       float scale) {                                                           \
        attend<D>(qkv, o, lse, batch, seq, heads, kv_heads, head_dim, section, scale);                                                          \
    }
ATTENTION(32)
ATTENTION(64)
ATTENTION(128)
