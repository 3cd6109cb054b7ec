// target: sm_80
// What stands around the int8 product of many tokens with a packed matrix: the weights as bytes before it, and the way of its sums to the output.
//
// `unpack_*`: tiles of packed weights (ternary_gemv/kernel.cu) to `[8 tiles, weights of a row]` bytes -1, 0, 1, or what the bytes of i8 are, rows in the order of the tiles. A warp opens a
// block of 512 bytes, 16 bytes a lane, and writes them 16 at a time, in pieces of 64 bytes.
// Bytes: 0.125 (b1), 0.25 (t2), 0.2 (t3) or 1 (i8) read and 1 written a weight. Instructions for four weights: 3 (b1), 6 (t2), 11 (t3).
//
// `finish_sums`: `[tokens, 8 tiles]` sums as f32 to the output, by the arithmetic of the product of few tokens. A thread has four rows of a tile, or of both
// tiles of a pair. Bytes: 4 read and, of a stack, 4 written a sum (8 moved where it is added to something); of a pair half of that.
#include "memory.cuh"

#include "exact.cuh"
#include "stream.cuh"
#include "ternary_epilogue.cuh"

constexpr unsigned TILE = 8, TILE_BYTES = 512, ROW_BYTES = 64, THREADS = 256;

// Bytes 0, 1, 2 less 1 each: the bit that is set keeps a byte from borrowing of the next.
__device__ __forceinline__ unsigned signed_of(unsigned codes) { return ((codes | 0x80808080u) - 0x01010101u) ^ 0x80808080u; }

// Four bytes' weights, to `out`: field or digit f of them.
template <int CODE>
struct Opened;
template <>
struct Opened<B1> {
    static constexpr unsigned FIELDS = 8;
    static __device__ __forceinline__ void open(unsigned w, unsigned (&out)[FIELDS]) {
        // 1 is 1, and 0 less 1 in every bit of its byte.
#pragma unroll
        for (unsigned f = 0; f < 8; f++) out[f] = ((w >> f & 0x01010101u) ^ 0x01010101u) * 255u | 0x01010101u;
    }
};
template <>
struct Opened<I8> {
    static constexpr unsigned FIELDS = 1;
    static __device__ __forceinline__ void open(unsigned w, unsigned (&out)[FIELDS]) { out[0] = w; }
};
template <>
struct Opened<T2> {
    static constexpr unsigned FIELDS = 4;
    static __device__ __forceinline__ void open(unsigned w, unsigned (&out)[FIELDS]) {
#pragma unroll
        for (unsigned f = 0; f < 3; f++) out[f] = signed_of(w >> (2 * f) & 0x03030303u);
        // The last field is the weight itself, of two bits.
        out[3] = signed_of(((w >> 6 & 0x03030303u) + 0x01010101u) & 0x03030303u);
    }
};
template <>
struct Opened<T3> {
    static constexpr unsigned FIELDS = 5;
    static __device__ __forceinline__ void open(unsigned w, unsigned (&out)[FIELDS]) {
        constexpr unsigned POWERS[5] = {3, 9, 27, 81, 243};
        unsigned even = w & 0x00ff00ffu, odd = w >> 8 & 0x00ff00ffu, before = 0;
#pragma unroll
        for (unsigned digit = 0; digit < 5; digit++) {
            unsigned number = high_bytes(even * POWERS[digit], odd * POWERS[digit]);
            out[digit] = signed_of(number - 3 * before);
            before = number;
        }
    }
};

// `blocks` of all tiles together; a row has `k_blocks` of them.
template <int CODE>
__device__ __forceinline__ void unpack(const unsigned char* weights, unsigned blocks, unsigned k_blocks, unsigned char* out) {
    constexpr unsigned FIELDS = Opened<CODE>::FIELDS;
    unsigned item = blockIdx.x * (THREADS / 32) + threadIdx.x / 32, row = threadIdx.x % 32 / 4, part = threadIdx.x % 4;
    if (item >= blocks) return;
    uint4 packed = load_stream16(weights + (size_t)item * TILE_BYTES + threadIdx.x % 32 * 16);
    unsigned x[FIELDS], y[FIELDS], z[FIELDS], w[FIELDS];
    Opened<CODE>::open(packed.x, x);
    Opened<CODE>::open(packed.y, y);
    Opened<CODE>::open(packed.z, z);
    Opened<CODE>::open(packed.w, w);
    unsigned tile = item / k_blocks, block = item % k_blocks;
    unsigned char* to = out + ((size_t)(tile * TILE + row) * k_blocks + block) * FIELDS * ROW_BYTES + part * 16;
#pragma unroll
    for (unsigned f = 0; f < FIELDS; f++) *reinterpret_cast<uint4*>(to + f * ROW_BYTES) = make_uint4(x[f], y[f], z[f], w[f]);
}

extern "C" __global__ void __launch_bounds__(THREADS) unpack_t2(const unsigned char* weights, unsigned blocks, unsigned k_blocks, unsigned char* out) {
    unpack<T2>(weights, blocks, k_blocks, out);
}
extern "C" __global__ void __launch_bounds__(THREADS) unpack_b1(const unsigned char* weights, unsigned blocks, unsigned k_blocks, unsigned char* out) {
    unpack<B1>(weights, blocks, k_blocks, out);
}
extern "C" __global__ void __launch_bounds__(THREADS) unpack_i8(const unsigned char* weights, unsigned blocks, unsigned k_blocks, unsigned char* out) {
    unpack<I8>(weights, blocks, k_blocks, out);
}
extern "C" __global__ void __launch_bounds__(THREADS) unpack_t3(const unsigned char* weights, unsigned blocks, unsigned k_blocks, unsigned char* out) {
    unpack<T3>(weights, blocks, k_blocks, out);
}

// `sums` `[tokens, 8 tile_count]`; `scales` `[tokens]`; `out` `[tokens, rows]`. blockIdx.y is the token.
template <int CODE>
__device__ __forceinline__ void finish(const float* sums, const Tile<CODE>* tiles, unsigned tile_count, const float* scales, unsigned epilogue, float factor,
                                       float* out, unsigned rows) {
    bool gated = of_pairs(epilogue);
    unsigned i = blockIdx.x * THREADS + threadIdx.x, token = blockIdx.y, tile = i / 2 * (gated ? 2 : 1), half = i % 2 * 4;
    if (tile >= tile_count) return;
    unsigned first = __ldg(&tiles[tile].first), tile_rows = __ldg(&tiles[tile].rows);
    if (half >= tile_rows) return;
    unsigned count = tile_rows - half < 4 ? tile_rows - half : 4;
    float step = scales[token];
    const float* from = sums + (size_t)token * tile_count * TILE + tile * TILE + half;
    float* to = out + (size_t)token * rows + first + half;
    float4 sum = *reinterpret_cast<const float4*>(from), other = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    if (gated) other = *reinterpret_cast<const float4*>(from + TILE);
    bool whole = count == 4 && reinterpret_cast<size_t>(to) % 16 == 0;
    float old[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    if (reads_output(epilogue)) {
        if (whole) {
            float4 v = *reinterpret_cast<const float4*>(to);
            old[0] = v.x;
            old[1] = v.y;
            old[2] = v.z;
            old[3] = v.w;
        } else {
#pragma unroll
            for (unsigned j = 0; j < 4; j++)
                if (j < count) old[j] = to[j];
        }
    }
    const float values[4] = {sum.x, sum.y, sum.z, sum.w}, ups[4] = {other.x, other.y, other.z, other.w};
    float y[4];
#pragma unroll
    for (unsigned j = 0; j < 4; j++)
        y[j] = epilogue_of(epilogue, scaled(values[j], tiles[tile].factor(half + j), step),
                           gated ? scaled(ups[j], tiles[tile + 1].factor(half + j), step) : 0.0f, factor, old[j]);
    if (whole) {
        *reinterpret_cast<float4*>(to) = make_float4(y[0], y[1], y[2], y[3]);
    } else {
#pragma unroll
        for (unsigned j = 0; j < 4; j++)
            if (j < count) to[j] = y[j];
    }
}

#define FINISH(name, code)                                                                                                                       \
    extern "C" __global__ void __launch_bounds__(THREADS) name(const float* sums, const Tile<code>* tiles, unsigned tile_count, const float* scales,     \
                                                                   unsigned epilogue, float factor, float* out, unsigned rows) {                     \
        finish<code>(sums, tiles, tile_count, scales, epilogue, factor, out, rows);                                                              \
    }
// The packed codes have one γ a tile.
FINISH(finish_sums, T2)
FINISH(finish_sums_i8, I8)
