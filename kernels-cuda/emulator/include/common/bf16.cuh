// In place of the part of src/common/bf16.cuh that needs nvcc.
#pragma once

typedef unsigned short bf16;

EMULATOR_INLINE float to_f32(bf16 x) { return __uint_as_float((unsigned)x << 16); }
// Rounds to nearest, ties to even; every NaN becomes 0x7fff, as cvt.rn.bf16.f32 has it.
EMULATOR_INLINE bf16 to_bf16(float x) {
    unsigned bits = __float_as_uint(x);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return 0x7fff;
    return (bf16)((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}
EMULATOR_INLINE unsigned pack_bf16(float low, float high) { return (unsigned)to_bf16(high) << 16 | to_bf16(low); }
EMULATOR_INLINE float low_f32(unsigned packed) { return __uint_as_float(packed << 16); }
EMULATOR_INLINE float high_f32(unsigned packed) { return __uint_as_float(packed & 0xffff0000u); }
