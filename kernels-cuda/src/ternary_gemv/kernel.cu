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
#include "ternary_tiles.cuh"

// What a row's results become.
enum Epilogue : unsigned { STORE = 0, ADD = 1, RELU2 = 2, GATED_RELU2 = 3, GATED_SILU = 4 };

// A tile's γ, where its rows go, and how many it has.
struct Tile {
    float gamma;
    unsigned first, rows, unused;
};

// The block's tiles into shared memory, before anything is waited for.
__device__ __forceinline__ void copy_tiles(const Tile* tiles, unsigned first, unsigned end, Tile* to) {
    for (unsigned i = threadIdx.x; i < end - first; i += THREADS) reinterpret_cast<uint4*>(to)[i] = __ldg(reinterpret_cast<const uint4*>(tiles + first) + i);
}

// What `ADD` adds to in this thread's first result, fetched while the product runs.
__device__ __forceinline__ float residual(const Tile* tiles, unsigned count, unsigned tokens, unsigned epilogue, const float* out, unsigned rows) {
    unsigned i = threadIdx.x, row = i % TILE, token = i / TILE % tokens, tile = i / TILE / tokens;
    if (epilogue != ADD || tile >= count || row >= tiles[tile].rows) return 0.0f;
    return out[(size_t)token * rows + tiles[tile].first + row];
}

// From the sums to the output. `totals[b]` = Σ x and `steps[b]` = s are those of token b; `rows` are the values of an output row; `tiles` are the
// block's `count`.
__device__ __forceinline__ void finish(const Tile* tiles, unsigned count, unsigned tokens, const int* sums, const int* totals, const float* steps,
                                       unsigned epilogue, float factor, float early, float* out, unsigned rows) {
    bool gated = epilogue >= GATED_RELU2;
    unsigned unit = gated ? 2 : 1;
    for (unsigned i = threadIdx.x; i < count / unit * TILE * tokens; i += THREADS) {
        unsigned row = i % TILE, token = i / TILE % tokens, tile = i / TILE / tokens * unit;
        Tile info = tiles[tile];
        if (row >= info.rows) continue;
        float y = mul_rn((float)(sums[(tile * TILE + row) * tokens + token] - totals[token]), div_rn(info.gamma, steps[token]));
        float* at = out + (size_t)token * rows + info.first + row;
        if (epilogue == ADD) {
            y = fmaf(factor, y, i < THREADS ? early : *at);
        } else if (epilogue == RELU2) {
            float r = 0.0f > y ? 0.0f : y;
            y = mul_rn(r, r);
        } else if (gated) {
            float up = mul_rn((float)(sums[((tile + 1) * TILE + row) * tokens + token] - totals[token]), div_rn(tiles[tile + 1].gamma, steps[token]));
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
    Tile* own = reinterpret_cast<Tile*>(shared + tokens * apart + BLOCK<CODE>);

    unsigned unit = WIDE || epilogue >= GATED_RELU2 ? 2 : 1;
    Share<CODE, WIDE, (N > 1 ? 2 : 3)> share(weights, k_blocks, tile_count, unit);
    unsigned count = share.end - share.first;
    int* sums = reinterpret_cast<int*>(own + count);
    copy_tiles(tiles, share.first, share.end, own);
    for (unsigned i = threadIdx.x; i < count * TILE * tokens; i += THREADS) sums[i] = 0;
    if (threadIdx.x < tokens) totals[threadIdx.x] = 0;
    __syncthreads();
    grid_wait();
    grid_launch_dependents();

    float early = residual(own, count, tokens, epilogue, out, rows);
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
    finish(own, count, tokens, sums, totals, steps, epilogue, factor, early, out, rows);
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
    Tile* own = reinterpret_cast<Tile*>(xq + tokens * apart + BLOCK<CODE>);

    Share<CODE, false, 3> share(weights, k_blocks, tile_count, epilogue >= GATED_RELU2 ? 2 : 1);
    unsigned count = share.end - share.first;
    int* sums = reinterpret_cast<int*>(own + count);
    copy_tiles(tiles, share.first, share.end, own);
    for (unsigned i = threadIdx.x; i < count * TILE * tokens; i += THREADS) sums[i] = 0;
    for (unsigned i = threadIdx.x; i < padded; i += THREADS) ws[i] = norm && i < cols ? __ldg(norm + i) : 0.0f;
    if (threadIdx.x < tokens) {
        totals[threadIdx.x] = 0;
        reciprocals[threadIdx.x] = 1.0f;
    }
    __syncthreads();
    grid_wait();
    grid_launch_dependents();

    float early = residual(own, count, tokens, epilogue, out, rows);
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
        // Four values a thread and step, their normed values over them.
        float4* values = reinterpret_cast<float4*>(xs + token * padded);
        const float4* factors = reinterpret_cast<const float4*>(ws);
        float r = reciprocals[token], most = 0.0f;
        for (unsigned i = threadIdx.x; i < padded / 4; i += THREADS) {
            float4 v = values[i];
            if (norm) {
                float4 w = factors[i];
                v = make_float4(mul_rn(mul_rn(v.x, r), w.x), mul_rn(mul_rn(v.y, r), w.y), mul_rn(mul_rn(v.z, r), w.z), mul_rn(mul_rn(v.w, r), w.w));
                values[i] = v;
            }
            most = fmaxf(fmaxf(most, fabsf(v.x)), fmaxf(fabsf(v.y), fmaxf(fabsf(v.z), fabsf(v.w))));
        }
        most = block_max(most, scratch);
        float scale = div_rn(127.0f, most > 1e-5f ? most : 1e-5f);
        if (threadIdx.x == 0) steps[token] = scale;
        unsigned* to = reinterpret_cast<unsigned*>(xq + token * apart);
        int total = 0;
        for (unsigned i = threadIdx.x; i < weights_of_row / 4; i += THREADS) {
            unsigned packed = 0;
            if (i < padded / 4) {
                float4 v = values[i];
                packed = pack_i8(v.x, v.y, v.z, v.w, scale);
            }
            to[i] = packed;
            total = add_bytes(packed, total);
        }
        total = warp_total(total);
        if (threadIdx.x % 32 == 0) atomicAdd(&totals[token], total);
    }
    __syncthreads();
    share.template run<1>(xq, apart, tokens, sums);
    __syncthreads();
    finish(own, count, tokens, sums, totals, steps, epilogue, factor, early, out, rows);
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
