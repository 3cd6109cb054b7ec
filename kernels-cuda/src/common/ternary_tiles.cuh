// Tiles of packed ternary weights and their product with a few tokens of bytes, as `ternary_gemv/kernel.cu` describes them: a warp's way through a
// block's share, its loads, and the tensor core's products of what they bring.
#pragma once

#include "memory.cuh"
#include "mma.cuh"
#include "stream.cuh"
#include "exact.cuh"

// Threads of a block.
constexpr unsigned THREADS = 320;
constexpr unsigned WARPS = THREADS / 32;
// Rows of a tile, bytes of a block of it.
constexpr unsigned TILE = 8, TILE_BYTES = 512;

// Weights of a row in a block.
template <int CODE>
constexpr unsigned BLOCK = CODE == 2 ? 256 : 320;

// Bytes between the tokens of `xq` in shared memory: 64 more than a multiple of 128, so that two tokens lie in different banks.
__device__ __forceinline__ unsigned token_stride(unsigned weights) { return weights % 128 == 64 ? weights : weights + 64; }

// 1 KB of weights: rows 0 to 7 of the fragment, and rows 8 to 15.
struct Piece {
    uint4 top, bottom;
};

// Where a warp is among its block's pieces.
template <int CODE, bool WIDE>
struct Cursor {
    unsigned tile, part;

    static __device__ __forceinline__ unsigned parts(unsigned k_blocks) { return WIDE ? k_blocks : (k_blocks + 1) / 2; }

    __device__ __forceinline__ Cursor(unsigned first, unsigned index, unsigned k_blocks) {
        tile = first + index / parts(k_blocks) * (WIDE ? 2 : 1);
        part = index % parts(k_blocks);
    }
    // `step_tiles` and `step_parts` make WARPS pieces.
    __device__ __forceinline__ void next(unsigned step_tiles, unsigned step_parts, unsigned k_blocks) {
        tile += step_tiles;
        part += step_parts;
        if (part >= parts(k_blocks)) {
            part -= parts(k_blocks);
            tile += WIDE ? 2 : 1;
        }
    }
    __device__ __forceinline__ Piece load(const unsigned char* weights, unsigned end, unsigned k_blocks) const {
        Piece piece;
        piece.top = piece.bottom = make_uint4(0, 0, 0, 0);
        if (tile >= end) return piece;
        unsigned block = tile * k_blocks + (WIDE ? part : 2 * part);
        const unsigned char* at = weights + (size_t)block * TILE_BYTES + threadIdx.x % 32 * 16;
        piece.top = load_stream16(at);
        if (WIDE ? tile + 1 < end : 2 * part + 1 < k_blocks) piece.bottom = load_stream16(at + (WIDE ? (size_t)k_blocks * TILE_BYTES : TILE_BYTES));
        return piece;
    }
};

// The lane's bytes of B: column `threadIdx.x % 32 / 4` of each of `N` groups of eight columns; a column without a token is 0.
template <int N>
struct Columns {
    const unsigned char* x;  // at the lane's 16 bytes of the block
    unsigned step;           // bytes from a group of columns to the next
    unsigned count;          // groups in which the lane has a token

    __device__ __forceinline__ uint4 load(int j, unsigned offset) const {
        if ((unsigned)j < count) return *reinterpret_cast<const uint4*>(x + j * step + offset);
        return make_uint4(0, 0, 0, 0);
    }
    __device__ __forceinline__ uint2 load_half(int j, unsigned offset) const {
        if ((unsigned)j < count) return *reinterpret_cast<const uint2*>(x + j * step + offset);
        return make_uint2(0, 0);
    }
};

// sum[j] = the product of the piece's codes with the columns of group j.
template <int N>
__device__ __forceinline__ void multiply_t2(const Piece& p, const Columns<N>& x, int (&sum)[N][4]) {
    unsigned w[8] = {p.top.x, p.bottom.x, p.top.y, p.bottom.y, p.top.z, p.bottom.z, p.top.w, p.bottom.w};
    int high[N][4];
#pragma unroll
    for (int j = 0; j < N; j++)
#pragma unroll
        for (int i = 0; i < 4; i++) sum[j][i] = high[j][i] = 0;
    // Fields 0 and 2, then, two bits further, 1 and 3.
#pragma unroll
    for (int shift = 0; shift < 2; shift++) {
        if (shift)
#pragma unroll
            for (int i = 0; i < 8; i++) w[i] >>= 2;
#pragma unroll
        for (int upper = 0; upper < 2; upper++) {
            unsigned mask = upper ? 0x30303030u : 0x03030303u;
            uint4 v[N];
#pragma unroll
            for (int j = 0; j < N; j++) v[j] = x.load(j, (2 * upper + shift) * 64);
#pragma unroll
            for (int half = 0; half < 2; half++) {
                unsigned a[4];
#pragma unroll
                for (int i = 0; i < 4; i++) a[i] = w[4 * half + i] & mask;
#pragma unroll
                for (int j = 0; j < N; j++) {
                    unsigned b[2] = {half ? v[j].z : v[j].x, half ? v[j].w : v[j].y};
                    mma_s8(upper ? high[j] : sum[j], a, b);
                }
            }
        }
    }
#pragma unroll
    for (int j = 0; j < N; j++)
#pragma unroll
        for (int i = 0; i < 4; i++) sum[j][i] += high[j][i] >> 4;
}

// One half of a lane's words of a t3 piece: rows 0 to 7, 8 to 15, and the same of the next word.
template <int N, bool SECOND>
__device__ __forceinline__ void multiply_t3_half(unsigned w0, unsigned w1, unsigned w2, unsigned w3, const Columns<N>& x, int (&sum)[N][4]) {
    constexpr unsigned BYTES = 0x00ff00ffu;
    unsigned even[4] = {w0 & BYTES, w1 & BYTES, w2 & BYTES, w3 & BYTES};
    unsigned odd[4] = {w0 >> 8 & BYTES, w1 >> 8 & BYTES, w2 >> 8 & BYTES, w3 >> 8 & BYTES};
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
            mma_s8(sum[j], a, b);
        }
    }
}

template <int N>
__device__ __forceinline__ void multiply_t3(const Piece& p, const Columns<N>& x, int (&sum)[N][4]) {
#pragma unroll
    for (int j = 0; j < N; j++)
#pragma unroll
        for (int i = 0; i < 4; i++) sum[j][i] = 0;
    multiply_t3_half<N, false>(p.top.x, p.bottom.x, p.top.y, p.bottom.y, x, sum);
    multiply_t3_half<N, true>(p.top.z, p.bottom.z, p.top.w, p.bottom.w, x, sum);
}

// The block's share of the tiles, and its warps' way through them.
// `AHEAD` pieces of 1 KB are under way for each warp.
template <int CODE, bool WIDE, unsigned AHEAD>
struct Share {
    const unsigned char* weights;
    unsigned k_blocks, first, end, step_tiles, step_parts;
    Cursor<CODE, WIDE> ahead;
    Piece pieces[AHEAD];

    static __device__ __forceinline__ unsigned border(unsigned block, unsigned tiles, unsigned unit) {
        unsigned units = (tiles + unit - 1) / unit;
        unsigned border = (unsigned)((unsigned long long)units * block / gridDim.x) * unit;
        return border < tiles ? border : tiles;
    }

    // Tiles go in units of `unit`.
    __device__ __forceinline__ Share(const unsigned char* weights, unsigned k_blocks, unsigned tiles, unsigned unit)
        : weights(weights),
          k_blocks(k_blocks),
          first(border(blockIdx.x, tiles, unit)),
          end(border(blockIdx.x + 1, tiles, unit)),
          step_tiles(WARPS / Cursor<CODE, WIDE>::parts(k_blocks) * (WIDE ? 2 : 1)),
          step_parts(WARPS % Cursor<CODE, WIDE>::parts(k_blocks)),
          ahead(first, threadIdx.x / 32, k_blocks) {
#pragma unroll
        for (unsigned u = 0; u < AHEAD; u++) fetch(pieces[u]);
        // The rest is asked for, so that memory works while this kernel waits.
        const unsigned char* from = weights + (size_t)first * k_blocks * TILE_BYTES;
        size_t bytes = (size_t)(end - first) * k_blocks * TILE_BYTES, limit = 128 * 1024;
        if (bytes > limit) bytes = limit;
        for (size_t at = (size_t)AHEAD * WARPS * 1024 + threadIdx.x * 128; at < bytes; at += THREADS * 128) prefetch_l2(from + at);
    }
    __device__ __forceinline__ void fetch(Piece& piece) {
        piece = ahead.load(weights, end, k_blocks);
        ahead.next(step_tiles, step_parts, k_blocks);
    }

    // Adds every product to `sums`, `[tiles of the block][8 rows][tokens]`; `xq` is the tokens, `stride` bytes apart.
    template <int N>
    __device__ __forceinline__ void run(const unsigned char* xq, unsigned stride, unsigned tokens, int* sums) {
        Cursor<CODE, WIDE> now(first, threadIdx.x / 32, k_blocks);
        // Written out, for `pieces` to stay in registers.
        while (step<N>(pieces[0], now, xq, stride, tokens, sums) && step<N>(pieces[1], now, xq, stride, tokens, sums) &&
               (AHEAD < 3 || step<N>(pieces[AHEAD - 1], now, xq, stride, tokens, sums))) {
        }
    }

    // The piece at `now`, unless all are done.
    template <int N>
    __device__ __forceinline__ bool step(Piece& piece, Cursor<CODE, WIDE>& now, const unsigned char* xq, unsigned stride, unsigned tokens, int* sums) {
        if (now.tile >= end) return false;
        unsigned lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
        unsigned column = WIDE ? g : g % 4;
        unsigned block = WIDE ? now.part : 2 * now.part + g / 4;
        Columns<N> x;
        x.x = xq + column * stride + block * BLOCK<CODE> + 16 * t;
        x.step = 8 * stride;
        x.count = column < tokens ? (tokens - column + 7) / 8 : 0;
        int sum[N][4];
        if (CODE == 2)
            multiply_t2<N>(piece, x, sum);
        else
            multiply_t3<N>(piece, x, sum);
        fetch(piece);
        int* to = sums + ((now.tile - first) * TILE + g) * tokens;
        if (WIDE) {
#pragma unroll
            for (int j = 0; j < N; j++)
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    unsigned token = 8 * j + 2 * t + i % 2;
                    bool there = i < 2 || now.tile + 1 < end;
                    if (token < tokens && there) atomicAdd(to + (i / 2) * TILE * tokens + token, sum[j][i]);
                }
        } else {
            // Columns 0 to 3 count for the first block, which rows 0 to 7 hold, columns 4 to 7 for the second.
#pragma unroll
            for (int i = 0; i < 2; i++) {
                unsigned token = t % 2 * 2 + i;
                if (token < tokens) atomicAdd(to + token, t < 2 ? sum[0][i] : sum[0][2 + i]);
            }
        }
        now.next(step_tiles, step_parts, k_blocks);
        return true;
    }
};
