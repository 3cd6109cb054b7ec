// target: sm_80
// Dropout in place (mod.rs has the formulas): of elements, four a thread, and of whole rows.
//
// Bytes an element: read and written once, 8 of f32 and 4 of bf16. About 60 operations for four, most of them Philox; memory is the limit.
#include "bf16.cuh"
#include "philox.cuh"

__device__ __forceinline__ void load_four(const float* x, float (&v)[4]) {
    float4 four = *reinterpret_cast<const float4*>(x);
    v[0] = four.x, v[1] = four.y, v[2] = four.z, v[3] = four.w;
}
__device__ __forceinline__ void store_four(float* x, const float (&v)[4]) { *reinterpret_cast<float4*>(x) = make_float4(v[0], v[1], v[2], v[3]); }
__device__ __forceinline__ void load_four(const bf16* x, float (&v)[4]) {
    uint2 four = *reinterpret_cast<const uint2*>(x);
    v[0] = low_f32(four.x), v[1] = high_f32(four.x), v[2] = low_f32(four.y), v[3] = high_f32(four.y);
}
__device__ __forceinline__ void store_four(bf16* x, const float (&v)[4]) {
    *reinterpret_cast<uint2*>(x) = make_uint2(pack_bf16(v[0], v[1]), pack_bf16(v[2], v[3]));
}

// The numbers of a place, made by one thread of a block.
#define KEY                                                                \
    __shared__ Words key;                                                  \
    if (threadIdx.x == 0) key = dropout_key(*step, seed, purpose);         \
    __syncthreads();                                                       \
    unsigned long long i = blockIdx.x * 256ull + threadIdx.x;              \
    if (i >= vectors) return;                                              \
    float v[4]

#define DROP(name, type)                                                                                                                            \
    extern "C" __global__ void __launch_bounds__(256)                                                                                               \
        name(type* x, const unsigned* __restrict__ step, unsigned long long seed, unsigned purpose, unsigned threshold, float keep, unsigned long long vectors) { \
        KEY;                                                                                                                                        \
        load_four(x + 4 * i, v);                                                                                                                    \
        drop(key, 4 * i, threshold, keep, v);                                                                                                       \
        store_four(x + 4 * i, v);                                                                                                                   \
    }

DROP(drop_f32, float)
DROP(drop_bf16, bf16)

// Rows of `quads` times four elements. Number `ids[row]` of the stream is the row's, or, without ids, number `row / together`.
#define DROP_ROWS(name, type)                                                                                                                       \
    extern "C" __global__ void __launch_bounds__(256)                                                                                               \
        name(type* x, const unsigned* __restrict__ step, unsigned long long seed, unsigned purpose, unsigned threshold, float keep, unsigned long long vectors,  \
             unsigned quads, const unsigned* __restrict__ ids, unsigned together) {                                                                 \
        KEY;                                                                                                                                        \
        unsigned long long row = i / quads;                                                                                                         \
        unsigned index = ids != nullptr ? ids[row] : (unsigned)(row / together);                                                                    \
        Words random = philox(Words{{index / 4, 0, key.w[2], key.w[3]}}, key.w[0], key.w[1]);                                                       \
        unsigned lane = index % 4;                                                                                                                  \
        unsigned word = lane == 0 ? random.w[0] : lane == 1 ? random.w[1] : lane == 2 ? random.w[2] : random.w[3];                                  \
        bool kept = word >> 8 >= threshold;                                                                                                         \
        load_four(x + 4 * i, v);                                                                                                                    \
        _Pragma("unroll") for (int j = 0; j < 4; j++) v[j] = kept ? v[j] * keep : 0.0f;                                                             \
        store_four(x + 4 * i, v);                                                                                                                   \
    }

DROP_ROWS(drop_rows_f32, float)
DROP_ROWS(drop_rows_bf16, bf16)
