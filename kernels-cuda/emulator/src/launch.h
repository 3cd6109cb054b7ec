// A launch: a kernel with its arguments, and running it block by block.
#pragma once

#include <string>
#include <vector>

#include "../include/runtime.h"

namespace emulator {

constexpr size_t argument_pitch = 128;

struct Launch {
    const Source* source;
    const Kernel* kernel;
    Index3 grid, block;
    size_t shared;
    // Copies of the arguments, one behind the other at multiples of `argument_pitch`.
    std::vector<unsigned char> bytes;
};

// A copy of the values at `parameters`, in the order of the kernel's parameters.
std::vector<unsigned char> copied_arguments(const Kernel& kernel, void* const* parameters);

// Why a launch failed.
struct Failure {
    // CUresult.
    int code = 0;
    std::string what;
};

// Runs all blocks, one after the other in an order that depends on ONEBIT_EMULATOR_SEED.
Failure run(const Launch& launch);

// Whether this OS thread is inside a kernel.
bool in_kernel();

// Ends the launch from within a thread of the kernel.
[[noreturn]] void fail_launch(int code, const std::string& what);

// "kernel k, block (0,0,0), thread (1,0,0)", of the running thread.
std::string whereabouts();

}  // namespace emulator
