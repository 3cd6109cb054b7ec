// target: sm_80
// Rotary position embedding of the queries and keys of [tokens, (heads + 2 kv_heads) * head_dim], optionally behind an RMS norm of each head; its backward.
//
// A head is turned by 2^log_lanes adjacent threads, each with V elements of the first half and the V that belong to them of the second (V is 8, or 4 where
// half a head is no multiple of 8). The sums of a norm go over those threads. Where the result goes to another array, more threads copy the values, 8
// elements each.
//
// Memory, in bytes for each of the (heads + kv_heads) * head_dim elements of a token: 4 (read and written once; values too where they are copied), the
// backward with a norm 6. The table, 4 * head_dim bytes a token, comes from the caches for all heads but the first.
#include "bf16.cuh"
#include "memory.cuh"

constexpr int THREADS = 256;

template <int V>
struct Packed;
template <>
struct Packed<8> {
    typedef uint4 type;
};
template <>
struct Packed<4> {
    typedef uint2 type;
};

template <int V>
__device__ __forceinline__ void load(float (&x)[V], const bf16* from) {
    typedef typename Packed<V>::type packed;
    packed raw = *reinterpret_cast<const packed*>(from);
    const unsigned* words = reinterpret_cast<const unsigned*>(&raw);
#pragma unroll
    for (int i = 0; i < V / 2; i++) x[2 * i] = low_f32(words[i]), x[2 * i + 1] = high_f32(words[i]);
}

template <int V>
__device__ __forceinline__ void load(float (&x)[V], const float* from) {
#pragma unroll
    for (int i = 0; i < V / 4; i++) {
        float4 four = reinterpret_cast<const float4*>(from)[i];
        x[4 * i] = four.x, x[4 * i + 1] = four.y, x[4 * i + 2] = four.z, x[4 * i + 3] = four.w;
    }
}

template <int V>
__device__ __forceinline__ void store(bf16* to, const float (&x)[V]) {
    typedef typename Packed<V>::type packed;
    packed raw;
    unsigned* words = reinterpret_cast<unsigned*>(&raw);
#pragma unroll
    for (int i = 0; i < V / 2; i++) words[i] = pack_bf16(x[2 * i], x[2 * i + 1]);
    *reinterpret_cast<packed*>(to) = raw;
}

// Over the threads of a head, each with the same result.
__device__ __forceinline__ float head_sum(float x, unsigned lanes) {
    for (unsigned other = lanes / 2; other > 0; other /= 2) x += __shfl_xor_sync(0xffffffffu, x, other);
    return x;
}

template <int V>
__device__ __forceinline__ void turn(float (&a)[V], float (&b)[V], const float (&c)[V], const float (&s)[V], float sign) {
#pragma unroll
    for (int i = 0; i < V; i++) {
        float x = a[i], y = b[i], sine = sign * s[i];
        a[i] = x * c[i] - y * sine;
        b[i] = y * c[i] + x * sine;
    }
}

template <int V, bool NORM>
__device__ __forceinline__ void rotate(const bf16* in, bf16* out, const float* cosines, const float* sines, const float* q_weights, const float* k_weights,
                                       float eps, float sign, unsigned tokens, unsigned seq, unsigned heads, unsigned kv_heads, unsigned head_dim,
                                       unsigned log_lanes, unsigned copies) {
    unsigned half = head_dim / 2, lanes = 1u << log_lanes, turned = heads + kv_heads, all = turned * tokens << log_lanes;
    unsigned index = blockIdx.x * THREADS + threadIdx.x;
    size_t row = (size_t)(turned + kv_heads) * head_dim;
    if (index < all || (NORM && index < (all + 31) / 32 * 32)) { // whole warps, for the sums
        unsigned lane = index & (lanes - 1), which = index >> log_lanes, token = which / turned, head = which - token * turned;
        bool active = index < all && lane * V < half;
        size_t at = token * row + head * head_dim + lane * V;
        float a[V] = {}, b[V] = {}, c[V], s[V];
        if (active) {
            load(a, in + at);
            load(b, in + at + half);
        }
        if (NORM) {
            float squares = 0.0f;
#pragma unroll
            for (int i = 0; i < V; i++) squares += a[i] * a[i] + b[i] * b[i];
            float r = 1.0f / sqrtf(head_sum(squares, lanes) / head_dim + eps);
            if (active) {
                const float* weights = (head < heads ? q_weights : k_weights) + lane * V;
                load(c, weights);
                load(s, weights + half);
#pragma unroll
                for (int i = 0; i < V; i++) a[i] *= r * c[i], b[i] *= r * s[i];
            }
        }
        if (active) {
            size_t angle = (size_t)(token % seq) * half + lane * V;
            load(c, cosines + angle);
            load(s, sines + angle);
            turn(a, b, c, s, sign);
            store(out + at, a);
            store(out + at + half, b);
        }
    }
    // A thread of the warp that ends the turned heads may copy too: the next warp's threads do not know where it ended.
    if (copies > 0 && index >= all && index - all < tokens * copies) {
        unsigned token = (index - all) / copies, chunk = (index - all) % copies;
        size_t at = token * row + (size_t)turned * head_dim + chunk * 8;
        *reinterpret_cast<uint4*>(out + at) = *reinterpret_cast<const uint4*>(in + at);
    }
}

#define SHAPE unsigned tokens, unsigned seq, unsigned heads, unsigned kv_heads, unsigned head_dim, unsigned log_lanes, unsigned copies

#define ROPE(V)                                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(THREADS) rope_##V(const bf16* in, bf16* out, const float* cosines, const float* sines, float sign, \
                                                                   SHAPE) {                                                                      \
        rotate<V, false>(in, out, cosines, sines, nullptr, nullptr, 0.0f, sign, tokens, seq, heads, kv_heads, head_dim, log_lanes, copies);      \
    }                                                                                                                                            \
    extern "C" __global__ void __launch_bounds__(THREADS) rope_norm_##V(const bf16* in, bf16* out, const float* cosines, const float* sines,     \
                                                                        const float* q_weights, const float* k_weights, float eps, SHAPE) {      \
        rotate<V, true>(in, out, cosines, sines, q_weights, k_weights, eps, 1.0f, tokens, seq, heads, kv_heads, head_dim, log_lanes, copies);    \
    }
ROPE(4)
ROPE(8)

// The backward with a norm, in place, and each block's part of the gradients of the weights: partials[block] = [dw_q, dw_k]. A thread keeps its place in
// the head, so its part of the sums is in registers; first all queries, then all keys.
template <int V>
__device__ __forceinline__ void rotate_backward(const bf16* in, bf16* gradient, const float* cosines, const float* sines, const float* q_weights,
                                                const float* k_weights, float eps, float* partials, unsigned tokens, unsigned seq, unsigned heads,
                                                unsigned kv_heads, unsigned head_dim, unsigned log_lanes) {
    __shared__ float sums[THREADS * 2 * V];
    unsigned half = head_dim / 2, lanes = 1u << log_lanes, at_once = THREADS >> log_lanes;
    unsigned lane = threadIdx.x & (lanes - 1), slot = threadIdx.x >> log_lanes;
    size_t row = (size_t)(heads + 2 * kv_heads) * head_dim;
    for (unsigned kind = 0; kind < 2; kind++) {
        unsigned count = kind == 0 ? heads : kv_heads, first_head = kind == 0 ? 0 : heads, all = tokens * count;
        const float* weights = kind == 0 ? q_weights : k_weights;
        float wa[V] = {}, wb[V] = {}, da[V] = {}, db[V] = {};
        if (lane * V < half) {
            load(wa, weights + lane * V);
            load(wb, weights + half + lane * V);
        }
        // The same number of rounds for all threads, for the sums over warps.
        for (unsigned begin = blockIdx.x * at_once; begin < all; begin += gridDim.x * at_once) {
            unsigned which = begin + slot, token = which / count, head = first_head + which - token * count;
            bool active = which < all && lane * V < half;
            size_t at = token * row + head * head_dim + lane * V;
            float a[V] = {}, b[V] = {}, ga[V] = {}, gb[V] = {};
            if (active) {
                float c[V], s[V];
                size_t angle = (size_t)(token % seq) * half + lane * V;
                load(a, in + at);
                load(b, in + at + half);
                load(ga, gradient + at);
                load(gb, gradient + at + half);
                load(c, cosines + angle);
                load(s, sines + angle);
                turn(ga, gb, c, s, -1.0f);
            }
            float squares = 0.0f, products = 0.0f;
#pragma unroll
            for (int i = 0; i < V; i++) {
                squares += a[i] * a[i] + b[i] * b[i];
                products += ga[i] * wa[i] * a[i] + gb[i] * wb[i] * b[i];
            }
            squares = head_sum(squares, lanes);
            // A head of zeros has no gradient, as a row of zeros has none (rms_norm).
            float r = squares == 0.0f ? 0.0f : 1.0f / sqrtf(squares / head_dim + eps);
            float mean = head_sum(products, lanes) * r / head_dim;
#pragma unroll
            for (int i = 0; i < V; i++) {
                float xa = a[i] * r, xb = b[i] * r;
                da[i] += ga[i] * xa, db[i] += gb[i] * xb;
                a[i] = r * (ga[i] * wa[i] - xa * mean);
                b[i] = r * (gb[i] * wb[i] - xb * mean);
            }
            if (active) {
                store(gradient + at, a);
                store(gradient + at + half, b);
            }
        }
        __syncthreads();
#pragma unroll
        for (int i = 0; i < V; i++) {
            sums[threadIdx.x * 2 * V + i] = da[i];
            sums[threadIdx.x * 2 * V + V + i] = db[i];
        }
        __syncthreads();
        if (threadIdx.x < head_dim) {
            unsigned column = threadIdx.x % half, from = column / V * 2 * V + column % V + threadIdx.x / half * V;
            float total = 0.0f;
            for (unsigned s = 0; s < at_once; s++) total += sums[s * lanes * 2 * V + from];
            partials[(blockIdx.x * 2 + kind) * head_dim + threadIdx.x] = total;
        }
    }
}

#define ROPE_BACKWARD(V)                                                                                                                        \
    extern "C" __global__ void __launch_bounds__(THREADS) rope_norm_backward_##V(                                                               \
        const bf16* in, bf16* gradient, const float* cosines, const float* sines, const float* q_weights, const float* k_weights, float eps,    \
        float* partials, SHAPE) {                                                                                                               \
        rotate_backward<V>(in, gradient, cosines, sines, q_weights, k_weights, eps, partials, tokens, seq, heads, kv_heads, head_dim, log_lanes); \
    }
ROPE_BACKWARD(4)
ROPE_BACKWARD(8)

// Adds the blocks' parts: a block has 32 columns of one weight; eight threads a column take every eighth part in order, and are then added in order.
extern "C" __global__ void __launch_bounds__(THREADS) rope_norm_sum_partials(const float* partials, unsigned blocks, unsigned head_dim, float* dw_q,
                                                                             float* dw_k, unsigned accumulate) {
    __shared__ float sums[THREADS];
    unsigned column = blockIdx.x * 32 + threadIdx.x % 32, kind = blockIdx.y;
    float total = 0.0f;
    if (column < head_dim) {
#pragma unroll 8
        for (unsigned block = threadIdx.x / 32; block < blocks; block += 8) total += partials[(block * 2 + kind) * head_dim + column];
    }
    sums[threadIdx.x] = total;
    __syncthreads();
    if (threadIdx.x < 32 && column < head_dim) {
        for (unsigned other = 1; other < 8; other++) total += sums[threadIdx.x + 32 * other];
        float* dw = kind == 0 ? dw_q : dw_k;
        dw[column] = accumulate ? dw[column] + total : total;
    }
}
