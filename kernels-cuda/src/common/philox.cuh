// Philox4x32-10 (Salmon et al. 2011) as onebit_kernels_cpu::rng has it, and the dropout that is made of it: the same numbers, the same masks.
#pragma once

struct Words {
    unsigned w[4];
};

__device__ __forceinline__ Words philox(Words c, unsigned key0, unsigned key1) {
#pragma unroll
    for (int round = 0; round < 10; round++) {
        unsigned long long p0 = (unsigned long long)c.w[0] * 0xd2511f53u, p1 = (unsigned long long)c.w[2] * 0xcd9e8d57u;
        c = Words{{(unsigned)(p1 >> 32) ^ c.w[1] ^ key0, (unsigned)p1, (unsigned)(p0 >> 32) ^ c.w[3] ^ key1, (unsigned)p0}};
        key0 += 0x9e3779b9u;
        key1 += 0xbb67ae85u;
    }
    return c;
}

// The dropout of an array: `step` is null where there is none.
struct DropoutMask {
    Words key;  // key0, key1, high0, high1
    unsigned threshold;
    float keep;  // what kept elements are multiplied by

    __device__ __forceinline__ DropoutMask(const unsigned* step, unsigned long long seed, unsigned purpose, unsigned threshold_, float keep_)
        : key{{0, 0, 0, 0}}, threshold(threshold_), keep(keep_) {
        if (step != nullptr) key = philox(Words{{purpose, 0, *step, 0}}, (unsigned)seed, (unsigned)(seed >> 32));
    }

    // What elements `index .. index + 4` of the array are multiplied by; `index` is a multiple of 4.
    __device__ __forceinline__ void factors(unsigned long long index, float (&factor)[4]) const {
        unsigned long long block = index / 4;
        Words random = philox(Words{{(unsigned)block, (unsigned)(block >> 32), key.w[2], key.w[3]}}, key.w[0], key.w[1]);
#pragma unroll
        for (int i = 0; i < 4; i++) factor[i] = random.w[i] >> 8 >= threshold ? keep : 0.0f;
    }
};
