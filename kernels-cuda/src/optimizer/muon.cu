// target: sm_80
// What Muon does around its matrix products (trainer/src/optimizer/muon.rs), elementwise over matrices of n elements each: blockIdx.y counts them. In the
// arenas a matrix begins at chunk `at` (of four elements); X of all matrices lie one behind the other.
//
//   momentum <- c momentum + scale g                  ahead = scale g + c momentum           X = ahead / max(|ahead|, 1e-12)
//   five times:  P = b A + c A^2 with A = X X^T;  X <- a X + P X                             p <- keep p - lr size X
#include "optimizer.cuh"

// The momentum in place, and the sum of squares of `ahead` of each block. Cost: 8 bytes read and 4 written an element.
extern "C" __global__ void __launch_bounds__(256)
    muon_momentum(const float4* g, float4* momentum, const size_t* at, size_t chunks, float c, const Guard* guard, double* partials) {
    __shared__ double scratch[256];
    if (!guard->applies) return;
    g += at[blockIdx.y];
    momentum += at[blockIdx.y];
    const float scale = guard->scale;
    double total = 0.0;
#pragma unroll 4
    for (size_t i = (size_t)blockIdx.x * 256 + threadIdx.x; i < chunks; i += (size_t)gridDim.x * 256) {
        float4 gi = g[i], m = momentum[i];
        gi = make_float4(gi.x * scale, gi.y * scale, gi.z * scale, gi.w * scale);
        m = make_float4(fmaf(c, m.x, gi.x), fmaf(c, m.y, gi.y), fmaf(c, m.z, gi.z), fmaf(c, m.w, gi.w));
        momentum[i] = m;
        float x = fmaf(c, m.x, gi.x), y = fmaf(c, m.y, gi.y), z = fmaf(c, m.z, gi.z), w = fmaf(c, m.w, gi.w);
        total += (double)fmaf(x, x, fmaf(y, y, fmaf(z, z, w * w)));
    }
    total = block_sum_f64(total, scratch);
    if (threadIdx.x == 0) partials[blockIdx.y * gridDim.x + blockIdx.x] = total;
}

// X from the gradients and the new momentum; each block adds its matrix's sums, of which there are `sums`, for itself. Cost: 8 bytes read and 2 written an element.
extern "C" __global__ void __launch_bounds__(256) muon_normalize(const float4* g, const float4* momentum, const size_t* at, size_t chunks, float c,
                                                                 const Guard* guard, const double* partials, unsigned sums, uint2* x) {
    __shared__ double scratch[256];
    if (!guard->applies) return;
    g += at[blockIdx.y];
    momentum += at[blockIdx.y];
    x += blockIdx.y * chunks;
    double total = 0.0;
    for (unsigned i = threadIdx.x; i < sums; i += 256) total += partials[blockIdx.y * sums + i];
    block_sum_f64(total, scratch);
    __syncthreads();
    const float inverse = 1.0f / fmaxf((float)sqrt(scratch[0]), 1e-12f), scale = guard->scale;
#pragma unroll 4
    for (size_t i = (size_t)blockIdx.x * 256 + threadIdx.x; i < chunks; i += (size_t)gridDim.x * 256) {
        float4 gi = __ldg(&g[i]), m = __ldg(&momentum[i]);
        float a0 = fmaf(c, m.x, gi.x * scale), a1 = fmaf(c, m.y, gi.y * scale), a2 = fmaf(c, m.z, gi.z * scale), a3 = fmaf(c, m.w, gi.w * scale);
        x[i] = make_uint2(pack_bf16(a0 * inverse, a1 * inverse), pack_bf16(a2 * inverse, a3 * inverse));
    }
}

__device__ __forceinline__ unsigned combine2(float alpha, unsigned x, float beta, unsigned y) {
    return pack_bf16(fmaf(alpha, low_f32(x), beta * low_f32(y)), fmaf(alpha, high_f32(x), beta * high_f32(y)));
}

// out = alpha x + beta y, bf16, eight elements a thread; `out` may be `x` or `y`. Cost: 4 bytes read and 2 written an element.
extern "C" __global__ void __launch_bounds__(256)
    muon_combine(float alpha, const uint4* x, float beta, const uint4* y, uint4* out, size_t chunks) {
    const size_t i = (size_t)blockIdx.x * 256 + threadIdx.x;
    if (i >= chunks) return;
    uint4 a = x[i], b = y[i];
    out[i] = make_uint4(combine2(alpha, a.x, beta, b.x), combine2(alpha, a.y, beta, b.y), combine2(alpha, a.z, beta, b.z),
                        combine2(alpha, a.w, beta, b.w));
}

// p <- keep p - lr size X, four elements a thread. Cost: 6 bytes read and 4 written an element.
extern "C" __global__ void __launch_bounds__(256)
    muon_update(float4* p, const uint2* x, const size_t* at, size_t chunks, float size, const StepScalars* scalars, const Guard* guard) {
    const size_t i = (size_t)blockIdx.x * 256 + threadIdx.x;
    if (i >= chunks) return;
    p += at[blockIdx.y];
    x += blockIdx.y * chunks;
    float4 pi = p[i];
    uint2 u = __ldcs(&x[i]);
    const float rate = scalars->lr * size, keep = scalars->keep;
    // Only now, so that no load waits for it.
    if (!guard->applies) return;
    pi.x = fmaf(-rate, low_f32(u.x), pi.x * keep);
    pi.y = fmaf(-rate, high_f32(u.x), pi.y * keep);
    pi.z = fmaf(-rate, low_f32(u.y), pi.z * keep);
    pi.w = fmaf(-rate, high_f32(u.y), pi.w * keep);
    p[i] = pi;
}
