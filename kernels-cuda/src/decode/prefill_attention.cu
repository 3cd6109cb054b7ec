// target: sm_80
// Attention of a long piece of a prompt over the cache, with the results of attention.cu, which is for a few tokens, bit for bit: the formulas stand there.
//
// `place_*`: norm and rotation of queries, which stay where they are, and of keys; keys and values into the cache. A warp has a head of a token.
// Bytes: (heads + 2 kv_heads)·head_dim·4 read and about as many written a token.
//
// `attend_many_*`: a block of threads has 32 rows, a row being a query head of a token, of one key head, and takes one block of 128 positions after the other: its keys
// into shared memory as f32, scores, weights, its values in the keys' place, and their weighted sums in registers, to which the next are merged in order.
// An element is the same chain of fused multiply-adds as there; what is shared is what is loaded: a thread has 4 rows x 4 positions of scores, and 8 rows x
// 2 elements of sums. Loads from shared memory: 12 and 16 turns of 128 bytes for 64 instructions of a warp, which take 16 cycles.
// Operations: 4·head_dim a row and position. Bytes: 2 x 128 positions for 32 rows, mostly from the second cache level.
// Two blocks to a multiprocessor: one loads or weighs while the other multiplies. The longest begin first.
//
// `place_each_*`, `attend_spans_*`: the same for tokens of many sequences, whose caches lie one behind the other, `apart` positions of a head each. `places` are the sequence and the position of
// each token. A span is tokens in a row of one sequence; `tiles` are its first token, its tokens, and the first of the 32 rows of it that a block has.
#include "memory.cuh"
#include "reduce.cuh"

#include "exact.cuh"
#include "kv_cache.cuh"

constexpr unsigned THREADS = 256, WARPS = THREADS / 32, ROWS = 32;
// Rows of scores, one bank group apart.
constexpr unsigned SCORES = POSITIONS + 4;

struct Shape {
    unsigned heads, kv_heads, head_dim, tokens, context;
};

// The head of a token that a warp has.
__device__ __forceinline__ unsigned item_of_warp() { return blockIdx.x * WARPS + threadIdx.x / 32; }

// Head `item` of all tokens, of a token at position `at`.
template <int TYPE>
__device__ __forceinline__ void place(Shape s, float eps, unsigned item, unsigned at, float* qkv, const float* q_norm, const float* k_norm, const float* cosines,
                                      const float* sines, typename Element<TYPE>::type* keys, typename Element<TYPE>::type* values, float* key_scales,
                                      float* value_scales) {
    typedef Element<TYPE> E;
    DYNAMIC_SHARED(float, shared);
    unsigned n = s.head_dim, half = n / 2, head = item % (s.heads + 2 * s.kv_heads), lane = threadIdx.x % 32;
    float* row = shared + threadIdx.x / 32 * n;
    float* from = qkv + (size_t)item * n;
    bool query = head < s.heads, value = head >= s.heads + s.kv_heads;
    for (unsigned i = lane; i < n; i += 32) row[i] = from[i];
    __syncwarp();
    if (q_norm && !value) {
        const float* weights = query ? q_norm : k_norm;
        float squares = squares_of(row, n);
        float r = __shfl_sync(0xffffffffu, reciprocal_rms(squares, n, eps), 0);
        for (unsigned i = lane; i < n; i += 32) row[i] = mul_rn(mul_rn(row[i], r), weights[i]);
        __syncwarp();
    }
    if (!value) {
        for (unsigned i = lane; i < half; i += 32) {
            float c = cosines[(size_t)at * half + i], sine = sines[(size_t)at * half + i];
            float a = row[i], b = row[half + i];
            row[i] = fmaf(-b, sine, mul_rn(a, c));
            row[half + i] = fmaf(a, sine, mul_rn(b, c));
        }
        __syncwarp();
    }
    if (query) {
        for (unsigned i = lane; i < n; i += 32) from[i] = row[i];
        return;
    }
    unsigned kv = (head - s.heads) % s.kv_heads;
    float scale = 1.0f;
    if (TYPE == INT8) {
        float most = 0.0f;
        for (unsigned i = lane; i < n; i += 32) most = fmaxf(most, fabsf(row[i]));
        most = warp_max(most);
        scale = div_rn(127.0f, most > 1e-5f ? most : 1e-5f);
        if (lane == 0) (value ? value_scales : key_scales)[(size_t)kv * s.context + at] = div_rn(1.0f, scale);
    }
    size_t begin = (size_t)kv * s.context * n;
    for (unsigned i = lane; i < n; i += 32) {
        if (value) {
            values[begin + (size_t)at * n + i] = E::close(row[i], scale);
        } else {
            keys[begin + (size_t)(at / PANEL) * PANEL * n + i * PANEL + at % PANEL] = E::close(row[i], scale);
        }
    }
}

// `count` elements (whole 16 bytes of them) into shared memory as floats.
template <int TYPE>
__device__ __forceinline__ void copy_open(const typename Element<TYPE>::type* from, unsigned count, float* to) {
    if (TYPE == F32) {
        for (unsigned i = threadIdx.x * 4; i < count; i += THREADS * 4) copy_async16(to + i, from + i);
    } else if (TYPE == F16) {
        for (unsigned i = threadIdx.x * 8; i < count; i += THREADS * 8) {
            uint4 v = *reinterpret_cast<const uint4*>(from + i);
            const unsigned words[4] = {v.x, v.y, v.z, v.w};
            float x[8];
#pragma unroll
            for (unsigned j = 0; j < 4; j++) {
                x[2 * j] = f16_to_f32((unsigned short)words[j]);
                x[2 * j + 1] = f16_to_f32((unsigned short)(words[j] >> 16));
            }
            reinterpret_cast<float4*>(to + i)[0] = make_float4(x[0], x[1], x[2], x[3]);
            reinterpret_cast<float4*>(to + i)[1] = make_float4(x[4], x[5], x[6], x[7]);
        }
    } else {
        for (unsigned i = threadIdx.x * 16; i < count; i += THREADS * 16) {
            uint4 v = *reinterpret_cast<const uint4*>(from + i);
            const unsigned words[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
            for (unsigned j = 0; j < 4; j++)
                reinterpret_cast<float4*>(to + i)[j] =
                    make_float4(byte_to_f32<0>(words[j]), byte_to_f32<1>(words[j]), byte_to_f32<2>(words[j]), byte_to_f32<3>(words[j]));
        }
    }
    copy_async_commit();
}

// Adds to `sums` the values of positions 0 to `end`; of row r those alone that it has `seen`, unless `ALL` are.
template <bool ALL>
__device__ __forceinline__ void add_values(float (&sums)[8][2], const float* weights, const float* values, unsigned n, unsigned end, const unsigned (&seen)[8]) {
#pragma unroll 2
    for (unsigned i = 0; i < end; i += 4) {
        float w[8][4];
#pragma unroll
        for (unsigned r = 0; r < 8; r++) {
            float4 v = *reinterpret_cast<const float4*>(weights + r * SCORES + i);
            w[r][0] = v.x;
            w[r][1] = v.y;
            w[r][2] = v.z;
            w[r][3] = v.w;
        }
#pragma unroll
        for (unsigned j = 0; j < 4; j++) {
            float2 v = *reinterpret_cast<const float2*>(values + (i + j) * n);
#pragma unroll
            for (unsigned r = 0; r < 8; r++)
                if (ALL || i + j < seen[r]) {
                    sums[r][0] = fmaf(w[r][j], v.x, sums[r][0]);
                    sums[r][1] = fmaf(w[r][j], v.y, sums[r][1]);
                }
        }
    }
}

// Positions of block `block` that a query at `at` sees.
__device__ __forceinline__ unsigned seen_of(unsigned at, unsigned block) {
    unsigned before = block * POSITIONS;
    return at < before ? 0 : at + 1 - before < POSITIONS ? at + 1 - before : POSITIONS;
}

// Rows from `row0` on. `qkv` is what `place` made of it. blockIdx.y is the key head.
template <int TYPE>
__device__ __forceinline__ void attend_many(Shape s, unsigned row0, float factor, const float* qkv, const unsigned* position, const typename Element<TYPE>::type* keys,
                                            const typename Element<TYPE>::type* values, const float* key_scales, const float* value_scales, float* out) {
    DYNAMIC_SHARED(float, shared);
    unsigned n = s.head_dim, group = s.heads / s.kv_heads, head = blockIdx.y, all = s.tokens * group, stride = (s.heads + 2 * s.kv_heads) * n;
    float* tile = shared;                       // keys: two panels [head_dim][64]; values: [128][head_dim]
    float* queries = tile + POSITIONS * n;      // [32][head_dim + 4]
    float* scores = queries + ROWS * (n + 4);   // [32][132]
    float* scales = scores + ROWS * SCORES;     // of keys, of values: [2][128]
    float* largest = scales + 2 * POSITIONS;    // [32]: of the blocks so far
    float* lengths = largest + ROWS;            // [32]
    float* olds = lengths + ROWS;               // [32]: what the sums so far are multiplied by,
    float* news = olds + ROWS;                  // [32]: and those of this block
    unsigned warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    unsigned first = *position;
    if (first + s.tokens > s.context) return;
    // The position of a row; rows behind the last have its.
    auto row_of = [&](unsigned r) { return row0 + r < all ? row0 + r : all - 1; };
    auto at_of = [&](unsigned r) { return first + row_of(r) / group; };
    keys += (size_t)head * s.context * n;
    values += (size_t)head * s.context * n;
    if (TYPE == INT8) {
        key_scales += (size_t)head * s.context;
        value_scales += (size_t)head * s.context;
    }
    for (unsigned i = threadIdx.x; i < ROWS * n / 4; i += THREADS) {
        unsigned r = i / (n / 4), d = i % (n / 4) * 4, row = row_of(r);
        const float* from = qkv + (size_t)(row / group) * stride + (head * group + row % group) * n + d;
        *reinterpret_cast<float4*>(queries + r * (n + 4) + d) = *reinterpret_cast<const float4*>(from);
    }
    // Scores: rows `score_row`… of positions `score_at`…; sums: rows `sum_row`… of elements `element`….
    unsigned score_row = warp / 2 * 8 + lane / 16 * 4, panel = warp % 2, score_at = panel * PANEL + lane % 16 * 4;
    unsigned sum_row = warp / 2 * 8, element = warp % 2 * 64 + lane * 2;
    float sums[8][2];
#pragma unroll
    for (unsigned r = 0; r < 8; r++) sums[r][0] = sums[r][1] = 0.0f;

    unsigned blocks = at_of(ROWS - 1) / POSITIONS + 1;
    for (unsigned block = 0; block < blocks; block++) {
        __syncthreads();
        copy_open<TYPE>(keys + (size_t)block * POSITIONS * n, POSITIONS * n, tile);
        if (TYPE == INT8 && threadIdx.x < POSITIONS) {
            scales[threadIdx.x] = key_scales[block * POSITIONS + threadIdx.x];
            scales[POSITIONS + threadIdx.x] = value_scales[block * POSITIONS + threadIdx.x];
        }
        copy_async_wait<0>();
        __syncthreads();
        {
            float found[4][4];
#pragma unroll
            for (unsigned r = 0; r < 4; r++) found[r][0] = found[r][1] = found[r][2] = found[r][3] = 0.0f;
            const float *q = queries + score_row * (n + 4), *k = tile + panel * PANEL * n + lane % 16 * 4;
#pragma unroll 2
            for (unsigned d = 0; d < n; d += 4) {
                float x[4][4];
#pragma unroll
                for (unsigned r = 0; r < 4; r++) {
                    float4 v = *reinterpret_cast<const float4*>(q + r * (n + 4) + d);
                    x[r][0] = v.x;
                    x[r][1] = v.y;
                    x[r][2] = v.z;
                    x[r][3] = v.w;
                }
#pragma unroll
                for (unsigned j = 0; j < 4; j++) {
                    float4 v = *reinterpret_cast<const float4*>(k + (d + j) * PANEL);
#pragma unroll
                    for (unsigned r = 0; r < 4; r++) {
                        found[r][0] = fmaf(x[r][j], v.x, found[r][0]);
                        found[r][1] = fmaf(x[r][j], v.y, found[r][1]);
                        found[r][2] = fmaf(x[r][j], v.z, found[r][2]);
                        found[r][3] = fmaf(x[r][j], v.w, found[r][3]);
                    }
                }
            }
            float factors[4];
#pragma unroll
            for (unsigned p = 0; p < 4; p++) factors[p] = TYPE == INT8 ? mul_rn(factor, scales[score_at + p]) : factor;
#pragma unroll
            for (unsigned r = 0; r < 4; r++) {
                unsigned seen = seen_of(at_of(score_row + r), block);
                float y[4];
#pragma unroll
                for (unsigned p = 0; p < 4; p++) y[p] = score_at + p < seen ? mul_rn(found[r][p], factors[p]) : -INFINITY;
                *reinterpret_cast<float4*>(scores + (score_row + r) * SCORES + score_at) = make_float4(y[0], y[1], y[2], y[3]);
            }
        }
        __syncthreads();
        // Values come while scores become weights.
        copy_open<TYPE>(values + (size_t)block * POSITIONS * n, POSITIONS * n, tile);
        // Four rows a warp: all lanes for the weights, half of them for a row's sum.
        constexpr unsigned MINE = ROWS / WARPS;
        float most[MINE];
#pragma unroll
        for (unsigned r = 0; r < MINE; r++) {
            float *of = scores + (warp * MINE + r) * SCORES + lane, x[4];
            most[r] = -INFINITY;
#pragma unroll
            for (unsigned i = 0; i < 4; i++) most[r] = fmaxf(most[r], x[i] = of[32 * i]);
            most[r] = warp_max(most[r]);
            // A row that sees nothing of the block has weights that are not used.
#pragma unroll
            for (unsigned i = 0; i < 4; i++) of[32 * i] = exp_exact(add_rn(x[i], -most[r]));
        }
        __syncwarp();
#pragma unroll
        for (unsigned pair = 0; pair < MINE; pair += 2) {
            unsigned row = warp * MINE + pair + lane / 16;
            const float* of = scores + row * SCORES + lane % 16;
            float sum = 0.0f;
#pragma unroll
            for (unsigned i = 0; i < POSITIONS; i += 16) sum = add_rn(sum, of[i]);
            sum = fold_lanes(sum);
            if (lane % 16 == 0 && seen_of(at_of(row), block)) {
                float m = lane < 16 ? most[pair] : most[pair + 1];
                if (block == 0) {
                    largest[row] = m;
                    lengths[row] = sum;
                } else {
                    float larger = largest[row] > m ? largest[row] : m;
                    float a = exp_exact(add_rn(largest[row], -larger)), c = exp_exact(add_rn(m, -larger));
                    largest[row] = larger;
                    lengths[row] = fmaf(sum, c, mul_rn(lengths[row], a));
                    olds[row] = a;
                    news[row] = c;
                }
            }
        }
        if (TYPE == INT8) {
            __syncwarp();
#pragma unroll
            for (unsigned r = 0; r < MINE; r++) {
                unsigned row = warp * MINE + r, seen = seen_of(at_of(row), block);
                for (unsigned i = lane; i < seen; i += 32) scores[row * SCORES + i] = mul_rn(scores[row * SCORES + i], scales[POSITIONS + i]);
            }
        }
        copy_async_wait<0>();
        __syncthreads();
        if (element < n) {
            unsigned seen[8], end = 0, least = POSITIONS;
#pragma unroll
            for (unsigned r = 0; r < 8; r++) {
                seen[r] = seen_of(at_of(sum_row + r), block);
                end = seen[r] > end ? seen[r] : end;
                least = seen[r] < least ? seen[r] : least;
            }
            float found[8][2];
#pragma unroll
            for (unsigned r = 0; r < 8; r++) found[r][0] = found[r][1] = 0.0f;
            if (least == POSITIONS) {
                add_values<true>(found, scores + sum_row * SCORES, tile + element, n, POSITIONS, seen);
            } else {
                add_values<false>(found, scores + sum_row * SCORES, tile + element, n, end, seen);
            }
#pragma unroll
            for (unsigned r = 0; r < 8; r++) {
                if (seen[r] == 0) continue;
#pragma unroll
                for (unsigned i = 0; i < 2; i++)
                    sums[r][i] = block == 0 ? found[r][i] : fmaf(found[r][i], news[sum_row + r], mul_rn(sums[r][i], olds[sum_row + r]));
            }
        }
    }
    if (element >= n) return;
#pragma unroll
    for (unsigned r = 0; r < 8; r++) {
        unsigned row = row0 + sum_row + r;
        if (row >= all) continue;
        float length = lengths[sum_row + r];
        float* to = out + ((size_t)(row / group) * s.heads + head * group + row % group) * n + element;
        *reinterpret_cast<float2*>(to) = make_float2(div_rn(sums[r][0], length), div_rn(sums[r][1], length));
    }
}

#define KERNELS(name, kind)                                                                                                                            \
    extern "C" __global__ void __launch_bounds__(THREADS)                                                                                              \
        place_##name(unsigned heads, unsigned kv_heads, unsigned head_dim, unsigned tokens, unsigned context, float eps, float* qkv,                    \
                     const float* q_norm, const float* k_norm, const float* cosines, const float* sines, const unsigned* position,                     \
                     Element<kind>::type* keys, Element<kind>::type* values, float* key_scales, float* value_scales) {                                 \
        unsigned item = item_of_warp(), token = item / (heads + 2 * kv_heads), first = *position;                                                      \
        if (token >= tokens || first + tokens > context) return;                                                                                       \
        place<kind>({heads, kv_heads, head_dim, tokens, context}, eps, item, first + token, qkv, q_norm, k_norm, cosines, sines, keys, values,          \
                    key_scales, value_scales);                                                                                                         \
    }                                                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(THREADS, 2)                                                                                           \
        attend_many_##name(unsigned heads, unsigned kv_heads, unsigned head_dim, unsigned tokens, unsigned context, float factor, const float* qkv,     \
                           const unsigned* position, const Element<kind>::type* keys, const Element<kind>::type* values, const float* key_scales,       \
                           const float* value_scales, float* out) {                                                                                    \
        attend_many<kind>({heads, kv_heads, head_dim, tokens, context}, (gridDim.x - 1 - blockIdx.x) * ROWS, factor, qkv, position, keys, values,       \
                          key_scales, value_scales, out);                                                                                              \
    }                                                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(THREADS, 1)                                                                                           \
        place_each_##name(unsigned heads, unsigned kv_heads, unsigned head_dim, unsigned tokens, unsigned context, float eps, float* qkv,               \
                          const float* q_norm, const float* k_norm, const float* cosines, const float* sines, const unsigned* places, unsigned apart,  \
                          Element<kind>::type* keys, Element<kind>::type* values, float* key_scales, float* value_scales) {                            \
        unsigned item = item_of_warp(), token = item / (heads + 2 * kv_heads);                                                                         \
        if (token >= tokens || places[2 * token + 1] >= context) return;                                                                               \
        size_t before = (size_t)places[2 * token] * apart;                                                                                             \
        place<kind>({heads, kv_heads, head_dim, tokens, context}, eps, item, places[2 * token + 1], qkv, q_norm, k_norm, cosines, sines,                \
                    keys + before * head_dim, values + before * head_dim, key_scales + before, value_scales + before);                                 \
    }                                                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(THREADS, 2)                                                                                           \
        attend_spans_##name(unsigned heads, unsigned kv_heads, unsigned head_dim, unsigned context, float factor, const float* qkv,                     \
                            const unsigned* places, const unsigned* tiles, unsigned apart, const Element<kind>::type* keys,                            \
                            const Element<kind>::type* values, const float* key_scales, const float* value_scales, float* out) {                       \
        unsigned first = tiles[3 * blockIdx.x], tokens = tiles[3 * blockIdx.x + 1], row0 = tiles[3 * blockIdx.x + 2];                                  \
        size_t before = (size_t)places[2 * first] * apart;                                                                                             \
        attend_many<kind>({heads, kv_heads, head_dim, tokens, context}, row0, factor, qkv + (size_t)first * (heads + 2 * kv_heads) * head_dim,          \
                          places + 2 * first + 1, keys + before * head_dim, values + before * head_dim, key_scales + before, value_scales + before,    \
                          out + (size_t)first * heads * head_dim);                                                                                     \
    }
KERNELS(f32, F32)
KERNELS(f16, F16)
KERNELS(int8, INT8)
