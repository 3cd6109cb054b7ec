// A warp's ring of slots in shared memory through which weights stream, 1 KB each: two pieces of 512 bytes that lie apart in device memory. Every lane copies,
// and later reads, its own 16 bytes of either piece, so nothing waits for another lane.
//
// Loads into registers would not do: the compiler lets several share one of a warp's six scoreboards, and a wait for the oldest is then one for the youngest
// too. Copies into shared memory are counted in groups, in order. Bulk copies with barriers were slower: 5 to 15 % (NOTES.md).
#pragma once

#include "memory.cuh"

template <unsigned SLOTS>
struct WeightRing {
    static constexpr unsigned BYTES = SLOTS * 1024;
    unsigned char* own;  // the lane's 16 bytes of the first slot

    // `slots` has a ring for each warp of the block.
    __device__ __forceinline__ WeightRing(unsigned char* slots) : own(slots + threadIdx.x / 32 * BYTES + offset()) {}

    // What is added to the address of a piece for `fetch`.
    __device__ __forceinline__ unsigned offset() const { return threadIdx.x % 32 * 16; }
    // One piece, or `both`: the second `apart` bytes behind. Once a slot's fetch has been asked for, or there was nothing more to fetch, comes `fetched`.
    __device__ __forceinline__ void fetch(unsigned slot, const unsigned char* first, unsigned apart, bool both) {
        copy_async16(own + slot * 1024, first);
        if (both) copy_async16(own + slot * 1024 + 512, first + apart);
    }
    __device__ __forceinline__ void fetched() { copy_async_commit(); }
    // The oldest of the slots that were fetched; then comes the next `fetch` of it.
    __device__ __forceinline__ void take(unsigned slot, uint4& first, uint4& second) {
        copy_async_wait<SLOTS - 1>();
        read(slot, first, second);
    }
    // What was waited for.
    __device__ __forceinline__ void read(unsigned slot, uint4& first, uint4& second) const {
        first = *reinterpret_cast<const uint4*>(own + slot * 1024);
        second = *reinterpret_cast<const uint4*>(own + slot * 1024 + 512);
    }
};

// Over a warp, the sum, and the largest. Bytes 1 and 3 of a word as bytes 0 and 2.
#ifdef __CUDACC__
__device__ __forceinline__ int warp_add(int x) { return __reduce_add_sync(0xffffffffu, x); }
__device__ __forceinline__ unsigned warp_most(unsigned x) { return __reduce_max_sync(0xffffffffu, x); }
__device__ __forceinline__ unsigned odd_bytes(unsigned x) { return __byte_perm(x, 0, 0x4341); }
#else
__device__ inline int warp_add(int x) {
    for (int lane = 16; lane > 0; lane /= 2) x += __shfl_xor_sync(0xffffffffu, x, lane);
    return x;
}
__device__ inline unsigned warp_most(unsigned x) {
    for (int lane = 16; lane > 0; lane /= 2) {
        unsigned other = __shfl_xor_sync(0xffffffffu, x, lane);
        x = other > x ? other : x;
    }
    return x;
}
__device__ inline unsigned odd_bytes(unsigned x) { return x >> 8 & 0x00ff00ffu; }
#endif
