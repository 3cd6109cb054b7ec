// target: sm_80
// What threads do together, and what they can do wrong.
#include "reduce.cuh"

extern "C" __global__ void sum_of_blocks(const float* x, float* sums) {
    __shared__ float scratch[32];
    float total = block_sum(x[blockIdx.x * blockDim.x + threadIdx.x], scratch);
    float largest = block_max(x[blockIdx.x * blockDim.x + threadIdx.x], scratch);
    if (threadIdx.x == 0) sums[2 * blockIdx.x] = total, sums[2 * blockIdx.x + 1] = largest;
}

extern "C" __global__ void __launch_bounds__(64) shuffles(unsigned* out) {
    const unsigned i = threadIdx.x, all = 0xffffffffu;
    unsigned* row = out + 8 * i;
    row[0] = __shfl_sync(all, i, 5);
    row[1] = __shfl_xor_sync(all, i, 3);
    row[2] = __shfl_down_sync(all, i, 4, 8);
    row[3] = __shfl_up_sync(all, i, 1);
    row[4] = __ballot_sync(all, i % 3 == 0);
    row[5] = (unsigned)(__any_sync(all, i == 40) + 2 * __all_sync(all, i < 32));
    row[6] = (unsigned)__syncthreads_count(i % 2);
    // Half warps by themselves, on different ways.
    row[7] = i % 32 < 16 ? __shfl_xor_sync(0xffffu, i, 1) : __shfl_xor_sync(0xffff0000u, i, 2);
}

// Every block adds to one counter; the last one to come writes what it found, and resets the counter.
extern "C" __global__ void last_block(unsigned* counter, unsigned* seen) {
    __shared__ unsigned before;
    if (threadIdx.x == 0) before = atomicInc(counter, gridDim.x - 1);
    __syncthreads();
    if (before == gridDim.x - 1) seen[threadIdx.x] = before;
}

// Threads that have returned are not waited for.
extern "C" __global__ void early_return(unsigned* out, unsigned n) {
    if (threadIdx.x >= n) return;
    __syncthreads();
    out[threadIdx.x] = __syncthreads_count(1);
}

extern "C" __global__ void reversed(unsigned* out, unsigned with_barrier) {
    __shared__ unsigned values[256];
    values[threadIdx.x] = threadIdx.x;
    if (with_barrier) __syncthreads();
    out[threadIdx.x] = values[blockDim.x - 1 - threadIdx.x];
}

extern "C" __global__ void half_at_barrier(unsigned* out) {
    if (threadIdx.x < 64) {
        __syncthreads();
    } else {
        __syncwarp();
        out[threadIdx.x] = __shfl_sync(0xffffffffu, 1, 0);
        __syncthreads();
    }
}

extern "C" __global__ void lanes_apart(unsigned* out) {
    if (threadIdx.x % 32 < 16)
        out[threadIdx.x] = __shfl_xor_sync(0xffffffffu, 1u, 1);
    else
        out[threadIdx.x] = __shfl_xor_sync(0xffffffffu, 2u, 1);
}

extern "C" __global__ void write_at(unsigned char* bytes, unsigned long long where) {
    if (threadIdx.x == 3) bytes[where] = 7;
}

extern "C" __global__ void read_wide(const float* x, float4* out, unsigned offset) { *out = *reinterpret_cast<const float4*>(x + offset); }

extern "C" __global__ void local_index(unsigned* out, unsigned i) {
    __shared__ unsigned table[16];
    table[i] = 1;
    out[0] = table[i];
}

extern "C" __global__ void trap() { __trap(); }

extern "C" __global__ void deep(unsigned* out, unsigned depth);
__device__ __noinline__ unsigned descend(unsigned depth) {
    volatile unsigned char frame[1024];
    frame[depth % 1024] = 1;
    return depth == 0 ? 0 : descend(depth - 1) + frame[depth % 1024];
}
extern "C" __global__ void deep(unsigned* out, unsigned depth) { out[0] = descend(depth); }
