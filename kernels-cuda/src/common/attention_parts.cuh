// What blocks of positions leave of a head's attention, and how it is put together, in the order and with the roundings of the CPU.
//
// A part is o[head_dim], m, l and two floats that are nothing: Σ w v, the largest score, Σ w, with w = exp(s − m). Over the parts, in the order of their positions:
//
//   M' = max(M, m)   a = exp(M − M')   c = exp(m − M')   L' = L·a + l·c   O' = O·a + o·c         out = O / L
#pragma once

#include "exact.cuh"
#include "kv_cache.cuh"
#include "reduce.cuh"
#include "stream.cuh"

// Most parts that the kernel behind attention puts together.
constexpr unsigned MOST_PARTS = 8;

// Floats of a part.
__device__ __forceinline__ unsigned part_size(unsigned head_dim) { return head_dim + 4; }

// The weights of a block of positions in the place of its `scores`, by the lanes of one warp, with their sum and the largest score.
__device__ __forceinline__ float weigh_block(float* scores, float& most) {
    unsigned lane = threadIdx.x % 32;
    most = -INFINITY;
#pragma unroll
    for (unsigned i = 0; i < POSITIONS; i += 32) most = fmaxf(most, scores[i + lane]);
    most = warp_max(most);
#pragma unroll
    for (unsigned i = 0; i < POSITIONS; i += 32) scores[i + lane] = exp_exact(add_rn(scores[i + lane], -most));
    __syncwarp();
    float sum = 0.0f;
    if (lane < 16) {
        float w[POSITIONS / 16];
#pragma unroll
        for (unsigned i = 0; i < POSITIONS / 16; i++) w[i] = scores[lane + 16 * i];
#pragma unroll
        for (unsigned i = 0; i < POSITIONS / 16; i++) sum = add_rn(sum, w[i]);
    }
    __syncwarp();
    return fold_lanes(sum);
}

// Puts `count` parts of a head together, by the lanes of one warp; neighbours are `apart` floats apart. The maxima so far are known before any sum is, so that the
// factors of 32 parts are made at once, one by each lane.
__device__ __forceinline__ void merge_parts(const float* parts, size_t apart, unsigned count, unsigned n, float* out) {
    // Elements of a lane, and parts whose loads are under way at once.
    constexpr unsigned EACH = 4, AHEAD = 4;
    unsigned lane = threadIdx.x % 32;
#pragma unroll 1
    for (unsigned from = 0; from < n; from += 32 * EACH) {
        float o[EACH], sum = 0.0f, most = -INFINITY;
#pragma unroll
        for (unsigned e = 0; e < EACH; e++) o[e] = 0.0f;
#pragma unroll 1
        for (unsigned base = 0; base < count; base += 32) {
            const float* mine = parts + (base + lane) * apart + n;
            bool there = base + lane < count;
            float m = there ? load_fresh(mine) : -INFINITY, l = there ? load_fresh(mine + 1) : 0.0f;
            float larger = m;
#pragma unroll
            for (unsigned step = 1; step < 32; step *= 2) {
                float other = __shfl_up_sync(0xffffffffu, larger, step);
                if (lane >= step) larger = other > larger ? other : larger;
            }
            larger = most > larger ? most : larger;
            float before = __shfl_up_sync(0xffffffffu, larger, 1);
            if (lane == 0) before = most;
            float a = exp_exact(add_rn(before, -larger)), c = exp_exact(add_rn(m, -larger));
            most = __shfl_sync(0xffffffffu, larger, 31);
            unsigned here = count - base < 32 ? count - base : 32;
#pragma unroll 1
            for (unsigned first = 0; first < here; first += AHEAD) {
                float x[AHEAD][EACH];
#pragma unroll
                for (unsigned u = 0; u < AHEAD; u++)
#pragma unroll
                    for (unsigned e = 0; e < EACH; e++) {
                        unsigned element = from + 32 * e + lane;
                        x[u][e] = first + u < here && element < n ? load_fresh(parts + (base + first + u) * apart + element) : 0.0f;
                    }
#pragma unroll
                for (unsigned u = 0; u < AHEAD; u++) {
                    float au = __shfl_sync(0xffffffffu, a, first + u), cu = __shfl_sync(0xffffffffu, c, first + u);
                    float lu = __shfl_sync(0xffffffffu, l, first + u);
                    if (first + u >= here) continue;
                    // The first part is taken as it is.
                    bool start = base + first + u == 0;
                    sum = start ? lu : fmaf(lu, cu, mul_rn(sum, au));
#pragma unroll
                    for (unsigned e = 0; e < EACH; e++) o[e] = start ? x[u][e] : fmaf(x[u][e], cu, mul_rn(o[e], au));
                }
            }
        }
#pragma unroll
        for (unsigned e = 0; e < EACH; e++) {
            unsigned element = from + 32 * e + lane;
            if (element < n) out[element] = div_rn(o[e], sum);
        }
    }
}

// The parts of one token that the kernel behind attention puts together itself, where they are few: `[kv_heads, cache_blocks, group, part_size]`.
struct Parts {
    const float* parts;
    unsigned head_dim, group, cache_blocks;

    __device__ __forceinline__ const float* of(unsigned head, unsigned block) const {
        return parts + ((size_t)(head / group * cache_blocks + block) * group + head % group) * part_size(head_dim);
    }
    // Part `block`, one of the first MOST_PARTS, of `head` is worth `factors`: a and c, and l. All maxima are asked for at once.
    __device__ __forceinline__ float4 factors(unsigned head, unsigned block) const {
        const float* first = of(head, 0) + head_dim;
        size_t apart = (size_t)group * part_size(head_dim);
        float m[MOST_PARTS], before = -INFINITY;
#pragma unroll
        for (unsigned b = 0; b < MOST_PARTS; b++) m[b] = b < block ? first[b * apart] : -INFINITY;
        float2 mine = *reinterpret_cast<const float2*>(first + block * apart);
#pragma unroll
        for (unsigned b = 0; b < MOST_PARTS; b++) before = before > m[b] ? before : m[b];
        float larger = before > mine.x ? before : mine.x;
        return make_float4(exp_exact(add_rn(before, -larger)), exp_exact(add_rn(mine.x, -larger)), mine.y, 0.0f);
    }
    // Where elements `at` to `at` + 3 of all heads are, of part 0, and how far the next part is.
    __device__ __forceinline__ const float4* four(unsigned at) const { return reinterpret_cast<const float4*>(of(at / head_dim, 0) + at % head_dim); }
    __device__ __forceinline__ unsigned apart() const { return group * part_size(head_dim) / 4; }
};

// Four elements of a head on the way through its parts.
struct Merging {
    float4 o;
    float sum;

    __device__ __forceinline__ void begin(const float4& x, const float4& factors) {
        o = x;
        sum = factors.z;
    }
    __device__ __forceinline__ void add(const float4& x, const float4& factors) {
        sum = fmaf(factors.z, factors.y, mul_rn(sum, factors.x));
        o.x = fmaf(x.x, factors.y, mul_rn(o.x, factors.x));
        o.y = fmaf(x.y, factors.y, mul_rn(o.y, factors.x));
        o.z = fmaf(x.z, factors.y, mul_rn(o.z, factors.x));
        o.w = fmaf(x.w, factors.y, mul_rn(o.w, factors.x));
    }
    __device__ __forceinline__ float4 end() const { return make_float4(div_rn(o.x, sum), div_rn(o.y, sum), div_rn(o.z, sum), div_rn(o.w, sum)); }
};
