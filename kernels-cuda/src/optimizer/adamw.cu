// target: sm_80
// AdamW over an arena: exactly the operations of kernels-cpu/src/adamw, in its order, so that the results have the same bits.
//
//   g <- scale g;  m <- b1 m + (1 - b1) g;  v <- b2 v + (1 - b2) g^2;  p <- keep p - step_size m / (sqrt(v) root_scale + eps)
//
// A thread has four adjacent elements. `decay[i / 256]` says whether element i is decayed. Nothing is touched once the guard has seen a step that was not
// finite. Cost: 16 bytes read and 12 written an element (14 with bf16 gradients), a division and a root: bound by memory.
#include "optimizer.cuh"

struct Betas {
    float beta1, rest1, beta2, rest2, eps;
};

__device__ __forceinline__ void update(float& p, float g, float& m, float& v, const Betas& b, float scale, float keep, float step_size, float root_scale) {
    g = g * scale;
    m = fmaf(b.beta1, m, b.rest1 * g);
    v = fmaf(b.beta2, v, b.rest2 * (g * g));
    float denominator = fmaf(sqrtf(v), root_scale, b.eps);
    p = fmaf(-step_size, m / denominator, p * keep);
}

template <typename T>
__device__ __forceinline__ void adamw_step(float4* p, const T* g, float4* m, float4* v, const unsigned char* decay, const StepScalars* scalars,
                                           const Guard* guard, size_t chunks, Betas b) {
    const size_t chunk = (size_t)blockIdx.x * 256 + threadIdx.x;
    if (chunk >= chunks) return;
    float4 pi = p[chunk], mi = __ldcs(&m[chunk]), vi = __ldcs(&v[chunk]);
    const float4 gi = load_gradients(g, chunk);
    const float scale = guard->scale, step_size = scalars->step_size, root_scale = scalars->root_scale;
    const float decayed = scalars->keep, keep = decay[chunk / 64] ? decayed : 1.0f;
    // Only now, so that no load waits for it.
    if (!guard->applies) return;
    update(pi.x, gi.x, mi.x, vi.x, b, scale, keep, step_size, root_scale);
    update(pi.y, gi.y, mi.y, vi.y, b, scale, keep, step_size, root_scale);
    update(pi.z, gi.z, mi.z, vi.z, b, scale, keep, step_size, root_scale);
    update(pi.w, gi.w, mi.w, vi.w, b, scale, keep, step_size, root_scale);
    p[chunk] = pi;
    __stcs(&m[chunk], mi);
    __stcs(&v[chunk], vi);
}

extern "C" __global__ void __launch_bounds__(256)
    adamw(float4* p, const float* g, float4* m, float4* v, const unsigned char* decay, const StepScalars* scalars, const Guard* guard, size_t chunks,
          float beta1, float rest1, float beta2, float rest2, float eps) {
    adamw_step(p, g, m, v, decay, scalars, guard, chunks, Betas{beta1, rest1, beta2, rest2, eps});
}

extern "C" __global__ void __launch_bounds__(256)
    adamw_bf16(float4* p, const bf16* g, float4* m, float4* v, const unsigned char* decay, const StepScalars* scalars, const Guard* guard, size_t chunks,
               float beta1, float rest1, float beta2, float rest2, float eps) {
    adamw_step(p, g, m, v, decay, scalars, guard, chunks, Betas{beta1, rest1, beta2, rest2, eps});
}

// x = 0, four elements a thread. Cost: 4 bytes written an element.
extern "C" __global__ void __launch_bounds__(256) zero(float4* x, size_t chunks) {
    const size_t chunk = (size_t)blockIdx.x * 256 + threadIdx.x;
    if (chunk < chunks) x[chunk] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
}
