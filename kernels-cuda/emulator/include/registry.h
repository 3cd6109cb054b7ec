// The table of kernels of one .cu file, written by build.sh behind the file itself:
//   EMULATOR_KERNELS_BEGIN  EMULATOR_KERNEL(name)…  EMULATOR_KERNELS_END("path", "hash")
#pragma once

#include <utility>

#include "runtime.h"

namespace emulator {

template <auto kernel>
struct Caller;
template <class... Parameters, void (*kernel)(Parameters...)>
struct Caller<kernel> {
    static constexpr size_t sizes[sizeof...(Parameters) + 1] = {sizeof(Parameters)..., 0};
    static constexpr unsigned count = sizeof...(Parameters);
    static void call(void* const* parameters) { unpack(parameters, std::index_sequence_for<Parameters...>{}); }
    template <size_t... i>
    static void unpack([[maybe_unused]] void* const* parameters, std::index_sequence<i...>) {
        kernel(*static_cast<Parameters*>(parameters[i])...);
    }
};

}  // namespace emulator

// The linker's names for the memory of this library that has no initial value, which `__shared__` arrays are.
extern unsigned char __bss_start[] __attribute__((visibility("hidden")));
extern unsigned char _end[] __attribute__((visibility("hidden")));

#define EMULATOR_KERNELS_BEGIN static const emulator::Kernel emulator_kernels[] = {
#define EMULATOR_KERNEL(name) {#name, emulator::Caller<&name>::call, emulator::Caller<&name>::count, emulator::Caller<&name>::sizes},
#define EMULATOR_KERNELS_END(path, hash)                                                                         \
    };                                                                                                           \
    extern "C" __attribute__((visibility("default"))) const emulator::Source emulator_source = {                 \
        path, hash, emulator_kernels, sizeof(emulator_kernels) / sizeof(*emulator_kernels), __bss_start, _end};
