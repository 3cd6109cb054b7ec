// target: sm_80
// From f32 master weights to codes and bf16 weights, for a table of tensors (mod.rs has the formulas).
//
//   measure      partials[chunk] = Σ|W| of a ternary or binary tensor's chunk; scales[row] = step of an int8 or int4 tensor's row
//   gammas       gammas[tensor] = max(Σ partials / n, 1e-5), and scales[row] = γ
//   write_weights codes and dense weights
//   statistics   zeros, clipped weights and flips of ternary tensors
//
// Bytes a weight: measure 4; write 4 + 1 (codes) + 2 (dense); statistics 4 (+ 1 for flips). Operations a weight: about 15; 60 in the soft phase.
//
// A block of 256 threads has a chunk: 65536 elements in a row, or as many whole rows as that holds where rows have steps. `owners` says whose it is.
//
// measure adds as the CPU does, to the bit: thread t has lane t % 16 of the 4096 elements number t / 16, and adds every sixteenth of them in order; the lanes are folded
// 8-4-2-1; one thread adds the sixteen sums in f64 in order. A warp so reads two runs of 64 bytes at a time: whole sectors, and memory is the limit.
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

extern "C" __global__ void __launch_bounds__(256)
    measure(const Entry* __restrict__ entries, const unsigned* __restrict__ owners, unsigned first, const float* __restrict__ master, float* __restrict__ scales,
            double* __restrict__ partials) {
    __shared__ float sums[16];
    unsigned chunk = first + blockIdx.x;
    const Entry t = entries[owners[chunk]];
    if (t.mode == FULL) return;
    Part part = part_of(t, chunk);
    const float* w = master + t.master;
    if (t.mode >= INT8) {
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
            if (lane == 0) scales[t.scales + row] = fmaxf(largest, 1e-5f) / most(t.mode);
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

template <int MODE>
__device__ __forceinline__ void write_part(const Entry& t, Part part, const float* __restrict__ master, const float* __restrict__ scales, float gamma,
                                           signed char* __restrict__ codes, bf16* __restrict__ dense, float anneal) {
    Rule<MODE> rule;
    rule.set(anneal, gamma);
    const float4* x = reinterpret_cast<const float4*>(master + t.master);
    unsigned* q = MODE == FULL || codes == nullptr ? nullptr : reinterpret_cast<unsigned*>(codes + t.codes);
    uint2* y = dense == nullptr ? nullptr : reinterpret_cast<uint2*>(dense + t.dense);
    unsigned mode = (unsigned)t.mode, vectors_of_row = (unsigned)t.cols / 4, end = (unsigned)(part.end / 4);
#pragma unroll 4
    for (unsigned i = (unsigned)(part.begin / 4) + threadIdx.x; i < end; i += 256) {
        float4 w = x[i];
        if (MODE == INT8) rule.scale = scales[t.scales + i / vectors_of_row];
        float c0 = rule.code(w.x, mode), c1 = rule.code(w.y, mode), c2 = rule.code(w.z, mode), c3 = rule.code(w.w, mode);
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
    else
        write_part<INT8>(t, part, master, scales, gamma, codes, dense, a);
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
