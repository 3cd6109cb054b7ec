// target: sm_80
// `normed_gemv` of `kernel.cu` for the one token of decoding: norm, quantiser and product in one kernel, as short as it gets.
//
// Five kernels a layer run after one another and all of them wait most of the time, so what counts is the way from the activations to the results: loads, one
// chain of squares, four barriers, a KB of weights for each few warps. A thread keeps its fours of the token and of the norm's weights in registers; through shared
// memory goes what the chain reads, and then, in its place, the bytes. Nothing here is for any other case, because instructions have to be fetched as well: the
// kernels of a layer take turns, and a form for everything (45 KB of code) ran a quarter longer (NOTES.md).
#include "memory.cuh"
#include "mma.cuh"
#include "reduce.cuh"

#include "attention_parts.cuh"
#include "exact.cuh"
#include "kv_cache.cuh"
#include "stream.cuh"
#include "ternary_results.cuh"
#include "ternary_tiles.cuh"

// The largest of one value of each warp, which every thread takes from all of them.
template <unsigned WARPS>
__device__ __forceinline__ unsigned most_of(const unsigned* warps) {
    unsigned most = warps[0];
#pragma unroll
    for (unsigned w = 1; w < WARPS; w++) most = warps[w] > most ? warps[w] : most;
    return most;
}

// `x` and `norm`, or null, `[cols]`: `cols` is a multiple of 4 and at most 4 · KEPT · 32 · WARPS. With `PARTS` it is what attention gave at `*position`, which for 2 to
// MOST_PARTS blocks of positions lies in `parts` instead.
template <int CODE, unsigned WARPS, unsigned SLOTS, unsigned KEPT, bool PARTS>
__device__ __forceinline__ void normed_gemv(const unsigned char* weights, const Tile<CODE>* tiles, unsigned k_blocks, Borders borders, const float* x,
                                            unsigned cols, const float* norm, float eps, unsigned epilogue, float factor, float* out, Parts parts,
                                            const unsigned* position) {
    constexpr unsigned THREADS = 32 * WARPS;
    __shared__ __align__(16) unsigned most[WARPS];
    __shared__ int total;
    __shared__ float step, reciprocal;
    DYNAMIC_SHARED(unsigned char, shared);
    unsigned bytes = k_blocks * BLOCK<CODE>, fours = cols / 4, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    float* xs = reinterpret_cast<float*>(shared + WARPS * WeightRing<SLOTS>::BYTES);
    unsigned char* xq = reinterpret_cast<unsigned char*>(xs);
    Tile<CODE>* own = reinterpret_cast<Tile<CODE>*>(xq + (4 * cols > bytes ? 4 * cols : bytes));

    Share<CODE, WARPS, SLOTS, false> share(weights, k_blocks, k_blocks, borders, shared);
    unsigned count = share.end - share.first;
    int* sums = reinterpret_cast<int*>(own + count);
    copy_tiles(tiles, share.first, share.end, own);
#pragma unroll 1
    for (unsigned i = threadIdx.x; i < count * TILE; i += THREADS) sums[i] = 0;
    if (threadIdx.x == 0) total = 0;
    float4 w[KEPT], v[KEPT];
#pragma unroll
    for (unsigned u = 0; u < KEPT; u++) {
        unsigned i = threadIdx.x + u * THREADS;
        w[u] = v[u] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        if (norm && i < fours) w[u] = __ldg(reinterpret_cast<const float4*>(norm) + i);
    }
    // Set before the kernel ahead began.
    unsigned blocks = PARTS ? *position / POSITIONS + 1 : 1;
    __syncthreads();
    grid_wait();
    grid_launch_dependents();

    // Attention leaves nothing where the token would lie outside the cache.
    if (PARTS && blocks > 1 && blocks <= MOST_PARTS && blocks <= parts.cache_blocks) {
        // Factors lie where the chain's floats will. The first two parts are asked for before them, and each later one while that before it is added.
        float4* factors = reinterpret_cast<float4*>(xs);
        const float4 *from[KEPT], *with[KEPT];
        float4 next[KEPT];
        unsigned apart = parts.apart();
#pragma unroll
        for (unsigned u = 0; u < KEPT; u++) {
            // A thread without a four takes the last one again.
            unsigned i = threadIdx.x + u * THREADS < fours ? threadIdx.x + u * THREADS : fours - 1;
            from[u] = parts.four(4 * i);
            with[u] = factors + 4 * i / parts.head_dim * blocks;
            v[u] = from[u][0];
            next[u] = from[u][apart];
        }
#pragma unroll 1
        for (unsigned i = threadIdx.x; i < cols / parts.head_dim * blocks; i += THREADS) factors[i] = parts.factors(i / blocks, i % blocks);
        __syncthreads();
        Merging merging[KEPT];
#pragma unroll
        for (unsigned u = 0; u < KEPT; u++) merging[u].begin(v[u], with[u][0]);
#pragma unroll 1
        for (unsigned b = 1; b < blocks; b++) {
#pragma unroll
            for (unsigned u = 0; u < KEPT; u++) {
                float4 now = next[u];
                if (b + 1 < blocks) next[u] = from[u][(b + 1) * apart];
                merging[u].add(now, with[u][b]);
            }
        }
        // What no value is must not be the largest.
#pragma unroll
        for (unsigned u = 0; u < KEPT; u++)
            if (threadIdx.x + u * THREADS < fours) v[u] = merging[u].end();
            else v[u] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        __syncthreads();
    } else {
#pragma unroll
        for (unsigned u = 0; u < KEPT; u++) {
            unsigned i = threadIdx.x + u * THREADS;
            if (i < fours) v[u] = reinterpret_cast<const float4*>(x)[i];
        }
    }
    float early = residual(own, count, 1, epilogue, out, 0);
    if (norm) {
#pragma unroll
        for (unsigned u = 0; u < KEPT; u++) {
            unsigned i = threadIdx.x + u * THREADS;
            if (i < fours) reinterpret_cast<float4*>(xs)[i] = v[u];
        }
        __syncthreads();
        if (warp == 0) {
            float squares = squares_of(xs, cols);
            if (lane == 0) reciprocal = reciprocal_rms(squares, cols, eps);
        }
        __syncthreads();
        float r = reciprocal;
#pragma unroll
        for (unsigned u = 0; u < KEPT; u++) v[u] = normed(v[u], r, w[u]);
    }
    float found = 0.0f;
#pragma unroll
    for (unsigned u = 0; u < KEPT; u++) found = fmaxf(found, largest(v[u]));
    unsigned all = warp_most(bits_of(found));
    if (lane == 0) most[warp] = all;
    __syncthreads();
    float scale = step_of(of_bits(most_of<WARPS>(most)));
    if (threadIdx.x == 0) step = scale;
    int sum = 0;
#pragma unroll
    for (unsigned u = 0; u < KEPT; u++) {
        unsigned i = threadIdx.x + u * THREADS;
        if (i < fours) {
            unsigned packed = pack_i8(v[u].x, v[u].y, v[u].z, v[u].w, scale);
            reinterpret_cast<unsigned*>(xq)[i] = packed;
            if (counts<CODE>(4 * i)) sum = add_bytes(packed, sum);
        }
    }
#pragma unroll 1
    for (unsigned i = fours + threadIdx.x; i < bytes / 4; i += THREADS) reinterpret_cast<unsigned*>(xq)[i] = 0;
    sum = warp_add(sum);
    if (lane == 0) atomicAdd(&total, sum);
    __syncthreads();
    if (share.at_once())
        share.template run<1, true>(0, xq, 0, 1, sums);
    else
        share.template run<1>(0, xq, 0, 1, sums);
    __syncthreads();
    finish(own, count, 1, sums, &total, &step, epilogue, factor, early, out, 0);
}

#define NORMED(name, code, kept)                                                                                                         \
    extern "C" __global__ void __launch_bounds__(256, 2)                                                                                 \
        name(const unsigned char* weights, const Tile<code>* tiles, unsigned k_blocks, unsigned unit, unsigned each, unsigned more,            \
             const float* x, unsigned cols, const float* norm, float eps, unsigned epilogue, float factor, float* out) {                 \
        normed_gemv<code, 8, 9, kept, false>(weights, tiles, k_blocks, {unit, each, more}, x, cols, norm, eps, epilogue, factor, out,    \
                                             {}, nullptr);                                                                               \
    }
// The second for rows of up to 7,168 values.
NORMED(normed_single_b1, B1, 3)
NORMED(normed_single_b1_wide, B1, 7)
NORMED(normed_single_t2, T2, 3)
NORMED(normed_single_t2_wide, T2, 7)
NORMED(normed_single_t3, T3, 3)
NORMED(normed_single_t3_wide, T3, 7)
NORMED(normed_single_i8, I8, 3)
NORMED(normed_single_i8_wide, I8, 7)

// Behind attention, of rows of up to 4,096 values.
#define ATTENDED(name, code, kept)                                                                                                       \
    extern "C" __global__ void __launch_bounds__(256, 2)                                                                                 \
        name(const unsigned char* weights, const Tile<code>* tiles, unsigned k_blocks, unsigned unit, unsigned each, unsigned more,            \
             const float* x, unsigned cols, const float* norm, float eps, unsigned epilogue, float factor, float* out,                   \
             const float* parts, unsigned head_dim, unsigned group, unsigned cache_blocks, const unsigned* position) {                   \
        normed_gemv<code, 8, 9, kept, true>(weights, tiles, k_blocks, {unit, each, more}, x, cols, norm, eps, epilogue, factor, out,     \
                                            {parts, head_dim, group, cache_blocks}, position);                                           \
    }
ATTENDED(attended_single_b1, B1, 4)
ATTENDED(attended_single_t2, T2, 4)
ATTENDED(attended_single_t3, T3, 4)
ATTENDED(attended_single_i8, I8, 4)
