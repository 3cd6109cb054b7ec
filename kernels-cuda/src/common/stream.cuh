// Streams of weights that are read once, and the order of kernels of which the next begins before the one ahead has ended.
//
// What stands in `#else` says what each function does, and is what an emulation on a CPU runs.
#pragma once

#ifdef __CUDACC__
// 16 bytes that no later load of this block wants: they pass by the first cache level.
__device__ __forceinline__ uint4 load_stream16(const void* p) {
    uint4 v;
    asm volatile("ld.global.nc.L1::no_allocate.L2::256B.v4.u32 {%0,%1,%2,%3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(p));
    return v;
}

// Asks for the line at `p` to come into the second cache level.
__device__ __forceinline__ void prefetch_l2(const void* p) { asm volatile("prefetch.global.L2 [%0];" ::"l"(p)); }

// Waits until the kernels ahead in the stream have ended and what they wrote is seen. Before it a kernel reads only what nobody
// ahead of it in flight writes. Does nothing before compute capability 9.0, where kernels do not overlap.
__device__ __forceinline__ void grid_wait() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// Lets the next kernel in the stream begin once every block has come here. It is called behind `grid_wait`, so that a kernel
// has at most one kernel in flight ahead of it: what the one before that wrote may be read before `grid_wait`.
__device__ __forceinline__ void grid_launch_dependents() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

// A value that another block may have written while this kernel runs: read past the first cache level.
__device__ __forceinline__ float load_fresh(const float* p) {
    float v;
    asm volatile("ld.global.cg.f32 %0, [%1];" : "=f"(v) : "l"(p) : "memory");
    return v;
}

// Makes what this thread wrote seen by every block before what it writes afterwards.
__device__ __forceinline__ void fence_device() { __threadfence(); }
#else
__device__ inline uint4 load_stream16(const void* p) { return *reinterpret_cast<const uint4*>(p); }
__device__ inline void prefetch_l2(const void*) {}
__device__ inline void grid_wait() {}
__device__ inline void grid_launch_dependents() {}
__device__ inline void fence_device() {}
__device__ inline float load_fresh(const float* p) { return *p; }
#endif
