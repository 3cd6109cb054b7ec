// Tensor-core products of a warpgroup, four warps from a multiple of four on (PTX ISA, "wgmma.mma_async", compute capability 9.0a).
//
// D [64, N] += A [64, K] . B [K, N] with A and B in shared memory; K is 16 for bf16 and 32 for int8, 32 bytes both.
// D: with g = lane / 4 and t = lane % 4, d[4 j + 0, 1] are columns 8 j + 2 t and the next of row 16 warp + g, and d[4 j + 2, 3] those of row 16 warp + g + 8.
//
// Operands are swizzled as the bulk copies do it (tma.cuh), in units of 8 rows of 128 bytes:
//   K-major:  rows are m (or n), 128 bytes of k each; the next 8 rows are `stride` bytes on. The next K of the same row: 32 bytes further.
//   MN-major: rows are k, 64 elements of m (or n) each; the next 8 rows are `stride` bytes on, the next 64 elements of m (or n) `leading` bytes.
//             The next K: 16 rows further.
#pragma once

#include "memory.cuh"

#ifdef __CUDACC__
// Where an operand begins (a multiple of 16 bytes; its unit at a multiple of 1024) and how it goes on.
__device__ __forceinline__ unsigned long long wgmma_operand(unsigned shared, unsigned leading, unsigned stride) {
    return (unsigned long long)((shared & 0x3ffff) >> 4) | (unsigned long long)(leading >> 4) << 16 | (unsigned long long)(stride >> 4) << 32 | 1ull << 62;
}

// Before the first product, and whenever other code has touched the sums.
__device__ __forceinline__ void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
// Waits until at most `pending` of the groups are under way.
template <int pending>
__device__ __forceinline__ void wgmma_wait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(pending) : "memory");
}

#define WGMMA_REGISTERS_64 \
    "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, " \
    "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, " \
    "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, " \
    "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define WGMMA_REGISTERS_128 \
    "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, " \
    "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, " \
    "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, " \
    "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, " \
    "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, " \
    "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, " \
    "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, " \
    "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"
#define WGMMA_4(c, d, i) c(d[i]), c(d[i + 1]), c(d[i + 2]), c(d[i + 3])
#define WGMMA_16(c, d, i) WGMMA_4(c, d, i), WGMMA_4(c, d, i + 4), WGMMA_4(c, d, i + 8), WGMMA_4(c, d, i + 12)
#define WGMMA_64(c, d, i) WGMMA_16(c, d, i), WGMMA_16(c, d, i + 16), WGMMA_16(c, d, i + 32), WGMMA_16(c, d, i + 48)
#define WGMMA_128(c, d, i) WGMMA_64(c, d, i), WGMMA_64(c, d, i + 64)

// d = a . b, or d += a . b where `add` is not 0. `a_mn`, `b_mn`: 1 for an operand that is MN-major.
template <int a_mn, int b_mn>
__device__ __forceinline__ void wgmma(float (&d)[64], unsigned long long a, unsigned long long b, int add) {
    asm volatile(
        "{\n.reg .pred p;\nsetp.ne.b32 p, %66, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {" WGMMA_REGISTERS_64 "}, %64, %65, p, 1, 1, %67, %68;\n}"
        : WGMMA_64("+f", d, 0)
        : "l"(a), "l"(b), "r"(add), "n"(a_mn), "n"(b_mn));
}
template <int a_mn, int b_mn>
__device__ __forceinline__ void wgmma(float (&d)[128], unsigned long long a, unsigned long long b, int add) {
    asm volatile(
        "{\n.reg .pred p;\nsetp.ne.b32 p, %130, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 {" WGMMA_REGISTERS_128 "}, %128, %129, p, 1, 1, %131, %132;\n}"
        : WGMMA_128("+f", d, 0)
        : "l"(a), "l"(b), "r"(add), "n"(a_mn), "n"(b_mn));
}
// int8 is K-major only.
template <int a_mn, int b_mn>
__device__ __forceinline__ void wgmma(int (&d)[64], unsigned long long a, unsigned long long b, int add) {
    asm volatile(
        "{\n.reg .pred p;\nsetp.ne.b32 p, %66, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n128k32.s32.s8.s8 {" WGMMA_REGISTERS_64 "}, %64, %65, p;\n}"
        : WGMMA_64("+r", d, 0)
        : "l"(a), "l"(b), "r"(add));
}
template <int a_mn, int b_mn>
__device__ __forceinline__ void wgmma(int (&d)[128], unsigned long long a, unsigned long long b, int add) {
    asm volatile(
        "{\n.reg .pred p;\nsetp.ne.b32 p, %130, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n256k32.s32.s8.s8 {" WGMMA_REGISTERS_128 "}, %128, %129, p;\n}"
        : WGMMA_128("+r", d, 0)
        : "l"(a), "l"(b), "r"(add));
}

// Sums may be used from here on: the compiler must not move their use ahead of the wait above.
template <int count>
__device__ __forceinline__ void wgmma_settle(float (&d)[count]) {
#pragma unroll
    for (int i = 0; i < count; i++) asm volatile("" : "+f"(d[i])::"memory");
}
template <int count>
__device__ __forceinline__ void wgmma_settle(int (&d)[count]) {
#pragma unroll
    for (int i = 0; i < count; i++) asm volatile("" : "+r"(d[i])::"memory");
}

// Four 8x8 matrices of 16-bit elements to shared memory; lane i gives the address of row i % 8 of matrix i / 8, and has two elements (row lane / 4,
// columns 2 (lane % 4) and the next) of each.
__device__ __forceinline__ void store_matrices(unsigned row, unsigned m0, unsigned m1, unsigned m2, unsigned m3) {
    asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1,%2,%3,%4};" ::"r"(row), "r"(m0), "r"(m1), "r"(m2), "r"(m3) : "memory");
}

__device__ __forceinline__ void shared_store(unsigned at, float x, float y) {
    asm volatile("st.shared.v2.f32 [%0], {%1,%2};" ::"r"(at), "f"(x), "f"(y) : "memory");
}

// The number of registers of each thread of this warpgroup, from here on.
template <int registers>
__device__ __forceinline__ void give_registers() {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(registers));
}
template <int registers>
__device__ __forceinline__ void take_registers() {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(registers));
}

// Barrier `id` (1 to 15) of `threads` threads: to wait at it, or only to be counted.
__device__ __forceinline__ void named_sync(unsigned id, unsigned threads) { asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory"); }
__device__ __forceinline__ void named_arrive(unsigned id, unsigned threads) { asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory"); }
#endif
