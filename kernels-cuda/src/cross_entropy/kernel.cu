// target: sm_80
// Softmax cross-entropy of logits bf16 [rows, stride], of which `vocab` columns count, with one target a row; and its gradient, in place.
//
//   lse = max + ln sum        sum = sum_j exp(x_j - max)
//   nll = max - x_t + ln sum  smoothed = (1 - e) nll + e (ln sum - mean_j (x_j - max))
//   taught   smoothed = (1 - a) smoothed + a (lse - sum_j q_j x_j), for what teachers think likely, q
//   smoothed += z lse^2
//   dx_j = scale ((1 + 2 z lse) exp(x_j - max) / sum - (1 - a) ((1 - e) [j = t] + e / vocab) - a q_j), and 0 in columns vocab..stride
//   capped   all of it of cap tanh(x / cap) in the place of x, and dx_j times 1 - tanh(x_j / cap)^2
//
// A block a row. The first pass reads it in 16-byte chunks, each thread with its own running maximum and sum, and leaves the first `cached` chunks in
// shared memory; the second pass takes each chunk from there (or once more from L2), and writes the gradient. A thread reads only chunks that it wrote.
// Cost a logit: 2 bytes read and 2 written, two exponentials, about 12 instructions: bound by memory. Evaluation: 2 bytes read. Taught: 8 bytes of q more.
// Capped: tanh in both passes, of some 50 instructions each, because nothing but the 16 bits of x is kept between them: then bound by arithmetic.
#include "bf16.cuh"
#include "exp2.cuh"
#include "memory.cuh"
#include "reduce.cuh"
#include "softcap.cuh"

#define LOG2_E 1.44269504088896340736f
// The start of a maximum: finite, so that differences with it are no NaN.
#define LOWEST (-3.402823466e38f)

// What a thread knows of its part of a row; `offset` is the sum of x - max.
struct Running {
    float max, sum, offset, count;
};

__device__ __forceinline__ void unpack(uint4 words, float (&x)[8]) {
    x[0] = low_f32(words.x), x[1] = high_f32(words.x);
    x[2] = low_f32(words.y), x[3] = high_f32(words.y);
    x[4] = low_f32(words.z), x[5] = high_f32(words.z);
    x[6] = low_f32(words.w), x[7] = high_f32(words.w);
}

// Eight logits of a row, capped if they are to be.
template <bool CAPPED>
__device__ __forceinline__ void unpack_capped(uint4 words, float cap, float (&x)[8]) {
    unpack(words, x);
    if (CAPPED) {
#pragma unroll
        for (int i = 0; i < 8; i++) x[i] = softcap(x[i], cap);
    }
}

// Adds the first `valid` of eight logits.
template <bool SMOOTH>
__device__ __forceinline__ void add(Running& r, const float (&x)[8], int valid) {
    float largest = x[0];
#pragma unroll
    for (int i = 1; i < 8; i++)
        if (i < valid) largest = fmaxf(largest, x[i]);
    // Rare after the first few chunks.
    if (largest > r.max) {
        r.sum *= exp2_fast((r.max - largest) * LOG2_E);
        if (SMOOTH) r.offset += r.count * (r.max - largest);
        r.max = largest;
    }
#pragma unroll
    for (int i = 0; i < 8; i++) {
        if (i < valid) {
            float below = x[i] - r.max;
            r.sum += exp2_fast(below * LOG2_E);
            if (SMOOTH) r.offset += below;
        }
    }
    if (SMOOTH) r.count += (float)valid;
}

// Eight probabilities.
__device__ __forceinline__ void load_likely(const float* q, float (&v)[8]) {
    float4 a = reinterpret_cast<const float4*>(q)[0], b = reinterpret_cast<const float4*>(q)[1];
    v[0] = a.x, v[1] = a.y, v[2] = a.z, v[3] = a.w;
    v[4] = b.x, v[5] = b.y, v[6] = b.z, v[7] = b.w;
}

// Of those taught, `likely` is q `[rows, stride]` and `share` is a.
template <bool GRADIENT, bool SMOOTH, bool TAUGHT, bool CAPPED>
__device__ __forceinline__ void row_loss(bf16* logits, const unsigned* targets, unsigned vocab, unsigned stride, unsigned cached, float smoothing,
                                         float z, float scale, const float* likely, float taught, float* lse, float* nll, float* smoothed, float cap) {
    DYNAMIC_SHARED(uint4, cache);
    __shared__ float scratch[32];
    const unsigned row = blockIdx.x, thread = threadIdx.x, threads = blockDim.x;
    bf16* x_row = logits + (size_t)row * stride;
    uint4* words = reinterpret_cast<uint4*>(x_row);
    const unsigned whole = vocab / 8, rest = vocab % 8;
    const unsigned target = targets[row];
    // Before any thread overwrites it; a target outside the vocabulary is nowhere, and its loss not a number.
    float at_target = 0.0f;
    if (thread == 0) at_target = target < vocab ? to_f32(x_row[target]) : __int_as_float(0x7fc00000);
    if (CAPPED) at_target = softcap(at_target, cap);

    Running r = {LOWEST, 0.0f, 0.0f, 0.0f};
    float x[8], q[8], agreed = 0.0f;
    const float* q_row = TAUGHT ? likely + (size_t)row * stride : nullptr;
    // Capped, arithmetic is what takes time, and a chunk of it is enough code.
    constexpr unsigned BATCH = CAPPED ? 1 : 4;
    for (unsigned first = thread; first < whole; first += BATCH * threads) {
        uint4 batch[BATCH];
#pragma unroll
        for (unsigned k = 0; k < BATCH; k++) {
            unsigned chunk = first + k * threads;
            if (chunk < whole) batch[k] = words[chunk];
        }
#pragma unroll
        for (unsigned k = 0; k < BATCH; k++) {
            unsigned chunk = first + k * threads;
            if (chunk < whole) {
                if (GRADIENT && chunk < cached) cache[chunk] = batch[k];
                unpack_capped<CAPPED>(batch[k], cap, x);
                add<SMOOTH>(r, x, 8);
                if (TAUGHT) {
                    load_likely(q_row + 8 * chunk, q);
#pragma unroll
                    for (int i = 0; i < 8; i++) agreed = fmaf(q[i], x[i], agreed);
                }
            }
        }
    }
    // The thread whose turn chunk `whole` is.
    if (rest > 0 && thread == whole % threads) {
        unpack_capped<CAPPED>(words[whole], cap, x);
        add<SMOOTH>(r, x, (int)rest);
        if (TAUGHT) {
            load_likely(q_row + 8 * whole, q);
#pragma unroll
            for (unsigned i = 0; i < 8; i++)
                if (i < rest) agreed = fmaf(q[i], x[i], agreed);
        }
    }

    const float max = block_max(r.max, scratch);
    const float sum = block_sum(r.sum * exp2_fast((r.max - max) * LOG2_E), scratch);
    const float offset = SMOOTH ? block_sum(r.offset + r.count * (r.max - max), scratch) : 0.0f;
    const float together = TAUGHT ? block_sum(agreed, scratch) : 0.0f;
    const float log_sum = logf(sum), all = max + log_sum;
    if (thread == 0) {
        float loss = max - at_target + log_sum;
        lse[row] = all;
        nll[row] = loss;
        float wanted = SMOOTH ? (1.0f - smoothing) * loss + smoothing * (log_sum - offset / (float)vocab) : loss;
        if (TAUGHT) wanted = (1.0f - taught) * wanted + taught * (all - together);
        smoothed[row] = wanted + z * all * all;
    }
    if (!GRADIENT) return;

    const float factor = scale / sum * (1.0f + 2.0f * z * all);
    const float own = TAUGHT ? scale * (1.0f - taught) : scale, theirs = scale * taught;
    const float share = SMOOTH ? own * smoothing / (float)vocab : 0.0f;
    const float once = own * (1.0f - smoothing);
#pragma unroll(BATCH)
    for (unsigned chunk = thread; chunk < stride / 8; chunk += threads) {
        uint4 gradient = make_uint4(0, 0, 0, 0);
        if (chunk * 8 < vocab) {
            unpack(chunk < cached && chunk < whole ? cache[chunk] : words[chunk], x);
            float d[8], slope[8];
            if (CAPPED) {
#pragma unroll
                for (int i = 0; i < 8; i++) x[i] = softcap(x[i], cap, slope[i]);
            }
#pragma unroll
            for (int i = 0; i < 8; i++) d[i] = fmaf(exp2_fast((x[i] - max) * LOG2_E), factor, -share);
            if (TAUGHT) {
                load_likely(q_row + 8 * chunk, q);
#pragma unroll
                for (int i = 0; i < 8; i++) d[i] = fmaf(-theirs, q[i], d[i]);
            }
            if (chunk == target / 8) {
#pragma unroll
                for (unsigned i = 0; i < 8; i++)
                    if (i == target % 8) d[i] -= once;
            }
            if (CAPPED) {
#pragma unroll
                for (int i = 0; i < 8; i++) d[i] *= slope[i];
            }
            if (chunk == whole) {
#pragma unroll
                for (unsigned i = 0; i < 8; i++)
                    if (i >= rest) d[i] = 0.0f;
            }
            gradient = make_uint4(pack_bf16(d[0], d[1]), pack_bf16(d[2], d[3]), pack_bf16(d[4], d[5]), pack_bf16(d[6], d[7]));
        }
        words[chunk] = gradient;
    }
}

#define ENTRY(name, GRADIENT, SMOOTH, TAUGHT)                                                                                                      \
    extern "C" __global__ void __launch_bounds__(1024)                                                                                             \
        name(bf16* logits, const unsigned* targets, unsigned vocab, unsigned stride, unsigned cached, float smoothing, float z, float scale,       \
             const float* likely, float taught, float* lse, float* nll, float* smoothed) {                                                         \
        row_loss<GRADIENT, SMOOTH, TAUGHT, false>(logits, targets, vocab, stride, cached, smoothing, z, scale, likely, taught, lse, nll, smoothed, \
                                                  0.0f);                                                                                           \
    }
// The same and the cap.
#define CAPPED_ENTRY(name, GRADIENT, TAUGHT)                                                                                                       \
    extern "C" __global__ void __launch_bounds__(1024)                                                                                             \
        name(bf16* logits, const unsigned* targets, unsigned vocab, unsigned stride, unsigned cached, float smoothing, float z, float scale,       \
             const float* likely, float taught, float* lse, float* nll, float* smoothed, float cap) {                                              \
        row_loss<GRADIENT, true, TAUGHT, true>(logits, targets, vocab, stride, cached, smoothing, z, scale, likely, taught, lse, nll, smoothed,    \
                                               cap);                                                                                               \
    }

ENTRY(cross_entropy, true, false, false)
ENTRY(cross_entropy_smoothed, true, true, false)
ENTRY(cross_entropy_taught, true, true, true)
ENTRY(cross_entropy_evaluate, false, false, false)
ENTRY(cross_entropy_evaluate_smoothed, false, true, false)
CAPPED_ENTRY(cross_entropy_capped, true, false)
CAPPED_ENTRY(cross_entropy_capped_taught, true, true)
CAPPED_ENTRY(cross_entropy_evaluate_capped, false, false)

// likely[j] = weight softmax(x)_j, or that more, and 0 in columns vocab..stride: a block a row. Cost a logit: 2 bytes read twice, the second time mostly from L2, and 4 written.
template <bool CAPPED>
__device__ __forceinline__ void soften_row(const bf16* logits, unsigned vocab, unsigned stride, float weight, unsigned accumulate, float* likely,
                                           float cap) {
    __shared__ float scratch[32];
    const unsigned chunks = (vocab + 7) / 8;
    const uint4* words = reinterpret_cast<const uint4*>(logits + (size_t)blockIdx.x * stride);
    float* out = likely + (size_t)blockIdx.x * stride;
    Running r = {LOWEST, 0.0f, 0.0f, 0.0f};
    float x[8], q[8];
    for (unsigned chunk = threadIdx.x; chunk < chunks; chunk += blockDim.x) {
        unpack_capped<CAPPED>(words[chunk], cap, x);
        add<false>(r, x, min(8u, vocab - 8 * chunk));
    }
    const float max = block_max(r.max, scratch);
    const float factor = weight / block_sum(r.sum * exp2_fast((r.max - max) * LOG2_E), scratch);
    for (unsigned chunk = threadIdx.x; chunk < stride / 8; chunk += blockDim.x) {
        if (chunk < chunks) unpack_capped<CAPPED>(words[chunk], cap, x);
        if (accumulate) load_likely(out + 8 * chunk, q);
#pragma unroll
        for (unsigned i = 0; i < 8; i++) {
            float p = 8 * chunk + i < vocab ? exp2_fast((x[i] - max) * LOG2_E) * factor : 0.0f;
            q[i] = accumulate ? q[i] + p : p;
        }
        reinterpret_cast<float4*>(out + 8 * chunk)[0] = make_float4(q[0], q[1], q[2], q[3]);
        reinterpret_cast<float4*>(out + 8 * chunk)[1] = make_float4(q[4], q[5], q[6], q[7]);
    }
}

extern "C" __global__ void __launch_bounds__(1024)
    soften(const bf16* logits, unsigned vocab, unsigned stride, float weight, unsigned accumulate, float* likely) {
    soften_row<false>(logits, vocab, stride, weight, accumulate, likely, 0.0f);
}

extern "C" __global__ void __launch_bounds__(1024)
    soften_capped(const bf16* logits, unsigned vocab, unsigned stride, float weight, unsigned accumulate, float* likely, float cap) {
    soften_row<true>(logits, vocab, stride, weight, accumulate, likely, cap);
}

// sums[2 slot] = sum of nll, sums[2 slot + 1] = sum of smoothed over all rows, in f64 and a fixed order: block 0 the one, block 1 the other, of 1024
// threads. Cost: 8 bytes a row. A slot that is not there gets nothing.
extern "C" __global__ void __launch_bounds__(1024)
    loss_sums(const float* nll, const float* smoothed, unsigned rows, const unsigned* slot, unsigned slots, float* sums) {
    __shared__ double partial[1024];
    const float* x = blockIdx.x == 0 ? nll : smoothed;
    double total = 0.0;
#pragma unroll 8
    for (unsigned i = threadIdx.x; i < rows; i += 1024) total += (double)x[i];
    partial[threadIdx.x] = total;
    for (unsigned half = 512; half > 0; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half) partial[threadIdx.x] += partial[threadIdx.x + half];
    }
    if (threadIdx.x == 0 && *slot < slots) sums[2 * *slot + blockIdx.x] = (float)partial[0];
}
