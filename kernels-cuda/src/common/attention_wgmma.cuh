// Products of a warpgroup as attention takes them (PTX ISA, "wgmma.mma_async", compute capability 9.0a): A [64, 16] from shared memory or from registers,
// B [16, N] from shared memory, N 64 or 128, bf16 with f32 sums.
//
// Tiles lie in parts of 64 columns, rows of 128 bytes, the 16-byte chunk c of row r at c xor (r mod 8), each part at a multiple of 1024 bytes.
// A warp of the group has rows 16 warp.. of the result, in the layout of mma.cuh; and so of A, if that is in registers.
#pragma once

#include "memory.cuh"

#ifdef __CUDACC__
// Rows from `shared` on: 8 of them are 1024 bytes; the next 64 columns, for an operand whose rows are summed over, `leading` bytes on.
__device__ __forceinline__ unsigned long long wgmma_rows(unsigned shared, unsigned leading) {
    return (unsigned long long)((shared & 0x3ffff) >> 4) | (unsigned long long)(leading >> 4) << 16 | (unsigned long long)(1024 >> 4) << 32 | 1ull << 62;
}

__device__ __forceinline__ void wgmma_begin() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
// Waits for all products, whose sums are in `d`: the compiler must not move what reads them ahead of this.
template <int N>
__device__ __forceinline__ void wgmma_finish(float (&d)[N]) {
    asm volatile("wgmma.commit_group.sync.aligned;\nwgmma.wait_group.sync.aligned 0;" ::: "memory");
#pragma unroll
    for (int i = 0; i < N; i++) asm volatile("" : "+f"(d[i])::"memory");
}
// Orders this thread's copies to shared memory before products that read them after the next barrier.
__device__ __forceinline__ void wgmma_publish() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

// Arrives at a barrier of this block.
__device__ __forceinline__ void mbarrier_arrive(unsigned barrier) { asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory"); }

#define REGISTERS_32                                                                                                                    \
    "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, " \
    "%28, %29, %30, %31"
#define REGISTERS_64                                                                                                                     \
    REGISTERS_32 ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52, %53, %54, " \
                 "%55, %56, %57, %58, %59, %60, %61, %62, %63"
#define SUMS_4(d, i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define SUMS_16(d, i) SUMS_4(d, i), SUMS_4(d, i + 4), SUMS_4(d, i + 8), SUMS_4(d, i + 12)
#define SUMS_32(d) SUMS_16(d, 0), SUMS_16(d, 16)
#define SUMS_64(d) SUMS_16(d, 0), SUMS_16(d, 16), SUMS_16(d, 32), SUMS_16(d, 48)

// d = a · bᵀ, or d += a · bᵀ with `add`: both from shared memory, sums over columns.
__device__ __forceinline__ void wgmma_columns(float (&d)[32], unsigned long long a, unsigned long long b, int add) {
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %34, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {" REGISTERS_32 "}, %32, %33, p, 1, 1, 0, 0;\n}"
                 : SUMS_32(d)
                 : "l"(a), "l"(b), "r"(add));
}

// d += a · b: a from registers, b from shared memory, sums over rows of b.
__device__ __forceinline__ void wgmma_rows_add(float (&d)[32], const unsigned (&a)[4], unsigned long long b) {
    asm volatile("wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {" REGISTERS_32 "}, {%32, %33, %34, %35}, %36, 1, 1, 1, 1;"
                 : SUMS_32(d)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}
__device__ __forceinline__ void wgmma_rows_add(float (&d)[64], const unsigned (&a)[4], unsigned long long b) {
    asm volatile("wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {" REGISTERS_64 "}, {%64, %65, %66, %67}, %68, 1, 1, 1, 1;"
                 : SUMS_64(d)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}
#endif
