// Operands of the tensor cores' operations, lane by lane (their layout is in src/common/mma.cuh).
#pragma once

namespace emulator {
template <class Sum>
struct Mma {
    Sum* c;
    const unsigned* a;
    const unsigned* b;
};
struct MatrixLoad {
    unsigned* r;
    const void* row;
    const char* file;
    int line;
};
}  // namespace emulator
