// target: sm_80
// Tensor cores, and the copies that feed them.
#include "bf16.cuh"
#include "mma.cuh"

// c[16][8] = a[16][16] · b[16][8], fragments put together by hand.
extern "C" __global__ void multiply_bf16(const bf16* a, const bf16* b, float* c) {
    const unsigned g = threadIdx.x / 4, t = threadIdx.x % 4;
    auto pair = [](bf16 low, bf16 high) { return (unsigned)high << 16 | low; };
    unsigned fa[4], fb[2];
    for (unsigned i = 0; i < 4; i++) {
        const bf16* at = a + (g + i % 2 * 8) * 16 + 2 * t + i / 2 * 8;
        fa[i] = pair(at[0], at[1]);
    }
    for (unsigned i = 0; i < 2; i++) fb[i] = pair(b[(2 * t + 8 * i) * 8 + g], b[(2 * t + 8 * i + 1) * 8 + g]);
    float sums[4] = {};
    mma_bf16(sums, fa, fb);
    for (unsigned i = 0; i < 4; i++) c[(g + i / 2 * 8) * 8 + 2 * t + i % 2] = sums[i];
}

// c[16][8] = a[16][32] · b[8][32] transposed.
extern "C" __global__ void multiply_s8(const signed char* a, const signed char* b, int* c) {
    const unsigned g = threadIdx.x / 4, t = threadIdx.x % 4;
    auto word = [](const signed char* p) { return *reinterpret_cast<const unsigned*>(p); };
    const unsigned fa[4] = {word(a + g * 32 + 4 * t), word(a + (g + 8) * 32 + 4 * t), word(a + g * 32 + 4 * t + 16), word(a + (g + 8) * 32 + 4 * t + 16)};
    const unsigned fb[2] = {word(b + g * 32 + 4 * t), word(b + g * 32 + 4 * t + 16)};
    int sums[4] = {};
    mma_s8(sums, fa, fb);
    for (unsigned i = 0; i < 4; i++) c[(g + i / 2 * 8) * 8 + 2 * t + i % 2] = sums[i];
}

// The same product as multiply_bf16, with copies into dynamic shared memory and ldmatrix: A as it lies, B transposed. `wait` 0 forgets to wait.
extern "C" __global__ void multiply_loaded(const bf16* a, const bf16* b, float* c, unsigned wait) {
    DYNAMIC_SHARED(bf16, tile);
    bf16* tile_b = tile + 16 * 16;
    const unsigned lane = threadIdx.x;
    copy_async16(tile + 8 * lane, a + 8 * lane);
    copy_async_commit();
    copy_async16(tile_b + 8 * lane, b + 8 * lane, lane < 16);
    copy_async_commit();
    if (wait) copy_async_wait<0>();
    else copy_async_wait<1>();
    __syncthreads();
    unsigned fa[4], fb[4];
    load_matrices(fa, tile + (lane % 16) * 16 + lane / 16 * 8);
    // Lanes 16 to 31 name rows that were filled with zeros.
    load_matrices_transposed(fb, tile_b + 8 * lane);
    float sums[4] = {};
    const unsigned first[2] = {fb[0], fb[1]}, zeros[2] = {fb[2], fb[3]};
    mma_bf16(sums, fa, first);
    mma_bf16(sums, fa, zeros);
    for (unsigned i = 0; i < 4; i++) c[(lane / 4 + i / 2 * 8) * 8 + 2 * (lane % 4) + i % 2] = sums[i];
}

extern "C" __global__ void load_from_global(const bf16* a, unsigned* out) {
    unsigned r[4];
    load_matrices(r, a + 8 * threadIdx.x);
    out[threadIdx.x] = r[0];
}

extern "C" __global__ void beyond_dynamic(unsigned n) {
    DYNAMIC_SHARED(unsigned, words);
    words[n] = 1;
}

extern "C" __global__ void dots(int* out) {
    out[0] = dot4_s8s8(0xff020380u, 0x01fe037fu, 5);
    out[1] = dot4_u8s8(0xff020380u, 0x01fe037fu, 5);
    out[2] = (int)__byte_perm(0x33221100u, 0x77665544u, 0x7140u);
    out[3] = (int)(2u * (__float2int_rn(2.5f) == 2) + 10u * (unsigned)__float2int_rn(3e9f));
    out[4] = (int)pack_bf16(1.00390625f, -1.01171875f);
}

// Many products, for the time they take.
extern "C" __global__ void many(float* out, unsigned rounds) {
    float sums[4] = {};
    const unsigned a[4] = {0x3f003f00u + threadIdx.x, 0x3f803f80u, 0, 0}, b[2] = {0x3f803f80u, 0x3f803f80u};
    for (unsigned i = 0; i < rounds; i++) mma_bf16(sums, a, b);
    out[threadIdx.x] = sums[0] + sums[1] + sums[2] + sums[3];
}
