// What compiled kernels and the emulator's runtime (libcuda.so.1) know of each other. Both sides are built from this one header.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace emulator {

// Arguments of one kernel, found through its type.
struct Kernel {
    const char* name;
    // Runs the calling thread's part with the arguments at `parameters`.
    void (*call)(void* const* parameters);
    unsigned parameters;
    const size_t* sizes;
};

// Everything that one .cu file holds. `shared` is its static memory: `__shared__` arrays, which are given to every block filled with junk.
struct Source {
    const char* path;
    // As build-ptx.sh writes it into the PTX, so that PTX is told from PTX of other sources.
    const char* hash;
    const Kernel* kernels;
    unsigned count;
    unsigned char* shared_begin;
    unsigned char* shared_end;
};

// The lanes that are in one operation of a warp: a bit and a pointer to its operands for each. What it computes goes into the operands.
struct Lanes {
    unsigned mask;
    void* operands[32];
    template <class T>
    T& get(unsigned lane) const {
        return *static_cast<T*>(operands[lane]);
    }
    bool has(unsigned lane) const { return mask >> (lane & 31) & 1; }
};
using WarpOperation = void (*)(const Lanes& lanes);

struct Index3 {
    unsigned x, y, z;
};

}  // namespace emulator

extern "C" {
// Position of the running thread; switched with it.
extern emulator::Index3 emulator_thread, emulator_block, emulator_block_size, emulator_grid_size;
extern unsigned emulator_lane;
extern unsigned char* emulator_dynamic_shared;

// Ends the launch with an error that names the kernel, the thread and the place.
[[noreturn]] void emulator_fail(const char* file, int line, const char* format, ...);

// Waits until all lanes of `mask` that have not returned are here; the last of them performs `operation` for all.
void emulator_warp(void* operands, emulator::WarpOperation operation, unsigned mask, const char* name, const char* file, int line);

// Waits at barrier `id` for `threads` threads (0: all of the block that have not returned). Gives how many came with `predicate`.
unsigned emulator_barrier(unsigned id, unsigned threads, bool predicate, const char* file, int line);

// cp.async: bytes arrive when the thread waits for the group they were committed with, and are junk until then.
void emulator_copy_async(void* shared, const void* global, unsigned bytes, bool valid, const char* file, int line);
void emulator_copy_commit();
void emulator_copy_wait(unsigned pending);

// Ends the launch unless `bytes` bytes at `p` are shared memory of the block, aligned.
void emulator_need_shared(const void* p, size_t bytes, const char* what, const char* file, int line);

// Operations of the tensor cores (operands in warp.h).
void emulator_mma_bf16(const emulator::Lanes& lanes);
void emulator_mma_s8(const emulator::Lanes& lanes);
void emulator_load_matrices(const emulator::Lanes& lanes);
void emulator_load_matrices_transposed(const emulator::Lanes& lanes);
}
