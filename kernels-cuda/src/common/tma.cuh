// Bulk copies of boxes of matrices between device and shared memory (PTX ISA, "cp.async.bulk.tensor", compute capability 9.0).
//
// One thread asks for a copy. Boxes lie at multiples of 1024 bytes where they are swizzled: 16-byte chunk c of row r (of 128 bytes) at chunk c xor (r mod 8).
// Elements outside the matrix are read as zeros and not written. Coordinates: `x` the column, `y` the row.
#pragma once

#include "memory.cuh"

#ifdef __CUDACC__
// The driver's CUtensorMap; kernels take it as `const __grid_constant__ TensorMap`.
struct __align__(64) TensorMap {
    unsigned long long opaque[16];
};

__device__ __forceinline__ void tma_prefetch(const TensorMap& map) {
    asm volatile("prefetch.tensormap [%0];" ::"l"(&map) : "memory");
}

// Box at (y, x) to `shared`; its bytes count at `barrier`.
__device__ __forceinline__ void tma_load(unsigned shared, const TensorMap& map, unsigned barrier, int x, int y) {
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4}], [%2];" ::"r"(shared),
                 "l"(&map), "r"(barrier), "r"(x), "r"(y)
                 : "memory");
}

// The same to the same place in each block of the cluster whose bit is set in `blocks`, counting at the barrier of each.
__device__ __forceinline__ void tma_load_multicast(unsigned shared, const TensorMap& map, unsigned barrier, int x, int y, unsigned short blocks) {
    asm volatile(
        "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.multicast::cluster [%0], [%1, {%3, %4}], [%2], %5;" ::"r"(shared),
        "l"(&map), "r"(barrier), "r"(x), "r"(y), "h"(blocks)
        : "memory");
}

// The box at `shared` to (y, x).
__device__ __forceinline__ void tma_store(const TensorMap& map, unsigned shared, int x, int y) {
    asm volatile("cp.async.bulk.tensor.2d.global.shared::cta.tile.bulk_group [%0, {%2, %3}], [%1];" ::"l"(&map), "r"(shared), "r"(x), "r"(y) : "memory");
}

// Adds the box at `shared` to what is at (y, x).
__device__ __forceinline__ void tma_add(const TensorMap& map, unsigned shared, int x, int y) {
    asm volatile("cp.reduce.async.bulk.tensor.2d.global.shared::cta.add.tile.bulk_group [%0, {%2, %3}], [%1];" ::"l"(&map), "r"(shared), "r"(x), "r"(y)
                 : "memory");
}

__device__ __forceinline__ void tma_commit() { asm volatile("cp.async.bulk.commit_group;" ::: "memory"); }

// Waits until at most `pending` of this thread's groups of stores have yet to read their shared memory.
template <int pending>
__device__ __forceinline__ void tma_wait_read() {
    asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(pending) : "memory");
}

// Orders this thread's ordinary writes to shared memory before later bulk copies and tensor-core reads.
__device__ __forceinline__ void fence_async_shared() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }
#endif
