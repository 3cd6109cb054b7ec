// target: sm_80
// Backward of causal grouped-query attention, the part that belongs to keys and values:
//   dv[j] = Σ_i p[i,j] do[i],   dk[j] = Σ_i ds[i,j] q[i] / sqrt(head_dim),   ds[i,j] = p[i,j] (do[i]·v[j] − delta[i]),   p[i,j] = exp(s[i,j] − lse[i])
// over the queries of all heads of the group, head by head and in order.
//
// A block has 128 keys of a head, a warp 32 of them; scores are taken with keys as rows, so that probabilities are operands of the sums without passing
// through shared memory. Queries and gradients of the output come in steps of 64, taken 32 at a time. Four products a step: k·qᵀ, pᵀ·do, v·doᵀ, dsᵀ·q.
//
// Heads of 128: the sums of 32 keys, dk and dv, are more registers than a thread has, so two warps share the 32 keys. The first has scores,
// probabilities and dv; the second, a step behind, v·doᵀ and dk, with the probabilities (as bf16) through shared memory. So three steps are in
// shared memory: the second warps', the first warps', and the one on its way.
//
// Operations: 8·head_dim·seq²/2 a query head, and seq²/2 exponentials. Memory: q, do, k, v, dk, dv once (2 bytes an element), queries and
// gradients again from the second-level cache for every 128 keys.
//
// With dropout (`attention_drop_keys_…`) the sum of dv is over kept probabilities, times 1/(1 − p) in the end, and do·v is that of kept ones times 1/(1 − p), 0 of
// the others. What is dropped is a negative probability until then: a sign is free, and goes to the second warps with the rest.
#include "attention.cuh"
#include "attention_dropout.cuh"

constexpr int KEYS = 128, QUERIES = 64;

// A step: the queries `query..query + 64` of a head.
struct Step {
    int head, query;
};

// What a block works on, and where it is.
struct Place {
    const bf16 *qkv, *d_o; // of the sequence
    int first, sequence, kv_head, seq, heads, stride, o_stride, head_dim, end;

    __device__ __forceinline__ Place(const bf16* all_qkv, const bf16* all_d_o, int batch, int seq, int heads, int kv_heads, int head_dim, int section)
        : seq(seq), heads(heads), head_dim(head_dim) {
        int tiles = (seq + KEYS - 1) / KEYS, tile, which;
        pick_tile(tiles, batch * kv_heads, section, tile, which); // the first keys are seen by the most queries
        sequence = which / kv_heads;
        kv_head = which % kv_heads;
        first = tile * KEYS;
        stride = (heads + 2 * kv_heads) * head_dim;
        o_stride = heads * head_dim;
        qkv = all_qkv + (size_t)sequence * seq * stride;
        d_o = all_d_o + (size_t)sequence * seq * o_stride;
        end = (kv_head + 1) * (heads / kv_heads);
    }

    // The first step: of the group's first head, the queries that begin with the keys.
    __device__ __forceinline__ Step begin(int kv_heads) const { return {kv_head * (heads / kv_heads), first}; }
    __device__ __forceinline__ Step after(Step step) const {
        bool same = step.query + QUERIES < seq;
        return {same ? step.head : step.head + 1, same ? step.query + QUERIES : first};
    }
    // The row of scores of a head and a query.
    __device__ __forceinline__ unsigned row(int head, int query) const { return (sequence * heads + head) * seq + query; }
    // The block's keys in the sequence.
    __device__ __forceinline__ int key_column() const { return (heads + kv_head) * head_dim; }

    // Starts copying a step's queries and gradients.
    template <int D, int THREADS>
    __device__ __forceinline__ void load(bf16* queries, bf16* gradients, Step step) const {
        load_tile<D, QUERIES, THREADS>(queries, qkv + step.head * head_dim, stride, step.query, seq, head_dim);
        load_tile<D, QUERIES, THREADS>(gradients, d_o + step.head * head_dim, o_stride, step.query, seq, head_dim);
    }

    // For thread t < 64 the step's log-sum-exp t in powers of two, for t < 128 its delta t - 64. Behind the end all probabilities become 0.
    __device__ __forceinline__ float row_value(const float* lse, const float* delta, Step step) const {
        int row = step.query + threadIdx.x % QUERIES;
        bool is_lse = threadIdx.x < QUERIES;
        if (threadIdx.x >= 2 * QUERIES) return 0.0f;
        if (row >= seq) return is_lse ? INFINITE : 0.0f;
        float value = (is_lse ? lse : delta)[(size_t)(sequence * heads + step.head) * seq + row];
        return is_lse ? value * LOG2_E : value;
    }
};

// Scores of 32 keys and 32 queries to probabilities, with dropout negative ones where a query's bit of its `kept_keys` is 0.
template <bool DROP>
__device__ __forceinline__ void probabilities(float (&p)[2][4][4], const float* lse, int key, int query, float to_log2, const unsigned (&kept_keys)[32]) {
    int lane = threadIdx.x % 32;
    bool diagonal = query < key + 31;
#pragma unroll
    for (int n = 0; n < 4; n++) {
        float2 shift = *reinterpret_cast<const float2*>(lse + 8 * n + lane % 4 * 2);
#pragma unroll
        for (int m = 0; m < 2; m++)
#pragma unroll
            for (int e = 0; e < 4; e++) {
                int row = key + 16 * m + e / 2 * 8 + lane / 4, column = query + 8 * n + lane % 4 * 2 + e % 2;
                float x = exp2_fast(fmaf(p[m][n][e], to_log2, -(e % 2 ? shift.y : shift.x)));
                x = diagonal && column < row ? 0.0f : x;
                if (DROP) x = kept_keys[8 * n + lane % 4 * 2 + e % 2] >> (16 * m + e / 2 * 8 + lane / 4) & 1 ? x : -x;
                p[m][n][e] = x;
            }
    }
}

// Fragments without what is negative.
__device__ __forceinline__ void leave_kept(unsigned (&kept)[2][2][4], const unsigned (&p)[2][2][4]) {
#pragma unroll
    for (int i = 0; i < 16; i++) {
        unsigned x = p[i / 8][i / 4 % 2][i % 4];
        kept[i / 8][i / 4 % 2][i % 4] = x & ~((x >> 15 & 0x00010001u) * 0xffffu);
    }
}

// p · (dp − delta), with dropout of a probability that is negative if it was dropped.
template <bool DROP>
__device__ __forceinline__ float score_gradient(float p, float dp, float delta, float keep) {
    if (!DROP) return p * (dp - delta);
    bool dropped = __float_as_uint(p) >> 31;
    return fabsf(p) * ((dropped ? 0.0f : dp * keep) - delta);
}

// Fragments of probabilities to those of p · (dp − delta), where dp is of 32 keys and 32 queries.
template <bool DROP>
__device__ __forceinline__ void score_gradients(unsigned (&p)[2][2][4], const float (&dp)[2][4][4], const float* delta, float keep) {
    int lane = threadIdx.x % 32;
#pragma unroll
    for (int n = 0; n < 4; n++) {
        float2 middle = *reinterpret_cast<const float2*>(delta + 8 * n + lane % 4 * 2);
#pragma unroll
        for (int half = 0; half < 4; half++) {
            int m = half / 2, e = half % 2 * 2;
            unsigned& x = p[n / 2][m][n % 2 * 2 + half % 2];
            x = pack_bf16(score_gradient<DROP>(low_f32(x), dp[m][n][e], middle.x, keep), score_gradient<DROP>(high_f32(x), dp[m][n][e + 1], middle.y, keep));
        }
    }
}

template <int D, bool DROP>
__device__ __forceinline__ void key_gradients(const bf16* __restrict__ qkv, const float* __restrict__ lse, const bf16* __restrict__ d_o,
                                              const float* __restrict__ delta, const float* cosines, const float* sines, bf16* __restrict__ dqkv,
                                              int batch, int seq, int heads, int kv_heads, int head_dim, int section, float scale,
                                              const AttentionDropout& dropout) {
    constexpr int THREADS = 128, STEP = QUERIES * D;
    DYNAMIC_SHARED(bf16, keys);
    bf16* values = keys + KEYS * D;
    bf16* queries = values + KEYS * D;
    bf16* gradients = queries + 2 * STEP;
    float* rows = reinterpret_cast<float*>(gradients + 2 * STEP); // [2][64 lse, 64 delta]
    __shared__ Words numbers;
    __shared__ unsigned kept_keys[4][32];
    if (DROP && threadIdx.x == 0) numbers = dropout.key();
    const Place place(qkv, d_o, batch, seq, heads, kv_heads, head_dim, section);
    int warp = threadIdx.x / 32, warp_first = place.first + 32 * warp;

    const bf16* k = place.qkv + place.key_column();
    load_tile<D, KEYS, THREADS>(keys, k, place.stride, place.first, seq, head_dim);
    load_tile<D, KEYS, THREADS>(values, k + kv_heads * head_dim, place.stride, place.first, seq, head_dim);
    Step step = place.begin(kv_heads);
    place.load<D, THREADS>(queries, gradients, step);
    copy_async_commit();
    rows[threadIdx.x] = place.row_value(lse, delta, step);

    const float to_log2 = scale * LOG2_E;
    float dk[2][D / 8][4], dv[2][D / 8][4];
    clear(dk);
    clear(dv);
    for (int stage = 0; step.head < place.end; stage ^= 1) {
        copy_async_wait<0>();
        __syncthreads();
        float next_row = 0.0f; // goes to shared memory after the products, when it is here
        Step next = place.after(step);
        if (next.head < place.end) {
            place.load<D, THREADS>(queries + (stage ^ 1) * STEP, gradients + (stage ^ 1) * STEP, next);
            copy_async_commit();
            next_row = place.row_value(lse, delta, next);
        }
        const float* these_rows = rows + stage * 2 * QUERIES;
#pragma unroll 1
        for (int part = 0; part < QUERIES; part += 32) {
            int query = step.query + part;
            if (query + 31 < warp_first || query >= seq || warp_first >= seq) continue; // these queries do not see these keys, or there are none
            if constexpr (DROP) write_mask(kept_keys[warp], numbers, dropout.threshold, place.row(step.head, query), warp_first, seq);
            float p[2][4][4];
            clear(p);
            multiply_rows<D>(p, keys, 32 * warp, queries, stage * QUERIES + part);
            probabilities<DROP>(p, these_rows + part, warp_first, query, to_log2, kept_keys[warp]);
            unsigned fragments[2][2][4];
            pack_fragments(fragments, p);
            if constexpr (DROP) {
                unsigned kept[2][2][4];
                leave_kept(kept, fragments);
                multiply_columns<D>(dv, kept, gradients, stage * QUERIES + part);
            } else {
                multiply_columns<D>(dv, fragments, gradients, stage * QUERIES + part);
            }

            clear(p);
            multiply_rows<D>(p, values, 32 * warp, gradients, stage * QUERIES + part);
            score_gradients<DROP>(fragments, p, these_rows + QUERIES + part, dropout.keep);
            multiply_columns<D>(dk, fragments, queries, stage * QUERIES + part);
        }
        rows[(stage ^ 1) * 2 * QUERIES + threadIdx.x] = next_row;
        step = next;
    }

    if (warp_first >= seq) return;
    if (cosines != nullptr) turn_back<D>(dk, cosines, sines, warp_first, seq);
    const float keep = DROP ? dropout.keep : 1.0f;
    float factor[4] = {scale, scale, scale, scale}, of_values[4] = {keep, keep, keep, keep};
    bf16* to = dqkv + (size_t)place.sequence * seq * place.stride + place.key_column();
    store_rows<D>(keys, 32 * warp, dk, factor, to, place.stride, warp_first, seq, head_dim);
    store_rows<D>(values, 32 * warp, dv, of_values, to + kv_heads * head_dim, place.stride, warp_first, seq, head_dim);
}

// As above for heads of 128: warps 0 to 3 have p and dv, warps 4 to 7 ds and dk of the same keys.
template <int D, bool DROP>
__device__ __forceinline__ void key_gradients_shared(const bf16* __restrict__ qkv, const float* __restrict__ lse, const bf16* __restrict__ d_o,
                                                     const float* __restrict__ delta, const float* cosines, const float* sines, bf16* __restrict__ dqkv,
                                                     int batch, int seq, int heads, int kv_heads, int head_dim, int section, float scale,
                                                     const AttentionDropout& dropout) {
    static_assert(D == 128, "warps share no other heads");
    constexpr int THREADS = 256, STEP = QUERIES * D, STAGES = 3;
    DYNAMIC_SHARED(bf16, keys);
    bf16* values = keys + KEYS * D;
    bf16* queries = values + KEYS * D;
    bf16* gradients = queries + STAGES * STEP;
    uint4* passed = reinterpret_cast<uint4*>(gradients + STAGES * STEP); // [2 steps][2 parts][4 fragments][4 warps][32 lanes]
    float* rows = reinterpret_cast<float*>(passed + 2 * 2 * 4 * 128);    // [3][64 lse, 64 delta]
    __shared__ Words numbers;
    __shared__ unsigned kept_keys[4][32];
    if (DROP && threadIdx.x == 0) numbers = dropout.key();
    const Place place(qkv, d_o, batch, seq, heads, kv_heads, head_dim, section);
    int lane = threadIdx.x % 32, pair = threadIdx.x / 32 % 4, warp_first = place.first + 32 * pair;
    bool is_second = threadIdx.x >= 128;

    const bf16* k = place.qkv + place.key_column();
    load_tile<D, KEYS, THREADS>(keys, k, place.stride, place.first, seq, head_dim);
    load_tile<D, KEYS, THREADS>(values, k + kv_heads * head_dim, place.stride, place.first, seq, head_dim);
    Step step = place.begin(kv_heads);
    place.load<D, THREADS>(queries, gradients, step);
    copy_async_commit();
    if (!is_second) rows[threadIdx.x] = place.row_value(lse, delta, step);

    const float to_log2 = scale * LOG2_E;
    float sums[2][D / 8][4]; // dv or dk
    clear(sums);
    int behind = 2, stage = 0, ahead = 1, parity = 0; // where the steps before, here and next are
    int before = -1;                                  // the queries of the step before, if there is one
    while (step.head < place.end || before >= 0) {
        copy_async_wait<0>();
        __syncthreads();
        bool here = step.head < place.end;
        float next_row = 0.0f;
        Step next = place.after(step);
        if (here && next.head < place.end) {
            place.load<D, THREADS>(queries + ahead * STEP, gradients + ahead * STEP, next);
            copy_async_commit();
            next_row = place.row_value(lse, delta, next);
        }
        int now = here ? step.query : -1, own = is_second ? before : now;
        int at = is_second ? behind : stage;
        if (own >= 0) {
#pragma unroll 1
            for (int part = 0; part < QUERIES; part += 32) {
                int query = own + part;
                if (query + 31 < warp_first || query >= seq || warp_first >= seq) continue;
                uint4* exchange = passed + ((is_second ? parity ^ 1 : parity) * 2 + part / 32) * 512 + pair * 32 + lane;
                const float* these_rows = rows + at * 2 * QUERIES + part;
                float p[2][4][4];
                unsigned fragments[2][2][4];
                if constexpr (DROP) {
                    if (!is_second) write_mask(kept_keys[pair], numbers, dropout.threshold, place.row(step.head, query), warp_first, seq);
                }
                clear(p);
                if (!is_second) {
                    multiply_rows<D>(p, keys, 32 * pair, queries, at * QUERIES + part);
                    probabilities<DROP>(p, these_rows, warp_first, query, to_log2, kept_keys[pair]);
                    pack_fragments(fragments, p);
#pragma unroll
                    for (int f = 0; f < 4; f++) {
                        const unsigned(&x)[4] = fragments[f / 2][f % 2];
                        exchange[f * 128] = make_uint4(x[0], x[1], x[2], x[3]);
                    }
                    if constexpr (DROP) leave_kept(fragments, fragments);
                    multiply_columns<D>(sums, fragments, gradients, at * QUERIES + part);
                } else {
                    multiply_rows<D>(p, values, 32 * pair, gradients, at * QUERIES + part);
#pragma unroll
                    for (int f = 0; f < 4; f++) {
                        uint4 x = exchange[f * 128];
                        unsigned(&to)[4] = fragments[f / 2][f % 2];
                        to[0] = x.x, to[1] = x.y, to[2] = x.z, to[3] = x.w;
                    }
                    score_gradients<DROP>(fragments, p, these_rows + QUERIES, dropout.keep);
                    multiply_columns<D>(sums, fragments, queries, at * QUERIES + part);
                }
            }
        }
        if (!is_second) rows[ahead * 2 * QUERIES + threadIdx.x] = next_row;
        int free = behind;
        behind = stage, stage = ahead, ahead = free, parity ^= 1;
        before = now;
        if (here) step = next;
    }

    if (warp_first >= seq) return;
    // Each through the tile that it alone has read.
    bf16* to = dqkv + (size_t)place.sequence * seq * place.stride + place.key_column();
    if (is_second) {
        if (cosines != nullptr) turn_back<D>(sums, cosines, sines, warp_first, seq);
        float factor[4] = {scale, scale, scale, scale};
        store_rows<D>(values, 32 * pair, sums, factor, to, place.stride, warp_first, seq, head_dim);
    } else {
        const float keep = DROP ? dropout.keep : 1.0f;
        float of_values[4] = {keep, keep, keep, keep};
        store_rows<D>(keys, 32 * pair, sums, of_values, to + kv_heads * head_dim, place.stride, warp_first, seq, head_dim);
    }
}

#define ATTENTION_KEYS(D, THREADS, BLOCKS, function)                                                                                              \
    extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) attention_keys_##D(                                                             \
        const bf16* qkv, const float* lse, const bf16* d_o, const float* delta, const float* cosines, const float* sines, bf16* dqkv,             \
        unsigned batch, unsigned seq, unsigned heads, unsigned kv_heads, unsigned head_dim, unsigned section, float scale) {                      \
        function<D, false>(qkv, lse, d_o, delta, cosines, sines, dqkv, batch, seq, heads, kv_heads, head_dim, section, scale, AttentionDropout()); \
    }                                                                                                                                             \
    extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) attention_drop_keys_##D(                                                        \
        const bf16* qkv, const float* lse, const bf16* d_o, const float* delta, const float* cosines, const float* sines, bf16* dqkv,             \
        unsigned batch, unsigned seq, unsigned heads, unsigned kv_heads, unsigned head_dim, unsigned section, float scale, const unsigned* step,  \
        unsigned long long seed, unsigned purpose, unsigned threshold, float keep) {                                                              \
        function<D, true>(qkv, lse, d_o, delta, cosines, sines, dqkv, batch, seq, heads, kv_heads, head_dim, section, scale,                      \
                          AttentionDropout{step, seed, purpose, threshold, keep});                                                                \
    }
ATTENTION_KEYS(32, 128, 2, key_gradients)
ATTENTION_KEYS(64, 128, 2, key_gradients)
ATTENTION_KEYS(128, 256, 1, key_gradients_shared)
