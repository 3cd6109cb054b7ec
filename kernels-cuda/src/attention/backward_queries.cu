// target: sm_80
// Backward of causal grouped-query attention, the part that belongs to queries: delta = rowsum(do·o) and
//   dq[i] = Σ_j ds[i,j] k[j] / sqrt(head_dim),   ds[i,j] = p[i,j] (do[i]·v[j] − delta[i]),   p[i,j] = exp(s[i,j] − lse[i])
//
// A block has 128 queries of a head, a warp 32 of them, as in the forward; keys and values come in steps of 64 (32 for heads of 128), two of which are
// in shared memory. Three products a step: q·kᵀ, do·vᵀ and ds·k; the first two are taken for 32 keys at a time, which fit in registers.
//
// Operations: 6·head_dim·seq²/2 a head, and seq²/2 exponentials. Memory: q, do, o, k, v and dq once (2 bytes an element), keys and values again from the
// second-level cache for every 128 queries.
//
// With dropout (`attention_drop_queries_…`) do·v is that of kept probabilities times 1/(1 − p), 0 of the others; p and delta stay what they are.
#include "attention.cuh"
#include "attention_dropout.cuh"

template <int D, bool DROP>
__device__ __forceinline__ void query_gradients(const bf16* __restrict__ qkv, const bf16* __restrict__ o, const float* __restrict__ lse,
                                                const bf16* __restrict__ d_o, const float* cosines, const float* sines, float* __restrict__ delta,
                                                bf16* __restrict__ dqkv, int batch, int seq, int heads, int kv_heads, int head_dim, int section,
                                                float scale, const AttentionDropout& dropout) {
    constexpr int QUERIES = 128, KEYS = D == 128 ? 32 : 64, THREADS = 128, CHUNKS = D / 8;
    constexpr bool KEEP = D <= 64; // the fragments of q and do stay in registers
    DYNAMIC_SHARED(bf16, queries);
    bf16* gradients = queries + QUERIES * D;
    bf16* keys = gradients + QUERIES * D;
    bf16* values = keys + 2 * KEYS * D;
    __shared__ int head_of_block;
    __shared__ float row_lse[QUERIES], row_delta[QUERIES]; // not in registers, which are all taken
    __shared__ Words numbers;
    __shared__ unsigned kept_keys[THREADS / 32][32];

    int tiles = (seq + QUERIES - 1) / QUERIES, tile, which;
    pick_tile(tiles, batch * heads, section, tile, which);
    tile = tiles - 1 - tile; // the last queries see the most keys
    int sequence = which / heads, head = which % heads, kv_head = head / (heads / kv_heads);
    if (threadIdx.x == 0) head_of_block = which;
    if (DROP && threadIdx.x == 0) numbers = dropout.key();
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    int first = tile * QUERIES, warp_first = first + 32 * warp;

    int stride = (heads + 2 * kv_heads) * head_dim, o_stride = heads * head_dim;
    size_t q_begin = (size_t)sequence * seq * stride + head * head_dim, o_begin = (size_t)sequence * seq * o_stride + head * head_dim;
    const bf16* k = qkv + (size_t)sequence * seq * stride + (heads + kv_head) * head_dim;
    const bf16* v = k + kv_heads * head_dim;

    load_tile<D, QUERIES, THREADS>(queries, qkv + q_begin, stride, first, seq, head_dim);
    load_tile<D, QUERIES, THREADS>(gradients, d_o + o_begin, o_stride, first, seq, head_dim);
    load_tile<D, KEYS, THREADS>(keys, k, stride, 0, seq, head_dim);
    load_tile<D, KEYS, THREADS>(values, v, stride, 0, seq, head_dim);
    copy_async_commit();

    // delta, by as many lanes a row as it has chunks of 16 bytes.
#pragma unroll 4
    for (int i = 0; i < CHUNKS; i++) {
        int row = (i * THREADS + threadIdx.x) / CHUNKS, chunk = threadIdx.x % CHUNKS;
        float dot = 0.0f;
        if (first + row < seq && chunk * 8 < head_dim) {
            size_t at = o_begin + (first + row) * o_stride + chunk * 8;
            uint4 a = *reinterpret_cast<const uint4*>(o + at), b = *reinterpret_cast<const uint4*>(d_o + at);
            dot = low_f32(a.x) * low_f32(b.x) + high_f32(a.x) * high_f32(b.x) + low_f32(a.y) * low_f32(b.y) + high_f32(a.y) * high_f32(b.y) +
                  low_f32(a.z) * low_f32(b.z) + high_f32(a.z) * high_f32(b.z) + low_f32(a.w) * low_f32(b.w) + high_f32(a.w) * high_f32(b.w);
        }
#pragma unroll
        for (int other = CHUNKS / 2; other > 0; other /= 2) dot += __shfl_xor_sync(0xffffffffu, dot, other);
        if (chunk == 0) {
            row_delta[row] = dot;
            if (first + row < seq) delta[(size_t)which * seq + first + row] = dot;
        }
    }
    // Rows behind the end have some number, and are not stored.
    int own = first + threadIdx.x;
    row_lse[threadIdx.x] = own < seq ? lse[(size_t)which * seq + own] * LOG2_E : 0.0f;

    const float to_log2 = scale * LOG2_E;
    unsigned kept_queries[D / 16][2][4], kept_gradients[D / 16][2][4];
    float sums[2][D / 8][4];
    clear(sums);

    int steps = (min(first + QUERIES, seq) + KEYS - 1) / KEYS;
    for (int step = 0; step < steps; step++) {
        copy_async_wait<0>();
        __syncthreads();
        if (step + 1 < steps) {
            int other = (step + 1) % 2 * KEYS * D;
            load_tile<D, KEYS, THREADS>(keys + other, k, stride, (step + 1) * KEYS, seq, head_dim);
            load_tile<D, KEYS, THREADS>(values + other, v, stride, (step + 1) * KEYS, seq, head_dim);
            copy_async_commit();
        }
        if (KEEP && step == 0) {
#pragma unroll
            for (int i = 0; i < D / 16; i++) {
#pragma unroll
                for (int m = 0; m < 2; m++) {
                    load_matrices(kept_queries[i][m], rows_at<D>(queries, 32 * warp, 16 * m, i));
                    load_matrices(kept_gradients[i][m], rows_at<D>(gradients, 32 * warp, 16 * m, i));
                }
            }
        }
        int stage = step % 2 * KEYS; // where the step's rows begin
#pragma unroll 1
        for (int part = 0; part < KEYS; part += 32) {
            int key = step * KEYS + part;
            if (key > warp_first + 31 || warp_first >= seq) break; // nothing that these queries see, or no queries
            if constexpr (DROP) write_mask(kept_keys[warp], numbers, dropout.threshold, head_of_block * seq + warp_first, key, seq);
            float p[2][4][4], dp[2][4][4];
            clear(p);
            clear(dp);
            if constexpr (KEEP) {
                multiply_kept<D>(p, kept_queries, keys, stage + part);
                multiply_kept<D>(dp, kept_gradients, values, stage + part);
            } else {
                multiply_rows<D>(p, queries, 32 * warp, keys, stage + part);
                multiply_rows<D>(dp, gradients, 32 * warp, values, stage + part);
            }
            bool diagonal = key + 31 > warp_first;
#pragma unroll
            for (int i = 0; i < 4; i++) {
                int row = 8 * i + lane / 4;
                float shift = row_lse[32 * warp + row], middle = row_delta[32 * warp + row];
                unsigned kept = DROP ? kept_keys[warp][row] >> lane % 4 * 2 : 0;
#pragma unroll
                for (int n = 0; n < 4; n++)
#pragma unroll
                    for (int e = i % 2 * 2; e < i % 2 * 2 + 2; e++) {
                        float &x = p[i / 2][n][e], y = dp[i / 2][n][e];
                        if (DROP) y = kept >> (8 * n + e % 2) & 1 ? y * dropout.keep : 0.0f;
                        bool seen = !diagonal || key + 8 * n + lane % 4 * 2 + e % 2 <= warp_first + row;
                        x = seen ? exp2_fast(fmaf(x, to_log2, -shift)) * (y - middle) : 0.0f;
                    }
            }
            unsigned ds[2][2][4];
            pack_fragments(ds, p);
            multiply_columns<D>(sums, ds, keys, stage + part);
        }
    }

    if (warp_first >= seq) return;
    if (cosines != nullptr) turn_back<D>(sums, cosines, sines, warp_first, seq);
    which = head_of_block, sequence = which / heads, head = which % heads;
    q_begin = (size_t)sequence * seq * stride + head * head_dim;
    float factor[4] = {scale, scale, scale, scale};
    store_rows<D>(queries, 32 * warp, sums, factor, dqkv + q_begin, stride, warp_first, seq, head_dim);
}

#define ATTENTION_QUERIES(D)                                                                                                                      \
    extern "C" __global__ void __launch_bounds__(128, 2) attention_queries_##D(                                                                   \
        const bf16* qkv, const bf16* o, const float* lse, const bf16* d_o, const float* cosines, const float* sines, float* delta, bf16* dqkv,    \
        unsigned batch, unsigned seq, unsigned heads, unsigned kv_heads, unsigned head_dim, unsigned section, float scale) {                      \
        query_gradients<D, false>(qkv, o, lse, d_o, cosines, sines, delta, dqkv, batch, seq, heads, kv_heads, head_dim, section, scale,           \
                                  AttentionDropout());                                                                                            \
    }                                                                                                                                             \
    extern "C" __global__ void __launch_bounds__(128, 2) attention_drop_queries_##D(                                                              \
        const bf16* qkv, const bf16* o, const float* lse, const bf16* d_o, const float* cosines, const float* sines, float* delta, bf16* dqkv,    \
        unsigned batch, unsigned seq, unsigned heads, unsigned kv_heads, unsigned head_dim, unsigned section, float scale, const unsigned* step,  \
        unsigned long long seed, unsigned purpose, unsigned threshold, float keep) {                                                              \
        query_gradients<D, true>(qkv, o, lse, d_o, cosines, sines, delta, dqkv, batch, seq, heads, kv_heads, head_dim, section, scale,            \
                                 AttentionDropout{step, seed, purpose, threshold, keep});                                                         \
    }
ATTENTION_QUERIES(32)
ATTENTION_QUERIES(64)
ATTENTION_QUERIES(128)
