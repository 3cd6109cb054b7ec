// Atomic operations on integers. Threads change over only at barriers and operations of a warp, so that plain reads and writes are atomic.
// There are none on floats: their order, and with it the sum, would depend on timing.
#pragma once

namespace emulator {
template <class T, class F>
EMULATOR_INLINE T update(T* address, F change) {
    static_assert((T)0.5 == (T)0, "integers only");
    T old = *address;
    *address = change(old);
    return old;
}
}  // namespace emulator

#define EMULATOR_ATOMIC(name, T, result) \
    EMULATOR_INLINE T name(T* address, T x) { return emulator::update(address, [x](T old) -> T { return result; }); }
#define EMULATOR_ATOMICS(T)                           \
    EMULATOR_ATOMIC(atomicAdd, T, old + x)            \
    EMULATOR_ATOMIC(atomicMax, T, old > x ? old : x)  \
    EMULATOR_ATOMIC(atomicMin, T, old < x ? old : x)  \
    EMULATOR_ATOMIC(atomicAnd, T, old & x)            \
    EMULATOR_ATOMIC(atomicOr, T, old | x)             \
    EMULATOR_ATOMIC(atomicXor, T, old ^ x)            \
    EMULATOR_ATOMIC(atomicExch, T, x)                 \
    EMULATOR_INLINE T atomicCAS(T* address, T expected, T x) { \
        return emulator::update(address, [=](T old) -> T { return old == expected ? x : old; }); }
EMULATOR_ATOMICS(int)
EMULATOR_ATOMICS(unsigned)
EMULATOR_ATOMICS(unsigned long long)
EMULATOR_ATOMIC(atomicSub, int, old - x)
EMULATOR_ATOMIC(atomicSub, unsigned, old - x)
EMULATOR_ATOMIC(atomicInc, unsigned, old >= x ? 0 : old + 1)
EMULATOR_ATOMIC(atomicDec, unsigned, old == 0 || old > x ? x : old - 1)
#undef EMULATOR_ATOMICS
#undef EMULATOR_ATOMIC

EMULATOR_INLINE void __threadfence() {}
EMULATOR_INLINE void __threadfence_block() {}
EMULATOR_INLINE void __threadfence_system() {}
