// In place of the part of src/common/mma.cuh that needs nvcc.
#pragma once

#include "../tensor.h"

EMULATOR_INLINE void mma_bf16(float (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2], EMULATOR_SITE) {
    emulator::Mma<float> operands = {c, a, b};
    emulator_warp(&operands, emulator_mma_bf16, 0xffffffffu, "mma_bf16", file, line);
}
EMULATOR_INLINE void mma_s8(int (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2], EMULATOR_SITE) {
    emulator::Mma<int> operands = {c, a, b};
    emulator_warp(&operands, emulator_mma_s8, 0xffffffffu, "mma_s8", file, line);
}
EMULATOR_INLINE void load_matrices(unsigned (&r)[4], const void* row, EMULATOR_SITE) {
    emulator::MatrixLoad operands = {r, row, file, line};
    emulator_warp(&operands, emulator_load_matrices, 0xffffffffu, "load_matrices", file, line);
}
EMULATOR_INLINE void load_matrices_transposed(unsigned (&r)[4], const void* row, EMULATOR_SITE) {
    emulator::MatrixLoad operands = {r, row, file, line};
    emulator_warp(&operands, emulator_load_matrices_transposed, 0xffffffffu, "load_matrices_transposed", file, line);
}
EMULATOR_INLINE int dot4_s8s8(unsigned a, unsigned b, int sum) { return __dp4a((int)a, (int)b, sum); }
EMULATOR_INLINE int dot4_u8s8(unsigned a, unsigned b, int sum) {
    for (int i = 0; i < 4; i++) sum += (int)(a >> (8 * i) & 0xffu) * (signed char)(b >> (8 * i));
    return sum;
}
