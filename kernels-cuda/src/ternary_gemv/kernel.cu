// target: sm_80
// y[b, r] = (Σ_k xq[b,k] · w[r,k]) · (γ / s[b]): packed ternary weights times a few tokens of bytes, sums exact.
//
// A matrix is tiles of 8 rows; a tile is blocks of 512 bytes, [8 rows][64 bytes], in the order of k. Byte j of a row's 64 holds
//   t2   weights j, j+64, j+128, j+192 of 256, two bits each, code w+1
//   t3   weights j, j+64, … j+256 of 320, as ceil(256·v/243), v the number to base 3 whose digits are the five codes, first digit first
// so that a warp reads 512 bytes in a row, 16 a lane, and lane 4g+t has bytes 16t… of row g: what the tensor core's fragment of A wants.
// t2 is masked where it stands (two fields share a sum that is 16 times too large). Of t3, byte 1 of q·3^i is the number of the first i
// digits; less three times the one before, it is digit i. Codes are unsigned, so Σ w·x = Σ code·x − Σ x.
//
// The product is m16n8k32. For up to 4 tokens the 16 rows of A are the tile's 8 rows at two blocks of k, and the 8 columns of B are the
// tokens at the first block, then at the second; the other quarter of the results is not used. For more, A is two tiles.
//
// Bytes: 0.25 (t2) or 0.2 (t3) a weight, read once, 16 a lane with six loads under way: 10 warps have 30 KB under way on a
// multiprocessor. Instructions a KB of weights and warp: about 80 (t2) or 210 (t3), of which 8 or 10 are products.
// One block of 10 warps on each multiprocessor takes neighbouring tiles; its warps share each row, 1 KB at a time, and add their integers in
// shared memory. Weights do not depend on what runs ahead, so the first are fetched, and the others asked into the second cache level, before
// the wait for it.
#include "memory.cuh"
#include "mma.cuh"
#include "reduce.cuh"

#include "exact.cuh"
#include "stream.cuh"

// Threads of a block.
constexpr unsigned THREADS = 320;
constexpr unsigned WARPS = THREADS / 32;
// Rows of a tile, bytes of a block of it.
constexpr unsigned TILE = 8, TILE_BYTES = 512;

// What a row's results become.
enum Epilogue : unsigned { STORE = 0, ADD = 1, RELU2 = 2, GATED_RELU2 = 3, GATED_SILU = 4 };

// A tile's γ, where its rows go, and how many it has.
struct Tile {
    float gamma;
    unsigned first, rows, unused;
};

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

// From the sums to the output. `totals[b]` = Σ x and `steps[b]` = s are those of token b; `rows` are the values of an output row.
__device__ __forceinline__ void finish(const Tile* tiles, unsigned first, unsigned end, unsigned tokens, const int* sums, const int* totals,
                                       const float* steps, unsigned epilogue, float factor, float* out, unsigned rows) {
    bool gated = epilogue >= GATED_RELU2;
    unsigned unit = gated ? 2 : 1;
    unsigned count = (end - first) / unit * TILE * tokens;
    for (unsigned i = threadIdx.x; i < count; i += THREADS) {
        unsigned row = i % TILE, token = i / TILE % tokens, tile = i / TILE / tokens * unit;
        Tile info = tiles[first + tile];
        if (row >= info.rows) continue;
        float y = mul_rn((float)(sums[(tile * TILE + row) * tokens + token] - totals[token]), div_rn(info.gamma, steps[token]));
        float* at = out + (size_t)token * rows + info.first + row;
        if (epilogue == ADD) {
            y = fmaf(factor, y, *at);
        } else if (epilogue == RELU2) {
            float r = 0.0f > y ? 0.0f : y;
            y = mul_rn(r, r);
        } else if (gated) {
            float up = mul_rn((float)(sums[((tile + 1) * TILE + row) * tokens + token] - totals[token]),
                              div_rn(tiles[first + tile + 1].gamma, steps[token]));
            if (epilogue == GATED_RELU2) {
                float r = 0.0f > y ? 0.0f : y;
                y = mul_rn(mul_rn(r, r), up);
            } else {
                y = mul_rn(mul_rn(y, sigmoid_exact(y)), up);
            }
        }
        *at = y;
    }
}

// The sum of the four bytes of `packed`, added to `sum`.
__device__ __forceinline__ int add_bytes(unsigned packed, int sum) { return dot4_u8s8(0x01010101u, packed, sum); }

__device__ __forceinline__ int warp_total(int x) {
#pragma unroll
    for (int lane = 16; lane > 0; lane /= 2) x += __shfl_xor_sync(0xffffffffu, x, lane);
    return x;
}

// Bytes are there: `x`, `[tokens, stride]`, with their scales.
template <int CODE, bool WIDE, int N>
__device__ __forceinline__ void gemv(const unsigned char* weights, const Tile* tiles, unsigned k_blocks, unsigned tile_count, const unsigned char* x,
                                     unsigned stride, const float* scales, unsigned tokens, unsigned epilogue, float factor, float* out,
                                     unsigned rows) {
    __shared__ int totals[16];
    __shared__ float steps[16];
    DYNAMIC_SHARED(unsigned char, shared);
    unsigned weights_of_row = k_blocks * BLOCK<CODE>, apart = token_stride(weights_of_row);
    unsigned char* xq = shared;
    // Behind the last token lies a block that is read beside weights that are not there.
    int* sums = reinterpret_cast<int*>(shared + tokens * apart + BLOCK<CODE>);

    unsigned unit = WIDE || epilogue >= GATED_RELU2 ? 2 : 1;
    Share<CODE, WIDE, (N > 1 ? 2 : 3)> share(weights, k_blocks, tile_count, unit);
    for (unsigned i = threadIdx.x; i < (share.end - share.first) * TILE * tokens; i += THREADS) sums[i] = 0;
    if (threadIdx.x < tokens) totals[threadIdx.x] = 0;
    __syncthreads();
    grid_wait();
    grid_launch_dependents();

    if (threadIdx.x < tokens) steps[threadIdx.x] = scales[threadIdx.x];
    for (unsigned token = 0; token < tokens; token++) {
        const uint4* from = reinterpret_cast<const uint4*>(x + (size_t)token * stride);
        uint4* to = reinterpret_cast<uint4*>(xq + token * apart);
        int total = 0;
        for (unsigned i = threadIdx.x; i < weights_of_row / 16; i += THREADS) {
            uint4 v = from[i];
            to[i] = v;
            total = add_bytes(v.w, add_bytes(v.z, add_bytes(v.y, add_bytes(v.x, total))));
        }
        total = warp_total(total);
        if (threadIdx.x % 32 == 0) atomicAdd(&totals[token], total);
    }
    __syncthreads();
    share.template run<N>(xq, apart, tokens, sums);
    __syncthreads();
    finish(tiles, share.first, share.end, tokens, sums, totals, steps, epilogue, factor, out, rows);
}

// Floats are there: each block norms (unless `norm` is null) and quantises `x`, `[tokens, cols]`, for itself, as the CPU does. Up to 4 tokens.
template <int CODE>
__device__ __forceinline__ void normed_gemv(const unsigned char* weights, const Tile* tiles, unsigned k_blocks, unsigned tile_count, const float* x,
                                            unsigned cols, const float* norm, float eps, unsigned tokens, unsigned epilogue, float factor,
                                            float* out, unsigned rows) {
    __shared__ int totals[4];
    __shared__ float steps[4], scratch[32], reciprocals[4];
    DYNAMIC_SHARED(unsigned char, shared);
    unsigned weights_of_row = k_blocks * BLOCK<CODE>, apart = token_stride(weights_of_row);
    unsigned padded = (cols + 3) / 4 * 4;
    float* xs = reinterpret_cast<float*>(shared);
    float* ws = xs + tokens * padded;
    unsigned char* xq = reinterpret_cast<unsigned char*>(ws + padded);
    int* sums = reinterpret_cast<int*>(xq + tokens * apart + BLOCK<CODE>);

    Share<CODE, false, 3> share(weights, k_blocks, tile_count, epilogue >= GATED_RELU2 ? 2 : 1);
    for (unsigned i = threadIdx.x; i < (share.end - share.first) * TILE * tokens; i += THREADS) sums[i] = 0;
    for (unsigned i = threadIdx.x; i < padded; i += THREADS) ws[i] = norm && i < cols ? __ldg(norm + i) : 0.0f;
    if (threadIdx.x < tokens) {
        totals[threadIdx.x] = 0;
        reciprocals[threadIdx.x] = 1.0f;
    }
    grid_wait();
    grid_launch_dependents();

    for (unsigned token = 0; token < tokens; token++) {
        const float* from = x + (size_t)token * cols;
        float* to = xs + token * padded;
        if (cols % 4 == 0) {
            for (unsigned i = threadIdx.x; i < cols / 4; i += THREADS) reinterpret_cast<float4*>(to)[i] = reinterpret_cast<const float4*>(from)[i];
        } else {
            for (unsigned i = threadIdx.x; i < padded; i += THREADS) to[i] = i < cols ? from[i] : 0.0f;
        }
    }
    __syncthreads();
    unsigned warp = threadIdx.x / 32;
    if (norm) {
        if (warp < tokens) {
            float squares = squares_of(xs + warp * padded, cols);
            if (threadIdx.x % 32 == 0) reciprocals[warp] = reciprocal_rms(squares, cols, eps);
        }
        __syncthreads();
    }
    for (unsigned token = 0; token < tokens; token++) {
        const float* from = xs + token * padded;
        unsigned* to = reinterpret_cast<unsigned*>(xq + token * apart);
        float r = reciprocals[token];
        auto normed = [&](unsigned i) { return norm ? mul_rn(mul_rn(from[i], r), ws[i]) : from[i]; };
        float most = 0.0f;
        for (unsigned i = threadIdx.x; i < cols; i += THREADS) most = fmaxf(most, fabsf(normed(i)));
        most = block_max(most, scratch);
        float scale = div_rn(127.0f, most > 1e-5f ? most : 1e-5f);
        if (threadIdx.x == 0) steps[token] = scale;
        int total = 0;
        for (unsigned i = threadIdx.x; i < weights_of_row / 4; i += THREADS) {
            unsigned packed = 0;
#pragma unroll
            for (unsigned j = 0; j < 4; j++)
                if (4 * i + j < cols) packed |= (unsigned)(quantize_i8(normed(4 * i + j), scale) & 255) << (8 * j);
            to[i] = packed;
            total = add_bytes(packed, total);
        }
        total = warp_total(total);
        if (threadIdx.x % 32 == 0) atomicAdd(&totals[token], total);
    }
    __syncthreads();
    share.template run<1>(xq, apart, tokens, sums);
    __syncthreads();
    finish(tiles, share.first, share.end, tokens, sums, totals, steps, epilogue, factor, out, rows);
}

#define GEMV(name, code, wide, n)                                                                                                            \
    extern "C" __global__ void __launch_bounds__(THREADS, 2)                                                                                 \
        name(const unsigned char* weights, const Tile* tiles, unsigned k_blocks, unsigned tile_count, const unsigned char* x, unsigned stride, \
             const float* scales, unsigned tokens, unsigned epilogue, float factor, float* out, unsigned rows) {                             \
        gemv<code, wide, n>(weights, tiles, k_blocks, tile_count, x, stride, scales, tokens, epilogue, factor, out, rows);                   \
    }
GEMV(ternary_gemv_t2_4, 2, false, 1)
GEMV(ternary_gemv_t2_8, 2, true, 1)
GEMV(ternary_gemv_t2_16, 2, true, 2)
GEMV(ternary_gemv_t3_4, 3, false, 1)
GEMV(ternary_gemv_t3_8, 3, true, 1)
GEMV(ternary_gemv_t3_16, 3, true, 2)

#define NORMED(name, code)                                                                                                                 \
    extern "C" __global__ void __launch_bounds__(THREADS, 2)                                                                               \
        name(const unsigned char* weights, const Tile* tiles, unsigned k_blocks, unsigned tile_count, const float* x, unsigned cols,       \
             const float* norm, float eps, unsigned tokens, unsigned epilogue, float factor, float* out, unsigned rows) {                  \
        normed_gemv<code>(weights, tiles, k_blocks, tile_count, x, cols, norm, eps, tokens, epilogue, factor, out, rows);                  \
    }
NORMED(normed_gemv_t2, 2)
NORMED(normed_gemv_t3, 3)

// What `normed_gemv` does first, for many tokens: one block a token writes its bytes, `[tokens, stride]` filled up with zeros, and its scale.
extern "C" __global__ void __launch_bounds__(THREADS) norm_quantize(const float* x, unsigned cols, const float* norm, float eps, unsigned char* out,
                                                                    unsigned stride, float* scales) {
    __shared__ float scratch[32], reciprocal;
    DYNAMIC_SHARED(unsigned char, shared);
    float* xs = reinterpret_cast<float*>(shared);
    grid_wait();
    grid_launch_dependents();
    const float* from = x + (size_t)blockIdx.x * cols;
    for (unsigned i = threadIdx.x; i < cols; i += THREADS) xs[i] = from[i];
    __syncthreads();
    if (threadIdx.x < 32) {
        float squares = norm ? squares_of(xs, cols) : 0.0f;
        if (threadIdx.x == 0) reciprocal = norm ? reciprocal_rms(squares, cols, eps) : 1.0f;
    }
    __syncthreads();
    float r = reciprocal, most = 0.0f;
    for (unsigned i = threadIdx.x; i < cols; i += THREADS) {
        if (norm) xs[i] = mul_rn(mul_rn(xs[i], r), norm[i]);
        most = fmaxf(most, fabsf(xs[i]));
    }
    most = block_max(most, scratch);
    float scale = div_rn(127.0f, most > 1e-5f ? most : 1e-5f);
    if (threadIdx.x == 0) scales[blockIdx.x] = scale;
    unsigned* to = reinterpret_cast<unsigned*>(out + (size_t)blockIdx.x * stride);
    for (unsigned i = threadIdx.x; i < stride / 4; i += THREADS) {
        unsigned packed = 0;
#pragma unroll
        for (unsigned j = 0; j < 4; j++)
            if (4 * i + j < cols) packed |= (unsigned)(quantize_i8(xs[4 * i + j], scale) & 255) << (8 * j);
        to[i] = packed;
    }
}
