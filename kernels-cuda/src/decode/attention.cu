// target: sm_80
// Attention of a few tokens over the cache (of one: attention_single.cu), with what comes before it: QK-norm, the rotation, and its key and value into the cache.
//
//   s[p] = q·k[p] / sqrt(head_dim)   m = max s   w[p] = exp(s[p] − m)   l = Σ w[p]   o = Σ w[p] v[p]        within a block of 128 positions
// and over the blocks, in order, what `attention_parts.cuh` says.
//
// All of it in the order and with the roundings of the CPU (kernels-cpu/src/attention/cached): a score is one chain over head_dim, an element of o
// one chain over the block's positions, l sixteen lanes: the results are the same bits, and do not depend on how blocks are shared out.
//
// A key head has keys in panels [head_dim][64 positions], as on the CPU, and values [positions][head_dim], of f32, f16, or int8 with a
// scale for each position; here filled up to whole blocks.
//
// Bytes: the cache up to the position, once (2 x 128 x 4 B = 1 KB a position and key head in f32). Operations: 4·head_dim a position and head.
// A block of the grid is one key head and every gridDim.y-th block of positions; it copies these to shared memory before it waits for the kernel
// ahead, for they are older. 256 threads: a thread is a position (scores) or an element (values) of two heads of the group.
// The last block of a key head to end merges.
#include "memory.cuh"
#include "reduce.cuh"

#include "attention_parts.cuh"
#include "exact.cuh"
#include "kv_cache.cuh"
#include "stream.cuh"

constexpr unsigned THREADS = 256, WARPS = THREADS / 32;

// What all blocks are told.
struct Shape {
    unsigned heads, kv_heads, head_dim, tokens, context;
    float eps, factor;  // factor: 1 / sqrt(head_dim)
};

// `part` of a row: o, m, l.
__device__ __forceinline__ float* part_of(float* parts, const Shape& s, unsigned head, unsigned block, unsigned token, unsigned row) {
    unsigned group = s.heads / s.kv_heads, blocks = s.context / POSITIONS;
    return parts + (((size_t)(head * blocks + block) * s.tokens + token) * group + row) * part_size(s.head_dim);
}

// `qkv` `[tokens, (heads + 2 kv_heads) head_dim]`; `cosines` and `sines` `[context, head_dim / 2]`; `keys`, `values` those of the layer,
// `[kv_heads]` of them; `parts` see above, `[kv_heads, context / 128, tokens, group, head_dim + 4]`; `counters` `[kv_heads]`, 0 between launches.
template <int TYPE>
__device__ __forceinline__ void attend(Shape s, const float* qkv, const float* q_norm, const float* k_norm, const float* cosines, const float* sines,
                                       const unsigned* position, typename Element<TYPE>::type* keys, typename Element<TYPE>::type* values,
                                       float* key_scales, float* value_scales, float* parts, unsigned* counters, float* out) {
    typedef Element<TYPE> E;
    typedef typename E::type T;
    __shared__ float reciprocals[33], new_scales[2];
    __shared__ unsigned last;
    DYNAMIC_SHARED(unsigned char, shared);
    unsigned n = s.head_dim, half = n / 2, group = s.heads / s.kv_heads, head = blockIdx.x, stride = (s.heads + 2 * s.kv_heads) * n;
    T* key_tile = reinterpret_cast<T*>(shared);
    T* value_tile = key_tile + POSITIONS * n;
    float* rows = reinterpret_cast<float*>(value_tile + POSITIONS * n);  // the group's queries, the key, the value: [group + 2][head_dim]
    float* scores = rows + (group + 2) * n;                             // [group][128]
    float* scales = scores + group * POSITIONS;                         // of keys, of values: [2][128]
    unsigned warp = threadIdx.x / 32, lane = threadIdx.x % 32;

    keys += (size_t)head * s.context * n;
    values += (size_t)head * s.context * n;
    if (TYPE == INT8) {
        key_scales += head * s.context;
        value_scales += head * s.context;
    }
    unsigned first = *position, blocks = (first + s.tokens + POSITIONS - 1) / POSITIONS;
    bool inside = first + s.tokens <= s.context && blockIdx.y < blocks;
    auto copy = [&](unsigned block) {
        // Both are 128 · head_dim elements in a row; positions to come are copied as they are and not used.
        const unsigned char* from[2] = {reinterpret_cast<const unsigned char*>(keys + (size_t)block * POSITIONS * n),
                                        reinterpret_cast<const unsigned char*>(values + (size_t)block * POSITIONS * n)};
        unsigned bytes = POSITIONS * n * sizeof(T);
        for (unsigned i = threadIdx.x * 16; i < bytes; i += THREADS * 16) {
            copy_async16(shared + i, from[0] + i);
            copy_async16(shared + bytes + i, from[1] + i);
        }
        if (TYPE == INT8 && threadIdx.x < POSITIONS) {
            scales[threadIdx.x] = key_scales[block * POSITIONS + threadIdx.x];
            scales[POSITIONS + threadIdx.x] = value_scales[block * POSITIONS + threadIdx.x];
        }
        copy_async_commit();
    };
    if (inside) copy(blockIdx.y);
    grid_wait();
    grid_launch_dependents();
    if (!inside) return;

    for (unsigned block = blockIdx.y; block < blocks; block += gridDim.y) {
        if (block != blockIdx.y) {
            __syncthreads();
            copy(block);
        }
        copy_async_wait<0>();
        // Keys first: a token sees those of the tokens before it.
        for (unsigned pass = 0; pass < 2; pass++) {
            for (unsigned token = 0; token < s.tokens; token++) {
                unsigned at = first + token;
                bool owns = at / POSITIONS == block;
                bool store = owns && pass == 0, query = pass == 1;
                unsigned seen = at + 1 <= block * POSITIONS ? 0 : at + 1 - block * POSITIONS;
                if (seen > POSITIONS) seen = POSITIONS;
                if (seen == 0 || (!store && !query)) continue;

                const float* from = qkv + (size_t)token * stride;
                __syncthreads();
                unsigned begin = query ? 0 : group * n, end = store ? (group + 2) * n : group * n;
                for (unsigned i = begin + threadIdx.x; i < end; i += THREADS) {
                    unsigned row = i / n;
                    unsigned source = row < group ? (head * group + row) * n : (s.heads + (row - group) * s.kv_heads + head) * n;
                    rows[i] = from[source + i % n];
                }
                __syncthreads();
                if (q_norm) {
                    for (unsigned row = begin / n + warp; row < end / n && row <= group; row += WARPS) {
                        float squares = squares_of(rows + row * n, n);
                        if (lane == 0) reciprocals[row] = reciprocal_rms(squares, n, s.eps);
                    }
                    __syncthreads();
                    for (unsigned i = begin + threadIdx.x; i < end && i < (group + 1) * n; i += THREADS) {
                        unsigned row = i / n;
                        rows[i] = mul_rn(mul_rn(rows[i], reciprocals[row]), (row < group ? q_norm : k_norm)[i % n]);
                    }
                    __syncthreads();
                }
                // Queries and the key turn.
                unsigned turned = (end < (group + 1) * n ? end : (group + 1) * n) / 2;
                for (unsigned i = begin / 2 + threadIdx.x; i < turned; i += THREADS) {
                    float* row = rows + i / half * n + i % half;
                    float c = cosines[(size_t)at * half + i % half], sine = sines[(size_t)at * half + i % half];
                    float a = row[0], b = row[half];
                    row[0] = fmaf(-b, sine, mul_rn(a, c));
                    row[half] = fmaf(a, sine, mul_rn(b, c));
                }
                __syncthreads();
                if (store) {
                    const float* key = rows + group * n;
                    if (TYPE == INT8) {
                        if (warp < 2) {
                            float most = 0.0f;
                            for (unsigned i = lane; i < n; i += 32) most = fmaxf(most, fabsf(key[warp * n + i]));
                            most = warp_max(most);
                            float scale = div_rn(127.0f, most > 1e-5f ? most : 1e-5f);
                            if (lane == 0) {
                                new_scales[warp] = scale;
                                float inverse = div_rn(1.0f, scale);
                                (warp ? value_scales : key_scales)[at] = inverse;
                                scales[warp * POSITIONS + at % POSITIONS] = inverse;
                            }
                        }
                        __syncthreads();
                    }
                    for (unsigned i = threadIdx.x; i < n; i += THREADS) {
                        T k = E::close(key[i], TYPE == INT8 ? new_scales[0] : 1.0f), v = E::close(key[n + i], TYPE == INT8 ? new_scales[1] : 1.0f);
                        unsigned place = at % POSITIONS / PANEL * PANEL * n + i * PANEL + at % PANEL;
                        key_tile[place] = k;
                        keys[(size_t)block * POSITIONS * n + place] = k;
                        value_tile[at % POSITIONS * n + i] = v;
                        values[(size_t)at * n + i] = v;
                    }
                    __syncthreads();
                }
                if (!query) continue;

                // A thread is a position; two heads of the group share each key.
                unsigned p = threadIdx.x % POSITIONS;
                for (unsigned row = threadIdx.x / POSITIONS * 2; row < group; row += 2 * THREADS / POSITIONS) {
                    bool two = row + 1 < group;
                    const float *q0 = rows + row * n, *q1 = two ? q0 + n : q0;
                    const T* k = key_tile + p / PANEL * PANEL * n + p % PANEL;
                    float s0 = 0.0f, s1 = 0.0f;
#pragma unroll 4
                    for (unsigned d = 0; d < n; d += 4) {
                        float4 a = *reinterpret_cast<const float4*>(q0 + d), b = *reinterpret_cast<const float4*>(q1 + d);
                        float k0 = E::open(k[d * PANEL]), k1 = E::open(k[(d + 1) * PANEL]), k2 = E::open(k[(d + 2) * PANEL]), k3 = E::open(k[(d + 3) * PANEL]);
                        s0 = fmaf(a.w, k3, fmaf(a.z, k2, fmaf(a.y, k1, fmaf(a.x, k0, s0))));
                        s1 = fmaf(b.w, k3, fmaf(b.z, k2, fmaf(b.y, k1, fmaf(b.x, k0, s1))));
                    }
                    float factor = TYPE == INT8 ? mul_rn(s.factor, scales[p]) : s.factor;
                    scores[row * POSITIONS + p] = p < seen ? mul_rn(s0, factor) : -INFINITY;
                    if (two) scores[(row + 1) * POSITIONS + p] = p < seen ? mul_rn(s1, factor) : -INFINITY;
                }
                __syncthreads();
                float* part = part_of(parts, s, head, block, token, 0);
                for (unsigned row = warp; row < group; row += WARPS) {
                    float* of = scores + row * POSITIONS;
                    float most;
                    float sum = weigh_block(of, most);
                    if (TYPE == INT8) {
                        for (unsigned i = lane; i < seen; i += 32) of[i] = mul_rn(of[i], scales[POSITIONS + i]);
                    }
                    if (lane == 0) {
                        reciprocals[row] = sum;
                        part[row * part_size(n) + n] = most;
                        part[row * part_size(n) + n + 1] = sum;
                    }
                }
                __syncthreads();
                // A thread is an element; two heads of the group share each value.
                for (unsigned row = threadIdx.x / POSITIONS * 2; row < group; row += 2 * THREADS / POSITIONS) {
                    bool two = row + 1 < group;
                    const float *w0 = scores + row * POSITIONS, *w1 = two ? w0 + POSITIONS : w0;
                    for (unsigned d = threadIdx.x % POSITIONS; d < n; d += POSITIONS) {
                        const T* v = value_tile + d;
                        float o0 = 0.0f, o1 = 0.0f;
                        unsigned i = 0;
#pragma unroll 4
                        for (; i + 4 <= seen; i += 4) {
                            float4 a = *reinterpret_cast<const float4*>(w0 + i), b = *reinterpret_cast<const float4*>(w1 + i);
                            float v0 = E::open(v[i * n]), v1 = E::open(v[(i + 1) * n]), v2 = E::open(v[(i + 2) * n]), v3 = E::open(v[(i + 3) * n]);
                            o0 = fmaf(a.w, v3, fmaf(a.z, v2, fmaf(a.y, v1, fmaf(a.x, v0, o0))));
                            o1 = fmaf(b.w, v3, fmaf(b.z, v2, fmaf(b.y, v1, fmaf(b.x, v0, o1))));
                        }
                        for (; i < seen; i++) {
                            float x = E::open(v[i * n]);
                            o0 = fmaf(w0[i], x, o0);
                            o1 = fmaf(w1[i], x, o1);
                        }
                        if (blocks == 1) {
                            float* to = out + ((size_t)token * s.heads + head * group + row) * n + d;
                            to[0] = div_rn(o0, reciprocals[row]);
                            if (two) to[n] = div_rn(o1, reciprocals[row + 1]);
                        } else {
                            part[row * part_size(n) + d] = o0;
                            if (two) part[(row + 1) * part_size(n) + d] = o1;
                        }
                    }
                }
            }
        }
    }
    if (blocks == 1) return;

    fence_device();
    __syncthreads();
    unsigned working = gridDim.y < blocks ? gridDim.y : blocks;
    if (threadIdx.x == 0) last = atomicAdd(&counters[head], 1u) + 1 == working;
    __syncthreads();
    if (!last) return;
    fence_device();
    for (unsigned i = warp; i < s.tokens * group; i += WARPS) {
        unsigned row = i % group, token = i / group;
        merge_parts(part_of(parts, s, head, 0, token, row), (size_t)s.tokens * group * part_size(n), (first + token) / POSITIONS + 1, n,
                    out + ((size_t)token * s.heads + head * group + row) * n);
    }
    if (threadIdx.x == 0) counters[head] = 0;
}

#define ATTEND(name, kind)                                                                                                                          \
    extern "C" __global__ void __launch_bounds__(THREADS, 1)                                                                                        \
        name(unsigned heads, unsigned kv_heads, unsigned head_dim, unsigned tokens, unsigned context, float eps, float factor, const float* qkv,     \
             const float* q_norm, const float* k_norm, const float* cosines, const float* sines, const unsigned* position,                          \
             Element<kind>::type* keys, Element<kind>::type* values, float* key_scales, float* value_scales, float* parts, unsigned* counters,       \
             float* out) {                                                                                                                          \
        attend<kind>({heads, kv_heads, head_dim, tokens, context, eps, factor}, qkv, q_norm, k_norm, cosines, sines, position, keys, values,         \
                     key_scales, value_scales, parts, counters, out);                                                                               \
    }
ATTEND(attend_f32, F32)
ATTEND(attend_f16, F16)
ATTEND(attend_int8, INT8)
