// CUDA C++ as far as our kernels use it, for the system's compiler; included before every .cu file.
#pragma once

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "runtime.h"

// build.sh defines `__global__` itself when it looks for the names of kernels.
#ifndef __global__
#define __global__
#endif
#define __device__
#define __host__
#define __constant__
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __align__(bytes) __attribute__((aligned(bytes)))
#define __launch_bounds__(...)
#define __grid_constant__
#define __restrict__ __restrict
// Blocks run one after the other, so that one copy does.
#define __shared__ static
#define __builtin_assume(condition) ((void)0)

#define threadIdx emulator_thread
#define blockIdx emulator_block
#define blockDim emulator_block_size
#define gridDim emulator_grid_size
static constexpr int warpSize = 32;

// Where a call stands, for messages: last parameters of functions that can fail.
#define EMULATOR_SITE const char *file = __builtin_FILE(), int line = __builtin_LINE()

#include "vectors.h"
#include "intrinsics.h"
#include "warp.h"
#include "atomics.h"

#include "common/bf16.cuh"
#include "common/memory.cuh"
#include "common/mma.cuh"
