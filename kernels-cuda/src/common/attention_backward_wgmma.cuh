// What the two kernels of attention's backward with Hopper's products of a warpgroup share (backward_queries_wgmma.cu, backward_keys_wgmma.cu).
//
// A persistent grid, one block a multiprocessor, which takes tiles of rows (queries of a head, or keys of a head) in turn. Warps 0 and 1 of a block bring
// operands: bulk copies of the tile's own rows, and of what streams past it in steps of 64 rows through a ring of stages. Each further warpgroup owns 64
// rows of the tile. All operands in shared memory are units of 64 rows of 64 columns, swizzled.
//
// p and ds are operands from registers, since the rows of the result are rows of the tile. The exponentials run beside the second product, ds beside the
// third, and all that a warpgroup does on its own beside the products of the others. Rows behind a sequence's end are those of the next sequence: their
// probabilities are 0, and what is summed for them is not stored.
#pragma once

#include "attention.cuh"
#include "attention_wgmma.cuh"
#include "mbarrier.cuh"
#include "tma.cuh"
#include "wgmma.cuh"

constexpr int STEP = 64, UNIT = 64 * 128; // rows of a step; bytes of a unit

struct Arguments {
    const bf16 *o, *d_o;
    const float* lse;
    float* delta;
    const float *cosines, *sines;
    bf16* dqkv;
    int batch, seq, heads, kv_heads, section, order;
    float scale;
};

// Where things are in shared memory. `groups` warpgroups own rows; their rows are there `buffers` times, so that the next tile's can come early.
template <int D, int groups, int stages, int buffers>
struct Plan {
    static constexpr int units = D / 64, rows = 64 * groups, own_bytes = 2 * units * UNIT, stage_bytes = 2 * units * UNIT;
    static constexpr int registers = groups == 2 ? 224 : 160, producer_registers = groups == 2 ? 56 : 32;
    unsigned own_at, stage_at, values_at, full_at, empty_at, own_full_at, own_empty_at;

    __device__ __forceinline__ Plan() {
        DYNAMIC_SHARED(unsigned char, shared);
        own_at = shared_address(shared);
        stage_at = own_at + buffers * groups * own_bytes;
        values_at = stage_at + stages * stage_bytes;
        full_at = values_at + stages * 2 * STEP * 4;
        empty_at = full_at + stages * 8;
        own_full_at = empty_at + stages * 8;
        own_empty_at = own_full_at + buffers * groups * 8;
    }
    __device__ __forceinline__ void init(int arrivals) const {
        if (threadIdx.x == 0) {
            for (int i = 0; i < stages; i++) {
                mbarrier_init(full_at + 8 * i, arrivals);
                mbarrier_init(empty_at + 8 * i, 4 * groups);
            }
            for (int i = 0; i < buffers * groups; i++) {
                mbarrier_init(own_full_at + 8 * i, 1);
                mbarrier_init(own_empty_at + 8 * i, 4);
            }
            mbarrier_init_fence();
        }
        __syncthreads();
    }
    // A row of units.
    __device__ __forceinline__ void load(unsigned to, const TensorMap& map, unsigned barrier, int x, int y) const {
#pragma unroll
        for (int i = 0; i < units; i++) tma_load(to + i * UNIT, map, barrier, x + 64 * i, y);
    }
};

// A turn in a ring of `count`.
template <int count>
struct Ring {
    int at = 0;
    unsigned parity = 0;
    __device__ __forceinline__ void next() {
        if (++at == count) at = 0, parity ^= 1;
    }
};

// The tile that is this block's `turn`-th, if there is one; `backward_hopper.rs` has the same in Rust, to choose the order. Tile 0 is the longest of a head.
//   SECTIONS  heads in sections, whose operands stay in the second-level cache, within a section tile by tile
//   PAIRS     head by head, a long tile and then the short one that makes up for it: equal work for all blocks; `tiles` is even
//   SNAKE     tile by tile over all heads, every other round of blocks in the opposite direction
enum Order { SECTIONS, PAIRS, SNAKE };

__device__ __forceinline__ bool take_tile(int turn, int tiles, int heads, int section, int order, int& tile, int& head) {
    int block = blockIdx.x, blocks = gridDim.x;
    asm volatile("" : "+r"(tiles), "+r"(section), "+r"(heads)); // or what the divisions need is kept in registers from turn to turn
    if (order == PAIRS) {
        int pairs = tiles / 2, unit = turn / 2 * blocks + block;
        head = unit / pairs;
        tile = turn % 2 ? tiles - 1 - unit % pairs : unit % pairs;
        return unit < pairs * heads;
    }
    int index = turn * blocks + (order == SNAKE && turn % 2 ? blocks - 1 - block : block);
    if (index >= tiles * heads) return false;
    int first = index / (section * tiles) * section, rest = index - first * tiles, width = min(section, heads - first);
    tile = rest / width;
    head = first + rest % width;
    return true;
}

__device__ __forceinline__ void release(unsigned barrier) {
    if (threadIdx.x % 32 == 0) mbarrier_arrive(barrier);
}

// d = a · bᵀ of two rows of units, by the descriptors of their first.
template <int D>
__device__ __forceinline__ void scores(float (&d)[32], unsigned long long a, unsigned long long b) {
#pragma unroll
    for (int i = 0; i < D / 16; i++) {
        constexpr int unit = UNIT / 16, further = 32 / 16; // descriptors count in 16 bytes
        wgmma_columns(d, a + i / 4 * unit + i % 4 * further, b + i / 4 * unit + i % 4 * further, i > 0);
    }
    wgmma_commit();
}
// d += a · b.
template <int N>
__device__ __forceinline__ void add_rows(float (&d)[N], const unsigned (&a)[4][4], unsigned long long b) {
#pragma unroll
    for (int i = 0; i < 4; i++) wgmma_rows_add(d, a[i], b + i * 16 * 128 / 16);
    wgmma_commit();
}

// Turns the gradient of 64 rotated rows back, of which this thread has position `first` and the eighth after it.
template <int D>
__device__ __forceinline__ void turn_back(float (&x)[D / 2], const float* cosines, const float* sines, int first, int positions) {
    constexpr int far = D / 4; // from an element to that of the other half of the head
    int lane = threadIdx.x % 32;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        int position = first + 8 * half;
        if (position >= positions) continue;
#pragma unroll
        for (int n = 0; n < D / 16; n++) {
            int at = position * (D / 2) + 8 * n + lane % 4 * 2, i = 4 * n + 2 * half;
            float2 c = *reinterpret_cast<const float2*>(cosines + at), s = *reinterpret_cast<const float2*>(sines + at);
            float a0 = x[i], a1 = x[i + 1], b0 = x[i + far], b1 = x[i + far + 1];
            x[i] = a0 * c.x + b0 * s.x;
            x[i + 1] = a1 * c.y + b1 * s.y;
            x[i + far] = b0 * c.x - a0 * s.x;
            x[i + far + 1] = b1 * c.y - a1 * s.y;
        }
    }
}

// Writes a warp's 16 rows, times `factor`, to rows `first..` of `matrix`, which has `rows`, by way of its rows of the units at `through`.
template <int D>
__device__ __forceinline__ void store_own(unsigned char* through, const float (&x)[D / 2], float factor, bf16* matrix, int stride, int first, int rows) {
    int lane = threadIdx.x % 32, own = threadIdx.x / 32 % 4 * 16;
#pragma unroll
    for (int n = 0; n < D / 8; n++) {
#pragma unroll
        for (int half = 0; half < 2; half++) {
            int row = own + 8 * half + lane / 4;
            *reinterpret_cast<unsigned*>(through + n / 8 * UNIT + row * 128 + (n % 8 ^ row % 8) * 16 + lane % 4 * 4) =
                pack_bf16(x[4 * n + 2 * half] * factor, x[4 * n + 2 * half + 1] * factor);
        }
    }
    __syncwarp();
#pragma unroll
    for (int i = 0; i < D / 16; i++) {
        int at = 32 * i + lane, row = own + at / (D / 8), chunk = at % (D / 8);
        if (first + row < rows)
            *reinterpret_cast<uint4*>(matrix + (size_t)(first + row) * stride + chunk * 8) =
                *reinterpret_cast<const uint4*>(through + chunk / 8 * UNIT + row * 128 + (chunk % 8 ^ row % 8) * 16);
    }
}

// A kernel: its rows for each of GROUPS warpgroups.
#define BACKWARD(name, function, D, GROUPS, STAGES, BUFFERS)                                                                                                \
    extern "C" __global__ void __launch_bounds__(128 * (GROUPS + 1), 1) name(                                                                              \
        const __grid_constant__ TensorMap qkv, const __grid_constant__ TensorMap d_o, const bf16* o, const bf16* gradient, const float* lse, float* delta, \
        const float* cosines, const float* sines, bf16* dqkv, unsigned batch, unsigned seq, unsigned heads, unsigned kv_heads, unsigned section, unsigned order, \
        float scale) {                                                                                                                                     \
        Arguments args = {o, gradient, lse, delta, cosines, sines, dqkv, (int)batch, (int)seq, (int)heads, (int)kv_heads, (int)section, (int)order, scale};            \
        function<D, GROUPS, STAGES, BUFFERS>(qkv, d_o, args);                                                                                              \
    }
