// target: sm_80
// From f32 master weights to codes and bf16 weights, for a table of tensors (mod.rs has the formulas).
//
//   measure      partials[chunk] = Σ|W| of a ternary or binary tensor's chunk; scales[row] = step of an int8 tensor's row; scales[group] = step of each 32 columns of an
//                int4 tensor's rows
//   gammas       gammas[tensor] = max(Σ partials / n, 1e-5), and scales[row] = γ
//   write_weights codes and dense weights
//   rows         rows of a tensor by id, f32, as `write_weights` would round them to bf16
//   statistics   zeros, clipped weights and flips of ternary tensors
//
// Bytes a weight: measure 4; write 4 + 1 (codes) + 2 (dense); rows 4 + 4; statistics 4 (+ 1 for flips). Operations a weight: about 15; 60 in the soft phase, and as many to
// measure int4.
//
// A block of 256 threads has a chunk: 65536 elements in a row, or as many whole rows as that holds where rows have steps. `owners` says whose it is.
//
// measure adds as the CPU does, to the bit: thread t has lane t % 16 of the 4096 elements number t / 16, and adds every sixteenth of them in order; the lanes are folded
// 8-4-2-1; one thread adds the sixteen sums in f64 in order. A warp so reads two runs of 64 bytes at a time: whole sectors, and memory is the limit.
// A group of int4 has sixteen lanes too, of columns l and l + 16: errors are squared and added in the order of onebit_kernels_cpu::int4_gemv.
#include "bf16.cuh"
#include "memory.cuh"
#include "reduce.cuh"
#include "weight_rule.cuh"

typedef unsigned long long u64;

struct Entry {
    u64 master, codes, dense, scales, rows, cols, mode, first_chunk;
};

static const unsigned CHUNK = 65536;

// The part of its tensor that a block has: elements `begin .. end`, counted from the tensor's first.
struct Part {
    u64 begin, end;
};

__device__ __forceinline__ Part part_of(const Entry& t, unsigned chunk) {
    unsigned cols = (unsigned)t.cols;
    u64 size = CHUNK;
    if (t.mode >= INT8) size = (u64)(cols < CHUNK ? CHUNK / cols : 1u) * cols;
    Part part;
    u64 n = t.rows * t.cols;
    part.begin = (chunk - t.first_chunk) * size;
    part.end = part.begin + size < n ? part.begin + size : n;
    return part;
}

// Steps that are tried for a group of int4.
static const unsigned CANDIDATES = 9;

// The bits of the least f16 that is not below `x` > 0; those of infinity, if there is none.
__device__ __forceinline__ unsigned f16_not_below(float x) {
    // Below 2^-14 the f16 are multiples of 2^-24.
    if (x < 6.103515625e-05f) return (unsigned)ceilf(x * 16777216.0f);
    unsigned bits = ((unsigned)__float_as_int(x) - (112u << 23) + 0x1fffu) >> 13;
    return bits < 0x7c00u ? bits : 0x7c00u;
}

__device__ __forceinline__ float f16_value(unsigned bits) {
    if (bits < 0x400u) return (float)bits * 5.9604644775390625e-08f;
    return __int_as_float(bits < 0x7c00u ? (int)((bits << 13) + (112u << 23)) : 0x7f800000);
}

__device__ __forceinline__ float max16(float x) {
#pragma unroll
    for (int half = 8; half > 0; half /= 2) x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, half));
    return x;
}

// The step of a group whose columns l and l + 16 are in lane l of sixteen: that with the least sum of squared errors, in every lane. Infinite where all are.
__device__ __forceinline__ float group_step(const float (&w)[2]) {
    float above = max16(fmaxf(w[0], w[1])), below = max16(fmaxf(0.0f - w[0], 0.0f - w[1]));
    bool negative = above > below;
    float large = negative ? above : below, small = negative ? below : above;
    float least = fmaxf(large / 8.5f, small / 7.5f);
    unsigned first = f16_not_below(least);
    float best = __int_as_float(0x7f800000), step = best;
    for (unsigned i = 0; i < CANDIDATES; i++) {
        unsigned bits = first + 32 * i < 0x7c00u ? first + 32 * i : 0x7c00u;
        float candidate = f16_value(bits);
        if (negative) candidate = -candidate;
        float inverse = 1.0f / candidate, squares = 0.0f;
#pragma unroll
        for (int h = 0; h < 2; h++) {
            float q = fminf(fmaxf(rintf(w[h] * inverse), -8.0f), 7.0f), error = fmaf(-q, candidate, w[h]);
            squares = fmaf(error, error, squares);
        }
#pragma unroll
        for (int half = 8; half > 0; half /= 2) squares += __shfl_xor_sync(0xffffffffu, squares, half);
        if (squares < best) {
            best = squares;
            step = candidate;
        }
    }
    return least == 0.0f ? 0.0f : step;
}

// The steps of the groups of a part, sixteen groups at a time.
__device__ __forceinline__ void measure_groups(const Entry& t, Part part, const float* __restrict__ w, float* __restrict__ scales) {
    unsigned cols = (unsigned)t.cols, groups_of_row = (cols + GROUP_COLUMNS - 1) / GROUP_COLUMNS, lane = threadIdx.x % 16;
    unsigned row = (unsigned)(part.begin / cols), groups = (unsigned)(part.end / cols - row) * groups_of_row;
    // Threads without a group fold zeros: the shuffles want whole warps.
    for (unsigned base = threadIdx.x / 32 * 2; base < groups; base += 16) {
        unsigned group = base + threadIdx.x % 32 / 16, column = group % groups_of_row * GROUP_COLUMNS + lane;
        const float* x = w + (u64)(row + group / groups_of_row) * cols;
        float v[2];
#pragma unroll
        for (int h = 0; h < 2; h++) v[h] = group < groups && column + 16 * h < cols ? x[column + 16 * h] : 0.0f;
        float step = group_step(v);
        if (lane == 0 && group < groups) scales[t.scales + (u64)row * groups_of_row + group] = step;
    }
}

extern "C" __global__ void __launch_bounds__(256)
    measure(const Entry* __restrict__ entries, const unsigned* __restrict__ owners, unsigned first, const float* __restrict__ master, float* __restrict__ scales,
            double* __restrict__ partials) {
    __shared__ float sums[16];
    unsigned chunk = first + blockIdx.x;
    const Entry t = entries[owners[chunk]];
    if (t.mode == FULL) return;
    Part part = part_of(t, chunk);
    const float* w = master + t.master;
    if (t.mode == INT4) return measure_groups(t, part, w, scales);
    if (t.mode == INT8) {
        unsigned cols = (unsigned)t.cols, lane = threadIdx.x % 32;
        unsigned row_end = (unsigned)(part.end / cols);
        for (unsigned row = (unsigned)(part.begin / cols) + threadIdx.x / 32; row < row_end; row += 8) {
            const float4* x = reinterpret_cast<const float4*>(w + (u64)row * cols);
            float largest = 0.0f;
#pragma unroll 4
            for (unsigned i = lane; i < cols / 4; i += 32) {
                float4 v = x[i];
                largest = fmaxf(fmaxf(fmaxf(fabsf(v.x), fabsf(v.y)), fmaxf(fabsf(v.z), fabsf(v.w))), largest);
            }
            largest = warp_max(largest);
            if (lane == 0) scales[t.scales + row] = fmaxf(largest, 1e-5f) / 127.0f;
        }
        return;
    }
    unsigned block = threadIdx.x / 16, lane = threadIdx.x % 16, n = (unsigned)(part.end - part.begin);
    unsigned begin = block * 4096;
    unsigned len = begin < n ? (n - begin < 4096 ? n - begin : 4096) : 0;
    const float* x = w + part.begin + begin + lane;
    float sum = 0.0f;
    if (len == 4096) {
#pragma unroll 16
        for (unsigned i = 0; i < 256; i++) sum += fabsf(x[16 * i]);
    } else {
        for (unsigned i = lane; i < len; i += 16, x += 16) sum += fabsf(*x);
    }
#pragma unroll
    for (int half = 8; half > 0; half /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, half);
    if (lane == 0) sums[block] = sum;
    __syncthreads();
    if (threadIdx.x == 0) {
        double total = 0.0;
        for (unsigned b = 0; b * 4096 < n; b++) total += (double)sums[b];
        partials[chunk] = total;
    }
}

extern "C" __global__ void __launch_bounds__(256)
    gammas(const Entry* __restrict__ entries, unsigned first, const double* __restrict__ partials, float* __restrict__ gammas, float* __restrict__ scales) {
    __shared__ double staged[256];
    __shared__ float found;
    unsigned tensor = first + blockIdx.x;
    const Entry t = entries[tensor];
    if (t.mode != TERNARY && t.mode != BINARY) {
        if (threadIdx.x == 0) gammas[tensor] = 1.0f;
        return;
    }
    u64 n = t.rows * t.cols;
    unsigned chunks = (unsigned)((n + CHUNK - 1) / CHUNK);
    double total = 0.0;
    for (unsigned base = 0; base < chunks; base += 256) {
        __syncthreads();
        if (base + threadIdx.x < chunks) staged[threadIdx.x] = partials[t.first_chunk + base + threadIdx.x];
        __syncthreads();
        if (threadIdx.x == 0) {
            unsigned count = chunks - base < 256 ? chunks - base : 256;
            for (unsigned i = 0; i < count; i++) total += staged[i];
        }
    }
    if (threadIdx.x == 0) {
        found = n == 0 ? 1e-5f : fmaxf((float)(total / (double)n), 1e-5f);
        gammas[tensor] = found;
    }
    __syncthreads();
    for (u64 row = threadIdx.x; row < t.rows; row += 256) scales[t.scales + row] = found;
}

__device__ __forceinline__ unsigned pack_s8(float a, float b, float c, float d) {
    return ((unsigned)__float2int_rn(a) & 255u) | ((unsigned)__float2int_rn(b) & 255u) << 8 | ((unsigned)__float2int_rn(c) & 255u) << 16 |
           (unsigned)__float2int_rn(d) << 24;
}

// The step of vector `i` of a matrix among its steps.
template <int MODE>
__device__ __forceinline__ u64 step_of(unsigned vectors_of_row, unsigned i) {
    unsigned row = i / vectors_of_row;
    if (MODE == INT8) return row;
    const unsigned vectors = GROUP_COLUMNS / 4;
    return (u64)row * ((vectors_of_row + vectors - 1) / vectors) + i % vectors_of_row / vectors;
}

template <int MODE>
__device__ __forceinline__ void write_part(const Entry& t, Part part, const float* __restrict__ master, const float* __restrict__ scales, float gamma,
                                           signed char* __restrict__ codes, bf16* __restrict__ dense, float anneal) {
    Rule<MODE> rule;
    rule.set(anneal, gamma);
    const float4* x = reinterpret_cast<const float4*>(master + t.master);
    unsigned* q = MODE == FULL || codes == nullptr ? nullptr : reinterpret_cast<unsigned*>(codes + t.codes);
    uint2* y = dense == nullptr ? nullptr : reinterpret_cast<uint2*>(dense + t.dense);
    unsigned vectors_of_row = (unsigned)t.cols / 4, end = (unsigned)(part.end / 4);
#pragma unroll 4
    for (unsigned i = (unsigned)(part.begin / 4) + threadIdx.x; i < end; i += 256) {
        float4 w = x[i];
        if (MODE >= INT8) rule.set_step(scales[t.scales + step_of<MODE>(vectors_of_row, i)]);
        float c0 = rule.code(w.x), c1 = rule.code(w.y), c2 = rule.code(w.z), c3 = rule.code(w.w);
        if (q != nullptr) q[i] = pack_s8(c0, c1, c2, c3);
        if (y != nullptr)
            y[i] = make_uint2(pack_bf16(rule.dense(w.x, c0), rule.dense(w.y, c1)), pack_bf16(rule.dense(w.z, c2), rule.dense(w.w, c3)));
    }
}

extern "C" __global__ void __launch_bounds__(256)
    write_weights(const Entry* __restrict__ entries, const unsigned* __restrict__ owners, unsigned first, const float* __restrict__ master, const float* __restrict__ scales,
          const float* __restrict__ gammas, signed char* __restrict__ codes, bf16* __restrict__ dense, const float* __restrict__ anneal) {
    unsigned chunk = first + blockIdx.x, tensor = owners[chunk];
    const Entry t = entries[tensor];
    Part part = part_of(t, chunk);
    float a = *anneal, gamma = gammas[tensor];
    if (t.mode == FULL)
        write_part<FULL>(t, part, master, scales, gamma, codes, dense, a);
    else if (t.mode == TERNARY)
        write_part<TERNARY>(t, part, master, scales, gamma, codes, dense, a);
    else if (t.mode == BINARY)
        write_part<BINARY>(t, part, master, scales, gamma, codes, dense, a);
    else if (t.mode == INT8)
        write_part<INT8>(t, part, master, scales, gamma, codes, dense, a);
    else
        write_part<INT4>(t, part, master, scales, gamma, codes, dense, a);
}

template <int MODE>
__device__ __forceinline__ void write_row(const Entry& t, unsigned id, const float4* __restrict__ w, const float* __restrict__ scales, float gamma, float anneal,
                                          float4* __restrict__ x) {
    Rule<MODE> rule;
    rule.set(anneal, gamma);
    unsigned vectors_of_row = (unsigned)t.cols / 4;
    for (unsigned i = threadIdx.x; i < vectors_of_row; i += blockDim.x) {
        float4 v = w[i];
        if (MODE >= INT8) rule.set_step(scales[t.scales + step_of<MODE>(vectors_of_row, id * vectors_of_row + i)]);
        x[i] = make_float4(rule.dense(v.x, rule.code(v.x)), rule.dense(v.y, rule.code(v.y)), rule.dense(v.z, rule.code(v.z)), rule.dense(v.w, rule.code(v.w)));
    }
}

// x[t] = row ids[t] of a tensor: a block a token. An id outside gives a row of NaN.
extern "C" __global__ void __launch_bounds__(256)
    rows(const Entry* __restrict__ entries, unsigned tensor, const unsigned* __restrict__ ids, const float* __restrict__ master, const float* __restrict__ scales,
         const float* __restrict__ gammas, const float* __restrict__ anneal, float4* __restrict__ x) {
    const Entry t = entries[tensor];
    unsigned id = ids[blockIdx.x], vectors_of_row = (unsigned)t.cols / 4;
    x += (u64)blockIdx.x * vectors_of_row;
    if (id >= t.rows) {
        const float nan = __int_as_float(0x7fc00000);
        for (unsigned i = threadIdx.x; i < vectors_of_row; i += blockDim.x) x[i] = make_float4(nan, nan, nan, nan);
        return;
    }
    const float4* w = reinterpret_cast<const float4*>(master + t.master) + (u64)id * vectors_of_row;
    float a = *anneal, gamma = gammas[tensor];
    if (t.mode == FULL)
        write_row<FULL>(t, id, w, scales, gamma, a, x);
    else if (t.mode == TERNARY)
        write_row<TERNARY>(t, id, w, scales, gamma, a, x);
    else if (t.mode == BINARY)
        write_row<BINARY>(t, id, w, scales, gamma, a, x);
    else if (t.mode == INT8)
        write_row<INT8>(t, id, w, scales, gamma, a, x);
    else
        write_row<INT4>(t, id, w, scales, gamma, a, x);
}

__device__ __forceinline__ unsigned warp_count(unsigned n) {
#pragma unroll
    for (int lane = 16; lane > 0; lane /= 2) n += __shfl_xor_sync(0xffffffffu, n, lane);
    return n;
}

extern "C" __global__ void __launch_bounds__(256)
    statistics(const Entry* __restrict__ entries, const unsigned* __restrict__ owners, unsigned first, const float* __restrict__ master,
               const float* __restrict__ gammas, const signed char* __restrict__ previous, unsigned* __restrict__ counts) {
    unsigned chunk = first + blockIdx.x, tensor = owners[chunk];
    const Entry t = entries[tensor];
    if (t.mode != TERNARY) return;
    Part part = part_of(t, chunk);
    float gamma = gammas[tensor], inverse = 1.0f / gamma, limit = 1.5f * gamma;
    const float4* x = reinterpret_cast<const float4*>(master + t.master);
    const unsigned* before = previous == nullptr ? nullptr : reinterpret_cast<const unsigned*>(previous + t.codes);
    unsigned zeros = 0, clipped = 0, flips = 0, end = (unsigned)(part.end / 4);
#pragma unroll 4
    for (unsigned i = (unsigned)(part.begin / 4) + threadIdx.x; i < end; i += 256) {
        float4 v = x[i];
        float w[4] = {v.x, v.y, v.z, v.w}, q[4];
#pragma unroll
        for (int k = 0; k < 4; k++) {
            q[k] = round_clamp(w[k] * inverse, 1.0f);
            zeros += q[k] == 0.0f;
            clipped += fabsf(w[k]) >= limit;
        }
        if (before != nullptr) {
            unsigned change = before[i] ^ pack_s8(q[0], q[1], q[2], q[3]);
#pragma unroll
            for (int k = 0; k < 4; k++) flips += (change >> 8 * k & 255u) != 0;
        }
    }
    zeros = warp_count(zeros);
    clipped = warp_count(clipped);
    flips = warp_count(flips);
    if (threadIdx.x % 32 == 0) {
        atomicAdd(&counts[3 * tensor], zeros);
        atomicAdd(&counts[3 * tensor + 1], clipped);
        atomicAdd(&counts[3 * tensor + 2], flips);
    }
}
