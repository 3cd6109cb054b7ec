// target: sm_80
// y[t, r] = Σ_k w[r,k] · x[t,k] in the order of the CPU's sixteen lanes (mod.rs): floats, bytes with a step a row, and half bytes with a step for 32 columns.
//
// A chain cannot be cut, so what is side by side are its fellows: four threads have a row, four lanes each, and a warp eight rows, a tile. A tile is items of 512 bytes, 16 for each thread, that
// lie one after the other:
//   floats, bytes   the thread's four columns of so many successive sixteens as make 16 bytes: 1 (f32), 2 (f16, bf16), 4 (bytes)
//   half bytes      item 0 of nine: the steps (f16) of the thread's group in eight blocks of 128 columns; then its 16 bytes of each of these blocks, of which the low halves are columns
//                   0 to 15 of the group and the high ones 16 to 31, all in two's complement
//
// Bytes: the matrix once for every `TOKENS` tokens, each through a ring of 8 KB a warp, filled before the wait for the kernel ahead (why: weight_ring.cuh): 64 KB are under way on a
// multiprocessor, and each block has some tiles of its own. Instructions for four weights and a token: 4 multiply-adds and one load of 16 bytes of activations, which four addresses of a warp
// share; of half bytes for 8: 2 products, 1.5 to open them, 3 to make a float of the sum and add it. Of eight tokens multiply-adds and loads take as long: on a multiprocessor
// 8 clocks for four columns of eight rows.
#include "memory.cuh"
#include "mma.cuh"
#include "reduce.cuh"

#include "exact.cuh"
#include "stream.cuh"
#include "ternary_epilogue.cuh"

constexpr unsigned TILE = 8, ITEM_BYTES = 512, WARPS = 8, THREADS = 32 * WARPS, SLOTS = 16, GROUP = 32, HEADED = 8;

enum Kind : int { F32 = 0, F16 = 1, BF16 = 2, INT8 = 3, INT4 = 4 };
// Columns of an item.
template <int KIND>
constexpr unsigned COLUMNS = KIND == F32 ? 16 : KIND == INT8 ? 64 : KIND == INT4 ? 128 : 32;

// What a warp's ring is filled with: its lane's 16 bytes of every item of tiles `tile`, `tile + WARPS`, … before `end`.
struct Items {
    const unsigned char* from;
    unsigned char* own;
    unsigned tile, end, items, left, slot;

    __device__ __forceinline__ Items(const unsigned char* weights, unsigned items, unsigned tile, unsigned end, unsigned char* rings)
        : from(weights + (size_t)tile * items * ITEM_BYTES + threadIdx.x % 32 * 16),
          own(rings + threadIdx.x / 32 * SLOTS * ITEM_BYTES + threadIdx.x % 32 * 16),
          tile(tile),
          end(end),
          items(items),
          left(items),
          slot(0) {
#pragma unroll 1
        for (unsigned i = 0; i < SLOTS; i++) fetch(i);
    }
    __device__ __forceinline__ void fetch(unsigned to) {
        if (tile < end) {
            copy_async16(own + to * ITEM_BYTES, from);
            from += ITEM_BYTES;
            if (--left == 0) {
                left = items;
                tile += WARPS;
                from += (size_t)(WARPS - 1) * items * ITEM_BYTES;
            }
        }
        copy_async_commit();
    }
    // The oldest of what was fetched, and the next fetch of its slot.
    __device__ __forceinline__ uint4 take() {
        copy_async_wait<SLOTS - 1>();
        uint4 v = *reinterpret_cast<const uint4*>(own + slot * ITEM_BYTES);
        fetch(slot);
        slot = slot + 1 == SLOTS ? 0 : slot + 1;
        return v;
    }
};

// The thread's four columns of sixteen `s` of an item.
template <int KIND>
__device__ __forceinline__ void open(const uint4& v, int s, float (&w)[4]) {
    if (KIND == F32) {
        w[0] = of_bits(v.x);
        w[1] = of_bits(v.y);
        w[2] = of_bits(v.z);
        w[3] = of_bits(v.w);
    } else if (KIND == INT8) {
        unsigned word = s == 0 ? v.x : s == 1 ? v.y : s == 2 ? v.z : v.w;
        w[0] = byte_to_f32<0>(word);
        w[1] = byte_to_f32<1>(word);
        w[2] = byte_to_f32<2>(word);
        w[3] = byte_to_f32<3>(word);
    } else {
        unsigned low = s ? v.z : v.x, high = s ? v.w : v.y;
        w[0] = KIND == BF16 ? of_bits(low << 16) : f16_to_f32((unsigned short)low);
        w[1] = KIND == BF16 ? of_bits(low & 0xffff0000u) : f16_to_f32((unsigned short)(low >> 16));
        w[2] = KIND == BF16 ? of_bits(high << 16) : f16_to_f32((unsigned short)high);
        w[3] = KIND == BF16 ? of_bits(high & 0xffff0000u) : f16_to_f32((unsigned short)(high >> 16));
    }
}

// Columns `begin` to `begin + span` of `TOKENS` tokens from `first` on as rows of `span` floats. Zeros behind `cols` up to a multiple of 16, as the CPU has them; behind that -0, which changes
// no chain, whatever its sign.
template <int TOKENS>
__device__ __forceinline__ void load_floats(const float* x, unsigned cols, unsigned begin, unsigned span, unsigned first, unsigned tokens, float* xs) {
    unsigned filled = (cols + 15) / 16 * 16;
    for (unsigned i = threadIdx.x; i < TOKENS * span / 4; i += THREADS) {
        unsigned token = first + 4 * i / span, column = begin + 4 * i % span;
        float4 v;
        if (token < tokens && column + 4 <= cols && cols % 4 == 0) {
            v = *reinterpret_cast<const float4*>(x + (size_t)token * cols + column);
        } else {
            float each[4];
#pragma unroll
            for (unsigned j = 0; j < 4; j++)
                each[j] = column + j >= cols || token >= tokens ? (column + j < filled ? 0.0f : -0.0f) : x[(size_t)token * cols + column + j];
            v = make_float4(each[0], each[1], each[2], each[3]);
        }
        reinterpret_cast<float4*>(xs)[i] = v;
    }
}

// The same of bytes, `stride` of them a token, and the step of each group behind them: one of `groups` for each token, or, where that is 0, 1 / s.
template <int TOKENS>
__device__ __forceinline__ void load_bytes(const unsigned char* x, unsigned stride, const float* scales, unsigned groups, unsigned begin, unsigned span, unsigned first, unsigned tokens,
                                           unsigned char* xs) {
    for (unsigned i = threadIdx.x; i < TOKENS * span / 16; i += THREADS) {
        unsigned token = first + 16 * i / span, column = begin + 16 * i % span;
        bool there = token < tokens && column < stride;
        reinterpret_cast<uint4*>(xs)[i] = there ? *reinterpret_cast<const uint4*>(x + (size_t)token * stride + column) : make_uint4(0, 0, 0, 0);
    }
    float* steps = reinterpret_cast<float*>(xs + TOKENS * span);
    unsigned each = span / GROUP;
    for (unsigned i = threadIdx.x; i < TOKENS * each; i += THREADS) {
        unsigned token = first + i / each, group = begin / GROUP + i % each;
        float step = 0.0f;
        if (token < tokens && !groups) step = div_rn(1.0f, scales[token]);
        if (token < tokens && group < groups) step = scales[(size_t)token * groups + group];
        steps[i] = step;
    }
}

// `tiles` `[tile_count, 2]`: the first output row of each and how many it has; `steps` `[8 tile_count]` of bytes. `x` `[tokens, cols]` floats, or bytes `[tokens, stride]`. `span` columns are in
// shared memory at a time: all, or a multiple of 1024. blockIdx.x has `TOKENS` tokens, blockIdx.y a share of the tiles.
template <int KIND, int TOKENS>
__device__ __forceinline__ void chain_gemv(const unsigned char* weights, const unsigned* tiles, const float* steps, unsigned tile_count, unsigned cols, unsigned span, const unsigned char* x,
                                           unsigned stride, const float* scales, unsigned groups, unsigned tokens, unsigned epilogue, float factor, float* out, unsigned rows) {
    DYNAMIC_SHARED(unsigned char, shared);
    unsigned char* xs = shared + WARPS * SLOTS * ITEM_BYTES;
    unsigned warp = threadIdx.x / 32, row = threadIdx.x % 32 / 4, part = threadIdx.x % 4, token = blockIdx.x * TOKENS;
    unsigned begin = (unsigned)((unsigned long long)tile_count * blockIdx.y / gridDim.y);
    unsigned end = (unsigned)((unsigned long long)tile_count * (blockIdx.y + 1) / gridDim.y);
    unsigned items = (cols + COLUMNS<KIND> - 1) / COLUMNS<KIND>, headed = KIND == INT4 ? (items + HEADED - 1) / HEADED : 0;

    Items stream(weights, items + headed, begin + warp, end, shared);
    grid_wait();
    grid_launch_dependents();

    auto load = [&](unsigned at) {
        if (KIND == INT4)
            load_bytes<TOKENS>(x, stride, scales, groups, at, span, token, tokens, xs);
        else
            load_floats<TOKENS>(reinterpret_cast<const float*>(x), cols, at, span, token, tokens, reinterpret_cast<float*>(xs));
    };
    bool whole = span >= cols;
    if (whole) {
        load(0);
        __syncthreads();
    }
    // All warps take as many turns, since they load together.
#pragma unroll 1
    for (unsigned turn = begin; turn < end; turn += WARPS) {
        unsigned tile = turn + warp;
        float sums[TOKENS][4];
#pragma unroll
        for (int t = 0; t < TOKENS; t++)
#pragma unroll
            for (int i = 0; i < 4; i++) sums[t][i] = 0.0f;
#pragma unroll 1
        for (unsigned at = 0; at < items * COLUMNS<KIND>; at += span) {
            if (!whole) {
                __syncthreads();
                load(at);
                __syncthreads();
            }
            if (tile >= end) continue;
            unsigned left = items - at / COLUMNS<KIND>, count = span / COLUMNS<KIND> < left ? span / COLUMNS<KIND> : left;
            if constexpr (KIND == INT4) {
                const unsigned char* from = xs + part * GROUP;
                const float* with = reinterpret_cast<const float*>(xs + TOKENS * span) + part;
                uint4 head = make_uint4(0, 0, 0, 0);
#pragma unroll 1
                for (unsigned i = 0; i < count; i++) {
                    if (i % HEADED == 0) head = stream.take();
                    float step = f16_to_f32((unsigned short)head.x);
                    head = make_uint4(head.x >> 16 | head.y << 16, head.y >> 16 | head.z << 16, head.z >> 16 | head.w << 16, head.w >> 16);
                    uint4 v = stream.take();
                    const unsigned w[4] = {v.x, v.y, v.z, v.w};
                    unsigned low[4], high[4];
#pragma unroll
                    for (int s = 0; s < 4; s++) {
                        low[s] = w[s] << 4 & 0xf0f0f0f0u;
                        high[s] = w[s] & 0xf0f0f0f0u;
                    }
#pragma unroll
                    for (int t = 0; t < TOKENS; t++) {
                        uint4 a = *reinterpret_cast<const uint4*>(from + t * span), b = *reinterpret_cast<const uint4*>(from + t * span + 16);
                        float scale = mul_rn(step, with[t * (span / GROUP)]);
                        const unsigned first[4] = {a.x, a.y, a.z, a.w}, second[4] = {b.x, b.y, b.z, b.w};
#pragma unroll
                        for (int s = 0; s < 4; s++) {
                            int sum = dot4_s8s8(high[s], second[s], dot4_s8s8(low[s], first[s], 0));
                            // Halves are sixteen times too large where they stand.
                            sums[t][s] = fmaf((float)(sum >> 4), scale, sums[t][s]);
                        }
                    }
                    from += COLUMNS<INT4>;
                    with += COLUMNS<INT4> / GROUP;
                }
            } else {
                const float* from = reinterpret_cast<const float*>(xs) + 4 * part;
#pragma unroll 1
                for (unsigned i = 0; i < count; i++) {
                    uint4 v = stream.take();
#pragma unroll
                    for (int s = 0; s < (int)COLUMNS<KIND> / 16; s++) {
                        float w[4];
                        open<KIND>(v, s, w);
#pragma unroll
                        for (int t = 0; t < TOKENS; t++) {
                            float4 a = *reinterpret_cast<const float4*>(from + t * span + 16 * s);
                            sums[t][0] = fmaf(w[0], a.x, sums[t][0]);
                            sums[t][1] = fmaf(w[1], a.y, sums[t][1]);
                            sums[t][2] = fmaf(w[2], a.z, sums[t][2]);
                            sums[t][3] = fmaf(w[3], a.w, sums[t][3]);
                        }
                    }
                    from += COLUMNS<KIND>;
                }
            }
        }
        if (tile >= end) continue;
        unsigned first = __ldg(tiles + 2 * tile), count = __ldg(tiles + 2 * tile + 1);
        float step = KIND == INT8 ? __ldg(steps + tile * TILE + row) : 1.0f;
#pragma unroll
        for (int t = 0; t < TOKENS; t++) {
            float four[4];
#pragma unroll
            for (int i = 0; i < 4; i++) {
                float eight = add_rn(sums[t][i], __shfl_xor_sync(0xffffffffu, sums[t][i], 2));
                four[i] = add_rn(eight, __shfl_xor_sync(0xffffffffu, eight, 1));
            }
            float y = add_rn(add_rn(four[0], four[2]), add_rn(four[1], four[3]));
            if (KIND == INT8) y = mul_rn(y, step);
            // All four threads have it; one of them writes it.
            if (part == (unsigned)t % 4 && token + t < tokens && row < count) {
                float* to = out + (size_t)(token + t) * rows + first + row;
                *to = epilogue_of(epilogue, y, 0.0f, factor, reads_output(epilogue) ? *to : 0.0f);
            }
        }
    }
}

#define CHAINS(name, kind, count)                                                                                                                            \
    extern "C" __global__ void __launch_bounds__(THREADS, 2)                                                                                                 \
        name(const unsigned char* weights, const unsigned* tiles, const float* steps, unsigned tile_count, unsigned cols, unsigned span,                     \
             const unsigned char* x, unsigned stride, const float* scales, unsigned groups, unsigned tokens, unsigned epilogue, float factor, float* out,    \
             unsigned rows) {                                                                                                                                \
        chain_gemv<kind, count>(weights, tiles, steps, tile_count, cols, span, x, stride, scales, groups, tokens, epilogue, factor, out, rows);              \
    }
CHAINS(chain_gemv_f32_1, F32, 1)
CHAINS(chain_gemv_f32_8, F32, 8)
CHAINS(chain_gemv_f16_1, F16, 1)
CHAINS(chain_gemv_f16_8, F16, 8)
CHAINS(chain_gemv_bf16_1, BF16, 1)
CHAINS(chain_gemv_bf16_8, BF16, 8)
CHAINS(chain_gemv_int8_1, INT8, 1)
CHAINS(chain_gemv_int8_8, INT8, 8)
CHAINS(chain_gemv_int4_1, INT4, 1)
CHAINS(chain_gemv_int4_8, INT4, 8)

// The input of an int4 head: each group of 32 of the floats `x`, `[tokens, cols]`, to bytes by its own largest magnitude. `out` `[tokens, 32 groups]`, zeros behind `cols`; `steps`
// `[tokens, groups]`, NaN where a value is not finite. A block a token, a warp a group.
extern "C" __global__ void __launch_bounds__(THREADS) quantize_groups(const float* x, unsigned cols, unsigned groups, unsigned char* out, float* steps) {
    grid_wait();
    grid_launch_dependents();
    unsigned lane = threadIdx.x % 32;
    for (unsigned group = threadIdx.x / 32; group < groups; group += WARPS) {
        unsigned column = group * GROUP + lane;
        float v = column < cols ? x[(size_t)blockIdx.x * cols + column] : 0.0f;
        float most = fmaxf(warp_max(fabsf(v)), 1e-30f);
        // 0, or NaN.
        float rest = warp_sum(v - v);
        float q = rintf(mul_rn(v, div_rn(127.0f, most)));
        q = fminf(fmaxf(q, -127.0f), 127.0f);
        out[((size_t)blockIdx.x * groups + group) * GROUP + lane] = (unsigned char)(int)q;
        if (lane == 0) steps[(size_t)blockIdx.x * groups + group] = add_rn(div_rn(most, 127.0f), rest);
    }
}
