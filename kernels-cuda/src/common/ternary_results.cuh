// What a block of a ternary product does around its share of the sums: its tiles' descriptors, what is added to, and the way from sums to output.
#pragma once

#include "exact.cuh"
#include "mma.cuh"
#include "ternary_epilogue.cuh"
#include "ternary_tiles.cuh"

// The block's tiles into shared memory, before anything is waited for.
template <int CODE>
__device__ __forceinline__ void copy_tiles(const Tile<CODE>* tiles, unsigned first, unsigned end, Tile<CODE>* to) {
    constexpr unsigned VECTORS = sizeof(Tile<CODE>) / 16;
#pragma unroll 1
    for (unsigned i = threadIdx.x; i < (end - first) * VECTORS; i += blockDim.x)
        reinterpret_cast<uint4*>(to)[i] = __ldg(reinterpret_cast<const uint4*>(tiles + first) + i);
}

// What lies in the place of this thread's first result, where it counts, fetched while the product runs.
template <int CODE>
__device__ __forceinline__ float residual(const Tile<CODE>* tiles, unsigned count, unsigned tokens, unsigned epilogue, const float* out, unsigned rows) {
    unsigned i = threadIdx.x, row = i % TILE, token = i / TILE % tokens, tile = i / TILE / tokens;
    if (!reads_output(epilogue) || tile >= count || row >= tiles[tile].rows) return 0.0f;
    return out[(size_t)token * rows + tiles[tile].first + row];
}

// From the sums to the output. `totals[b]` = Σ x and `steps[b]` = s are those of token b; `rows` are the values of an output row; `tiles` are the
// block's `count`.
template <int CODE>
__device__ __forceinline__ void finish(const Tile<CODE>* tiles, unsigned count, unsigned tokens, const int* sums, const int* totals, const float* steps,
                                       unsigned epilogue, float factor, float early, float* out, unsigned rows) {
    bool gated = of_pairs(epilogue);
    unsigned unit = gated ? 2 : 1;
#pragma unroll 1
    for (unsigned i = threadIdx.x; i < count / unit * TILE * tokens; i += blockDim.x) {
        unsigned row = i % TILE, token = i / TILE % tokens, tile = i / TILE / tokens * unit;
        unsigned first = tiles[tile].first;
        if (row >= tiles[tile].rows) continue;
        auto y = [&](unsigned at) {
            return scaled((float)(sums[(at * TILE + row) * tokens + token] - totals[token]), tiles[at].factor(row), steps[token]);
        };
        float* to = out + (size_t)token * rows + first + row;
        float old = !reads_output(epilogue) ? 0.0f : i < blockDim.x ? early : *to;
        *to = epilogue_of(epilogue, y(tile), gated ? y(tile + 1) : 0.0f, factor, old);
    }
}

// The sum of the four bytes of `packed`, added to `sum`.
__device__ __forceinline__ int add_bytes(unsigned packed, int sum) { return dot4_u8s8(0x01010101u, packed, sum); }

// What Σ code·x has too much counts the vector of 16 bytes, or the 4 bytes, at `at` of a token: not those of t2's last field, and none where codes are the weights themselves.
template <int CODE>
__device__ __forceinline__ bool counts(unsigned at) { return CODE == T2 ? at % 256 < 192 : CODE != I8; }

// Four values, each of them times r and then times its norm's weight; the largest of four; the quantiser's factor for what is at most `most`.
__device__ __forceinline__ float4 normed(float4 v, float r, float4 w) {
    return make_float4(mul_rn(mul_rn(v.x, r), w.x), mul_rn(mul_rn(v.y, r), w.y), mul_rn(mul_rn(v.z, r), w.z), mul_rn(mul_rn(v.w, r), w.w));
}
__device__ __forceinline__ float largest(float4 v) { return fmaxf(fmaxf(fabsf(v.x), fabsf(v.y)), fmaxf(fabsf(v.z), fabsf(v.w))); }
__device__ __forceinline__ float step_of(float most) { return div_rn(127.0f, most > 1e-5f ? most : 1e-5f); }
