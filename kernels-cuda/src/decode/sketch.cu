// target: sm_80
// The largest logit of a head of floats, exactly, for half of the head's bytes or less: a sketch of the head, bytes and a step a row, says for each row
// where its logit can lie, and the head itself is read only for those rows whose logit can be the largest.
//
// With w a row, s·q its sketch, f the logit that `head` computes and y the one that is computed from the sketch,
//   |f - y| <= |w·x - s·q·x| + roundings <= |w - s·q| |x| + γ (|w| + |s·q|) |x|   (Cauchy and Schwarz; Higham's γ of a chain of cols / 16 and of the folding),
// so that a row has a radius, made with the sketch, and a token a reach, |x|. No row with y + radius · reach below the largest y - radius · reach is the largest.
// What cannot be compared (infinite sums, no numbers, sums that may leave the range of floats on their way) is left to the head.
//
// Where logits are capped, the largest is that of the capped ones, of equals the lowest: the cap takes different logits to one, and its roundings may turn two
// around. So the bounds are compared behind the cap, with room for its roundings.
//
// Of random rows of 2560 bytes the radius is 0.009 |w| and a logit's deviation 0.02 |w| |x|: of 128,256 rows some 40 are read.
#include "reduce.cuh"
#include "softcap.cuh"
#include "vocabulary.cuh"

// Of a row, its bytes, step and radius: a thread a row, a warp a tile. Rows beyond `vocab` become zeros.
template <int TYPE>
__device__ __forceinline__ void make(const unsigned char* weights, unsigned vocab, unsigned cols, unsigned char* bytes, float* steps, float* radii) {
    unsigned vectors = (cols + LANES - 1) / LANES, lane = threadIdx.x % 32;
    unsigned tile = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32, row = tile * ROWS + lane;
    if (tile >= (vocab + ROWS - 1) / ROWS) return;
    float most = 0.0f;
    for (unsigned vector = 0; vector < vectors; vector++) {
        Vector<TYPE> v;
        v.load(vector_at<TYPE>(weights, vectors, tile, vector, lane));
#pragma unroll
        for (int q = 0; q < 4; q++) {
            float w[4];
            v.open(q, w);
#pragma unroll
            for (int i = 0; i < 4; i++) most = fmaxf(most, fabsf(w[i]));
        }
    }
    float step = div_rn(most, 127.0f);
    // Squares of the row, of its sketch and of what lies between them.
    double row_squares = 0.0, sketch_squares = 0.0, error_squares = 0.0;
    for (unsigned vector = 0; vector < vectors; vector++) {
        Vector<TYPE> v;
        v.load(vector_at<TYPE>(weights, vectors, tile, vector, lane));
        unsigned packed[4];
#pragma unroll
        for (int q = 0; q < 4; q++) {
            float w[4];
            v.open(q, w);
            unsigned four = 0;
#pragma unroll
            for (int i = 0; i < 4; i++) {
                // A step of 0, and what is no number, becomes 0 here and shows in the radius.
                float rounded = rintf(div_rn(w[i], step));
                int byte = rounded >= -127.0f && rounded <= 127.0f ? (int)rounded : 0;
                double near = (double)step * byte, off = (double)w[i] - near;
                row_squares += (double)w[i] * w[i];
                sketch_squares += near * near;
                error_squares += off * off;
                four |= (unsigned)(byte & 255) << (8 * i);
            }
            packed[q] = four;
        }
        uint4 out;
        out.x = packed[0], out.y = packed[1], out.z = packed[2], out.w = packed[3];
        *reinterpret_cast<uint4*>(bytes + (((size_t)tile * vectors + vector) * ROWS + lane) * 16) = out;
    }
    if (row >= vocab) return;
    // The unit of rounding is 2^-24; a chain has `vectors` of them, folding, steps and bounds a few more; twice that. The last factor is for the
    // roundings of the reach's squares (cols / 64 and the folding) and of the radius itself.
    double gamma = ((double)vectors + 16.0) * 0x1p-23;
    double radius = sqrt(error_squares) + gamma * (sqrt(row_squares) + sqrt(sketch_squares));
    steps[row] = step;
    radii[row] = (float)(radius * (1.0 + ((double)cols / 64.0 + 32.0) * 0x1p-23)) * (1.0f + 0x1p-20f);
}

#define MAKE(name, type)                                                                                                                          \
    extern "C" __global__ void __launch_bounds__(256)                                                                                                       \
        name(const unsigned char* weights, unsigned vocab, unsigned cols, unsigned char* bytes, float* steps, float* radii) {                      \
        make<type>(weights, vocab, cols, bytes, steps, radii);                                                                                     \
    }
MAKE(sketch_f32, F32)
MAKE(sketch_f16, F16)
MAKE(sketch_bf16, BF16)

// What is below every |x| that `squares_of` loses, for each value: a square below 2^-126 is not exact.
constexpr float LOST = 0x1p-62f;
constexpr unsigned ESTIMATE_THREADS = 512, SETTLE_THREADS = 256;

// How far a logit can lie from its estimate. What is added is more than all products that are too small for a float.
__device__ __forceinline__ float slack(float radius, float reach) { return fmaf(radius, reach, 0x1p-120f); }

// One token: `estimates` `[vocab]`; `floors` `[gridDim.x]`, what a block's largest logit has at least; `normed` `[padded + 1]`, x behind its norm and then its reach.
__device__ __forceinline__ void estimate(const unsigned char* bytes, const float* steps, const float* radii, unsigned vocab, unsigned cols, const float* x,
                                         const float* norm, float eps, float* estimates, float* floors, float* normed) {
    constexpr unsigned WARPS = ESTIMATE_THREADS / 32;
    __shared__ float reciprocal, reach, room, warp_floors[WARPS];
    DYNAMIC_SHARED(unsigned char, shared);
    float* xs = reinterpret_cast<float*>(shared + WARPS * RING_BYTES);
    unsigned vectors = (cols + LANES - 1) / LANES, padded = vectors * LANES, tiles = (vocab + ROWS - 1) / ROWS;
    unsigned warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    unsigned first = (unsigned)((unsigned long long)tiles * blockIdx.x / gridDim.x);
    unsigned end = (unsigned)((unsigned long long)tiles * (blockIdx.x + 1) / gridDim.x);

    Stream<INT8, WARPS> stream(bytes, vectors, first + warp, end, shared);
    grid_wait();
    grid_launch_dependents();
    norm_tokens<1, ESTIMATE_THREADS>(x, norm, eps, 1, cols, padded, xs, &reciprocal);
    if (warp == 0) {
        float squares = squares_of(xs, cols);
        if (lane == 0) {
            reach = sqrt_rn(squares) + LOST * sqrt_rn((float)cols);
            // No sum of a row on its way is larger than its step times this: of values of at most 127 steps, by Cauchy and Schwarz.
            room = 127.0f * sqrt_rn((float)cols) * reach;
        }
    }
    __syncthreads();
    if (blockIdx.x == 0) {
        for (unsigned i = threadIdx.x; i < padded; i += ESTIMATE_THREADS) normed[i] = xs[i];
        if (threadIdx.x == 0) normed[padded] = reach;
    }

    float floor = -INFINITY;
    unsigned slot = 0;
    for (unsigned tile = first + warp; tile < end; tile += WARPS) {
        unsigned row = tile * ROWS + lane;
        float step = row < vocab ? __ldg(steps + row) : 0.0f, radius = row < vocab ? __ldg(radii + row) : 0.0f;
        float sums[1];
        row_products(stream, slot, xs, padded, vectors, sums);
        if (row >= vocab) continue;
        float y = mul_rn(sums[0], step);
        // A chain that leaves the range of floats can end anywhere, wherever its sum lies.
        if (!(mul_rn(step, room) < 0x1p126f)) y = INFINITY;
        estimates[row] = y;
        // fmaxf passes by what is no number. An infinite estimate says nothing of the logit.
        if (fabsf(y) < INFINITY) floor = fmaxf(floor, y - slack(radius, reach));
    }
    floor = warp_max(floor);
    if (lane == 0) warp_floors[warp] = floor;
    __syncthreads();
    if (threadIdx.x != 0) return;
    for (unsigned w = 1; w < WARPS; w++) floor = fmaxf(floor, warp_floors[w]);
    floors[blockIdx.x] = floor;
}

extern "C" __global__ void __launch_bounds__(ESTIMATE_THREADS, 2)
    sketch_estimate(const unsigned char* bytes, const float* steps, const float* radii, unsigned vocab, unsigned cols, const float* x, const float* norm,
                    float eps, float* estimates, float* floors, float* normed) {
    estimate(bytes, steps, radii, vocab, cols, x, norm, eps, estimates, floors, normed);
}

// Bytes of a row that a warp reads at once.
constexpr unsigned PIECE_BYTES = 8192;
// Rows of a block that are compared at once.
constexpr unsigned COMPARED = 2048;

// The logit of `row` as `head` computes it, in lane 0: its parts are fetched side by side into `piece`, and lane k < 16 has a chain.
template <int TYPE>
__device__ __forceinline__ float exact_logit(const unsigned char* weights, unsigned vectors, unsigned row, const float* xs, unsigned char* piece) {
    constexpr unsigned VALUE = TYPE == F32 ? 4 : 2, VECTORS = PIECE_BYTES / (16 * PARTS<TYPE>);
    unsigned lane = threadIdx.x % 32;
    const unsigned char* from = vector_at<TYPE>(weights, vectors, row / ROWS, 0, row % ROWS);
    float sum = 0.0f;
    for (unsigned at = 0; at < vectors; at += VECTORS) {
        unsigned count = vectors - at < VECTORS ? vectors - at : VECTORS;
        __syncwarp();
        for (unsigned part = lane; part < count * PARTS<TYPE>; part += 32)
            copy_async16(piece + part * 16, from + ((size_t)at * PARTS<TYPE> + part) * PART_BYTES);
        copy_async_commit();
        copy_async_wait<0>();
        __syncwarp();
        if (lane < LANES) {
#pragma unroll 8
            for (unsigned vector = 0; vector < count; vector++) {
                const unsigned char* value = piece + vector * PARTS<TYPE> * 16 + lane * VALUE;
                float w;
                if (TYPE == F32) w = *reinterpret_cast<const float*>(value);
                else if (TYPE == F16) w = f16_to_f32(*reinterpret_cast<const unsigned short*>(value));
                else w = of_bits((unsigned)*reinterpret_cast<const unsigned short*>(value) << 16);
                sum = fmaf(w, xs[(at + vector) * LANES + lane], sum);
            }
        }
    }
    __syncwarp();
    return fold_lanes(sum);
}

// How far the caps of what is no larger than some y, and of what is no smaller, can lie beyond that of y: division, tanh (1.5 units in the last place) and product
// are off by less than 2^-21 of the result.
__device__ __forceinline__ float capped_most(float y, float cap) {
    float c = softcap(y, cap);
    return fmaf(fabsf(c), 0x1p-20f, c + 0x1p-120f);
}
__device__ __forceinline__ float capped_least(float y, float cap) {
    float c = softcap(y, cap);
    return fmaf(fabsf(c), -0x1p-20f, c);
}

// The largest logit of what `sketch_estimate` left.
template <int TYPE>
__device__ __forceinline__ void settle(const unsigned char* weights, const float* radii, unsigned vocab, unsigned cols, const float* estimates,
                                       const float* floors, const float* normed, float cap, unsigned* read, const Chosen& chosen) {
    constexpr unsigned WARPS = SETTLE_THREADS / 32;
    __shared__ float scratch[32];
    __shared__ unsigned rows[COMPARED], count;
    DYNAMIC_SHARED(unsigned char, shared);
    float* xs = reinterpret_cast<float*>(shared + WARPS * PIECE_BYTES);
    unsigned vectors = (cols + LANES - 1) / LANES, padded = vectors * LANES;
    unsigned warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    unsigned first = (unsigned)((unsigned long long)vocab * blockIdx.x / gridDim.x);
    unsigned end = (unsigned)((unsigned long long)vocab * (blockIdx.x + 1) / gridDim.x);
    if (threadIdx.x == 0) count = 0;

    grid_wait();
    grid_launch_dependents();
    float floor = -INFINITY;
    for (unsigned i = threadIdx.x; i < gridDim.x; i += SETTLE_THREADS) floor = fmaxf(floor, floors[i]);
    for (unsigned i = threadIdx.x; i < padded; i += SETTLE_THREADS) xs[i] = normed[i];
    float reach = normed[padded];
    floor = block_max(floor, scratch);
    if (cap > 0.0f) floor = capped_least(floor, cap);

    Best best[1] = {{-INFINITY, 0xffffffffu}};
    for (unsigned from = first; from < end; from += COMPARED) {
        unsigned to = end - from < COMPARED ? end : from + COMPARED;
        for (unsigned row = from + threadIdx.x; row < to; row += SETTLE_THREADS) {
            float y = estimates[row];
            float most = y + slack(radii[row], reach);
            if (cap > 0.0f) most = capped_most(most, cap);
            bool below = fabsf(y) < INFINITY && most < floor;
            if (!below) rows[atomicAdd(&count, 1u)] = row;
        }
        __syncthreads();
        unsigned found = count;
        // In any order: of equals the lowest is the best.
        for (unsigned i = warp; i < found; i += WARPS) {
            float y = exact_logit<TYPE>(weights, vectors, rows[i], xs, shared + warp * PIECE_BYTES);
            if (cap > 0.0f) y = softcap(y, cap);
            if (lane == 0) best[0].take(y, rows[i]);
        }
        __syncthreads();
        if (threadIdx.x == 0) {
            if (read && found) atomicAdd(read, found);
            count = 0;
        }
        __syncthreads();
    }
    choose<1, WARPS>(best, 1, vocab, chosen);
}

#define SETTLE(name, type)                                                                                                                        \
    extern "C" __global__ void __launch_bounds__(SETTLE_THREADS, 2)                                                                                         \
        name(const unsigned char* weights, const float* radii, unsigned vocab, unsigned cols, const float* estimates, const float* floors,         \
             const float* normed, float cap, unsigned* read, float* bests, unsigned* counter, unsigned* best_ids, unsigned* ids, unsigned* position,          \
             unsigned room, unsigned advance) {                                                                                                    \
        settle<type>(weights, radii, vocab, cols, estimates, floors, normed, cap, read, {bests, counter, best_ids, ids, position, room, advance});      \
    }
SETTLE(sketch_settle_f32, F32)
SETTLE(sketch_settle_f16, F16)
SETTLE(sketch_settle_bf16, BF16)
