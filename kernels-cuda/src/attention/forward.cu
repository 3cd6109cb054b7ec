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
//
// With dropout (`attention_drop_…`) the sum of a row is that of all its probabilities, the product with the values that of those kept; what is kept is multiplied
// by 1/(1 − p) with the division by the sum.
#include "attention.cuh"
#include "attention_dropout.cuh"

template <int D, bool DROP>
__device__ __forceinline__ void attend(const bf16* __restrict__ qkv, bf16* __restrict__ o, float* __restrict__ lse, int batch, int seq, int heads, int kv_heads,
                                       int head_dim, int section, float scale, const AttentionDropout& dropout) {
    constexpr int QUERIES = 128, KEYS = 64, THREADS = 128;
    constexpr bool KEEP = D <= 64; // the queries' fragments stay in registers
    DYNAMIC_SHARED(bf16, queries);
    bf16* keys = queries + QUERIES * D;
    bf16* values = keys + 2 * KEYS * D;
    // Head and first query of the block, and where its keys begin: in registers they, or what follows from them, would be spilled.
    __shared__ int place[2];
    __shared__ size_t keys_begin;
    __shared__ Words numbers;
    __shared__ unsigned kept_keys[THREADS / 32][KEYS / 32][32];

    int tiles = (seq + QUERIES - 1) / QUERIES, tile, which;
    pick_tile(tiles, batch * heads, section, tile, which);
    tile = tiles - 1 - tile; // the last queries see the most keys
    int sequence = which / heads, head = which % heads, kv_head = head / (heads / kv_heads);
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    int first = tile * QUERIES;

    int stride = (heads + 2 * kv_heads) * head_dim;
    const size_t begin = (size_t)sequence * seq * stride + (heads + kv_head) * head_dim;
    const int to_values = kv_heads * head_dim;
    if (threadIdx.x == 0) place[0] = which, place[1] = first, keys_begin = begin;
    if (DROP && threadIdx.x == 0) numbers = dropout.key();

    load_tile<D, QUERIES, THREADS>(queries, qkv + (size_t)sequence * seq * stride + head * head_dim, stride, first, seq, head_dim);
    load_tile<D, KEYS, THREADS>(keys, qkv + begin, stride, 0, seq, head_dim);
    load_tile<D, KEYS, THREADS>(values, qkv + begin + to_values, stride, 0, seq, head_dim);
    copy_async_commit();

    unsigned kept[D / 16][2][4];
    float sums[2][D / 8][4];
    clear(sums);
    // Of rows lane/4, +8, +16, +24: the maximum, and this lane's part of the sum. The maximum begins as a finite number, so that no difference is undefined.
    float most[4], total[4];
#pragma unroll
    for (int i = 0; i < 4; i++) most[i] = -1e30f, total[i] = 0.0f;
    const float to_log2 = scale * LOG2_E;

    int key = 0;
    do {
        copy_async_wait<0>();
        __syncthreads();
        const int end = min(place[1] + QUERIES, seq);
        int stage = key % (2 * KEYS); // where the step's rows begin
        if (key + KEYS < end) {
            int other = (KEYS - stage) * D;
            const bf16* k = qkv + keys_begin;
            load_tile<D, KEYS, THREADS>(keys + other, k, stride, key + KEYS, seq, head_dim);
            load_tile<D, KEYS, THREADS>(values + other, k + to_values, stride, key + KEYS, seq, head_dim);
            copy_async_commit();
        }
        if (KEEP && key == 0) {
#pragma unroll
            for (int i = 0; i < D / 16; i++) {
                load_matrices(kept[i][0], rows_at<D>(queries, 32 * warp, 0, i));
                load_matrices(kept[i][1], rows_at<D>(queries, 32 * warp, 16, i));
            }
        }
        int warp_first = place[1] + 32 * warp;
        if (key > warp_first + 31 || warp_first >= seq) continue; // nothing that these queries see, or no queries
        if constexpr (DROP) {
#pragma unroll 1
            for (int part = 0; part < KEYS / 32; part++)
                write_mask(kept_keys[warp][part], numbers, dropout.threshold, place[0] * seq + warp_first, key + 32 * part, seq);
        }

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
            raise |= x * to_log2 > most[i] + 8.0f;
        }
        if (__any_sync(0xffffffffu, raise)) {
#pragma unroll
            for (int i = 0; i < 4; i++) {
                float x = fmaxf(largest[i], __shfl_xor_sync(0xffffffffu, largest[i], 1));
                x = fmaxf(fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 2)) * to_log2, most[i]);
                float factor = exp2_fast(most[i] - x);
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
            unsigned kept = 0;
#pragma unroll
            for (int n = 0; n < KEYS / 8; n++) {
                if (DROP && n % 4 == 0) kept = kept_keys[warp][n / 4][8 * i + lane / 4] >> lane % 4 * 2;
#pragma unroll
                for (int e = i % 2 * 2; e < i % 2 * 2 + 2; e++) {
                    float p = exp2_fast(fmaf(scores[i / 2][n][e], to_log2, -most[i]));
                    scores[i / 2][n][e] = !DROP || kept >> (8 * (n % 4) + e % 2) & 1 ? p : 0.0f;
                    total[i] += p;
                }
            }
        }
        unsigned probabilities[KEYS / 16][2][4];
        pack_fragments(probabilities, scores);
        multiply_columns<D>(sums, probabilities, values, stage);
    } while ((key += KEYS) < min(place[1] + QUERIES, seq));

    int warp_first = place[1] + 32 * warp;
    if (warp_first >= seq) return;
    which = place[0], sequence = which / heads, head = which % heads;
    float inverse[4];
#pragma unroll
    for (int i = 0; i < 4; i++) {
        float x = total[i] + __shfl_xor_sync(0xffffffffu, total[i], 1);
        x += __shfl_xor_sync(0xffffffffu, x, 2);
        inverse[i] = (DROP ? dropout.keep : 1.0f) / x;
        int row = warp_first + 8 * i + lane / 4;
        if (lane % 4 == 0 && row < seq) lse[(size_t)which * seq + row] = most[i] * LN_2 + logf(x);
    }
    int o_stride = heads * head_dim;
    store_rows<D>(queries, 32 * warp, sums, inverse, o + (size_t)sequence * seq * o_stride + head * head_dim, o_stride, warp_first, seq, head_dim);
}

#define ATTENTION(D)                                                                                                                            \
    extern "C" __global__ void __launch_bounds__(128, 2) attention_##D(const bf16* qkv, bf16* o, float* lse, unsigned batch, unsigned seq,       \
                                                                       unsigned heads, unsigned kv_heads, unsigned head_dim, unsigned section,  \
                                                                       float scale) {                                                           \
        attend<D, false>(qkv, o, lse, batch, seq, heads, kv_heads, head_dim, section, scale, AttentionDropout());                               \
    }                                                                                                                                           \
    extern "C" __global__ void __launch_bounds__(128, 2) attention_drop_##D(                                                                    \
        const bf16* qkv, bf16* o, float* lse, unsigned batch, unsigned seq, unsigned heads, unsigned kv_heads, unsigned head_dim,               \
        unsigned section, float scale, const unsigned* step, unsigned long long seed, unsigned purpose, unsigned threshold, float keep) {       \
        attend<D, true>(qkv, o, lse, batch, seq, heads, kv_heads, head_dim, section, scale, AttentionDropout{step, seed, purpose, threshold, keep}); \
    }
ATTENTION(32)
ATTENTION(64)
ATTENTION(128)
