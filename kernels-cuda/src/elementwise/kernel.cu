// target: sm_80
// Operations element by element that no other kernel takes along.
//
//   add       out[i] = bf16(out[i] + x[i])          6 bytes an element
//
// A thread has four adjacent elements.
#include "bf16.cuh"

extern "C" __global__ void __launch_bounds__(256) add_bf16(uint2* out, const uint2* x, unsigned long long chunks) {
    unsigned long long i = (unsigned long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= chunks) return;
    uint2 a = out[i], b = x[i];
    out[i] = make_uint2(pack_bf16(low_f32(a.x) + low_f32(b.x), high_f32(a.x) + high_f32(b.x)),
                        pack_bf16(low_f32(a.y) + low_f32(b.y), high_f32(a.y) + high_f32(b.y)));
}
