// target: sm_80
// Trits of master weights that are divided among ranks: measured, packed, and opened again (mod.rs has the formulas and the layout).
//
//   piece_sums      sums[piece] = Σ|W| of each own piece, f32
//   piece_gammas    gammas[tensor] = max(Σ sums / n, 1e-5), and scales[row] = γ
//   pack_trits      two bits a weight of the own pieces
//   unpack_trits    packed -> int8 codes, bf16 weights or both, of pieces in a row
//   own_dense       bf16 weights of the own pieces, at any annealing value
//   own_statistics  zeros, clipped weights and flips of the own pieces
//
// Bytes a weight: sums 4; pack 4 + 1/4; unpack 1/4 + 1 (codes) + 2 (dense); statistics 4 (+ 1/4 for flips); dense 4 + 2. All are bound by memory.
//
// A piece is 4096 elements of one tensor. A block of 256 threads has sixteen own pieces, wherever they lie, or four pieces of the arena, to unpack.
//
// Sums are those of weights/kernel.cu, to the bit: of a piece, lane i % 16 adds every sixteenth element in order, and the lanes are folded 8-4-2-1; sixteen
// pieces are added in f64 in order, and then those of 65536 elements. The sum of a piece is an f32 there too, so nothing is lost when it is sent.
#include "bf16.cuh"
#include "weight_rule.cuh"

typedef unsigned long long u64;

// A tensor of the arena: where it lies in the other arenas, and its first piece.
struct Entry {
    u64 pieces, dense, scales, rows, mode, first_piece;
};

// 4096 elements that this rank owns: where they lie among its weights, in the arena, and whose they are.
struct Own {
    u64 at;
    unsigned piece, tensor;
};

static const unsigned PIECE = 4096, GROUP = 16, UNPACKED = 4;

extern "C" __global__ void __launch_bounds__(256)
    piece_sums(const Entry* __restrict__ entries, const Own* __restrict__ own, unsigned count, const float* __restrict__ weights, float* __restrict__ sums) {
    const unsigned number = blockIdx.x * GROUP + threadIdx.x / 16, lane = threadIdx.x % 16;
    // Threads without a piece fold zeros: the shuffles want whole warps.
    const Own o = own[number < count ? number : count - 1];
    const bool has = number < count && entries[o.tensor].mode != FULL;
    float sum = 0.0f;
    if (has) {
        const float* x = weights + o.at + lane;
#pragma unroll 16
        for (unsigned i = 0; i < PIECE / 16; i++) sum += fabsf(x[16 * i]);
    }
#pragma unroll
    for (int half = 8; half > 0; half /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, half);
    if (has && lane == 0) sums[o.piece] = sum;
}

extern "C" __global__ void __launch_bounds__(256)
    piece_gammas(const Entry* __restrict__ entries, const float* __restrict__ sums, float* __restrict__ gammas, float* __restrict__ scales) {
    __shared__ double staged[256];
    __shared__ float found;
    const unsigned tensor = blockIdx.x;
    const Entry t = entries[tensor];
    if (t.mode == FULL) {
        if (threadIdx.x == 0) gammas[tensor] = 1.0f;
        return;
    }
    const unsigned pieces = (unsigned)t.pieces, chunks = (pieces + 15) / 16;
    const float* x = sums + t.first_piece;
    double total = 0.0;
    for (unsigned base = 0; base < chunks; base += 256) {
        const unsigned chunk = base + threadIdx.x;
        __syncthreads();
        if (chunk < chunks) {
            double part = 0.0;
            for (unsigned i = 16 * chunk; i < 16 * chunk + 16 && i < pieces; i++) part += (double)x[i];
            staged[threadIdx.x] = part;
        }
        __syncthreads();
        if (threadIdx.x == 0) {
            const unsigned n = chunks - base < 256 ? chunks - base : 256;
            for (unsigned i = 0; i < n; i++) total += staged[i];
        }
    }
    if (threadIdx.x == 0) {
        const u64 n = t.pieces * PIECE;
        found = n == 0 ? 1e-5f : fmaxf((float)(total / (double)n), 1e-5f);
        gammas[tensor] = found;
    }
    __syncthreads();
    for (u64 row = threadIdx.x; row < t.rows; row += 256) scales[t.scales + row] = found;
}

// A trit and 1: 0, 1 or 2. Rounds and treats a NaN as weights/kernel.cu does.
__device__ __forceinline__ unsigned trit(float w, float inverse, bool binary) {
    if (binary) return 0.0f > w ? 0u : 2u;
    return (unsigned)(__float2int_rn(fminf(fmaxf(rintf(w * inverse), -1.0f), 1.0f)) + 1);
}

__device__ __forceinline__ unsigned trits(float4 w, float inverse, bool binary) {
    return trit(w.x, inverse, binary) | trit(w.y, inverse, binary) << 2 | trit(w.z, inverse, binary) << 4 | trit(w.w, inverse, binary) << 6;
}

extern "C" __global__ void __launch_bounds__(256)
    pack_trits(const Entry* __restrict__ entries, const Own* __restrict__ own, unsigned first, unsigned end, const float* __restrict__ weights,
               const float* __restrict__ gammas, unsigned char* __restrict__ packed) {
    for (unsigned i = 0; i < GROUP; i++) {
        const unsigned number = first + blockIdx.x * GROUP + i;
        if (number >= end) return;
        const Own o = own[number];
        const u64 mode = entries[o.tensor].mode;
        if (mode == FULL) continue;
        const float inverse = 1.0f / gammas[o.tensor];
        const float4* x = reinterpret_cast<const float4*>(weights + o.at);
        unsigned char* y = packed + (u64)o.piece * (PIECE / 4);
        float4 w[4];
#pragma unroll
        for (int k = 0; k < 4; k++) w[k] = x[256 * k + threadIdx.x];
#pragma unroll
        for (int k = 0; k < 4; k++) y[256 * k + threadIdx.x] = (unsigned char)trits(w[k], inverse, mode == BINARY);
    }
}

// Four trits of a byte, each in a byte.
__device__ __forceinline__ unsigned spread(unsigned byte) { return (byte | byte << 6 | byte << 12 | byte << 18) & 0x03030303u; }

// 0, 1, 2 to -1, 0, 1 in each byte: no sum goes over a byte's border.
__device__ __forceinline__ unsigned signed_bytes(unsigned spread) { return (spread + 0x7f7f7f7fu) ^ 0x80808080u; }

// Two bf16 of the trits (and 1) in bits 0..1 and 2..3; `scale` is that of 1, as bf16.
__device__ __forceinline__ unsigned dense_pair(unsigned two, unsigned scale) {
    const unsigned low = two & 3u, high = two >> 2 & 3u;
    const unsigned a = low == 1u ? 0u : low == 0u ? scale | 0x8000u : scale;
    const unsigned b = high == 1u ? 0u : high == 0u ? scale | 0x8000u : scale;
    return a | b << 16;
}

extern "C" __global__ void __launch_bounds__(256)
    unpack_trits(const Entry* __restrict__ entries, const unsigned* __restrict__ owners, unsigned first, unsigned end, const float* __restrict__ gammas,
                 const unsigned* __restrict__ packed, signed char* __restrict__ codes, bf16* __restrict__ dense) {
    const unsigned begin = first + blockIdx.x * UNPACKED;
    unsigned words[UNPACKED];
#pragma unroll
    for (unsigned i = 0; i < UNPACKED; i++) {
        // What a full tensor's place holds is not used.
        const bool used = begin + i < end && entries[owners[begin + i]].mode != FULL;
        words[i] = used ? __ldcs(&packed[(u64)(begin + i) * 256 + threadIdx.x]) : 0u;
    }
#pragma unroll
    for (unsigned i = 0; i < UNPACKED; i++) {
        const unsigned piece = begin + i;
        if (piece >= end) return;
        const unsigned tensor = owners[piece];
        const Entry t = entries[tensor];
        if (t.mode == FULL) continue;
        const unsigned word = words[i];
        if (codes != nullptr) {
            uint4* q = reinterpret_cast<uint4*>(codes + (u64)piece * PIECE);
            q[threadIdx.x] = make_uint4(signed_bytes(spread(word & 255u)), signed_bytes(spread(word >> 8 & 255u)), signed_bytes(spread(word >> 16 & 255u)),
                                        signed_bytes(spread(word >> 24)));
        }
        if (dense != nullptr) {
            const unsigned scale = to_bf16(gammas[tensor]);
            uint4* y = reinterpret_cast<uint4*>(dense + t.dense + (piece - t.first_piece) * PIECE);
#pragma unroll
            for (int half = 0; half < 2; half++) {
                const unsigned eight = word >> 16 * half;
                y[2 * threadIdx.x + half] =
                    make_uint4(dense_pair(eight, scale), dense_pair(eight >> 4, scale), dense_pair(eight >> 8, scale), dense_pair(eight >> 12, scale));
            }
        }
    }
}

template <int MODE>
__device__ __forceinline__ void dense_piece(const float4* __restrict__ x, uint2* __restrict__ y, float gamma, float anneal) {
    Rule<MODE> rule;
    rule.set(anneal, gamma);
    float4 w[4];
#pragma unroll
    for (int k = 0; k < 4; k++) w[k] = x[256 * k + threadIdx.x];
#pragma unroll
    for (int k = 0; k < 4; k++) {
        const float q[4] = {rule.code(w[k].x), rule.code(w[k].y), rule.code(w[k].z), rule.code(w[k].w)};
        y[256 * k + threadIdx.x] =
            make_uint2(pack_bf16(rule.dense(w[k].x, q[0]), rule.dense(w[k].y, q[1])), pack_bf16(rule.dense(w[k].z, q[2]), rule.dense(w[k].w, q[3])));
    }
}

extern "C" __global__ void __launch_bounds__(256)
    own_dense(const Entry* __restrict__ entries, const Own* __restrict__ own, unsigned first, unsigned end, const float* __restrict__ weights,
              const float* __restrict__ gammas, bf16* __restrict__ dense, const float* __restrict__ anneal) {
    const float a = *anneal;
    for (unsigned i = 0; i < GROUP; i++) {
        const unsigned number = first + blockIdx.x * GROUP + i;
        if (number >= end) return;
        const Own o = own[number];
        const Entry t = entries[o.tensor];
        const float gamma = gammas[o.tensor];
        const float4* x = reinterpret_cast<const float4*>(weights + o.at);
        uint2* y = reinterpret_cast<uint2*>(dense + t.dense + (o.piece - t.first_piece) * (u64)PIECE);
        if (t.mode == FULL)
            dense_piece<FULL>(x, y, gamma, a);
        else if (t.mode == TERNARY)
            dense_piece<TERNARY>(x, y, gamma, a);
        else
            dense_piece<BINARY>(x, y, gamma, a);
    }
}

__device__ __forceinline__ unsigned warp_count(unsigned n) {
#pragma unroll
    for (int lane = 16; lane > 0; lane /= 2) n += __shfl_xor_sync(0xffffffffu, n, lane);
    return n;
}

// Adds what a block has counted to its tensor's counts, and begins anew.
__device__ __forceinline__ void flush(unsigned* n, unsigned tensor, unsigned* counts) {
#pragma unroll
    for (int k = 0; k < 3; k++) {
        const unsigned all = warp_count(n[k]);
        if (threadIdx.x % 32 == 0) atomicAdd(&counts[3 * tensor + k], all);
        n[k] = 0;
    }
}

extern "C" __global__ void __launch_bounds__(256)
    own_statistics(const Entry* __restrict__ entries, const Own* __restrict__ own, unsigned count, const float* __restrict__ weights,
                   const float* __restrict__ gammas, const unsigned char* __restrict__ previous, unsigned* __restrict__ counts) {
    // Zeros, clipped weights, flips of tensor `current`.
    unsigned n[3] = {0, 0, 0}, current = 0xffffffffu;
    for (unsigned i = 0; i < GROUP; i++) {
        const unsigned number = blockIdx.x * GROUP + i;
        if (number >= count) break;
        const Own o = own[number];
        if (entries[o.tensor].mode != TERNARY) continue;
        if (o.tensor != current && current != 0xffffffffu) flush(n, current, counts);
        current = o.tensor;
        const float gamma = gammas[current], inverse = 1.0f / gamma, limit = 1.5f * gamma;
        const float4* x = reinterpret_cast<const float4*>(weights + o.at);
        const u64 bytes = (u64)o.piece * (PIECE / 4);
#pragma unroll
        for (int k = 0; k < 4; k++) {
            const float4 w = x[256 * k + threadIdx.x];
            const unsigned now = trits(w, inverse, false);
            // A trit of 0 has bit 0 alone; two trits differ if one of their bits does.
            n[0] += __popc(now & 0x55u);
            n[1] += (fabsf(w.x) >= limit) + (fabsf(w.y) >= limit) + (fabsf(w.z) >= limit) + (fabsf(w.w) >= limit);
            if (previous != nullptr) {
                const unsigned change = now ^ previous[bytes + 256 * k + threadIdx.x];
                n[2] += __popc((change | change >> 1) & 0x55u);
            }
        }
    }
    if (current != 0xffffffffu) flush(n, current, counts);
}
