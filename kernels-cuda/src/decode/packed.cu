// target: sm_80
// The ends of a network whose embedding or head is packed: rows of binary, ternary and int4 matrices as floats, and the largest of logits that a product has written.
//
// Bytes: a row; the logits once, and once more where they are capped (128256: 0.5 MB a token, which lie in the second cache level).
#include "softcap.cuh"
#include "ternary_epilogue.cuh"
#include "vocabulary.cuh"

constexpr unsigned TILE = 8, TILE_BYTES = 512, ROW_BYTES = 64, THREADS = 256;

// The row for token blockIdx.x: ids[position + token]; one that is no row, or lies outside, gives row 0.
__device__ __forceinline__ unsigned row_of(const unsigned* ids, const unsigned* position, unsigned room, unsigned vocab) {
    unsigned at = *position + blockIdx.x, id = at < room ? ids[at] : 0;
    return id < vocab ? id : 0;
}

// Weight `field` of a byte (ternary_gemv/kernel.cu says how they lie).
template <int CODE>
__device__ __forceinline__ int weight_of(unsigned byte, unsigned field) {
    if (CODE == B1) return byte >> field & 1 ? 1 : -1;
    if (CODE == T2) return field == 3 ? (signed char)byte >> 6 : (int)(byte >> 2 * field & 3) - 1;
    unsigned before = 0, number = 0;
    for (unsigned digit = 0; digit <= field; digit++) {
        before = number;
        byte *= 3;
        number = byte >> 8;
    }
    return (int)(number - 3 * before) - 1;
}

// x[t], `[cols]`: the weights of a row, each times its tile's γ. A block a token, a thread a byte.
template <int CODE>
__device__ __forceinline__ void embed(const unsigned char* weights, const Tile<CODE>* tiles, unsigned k_blocks, unsigned vocab, unsigned cols, const unsigned* ids, const unsigned* position,
                                      unsigned room, float* x) {
    constexpr unsigned FIELDS = CODE == B1 ? 8 : CODE == T2 ? 4 : 5;
    grid_wait();
    grid_launch_dependents();
    unsigned row = row_of(ids, position, room, vocab), tile = row / TILE;
    float gamma = tiles[tile].gamma;
    for (unsigned i = threadIdx.x; i < k_blocks * ROW_BYTES; i += THREADS) {
        unsigned block = i / ROW_BYTES, j = i % ROW_BYTES;
        unsigned byte = weights[((size_t)tile * k_blocks + block) * TILE_BYTES + row % TILE * ROW_BYTES + j];
#pragma unroll
        for (unsigned field = 0; field < FIELDS; field++) {
            unsigned column = (block * FIELDS + field) * ROW_BYTES + j;
            if (column < cols) x[(size_t)blockIdx.x * cols + column] = mul_rn((float)weight_of<CODE>(byte, field), gamma);
        }
    }
}

#define EMBED(name, code)                                                                                                                                   \
    extern "C" __global__ void __launch_bounds__(THREADS)                                                                                                   \
        name(const unsigned char* weights, const Tile<code>* tiles, unsigned k_blocks, unsigned vocab, unsigned cols, const unsigned* ids,                  \
             const unsigned* position, unsigned room, float* x) {                                                                                           \
        embed<code>(weights, tiles, k_blocks, vocab, cols, ids, position, room, x);                                                                         \
    }
EMBED(embed_b1, B1)
EMBED(embed_t2, T2)
EMBED(embed_t3, T3)

// The same of half bytes, as chain_gemv/kernel.cu has them: `items` of 512 bytes a tile, of nine the first with the steps.
extern "C" __global__ void __launch_bounds__(THREADS) embed_int4(const unsigned char* weights, unsigned items, unsigned vocab, unsigned cols, const unsigned* ids, const unsigned* position,
                                                                 unsigned room, float* x) {
    grid_wait();
    grid_launch_dependents();
    unsigned row = row_of(ids, position, room, vocab), blocks = (cols + 127) / 128;
    const unsigned char* tile = weights + (size_t)(row / TILE) * items * TILE_BYTES + row % TILE * ROW_BYTES;
    for (unsigned i = threadIdx.x; i < blocks * ROW_BYTES; i += THREADS) {
        unsigned block = i / ROW_BYTES, group = i % ROW_BYTES / 16, j = i % 16, head = block / 8 * 9;
        unsigned byte = tile[(size_t)(head + 1 + block % 8) * TILE_BYTES + group * 16 + j];
        float step = f16_to_f32(*reinterpret_cast<const unsigned short*>(tile + (size_t)head * TILE_BYTES + group * 16 + 2 * (block % 8)));
        unsigned column = block * 128 + group * 32 + j;
        float* to = x + (size_t)blockIdx.x * cols + column;
        if (column < cols) to[0] = mul_rn((float)((signed char)(byte << 4) >> 4), step);
        if (column + 16 < cols) to[16] = mul_rn((float)((signed char)byte >> 4), step);
    }
}

// The largest of `logits`, `[tokens, vocab]`, up to four tokens, and the next id and position; capped logits take the place of the others.
extern "C" __global__ void __launch_bounds__(THREADS) choose_largest(float* logits, unsigned vocab, float cap, unsigned tokens, float* bests, unsigned* counter, unsigned* best_ids,
                                                                     unsigned* ids, unsigned* position, unsigned room, unsigned advance) {
    constexpr int TOKENS = 4;
    grid_wait();
    grid_launch_dependents();
    Best best[TOKENS];
#pragma unroll
    for (int t = 0; t < TOKENS; t++) {
        best[t] = {-INFINITY, 0xffffffffu};
        if ((unsigned)t >= tokens) continue;
        float* from = logits + (size_t)t * vocab;
        for (unsigned i = blockIdx.x * THREADS + threadIdx.x; i < vocab; i += gridDim.x * THREADS) {
            float y = from[i];
            if (cap > 0.0f) from[i] = y = softcap(y, cap);
            best[t].take(y, i);
        }
    }
    choose<TOKENS, THREADS / 32>(best, tokens, vocab, {bests, counter, best_ids, ids, position, room, advance});
}
