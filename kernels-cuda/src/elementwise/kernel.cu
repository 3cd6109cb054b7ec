// target: sm_80
// Operations element by element that no other kernel takes along.
//
//   add       out[i] = bf16(out[i] + x[i])          6 bytes an element
//   dropout   x[i] = x[i] · mask(i)                 8 bytes an element
//
// A thread has four adjacent elements.
#include "bf16.cuh"
#include "philox.cuh"

extern "C" __global__ void __launch_bounds__(256) add_bf16(uint2* out, const uint2* x, unsigned long long chunks) {
    unsigned long long i = (unsigned long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= chunks) return;
    uint2 a = out[i], b = x[i];
    out[i] = make_uint2(pack_bf16(low_f32(a.x) + low_f32(b.x), high_f32(a.x) + high_f32(b.x)),
                        pack_bf16(low_f32(a.y) + low_f32(b.y), high_f32(a.y) + high_f32(b.y)));
}

extern "C" __global__ void __launch_bounds__(256)
    dropout_f32(float4* x, const unsigned* step, unsigned long long seed, unsigned purpose, unsigned threshold, float keep,
                unsigned long long chunks) {
    unsigned long long i = (unsigned long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= chunks) return;
    float4 v = x[i];
    float values[4] = {v.x, v.y, v.z, v.w};
    drop(dropout_key(*step, seed, purpose), 4 * i, threshold, keep, values);
    x[i] = make_float4(values[0], values[1], values[2], values[3]);
}
