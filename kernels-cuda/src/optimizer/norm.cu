// target: sm_80
// The L2 norm of all gradients, the factor that clips it, and whether it and the losses are finite.
//
// First 1024 blocks of 256 threads, whatever the GPU, take every so many chunks of four gradients: 32 squares are added in f32 and then to an f64 sum of the
// thread, and the block's sum is written. That is done for each arena, its sums behind those of the arenas before it. Then one block adds all sums. Every order is
// fixed. Cost: 4 (2) bytes read a gradient.
//
// A rank that has slices of the gradients adds those of each slice to the sums of the slices before it (`add`), and then makes one f64 of all of them, which is not finite
// if one of its losses is not. All ranks end with the sums of all, in the order of the ranks, and so with the same guard.
#include "optimizer.cuh"

#define BLOCKS 1024

template <typename T>
__device__ __forceinline__ void squares(const T* g, size_t chunks, double* partials, unsigned add) {
    __shared__ double scratch[256];
    const size_t stride = (size_t)BLOCKS * 256;
    double total = 0.0;
    for (size_t first = (size_t)blockIdx.x * 256 + threadIdx.x; first < chunks; first += 8 * stride) {
        float4 x[8];
#pragma unroll
        for (int k = 0; k < 8; k++) {
            size_t chunk = first + k * stride;
            x[k] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
            if (chunk < chunks) x[k] = load_gradients(g, chunk);
        }
        float sum = 0.0f;
#pragma unroll
        for (int k = 0; k < 8; k++) {
            sum = fmaf(x[k].x, x[k].x, sum);
            sum = fmaf(x[k].y, x[k].y, sum);
            sum = fmaf(x[k].z, x[k].z, sum);
            sum = fmaf(x[k].w, x[k].w, sum);
        }
        total += (double)sum;
    }
    total = block_sum_f64(total, scratch);
    if (threadIdx.x == 0) partials[blockIdx.x] = add != 0 ? partials[blockIdx.x] + total : total;
}

extern "C" __global__ void __launch_bounds__(256) gradient_squares(const float* g, size_t chunks, double* partials, unsigned add) {
    squares(g, chunks, partials, add);
}
extern "C" __global__ void __launch_bounds__(256) gradient_squares_bf16(const bf16* g, size_t chunks, double* partials, unsigned add) {
    squares(g, chunks, partials, add);
}

// All sums, in thread 0; a loss that is not finite makes them NaN.
__device__ __forceinline__ double sum_all(const double* partials, unsigned sums, const float* losses, unsigned count, double* scratch) {
    double total = 0.0;
    for (unsigned i = threadIdx.x; i < sums; i += 256) total += partials[i];
    for (unsigned i = threadIdx.x; i < count; i += 256)
        if (!is_finite(losses[i])) total = (double)__int_as_float(0x7fc00000);
    return block_sum_f64(total, scratch);
}

// One block of 256 threads: what a rank has found, as one number.
extern "C" __global__ void __launch_bounds__(256)
    gradient_sum(const double* partials, unsigned sums, const float* losses, unsigned count, double* sum) {
    __shared__ double scratch[256];
    const double total = sum_all(partials, sums, losses, count, scratch);
    if (threadIdx.x == 0) *sum = total;
}

// One block of 256 threads.
extern "C" __global__ void __launch_bounds__(256)
    gradient_norm(const double* partials, unsigned sums, const float* losses, unsigned count, float max_norm, const StepScalars* scalars, Guard* guard) {
    __shared__ double scratch[256];
    const double total = sum_all(partials, sums, losses, count, scratch);
    if (threadIdx.x == 0) {
        double norm = sqrt(total);
        bool finite = is_finite((float)norm);
        guard->norm = (float)norm;
        guard->scale = finite && max_norm > 0.0f && norm > (double)max_norm ? (float)((double)max_norm / norm) : 1.0f;
        const unsigned before = guard->in_a_row;
        const bool stopped = before >= scalars->limit;
        guard->applies = finite && !stopped;
        guard->in_a_row = stopped ? before : finite ? 0 : before + 1;
    }
}
