// Tiles of packed weights and their product with a few tokens of bytes, as `ternary_gemv/kernel.cu` describes them: a warp's run through its
// block's share, the ring that brings the weights, and the tensor core's products of what it brings.
#pragma once

#include "memory.cuh"
#include "mma.cuh"
#include "stream.cuh"
#include "exact.cuh"
#include "ternary_epilogue.cuh"
#include "weight_ring.cuh"

// Rows of a tile, bytes of a block of it.
constexpr unsigned TILE = 8, TILE_BYTES = 512;

// Weights of a row in a block.
template <int CODE>
constexpr unsigned BLOCK = CODE == B1 ? 512 : CODE == T2 ? 256 : CODE == T3 ? 320 : 64;

// Bytes between the tokens of `xq` in shared memory: 64 more than a multiple of 128, so that two tokens lie in different banks.
__device__ __forceinline__ unsigned token_stride(unsigned weights) { return weights % 128 == 64 ? weights : weights + 64; }

// The lane's bytes of B: column `threadIdx.x % 32 / 4` of each of `N` groups of eight columns. A column without a token has those of the last token: its
// results are not looked at.
template <int N>
struct Columns {
    const unsigned char* x[N];  // at the lane's 16 bytes of the block

    __device__ __forceinline__ Columns(const unsigned char* xq, unsigned stride, unsigned tokens) {
        unsigned g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
#pragma unroll
        for (unsigned j = 0; j < N; j++) x[j] = xq + (8 * j + g < tokens ? 8 * j + g : tokens - 1) * stride + 16 * t;
    }
    __device__ __forceinline__ void move(int bytes) {
#pragma unroll
        for (int j = 0; j < N; j++) x[j] += bytes;
    }
    __device__ __forceinline__ uint4 load(int j, unsigned offset) const { return *reinterpret_cast<const uint4*>(x[j] + offset); }
    __device__ __forceinline__ uint2 load_half(int j, unsigned offset) const { return *reinterpret_cast<const uint2*>(x[j] + offset); }
};

// Sums of a pair of tiles, of 8N tokens, in parts that are each a chain of products.
template <int CODE, int N>
struct Sums;

// The parts, of FIELDS fields.
template <int FIELDS, int N>
struct Fields {
    int part[FIELDS][N][4];

    __device__ __forceinline__ void clear() {
#pragma unroll
        for (int f = 0; f < FIELDS; f++)
#pragma unroll
            for (int j = 0; j < N; j++)
#pragma unroll
                for (int i = 0; i < 4; i++) part[f][j][i] = 0;
    }
};

// Two chains of what is whole in either.
template <int N>
struct Halves : Fields<2, N> {
    using Fields<2, N>::part;

    __device__ __forceinline__ int total(int j, int i) const { return part[0][j][i] + part[1][j][i]; }
};

// t2: part f is that of field f, which is masked where it stands and so is 4^f times too large.
template <int N>
struct Sums<T2, N> : Fields<4, N> {
    using Fields<4, N>::part;

    __device__ __forceinline__ int total(int j, int i) const {
        return part[0][j][i] + (part[1][j][i] >> 2) + (part[2][j][i] >> 4) + (part[3][j][i] >> 6);
    }
    // Adds the products of the lane's 16 bytes of a row of either tile.
    __device__ __forceinline__ void add(const uint4& top, const uint4& bottom, const Columns<N>& x) {
        const unsigned w[8] = {top.x, bottom.x, top.y, bottom.y, top.z, bottom.z, top.w, bottom.w};
#pragma unroll
        for (int f = 0; f < 4; f++) {
            uint4 v[N];
#pragma unroll
            for (int j = 0; j < N; j++) v[j] = x.load(j, f * 64);
#pragma unroll
            for (int half = 0; half < 2; half++) {
                unsigned a[4];
#pragma unroll
                for (int i = 0; i < 4; i++) a[i] = w[4 * half + i] & (0x03030303u << (2 * f));
#pragma unroll
                for (int j = 0; j < N; j++) {
                    unsigned b[2] = {half ? v[j].z : v[j].x, half ? v[j].w : v[j].y};
                    mma_s8(part[f][j], a, b);
                }
            }
        }
    }
};

// b1: part f is that of the bits f and f+4, which are masked where they stand once the high half of a byte is in the place of the low one, and so is 2^f times too large. What is wanted
// is twice the sum of the bits, of which Σ x is taken.
template <int N>
struct Sums<B1, N> : Fields<4, N> {
    using Fields<4, N>::part;

    __device__ __forceinline__ int total(int j, int i) const {
        return 2 * part[0][j][i] + part[1][j][i] + (part[2][j][i] >> 1) + (part[3][j][i] >> 2);
    }
    __device__ __forceinline__ void add(const uint4& top, const uint4& bottom, const Columns<N>& x) {
        unsigned w[8] = {top.x, bottom.x, top.y, bottom.y, top.z, bottom.z, top.w, bottom.w};
#pragma unroll
        for (int bit = 0; bit < 8; bit++) {
            if (bit == 4) {
#pragma unroll
                for (int i = 0; i < 8; i++) w[i] >>= 4;
            }
            uint4 v[N];
#pragma unroll
            for (int j = 0; j < N; j++) v[j] = x.load(j, bit * 64);
#pragma unroll
            for (int half = 0; half < 2; half++) {
                unsigned a[4];
#pragma unroll
                for (int i = 0; i < 4; i++) a[i] = w[4 * half + i] & (0x01010101u << (bit % 4));
#pragma unroll
                for (int j = 0; j < N; j++) {
                    unsigned b[2] = {half ? v[j].z : v[j].x, half ? v[j].w : v[j].y};
                    mma_s8(part[bit % 4][j], a, b);
                }
            }
        }
    }
};

// Bytes are what the tensor core takes; the halves are two chains.
template <int N>
struct Sums<I8, N> : Halves<N> {
    using Halves<N>::part;

    __device__ __forceinline__ void add(const uint4& top, const uint4& bottom, const Columns<N>& x) {
        const unsigned first[4] = {top.x, bottom.x, top.y, bottom.y}, second[4] = {top.z, bottom.z, top.w, bottom.w};
#pragma unroll
        for (int j = 0; j < N; j++) {
            uint4 v = x.load(j, 0);
            const unsigned low[2] = {v.x, v.y}, high[2] = {v.z, v.w};
            mma_s8(part[0][j], first, low);
            mma_s8(part[1][j], second, high);
        }
    }
};

template <int N>
struct Sums<T3, N> : Halves<N> {
    using Halves<N>::part;

    // One half of a lane's words: rows 0 to 7, 8 to 15, and the same of the next word.
    template <bool SECOND>
    __device__ __forceinline__ void add_half(unsigned w0, unsigned w1, unsigned w2, unsigned w3, const Columns<N>& x) {
        constexpr unsigned BYTES = 0x00ff00ffu;
        unsigned even[4] = {w0 & BYTES, w1 & BYTES, w2 & BYTES, w3 & BYTES};
        unsigned odd[4] = {odd_bytes(w0), odd_bytes(w1), odd_bytes(w2), odd_bytes(w3)};
        unsigned before[4] = {0, 0, 0, 0};
        constexpr unsigned POWERS[5] = {3, 9, 27, 81, 243};
#pragma unroll
        for (int digit = 0; digit < 5; digit++) {
            unsigned a[4];
#pragma unroll
            for (int i = 0; i < 4; i++) {
                unsigned number = high_bytes(even[i] * POWERS[digit], odd[i] * POWERS[digit]);
                a[i] = number - 3 * before[i];
                before[i] = number;
            }
#pragma unroll
            for (int j = 0; j < N; j++) {
                uint2 v = x.load_half(j, digit * 64 + SECOND * 8);
                unsigned b[2] = {v.x, v.y};
                mma_s8(part[SECOND][j], a, b);
            }
        }
    }
    __device__ __forceinline__ void add(const uint4& top, const uint4& bottom, const Columns<N>& x) {
        add_half<false>(top.x, bottom.x, top.y, bottom.y, x);
        add_half<true>(top.z, bottom.z, top.w, bottom.w, x);
    }
};

// Where the shares of blocks begin: each has `each` units of `unit` tiles, the first `more` of them one more.
struct Borders {
    unsigned unit, each, more;

    __device__ __forceinline__ unsigned at(unsigned block) const { return (block * each + (block < more ? block : more)) * unit; }
};

// The block's share of the tiles, its warps' runs through it, and what is under way for each.
//
// An item is a block of k of a pair of tiles (of the last tile alone, where the share is odd), 1 KB. k goes in chunks of `span` blocks, one where the tokens fit
// in shared memory. A chunk's items, pair by pair, are cut into one run for each warp, so that all warps have the same to do and a run's sums stay in registers
// until it comes to another pair.
// `CHUNKS`: whether there may be more than one.
template <int CODE, unsigned WARPS, unsigned SLOTS, bool CHUNKS>
struct Share {
    const unsigned char* weights;
    unsigned k_blocks, span, first, end;
    // What is next to be fetched: where, its chunk and the blocks of that, its block and tile, and how many are left of the run.
    const unsigned char* from;
    unsigned chunk, blocks, block, tile, left, slot;
    WeightRing<SLOTS> ring;

    // `slots` is the block's ring.
    __device__ __forceinline__ Share(const unsigned char* weights, unsigned k_blocks, unsigned span, Borders borders, unsigned char* slots)
        : weights(weights), k_blocks(k_blocks), span(span), first(borders.at(blockIdx.x)), end(borders.at(blockIdx.x + 1)), slot(0), ring(slots) {
        begin(0);
#pragma unroll 1
        for (unsigned i = 0; i < SLOTS; i++) fetch(i);
    }

    __device__ __forceinline__ unsigned blocks_of(unsigned chunk) const {
        if (!CHUNKS) return k_blocks;
        return k_blocks - chunk * span < span ? k_blocks - chunk * span : span;
    }
    // This warp's run of a chunk of `blocks` blocks.
    __device__ __forceinline__ unsigned run_of(unsigned blocks, unsigned warp) const { return (end - first + 1) / 2 * blocks * warp / WARPS; }

    // Sets what is next to the beginning of the run of chunk `c`.
    __device__ __forceinline__ void begin(unsigned c) {
        unsigned warp = threadIdx.x / 32;
        chunk = c;
        blocks = blocks_of(c);
        unsigned item = run_of(blocks, warp);
        left = run_of(blocks, warp + 1) - item;
        tile = first + item / blocks * 2;
        block = item % blocks;
        from = weights + ((size_t)tile * k_blocks + c * span + block) * TILE_BYTES + ring.offset();
    }
    __device__ __forceinline__ void fetch(unsigned slot) {
        if (left) {
            ring.fetch(slot, from, k_blocks * TILE_BYTES, tile + 1 < end);
            left--;
            from += TILE_BYTES;
            if (++block == blocks) {
                block = 0;
                from += (2 * k_blocks - blocks) * TILE_BYTES;
                tile += 2;
            }
            if (CHUNKS && !left && (chunk + 1) * span < k_blocks) begin(chunk + 1);
        }
        ring.fetched();
    }

    // Adds what a run found of a pair to `sums`, `[tiles of the block][8 rows][tokens]`.
    template <int N>
    __device__ __forceinline__ void add_to(int* sums, unsigned pair, unsigned tokens, const Sums<CODE, N>& found) const {
        unsigned g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
        int* to = sums + (pair * 2 * TILE + g) * tokens;
        bool second = first + pair * 2 + 1 < end;
#pragma unroll
        for (int j = 0; j < N; j++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                unsigned token = 8 * j + 2 * t + i % 2;
                if (token < tokens && (i < 2 || second)) atomicAdd(to + (i / 2) * TILE * tokens + token, found.total(j, i));
            }
    }

    // Adds the products of chunk `c` to `sums`; `xq` has the tokens' bytes of that chunk, `stride` bytes apart. `WHOLE` where the ring has had room for all of the run
    // (`at_once`) and nothing is left to fetch.
    template <int N, bool WHOLE = false>
    __device__ __forceinline__ void run(unsigned c, const unsigned char* xq, unsigned stride, unsigned tokens, int* sums) {
        unsigned warp = threadIdx.x / 32, blocks = blocks_of(c), item = run_of(blocks, warp), rest = run_of(blocks, warp + 1) - item;
        unsigned pair = item / blocks, at = item % blocks;
        Columns<N> x(xq, stride, tokens);
        x.move(at * BLOCK<CODE>);
        if (WHOLE) copy_async_wait<0>();
        while (rest) {
            unsigned here = blocks - at < rest ? blocks - at : rest;
            rest -= here;
            Sums<CODE, N> found;
            found.clear();
            if (WHOLE) {
#pragma unroll 2
                for (unsigned i = 0; i < here; i++) {
                    uint4 top, bottom;
                    ring.read(slot++, top, bottom);
                    found.add(top, bottom, x);
                    x.move(BLOCK<CODE>);
                }
            } else {
#pragma unroll 1
                for (unsigned i = 0; i < here; i++) {
                    uint4 top, bottom;
                    ring.take(slot, top, bottom);
                    found.add(top, bottom, x);
                    fetch(slot);
                    slot = slot + 1 == SLOTS ? 0 : slot + 1;
                    x.move(BLOCK<CODE>);
                }
            }
            add_to(sums, pair, tokens, found);
            x.move(-(int)((at + here) * BLOCK<CODE>));
            pair++;
            at = 0;
        }
    }
    // Whether this warp's run is no longer than its ring; of one chunk.
    __device__ __forceinline__ bool at_once() const {
        unsigned warp = threadIdx.x / 32;
        return run_of(k_blocks, warp + 1) - run_of(k_blocks, warp) <= SLOTS;
    }
};
