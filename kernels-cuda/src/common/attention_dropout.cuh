// Dropout of attention's probabilities, with the masks of onebit_kernels_cpu::attention: of a row of scores, block j / 4 of four numbers decides about keys j..j + 4,
// and the row (counted over sequences, heads and queries) begins at block row · ⌈seq / 4⌉.
//
// A warp makes the mask of 32 queries and 32 keys at once, a lane that of a query, as the bits of a word in shared memory: each block of numbers is made once,
// however a fragment lies, and no registers are taken while there are scores. About 80 operations for four probabilities, most of them Philox.
#pragma once

#include "philox.cuh"

// What kernels take it as: the number of the micro-batch, the stream, and what is kept (at least `threshold`, times `keep`).
struct AttentionDropout {
    const unsigned* step;
    unsigned long long seed;
    unsigned purpose, threshold;
    float keep;

    __device__ __forceinline__ Words key() const { return dropout_key(*step, seed, purpose); }
};

// Bit i of word l ← whether key `key + i` of query l is kept; `row` is the row of the first query, `key` a multiple of 4. All lanes of a warp.
__device__ __forceinline__ void write_mask(unsigned (&words)[32], const Words& numbers, unsigned threshold, unsigned row, int key, int seq) {
    int lane = threadIdx.x % 32;
    unsigned long long block = (unsigned long long)(row + lane) * (unsigned)((seq + 3) / 4) + key / 4;
    unsigned kept = 0;
#pragma unroll 2
    for (int i = 0; i < 8; i++, block++) {
        Words random = philox(Words{{(unsigned)block, (unsigned)(block >> 32), numbers.w[2], numbers.w[3]}}, numbers.w[0], numbers.w[1]);
        kept >>= 4;
#pragma unroll
        for (int j = 0; j < 4; j++) kept |= random.w[j] >> 8 >= threshold ? 1u << (28 + j) : 0;
    }
    __syncwarp(); // the words before have been read
    words[lane] = kept;
    __syncwarp();
}
