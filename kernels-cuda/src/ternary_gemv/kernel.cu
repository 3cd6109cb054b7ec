// target: sm_80
// y[b, r] = (Σ_k xq[b,k] · w[r,k]) · (γ / s[b]): packed binary and ternary weights, and bytes (γ a row's then), times a few tokens of bytes, sums exact.
//
// A matrix is tiles of 8 rows; a tile is blocks of 512 bytes, [8 rows][64 bytes], in the order of k. Byte j of a row's 64 holds
//   t2   weights j, j+64, j+128, j+192 of 256, two bits each, code w+1
//   b1   weights j, j+64, … j+448 of 512, a bit each, the lowest first: 1 for 1, 0 for -1
//   i8   weight j of 64, itself
//   t3   weights j, j+64, … j+256 of 320, as ceil(256·v/243), v the number to base 3 whose digits are the five codes, first digit first
// so that a warp reads 512 bytes in a row, 16 a lane, and lane 4g+t has bytes 16t… of row g: what the tensor core's fragment of A wants.
// t2 is masked where it stands (the sum of field f is 4^f times too large). Of t3, byte 1 of q·3^i is the number of the first i
// digits; less three times the one before, it is digit i. Codes are unsigned, so Σ w·x = Σ code·x − Σ x. Of b1 it is Σ 2·bit·x − Σ x.
//
// The last field of t2 is not w+1 but w, so that it counts 64·w where it stands, as a signed byte.
//
// The product is m16n8k32: the 16 rows of A are those of a pair of neighbouring tiles, the 8 columns of B are tokens (a second product for more than 8).
//
// Bytes: 0.25 (t2) or 0.2 (t3) a weight, read once. Each multiprocessor has one block, which takes neighbouring tiles; a warp takes a run of its share, KB by KB,
// through a ring of its own in shared memory (weight_ring.cuh), and adds its sums to the block's when it comes to another pair. Under way on a
// multiprocessor: 64 to 96 KB. Instructions a KB of weights and warp, in the loop: 92 (t2) or 229 (t3), of which 8 or 10 are products.
// Weights do not depend on what runs ahead, so the rings are filled before the wait for it.
#include "memory.cuh"
#include "mma.cuh"
#include "reduce.cuh"

#include "exact.cuh"
#include "stream.cuh"
#include "ternary_epilogue.cuh"
#include "ternary_results.cuh"
#include "ternary_tiles.cuh"

// Bytes are there: `x`, `[tokens, stride]`, with their scales. Shared memory has room for `span` blocks of each token.
template <int CODE, int N, unsigned WARPS, unsigned SLOTS, bool CHUNKS>
__device__ __forceinline__ void gemv(const unsigned char* weights, const Tile<CODE>* tiles, unsigned k_blocks, Borders borders, const unsigned char* x, unsigned stride,
                                     unsigned span, const float* scales, unsigned tokens, unsigned epilogue, float factor, float* out, unsigned rows) {
    constexpr unsigned THREADS = 32 * WARPS;
    __shared__ int totals[16];
    __shared__ float steps[16];
    DYNAMIC_SHARED(unsigned char, shared);
    unsigned apart = token_stride(span * BLOCK<CODE>);
    unsigned char* xq = shared + WARPS * WeightRing<SLOTS>::BYTES;
    Tile<CODE>* own = reinterpret_cast<Tile<CODE>*>(xq + tokens * apart);

    Share<CODE, WARPS, SLOTS, CHUNKS> share(weights, k_blocks, span, borders, shared);
    unsigned count = share.end - share.first;
    int* sums = reinterpret_cast<int*>(own + count);
    copy_tiles(tiles, share.first, share.end, own);
    for (unsigned i = threadIdx.x; i < count * TILE * tokens; i += THREADS) sums[i] = 0;
    if (threadIdx.x < tokens) totals[threadIdx.x] = 0;
    __syncthreads();
    grid_wait();
    grid_launch_dependents();

    if (threadIdx.x < tokens) steps[threadIdx.x] = scales[threadIdx.x];
    float early = residual(own, count, tokens, epilogue, out, rows);
    // As many warps for a token as there are, each every so many 512 bytes of it.
    unsigned parts = WARPS / tokens > 1 ? WARPS / tokens : 1;
    for (unsigned chunk = 0; CHUNKS ? chunk * span < k_blocks : chunk == 0; chunk++) {
        if (chunk) __syncthreads();
        unsigned vectors = share.blocks_of(chunk) * BLOCK<CODE> / 16;
        for (unsigned at = threadIdx.x / 32; at < tokens * parts; at += WARPS) {
            unsigned token = at / parts;
            const uint4* from = reinterpret_cast<const uint4*>(x + (size_t)token * stride + chunk * span * BLOCK<CODE>);
            uint4* to = reinterpret_cast<uint4*>(xq + token * apart);
            int total = 0;
#pragma unroll 4
            for (unsigned i = at % parts * 32 + threadIdx.x % 32; i < vectors; i += parts * 32) {
                uint4 v = from[i];
                to[i] = v;
                int sum = add_bytes(v.w, add_bytes(v.z, add_bytes(v.y, add_bytes(v.x, 0))));
                if (counts<CODE>(16 * i)) total += sum;
            }
            total = warp_add(total);
            if (threadIdx.x % 32 == 0) atomicAdd(&totals[token], total);
        }
        __syncthreads();
        share.template run<N>(chunk, xq, apart, tokens, sums);
    }
    __syncthreads();
    finish(own, count, tokens, sums, totals, steps, epilogue, factor, early, out, rows);
}

// Floats are there: each block norms (unless `norm` is null) and quantises `x`, `[tokens, cols]`, for itself, as the CPU does. Up to 4 tokens; of one whose
// length allows it, `single.cu`.
template <int CODE, unsigned WARPS, unsigned SLOTS>
__device__ __forceinline__ void normed_gemv(const unsigned char* weights, const Tile<CODE>* tiles, unsigned k_blocks, Borders borders, const float* x, unsigned cols,
                                            const float* norm, float eps, unsigned tokens, unsigned epilogue, float factor, float* out,
                                            unsigned rows) {
    constexpr unsigned THREADS = 32 * WARPS;
    __shared__ int totals[4];
    __shared__ unsigned most[4];
    __shared__ float steps[4], reciprocals[4];
    DYNAMIC_SHARED(unsigned char, shared);
    unsigned bytes_of_row = k_blocks * BLOCK<CODE>, apart = token_stride(bytes_of_row);
    unsigned padded = (cols + 3) / 4 * 4, fours = padded / 4;
    float* xs = reinterpret_cast<float*>(shared + WARPS * WeightRing<SLOTS>::BYTES);
    unsigned char* xq = reinterpret_cast<unsigned char*>(xs + tokens * padded);
    Tile<CODE>* own = reinterpret_cast<Tile<CODE>*>(xq + tokens * apart);

    Share<CODE, WARPS, SLOTS, false> share(weights, k_blocks, k_blocks, borders, shared);
    unsigned count = share.end - share.first;
    int* sums = reinterpret_cast<int*>(own + count);
    copy_tiles(tiles, share.first, share.end, own);
    for (unsigned i = threadIdx.x; i < count * TILE * tokens; i += THREADS) sums[i] = 0;
    if (threadIdx.x < tokens) {
        totals[threadIdx.x] = 0;
        most[threadIdx.x] = 0;
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
            for (unsigned i = threadIdx.x; i < fours; i += THREADS) reinterpret_cast<float4*>(to)[i] = reinterpret_cast<const float4*>(from)[i];
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
    // The largest of each token.
    for (unsigned token = 0; token < tokens; token++) {
        float r = reciprocals[token], found = 0.0f;
        if (cols % 4 == 0) {
            float4* values = reinterpret_cast<float4*>(xs + token * padded);
            for (unsigned i = threadIdx.x; i < fours; i += THREADS) {
                float4 y = values[i];
                if (norm) values[i] = y = normed(y, r, __ldg(reinterpret_cast<const float4*>(norm) + i));
                found = fmaxf(found, largest(y));
            }
        } else {
            float* values = xs + token * padded;
            for (unsigned i = threadIdx.x; i < cols; i += THREADS) {
                float y = values[i];
                if (norm) values[i] = y = mul_rn(mul_rn(y, r), __ldg(norm + i));
                found = fmaxf(found, fabsf(y));
            }
        }
        unsigned all = warp_most(bits_of(found));
        if (threadIdx.x % 32 == 0) atomicMax(&most[token], all);
    }
    __syncthreads();
    for (unsigned token = 0; token < tokens; token++) {
        float scale = step_of(of_bits(most[token]));
        if (threadIdx.x == 0) steps[token] = scale;
        unsigned* to = reinterpret_cast<unsigned*>(xq + token * apart);
        const float4* values = reinterpret_cast<const float4*>(xs + token * padded);
        int total = 0;
        for (unsigned i = threadIdx.x; i < fours; i += THREADS) {
            float4 y = values[i];
            unsigned packed = pack_i8(y.x, y.y, y.z, y.w, scale);
            to[i] = packed;
            if (counts<CODE>(4 * i)) total = add_bytes(packed, total);
        }
        for (unsigned i = fours + threadIdx.x; i < bytes_of_row / 4; i += THREADS) to[i] = 0;
        total = warp_add(total);
        if (threadIdx.x % 32 == 0) atomicAdd(&totals[token], total);
    }
    __syncthreads();
    share.template run<1>(0, xq, apart, tokens, sums);
    __syncthreads();
    finish(own, count, tokens, sums, totals, steps, epilogue, factor, early, out, rows);
}

#ifdef EXPERIMENT
#include EXPERIMENT
#else
// `warps` a block, `slots` of 1 KB a warp: mod.rs says which form is for what.
#define GEMV(name, code, n, warps, slots, chunks)                                                                                                    \
    extern "C" __global__ void __launch_bounds__(32 * warps, 2)                                                                              \
        name(const unsigned char* weights, const Tile<code>* tiles, unsigned k_blocks, unsigned unit, unsigned each, unsigned more, const unsigned char* x, unsigned stride, \
             unsigned span, const float* scales, unsigned tokens, unsigned epilogue, float factor, float* out, unsigned rows) {                             \
        gemv<code, n, warps, slots, chunks>(weights, tiles, k_blocks, {unit, each, more}, x, stride, span, scales, tokens, epilogue, factor, out, rows);             \
    }
GEMV(ternary_gemv_b1_4, B1, 1, 8, 8, true)
GEMV(ternary_gemv_b1_4_long, B1, 1, 12, 8, false)
GEMV(ternary_gemv_b1_8, B1, 1, 10, 4, true)
GEMV(ternary_gemv_b1_16, B1, 2, 8, 5, true)
GEMV(ternary_gemv_t2_4, T2, 1, 8, 8, true)
GEMV(ternary_gemv_t2_4_long, T2, 1, 12, 8, false)
GEMV(ternary_gemv_t2_8, T2, 1, 10, 4, true)
GEMV(ternary_gemv_t2_16, T2, 2, 8, 5, true)
GEMV(ternary_gemv_t3_4, T3, 1, 8, 8, true)
GEMV(ternary_gemv_t3_4_long, T3, 1, 16, 4, false)
GEMV(ternary_gemv_t3_8, T3, 1, 10, 4, true)
GEMV(ternary_gemv_t3_16, T3, 2, 8, 5, true)
GEMV(ternary_gemv_i8_4, I8, 1, 8, 8, true)
GEMV(ternary_gemv_i8_4_long, I8, 1, 12, 8, false)
GEMV(ternary_gemv_i8_8, I8, 1, 10, 4, true)
GEMV(ternary_gemv_i8_16, I8, 2, 8, 5, true)

#define NORMED(name, code)                                                                                                                 \
    extern "C" __global__ void __launch_bounds__(256, 2)                                                                                   \
        name(const unsigned char* weights, const Tile<code>* tiles, unsigned k_blocks, unsigned unit, unsigned each, unsigned more, const float* x, unsigned cols,       \
             const float* norm, float eps, unsigned tokens, unsigned epilogue, float factor, float* out, unsigned rows) {                  \
        normed_gemv<code, 8, 8>(weights, tiles, k_blocks, {unit, each, more}, x, cols, norm, eps, tokens, epilogue, factor, out, rows);         \
    }
NORMED(normed_gemv_b1, B1)
NORMED(normed_gemv_t2, T2)
NORMED(normed_gemv_t3, T3)
NORMED(normed_gemv_i8, I8)

// What `normed_gemv` does first, for many tokens: one block a token writes its bytes, `[tokens, stride]` filled up with zeros, and its scale; its floats, `[tokens, cols]`, are written where
// `floats` is not null, and nothing else is where `out` is.
extern "C" __global__ void __launch_bounds__(320) norm_quantize(const float* x, unsigned cols, const float* norm, float eps, unsigned char* out,
                                                                    unsigned stride, float* scales, float* floats) {
    __shared__ float scratch[32], reciprocal;
    DYNAMIC_SHARED(unsigned char, shared);
    float* xs = reinterpret_cast<float*>(shared);
    grid_wait();
    grid_launch_dependents();
    const float* from = x + (size_t)blockIdx.x * cols;
    for (unsigned i = threadIdx.x; i < cols; i += blockDim.x) xs[i] = from[i];
    __syncthreads();
    if (threadIdx.x < 32) {
        float squares = norm ? squares_of(xs, cols) : 0.0f;
        if (threadIdx.x == 0) reciprocal = norm ? reciprocal_rms(squares, cols, eps) : 1.0f;
    }
    __syncthreads();
    float r = reciprocal, most = 0.0f;
    for (unsigned i = threadIdx.x; i < cols; i += blockDim.x) {
        float y = xs[i];
        if (norm) xs[i] = y = mul_rn(mul_rn(y, r), norm[i]);
        if (floats) floats[(size_t)blockIdx.x * cols + i] = y;
        most = fmaxf(most, fabsf(y));
    }
    if (!out) return;
    most = block_max(most, scratch);
    float scale = div_rn(127.0f, most > 1e-5f ? most : 1e-5f);
    if (threadIdx.x == 0) scales[blockIdx.x] = scale;
    unsigned* to = reinterpret_cast<unsigned*>(out + (size_t)blockIdx.x * stride);
    for (unsigned i = threadIdx.x; i < stride / 4; i += blockDim.x) {
        unsigned packed = 0;
#pragma unroll
        for (unsigned j = 0; j < 4; j++)
            if (4 * i + j < cols) packed |= (unsigned)(quantize_i8(xs[4 * i + j], scale) & 255) << (8 * j);
        to[i] = packed;
    }
}
#endif
