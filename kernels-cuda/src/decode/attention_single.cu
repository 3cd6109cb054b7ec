// target: sm_80
// Attention of one token over the cache: what `attention.cu` computes, in the same order and with the same bits, for the case that decoding is made of.
//
// A block of the grid has some query heads of one key head, and every gridDim.y-th block of 128 positions. What is longest is two chains of up to 128 fused multiply-adds, 0.3 µs
// each. With one head a thread is one position (scores, a chain over head_dim) and one element (values, a chain over the positions); with more, which share what was copied
// where the context is long, it is two of each, so that a load from shared memory feeds two chains.
//
// Loops are not unrolled beyond what hides a delay: instructions have to be fetched, and the kernels of a layer take turns in the cache.
//
// Keys and values up to the position are copied to shared memory before the wait for the kernel ahead, for they are older. Up to
// `left` blocks of positions leave their parts to the kernel behind this one, which starts when all have been written; of more the last block of the heads to end puts them together,
// which takes a fence: every store of a multiprocessor has to arrive, and with it what the next kernel has begun to fetch.
#include "memory.cuh"
#include "reduce.cuh"

#include "attention_parts.cuh"
#include "exact.cuh"
#include "kv_cache.cuh"
#include "stream.cuh"

struct Shape {
    unsigned heads, kv_heads, group, head_dim, context;  // group: heads / kv_heads
    float eps, factor;  // factor: 1 / sqrt(head_dim)
    unsigned left;      // so many parts are left to the kernel behind this one; 1: none
};

// `sums[e]` = Σ w[i] · x[i · stride + e], i < count in order: chains of fused multiply-adds. The loads of eight steps are under way while the eight before them are
// computed: a warp has hardly a neighbour that would fill the time.
template <int TYPE, int WIDTH>
__device__ __forceinline__ void chains(const typename Element<TYPE>::type* x, unsigned stride, const float* w, unsigned count, float (&sums)[WIDTH]) {
    constexpr unsigned DEEP = 8;
    struct Step {
        Neighbours<TYPE, WIDTH> x[DEEP];
        float w[DEEP];
    };
    auto load = [&](unsigned at) {
        Step step;
#pragma unroll
        for (unsigned u = 0; u < DEEP; u++) step.x[u].load(x + (at + u) * stride);
#pragma unroll
        for (unsigned u = 0; u < DEEP; u += 4) {
            float4 four = *reinterpret_cast<const float4*>(w + at + u);
            step.w[u] = four.x, step.w[u + 1] = four.y, step.w[u + 2] = four.z, step.w[u + 3] = four.w;
        }
        return step;
    };
    auto add = [&](float factor, const Neighbours<TYPE, WIDTH>& some) {
        float opened[WIDTH];
        some.open(opened);
#pragma unroll
        for (int e = 0; e < WIDTH; e++) sums[e] = fmaf(factor, opened[e], sums[e]);
    };
#pragma unroll
    for (int e = 0; e < WIDTH; e++) sums[e] = 0.0f;
    unsigned whole = count / DEEP * DEEP;
    if (whole) {
        Step now = load(0);
#pragma unroll 2
        for (unsigned i = 0; i < whole; i += DEEP) {
            Step next = load(i + DEEP < whole ? i + DEEP : i);
#pragma unroll
            for (unsigned u = 0; u < DEEP; u++) add(now.w[u], now.x[u]);
            now = next;
        }
    }
#pragma unroll 1
    for (unsigned i = whole; i < count; i++) {
        Neighbours<TYPE, WIDTH> some;
        some.load(x + i * stride);
        add(w[i], some);
    }
}

// `qkv` `[(heads + 2 kv_heads) head_dim]`; `cosines` and `sines` `[context, head_dim / 2]`; `keys`, `values` and scales those of the layer; `parts`
// `[kv_heads, context / 128, group, head_dim + 4]`; `counters` `[heads]`, 0 between launches.
template <int TYPE, int WIDTH>
__device__ __forceinline__ void attend(Shape s, const float* qkv, const float* q_norm, const float* k_norm, const float* cosines, const float* sines,
                                       const unsigned* position, typename Element<TYPE>::type* keys, typename Element<TYPE>::type* values,
                                       float* key_scales, float* value_scales, float* parts, unsigned* counters, float* out) {
    // Threads of a query head.
    constexpr unsigned PER_HEAD = POSITIONS / WIDTH;
    typedef Element<TYPE> E;
    typedef typename E::type T;
    __shared__ float reciprocals[9], new_scales[2];
    __shared__ unsigned last;
    DYNAMIC_SHARED(unsigned char, shared);
    unsigned rows = blockDim.x / PER_HEAD, row = threadIdx.x / PER_HEAD, j = threadIdx.x % PER_HEAD, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    unsigned n = s.head_dim, half = n / 2, group = s.group, first_head = blockIdx.x * rows, kv = first_head / group, first_row = first_head - kv * group;
    T* key_tile = reinterpret_cast<T*>(shared);
    T* value_tile = key_tile + POSITIONS * n;
    float* vectors = reinterpret_cast<float*>(value_tile + POSITIONS * n);  // the queries, the key, the value: [rows + 2][head_dim]
    float* scores = vectors + (rows + 2) * n;                              // [rows][128]
    float* scales = scores + rows * POSITIONS;                             // of keys, of values: [2][128]

    // The position was set before the kernel ahead began. Blocks beyond it have nothing to wait for; the first waits whatever it is, so that no kernel behind this
    // one overtakes the one ahead.
    unsigned at = *position, blocks = at / POSITIONS + 1;
    bool inside = at < s.context;
    if (blockIdx.y && (!inside || blockIdx.y >= blocks)) return;
    keys += (size_t)kv * s.context * n;
    values += (size_t)kv * s.context * n;
    if (TYPE == INT8) {
        key_scales += kv * s.context;
        value_scales += kv * s.context;
    }
    auto copy = [&](unsigned block) {
        // Both are 128 · head_dim elements in a row; positions to come are copied as they are and not used.
        const unsigned char* from[2] = {reinterpret_cast<const unsigned char*>(keys + (size_t)block * POSITIONS * n),
                                        reinterpret_cast<const unsigned char*>(values + (size_t)block * POSITIONS * n)};
        unsigned bytes = POSITIONS * n * sizeof(T);
#pragma unroll 1
        for (unsigned i = threadIdx.x * 16; i < bytes; i += blockDim.x * 16) {
            copy_async16(shared + i, from[0] + i);
            copy_async16(shared + bytes + i, from[1] + i);
        }
        if (TYPE == INT8)
#pragma unroll 1
            for (unsigned i = threadIdx.x; i < POSITIONS; i += blockDim.x) {
                scales[i] = key_scales[block * POSITIONS + i];
                scales[POSITIONS + i] = value_scales[block * POSITIONS + i];
            }
        copy_async_commit();
    };
    // The rotation of the thread's first pair, of many head_dim the only one.
    float cosine = 0.0f, sine = 0.0f;
    if (inside) {
        copy(blockIdx.y);
        if (j < half) {
            cosine = cosines[(size_t)at * half + j];
            sine = sines[(size_t)at * half + j];
        }
    }
    grid_wait();
    grid_launch_dependents();
    if (!inside) return;

    // A pair of a query, and of the new key and the new value where this block's last threads and first threads have them; then norm and rotation.
    bool has_key = row + 1 == rows, has_value = row == 0;
    float* query = vectors + row * n;
    float* key = vectors + rows * n;
    float* value = key + n;
    const float* from_query = qkv + (size_t)(first_head + row) * n;
    const float* from_key = qkv + (size_t)(s.heads + kv) * n;
    const float* from_value = from_key + (size_t)s.kv_heads * n;
#pragma unroll 1
    for (unsigned i = j; i < half; i += PER_HEAD) {
        float q[2] = {from_query[i], from_query[half + i]}, k[2] = {0.0f, 0.0f}, v[2] = {0.0f, 0.0f};
        if (has_key) k[0] = from_key[i], k[1] = from_key[half + i];
        if (has_value) v[0] = from_value[i], v[1] = from_value[half + i];
        query[i] = q[0], query[half + i] = q[1];
        if (has_key) key[i] = k[0], key[half + i] = k[1];
        if (has_value) value[i] = v[0], value[half + i] = v[1];
    }
    if (q_norm) {
        __syncthreads();
#pragma unroll 1
        for (unsigned r = warp; r <= rows; r += blockDim.x / 32) {
            float squares = squares_of(vectors + r * n, n);
            if (lane == 0) reciprocals[r] = reciprocal_rms(squares, n, s.eps);
        }
        __syncthreads();
    }
#pragma unroll 1
    for (unsigned i = j; i < half; i += PER_HEAD) {
        if (i != j) {
            cosine = cosines[(size_t)at * half + i];
            sine = sines[(size_t)at * half + i];
        }
        auto turn = [&](float* x, const float* norm, float reciprocal) {
            float a = x[i], b = x[half + i];
            if (norm) {
                a = mul_rn(mul_rn(a, reciprocal), norm[i]);
                b = mul_rn(mul_rn(b, reciprocal), norm[half + i]);
            }
            x[i] = fmaf(-b, sine, mul_rn(a, cosine));
            x[half + i] = fmaf(a, sine, mul_rn(b, cosine));
        };
        turn(query, q_norm, q_norm ? reciprocals[row] : 1.0f);
        if (has_key) turn(key, k_norm, q_norm ? reciprocals[rows] : 1.0f);
    }

#pragma unroll 1
    for (unsigned block = blockIdx.y; block < blocks; block += gridDim.y) {
        if (block != blockIdx.y) {
            __syncthreads();
            copy(block);
        }
        copy_async_wait<0>();
        __syncthreads();
        if (block + 1 == blocks) {
            // The new key and value: into every block's copy, and by the first of the key head's into the cache.
            bool store = first_row == 0;
            if (TYPE == INT8) {
                if (warp < 2) {
                    float most = 0.0f;
#pragma unroll 1
                    for (unsigned i = lane; i < n; i += 32) most = fmaxf(most, fabsf(key[warp * n + i]));
                    most = warp_max(most);
                    float scale = div_rn(127.0f, most > 1e-5f ? most : 1e-5f);
                    if (lane == 0) {
                        new_scales[warp] = scale;
                        float inverse = div_rn(1.0f, scale);
                        if (store) (warp ? value_scales : key_scales)[at] = inverse;
                        scales[warp * POSITIONS + at % POSITIONS] = inverse;
                    }
                }
                __syncthreads();
            }
#pragma unroll 1
            for (unsigned i = threadIdx.x; i < n; i += blockDim.x) {
                T k = E::close(key[i], TYPE == INT8 ? new_scales[0] : 1.0f), v = E::close(value[i], TYPE == INT8 ? new_scales[1] : 1.0f);
                unsigned place = at % POSITIONS / PANEL * PANEL * n + i * PANEL + at % PANEL;
                key_tile[place] = k;
                value_tile[at % POSITIONS * n + i] = v;
                if (store) {
                    keys[(size_t)block * POSITIONS * n + place] = k;
                    values[(size_t)at * n + i] = v;
                }
            }
            __syncthreads();
        }
        unsigned seen = at + 1 - block * POSITIONS;
        if (seen > POSITIONS) seen = POSITIONS;

        float score[WIDTH];
#pragma unroll
        for (int e = 0; e < WIDTH; e++) score[e] = -INFINITY;
        // A warp none of whose positions is seen has no scores.
        if (WIDTH * (j - lane) < seen) {
            unsigned p = WIDTH * j;
            float dots[WIDTH];
            chains<TYPE, WIDTH>(key_tile + p / PANEL * PANEL * n + p % PANEL, PANEL, query, n, dots);
#pragma unroll
            for (int e = 0; e < WIDTH; e++)
                if (p + e < seen) score[e] = mul_rn(dots[e], TYPE == INT8 ? mul_rn(s.factor, scales[p + e]) : s.factor);
        }
        float* of = scores + row * POSITIONS;
#pragma unroll
        for (int e = 0; e < WIDTH; e++) of[WIDTH * j + e] = score[e];
        __syncthreads();
        unsigned head = first_head + row;
        size_t apart = (size_t)group * part_size(n);
        float* part = parts + ((size_t)kv * (s.context / POSITIONS) + block) * apart + (first_row + row) * part_size(n);
        if (j < 32) {
            float most;
            float sum = weigh_block(of, most);
            if (TYPE == INT8)
#pragma unroll 1
                for (unsigned i = lane; i < seen; i += 32) of[i] = mul_rn(of[i], scales[POSITIONS + i]);
            if (lane == 0) {
                reciprocals[row] = sum;
                part[n] = most;
                part[n + 1] = sum;
            }
        }
        __syncthreads();
#pragma unroll 1
        for (unsigned d = WIDTH * j; d < n; d += WIDTH * PER_HEAD) {
            float o[WIDTH];
            chains<TYPE, WIDTH>(value_tile + d, n, of, seen, o);
            float* to = blocks == 1 ? out + (size_t)head * n : part;
#pragma unroll
            for (int e = 0; e < WIDTH; e++) to[d + e] = blocks == 1 ? div_rn(o[e], reciprocals[row]) : o[e];
        }
    }
    if (blocks <= s.left) return;

    fence_device();
    __syncthreads();
    unsigned working = gridDim.y < blocks ? gridDim.y : blocks;
    if (threadIdx.x == 0) last = atomicAdd(&counters[blockIdx.x], 1u) + 1 == working;
    __syncthreads();
    if (!last) return;
    fence_device();
    if (j < 32) {
        unsigned head = first_head + row;
        size_t apart = (size_t)group * part_size(n);
        merge_parts(parts + (size_t)kv * (s.context / POSITIONS) * apart + (first_row + row) * part_size(n), apart, blocks, n, out + (size_t)head * n);
    }
    if (threadIdx.x == 0) counters[blockIdx.x] = 0;
}

#ifndef MANY_SEQUENCES
#define ATTEND(name, kind, width)                                                                                                                   \
    extern "C" __global__ void __launch_bounds__(512, 1)                                                                                            \
        name(unsigned heads, unsigned kv_heads, unsigned group, unsigned head_dim, unsigned context, float eps, float factor, unsigned left,            \
             const float* qkv, const float* q_norm, const float* k_norm, const float* cosines, const float* sines, const unsigned* position, Element<kind>::type* keys,                     \
             Element<kind>::type* values, float* key_scales, float* value_scales, float* parts, unsigned* counters, float* out) {                    \
        attend<kind, width>({heads, kv_heads, group, head_dim, context, eps, factor, left}, qkv, q_norm, k_norm, cosines, sines, position, keys, values,          \
                            key_scales, value_scales, parts, counters, out);                                                                         \
    }
// One head a block, and up to eight.
ATTEND(attend_head_f32, F32, 1)
ATTEND(attend_head_f16, F16, 1)
ATTEND(attend_head_int8, INT8, 1)
ATTEND(attend_heads_f32, F32, 2)
ATTEND(attend_heads_f16, F16, 2)
ATTEND(attend_heads_int8, INT8, 2)
#else
// The same of tokens of as many sequences, blockIdx.z being one of them: `places` are its sequence and its position, the caches of sequences lie one behind the other, `apart` positions of a head
// each, and no parts are left. `parts` and `counters` have room for every token.
#define ATTEND_EACH(name, kind, width)                                                                                                              \
    extern "C" __global__ void __launch_bounds__(512, 1)                                                                                            \
        name(unsigned heads, unsigned kv_heads, unsigned group, unsigned head_dim, unsigned context, float eps, float factor, const float* qkv,      \
             const float* q_norm, const float* k_norm, const float* cosines, const float* sines, const unsigned* places, unsigned apart,            \
             Element<kind>::type* keys, Element<kind>::type* values, float* key_scales, float* value_scales, float* parts, unsigned* counters,       \
             float* out) {                                                                                                                          \
        size_t token = blockIdx.z, before = places[2 * token] * (size_t)apart;                                                                      \
        attend<kind, width>({heads, kv_heads, group, head_dim, context, eps, factor, 1}, qkv + token * (heads + 2 * kv_heads) * head_dim, q_norm,    \
                            k_norm, cosines, sines, places + 2 * token + 1, keys + before * head_dim, values + before * head_dim,                    \
                            key_scales + before, value_scales + before, parts + token * heads * (context / POSITIONS) * part_size(head_dim),         \
                            counters + token * heads, out + token * heads * head_dim);                                                              \
    }
ATTEND_EACH(attend_each_head_f32, F32, 1)
ATTEND_EACH(attend_each_head_f16, F16, 1)
ATTEND_EACH(attend_each_head_int8, INT8, 1)
ATTEND_EACH(attend_each_heads_f32, F32, 2)
ATTEND_EACH(attend_each_heads_f16, F16, 2)
ATTEND_EACH(attend_each_heads_int8, INT8, 2)
#endif
