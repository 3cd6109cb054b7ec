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

// The key of a dropout's numbers: key0, key1, high0, high1.
__device__ __forceinline__ Words dropout_key(unsigned step, unsigned long long seed, unsigned purpose) {
    return philox(Words{{purpose, 0, step, 0}}, (unsigned)seed, (unsigned)(seed >> 32));
}

// Drops of elements `index .. index + 4` of an array, which are `v`; `index` is a multiple of 4. What is kept is multiplied by `keep`.
__device__ __forceinline__ void drop(const Words& key, unsigned long long index, unsigned threshold, float keep, float* v) {
    unsigned long long block = index / 4;
    Words random = philox(Words{{(unsigned)block, (unsigned)(block >> 32), key.w[2], key.w[3]}}, key.w[0], key.w[1]);
#pragma unroll
    for (int i = 0; i < 4; i++) v[i] = random.w[i] >> 8 >= threshold ? v[i] * keep : 0.0f;
}
