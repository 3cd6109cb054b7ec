// Vector types with CUDA's alignments.
#pragma once

#define EMULATOR_VECTORS(scalar, name, align2, align4)                                                    \
    struct name##1 { scalar x; };                                                                         \
    struct __align__(align2) name##2 { scalar x, y; };                                                    \
    struct name##3 { scalar x, y, z; };                                                                   \
    struct __align__(align4) name##4 { scalar x, y, z, w; };                                              \
    static inline constexpr name##1 make_##name##1(scalar x) { return {x}; }                              \
    static inline constexpr name##2 make_##name##2(scalar x, scalar y) { return {x, y}; }                 \
    static inline constexpr name##3 make_##name##3(scalar x, scalar y, scalar z) { return {x, y, z}; }    \
    static inline constexpr name##4 make_##name##4(scalar x, scalar y, scalar z, scalar w) { return {x, y, z, w}; }

EMULATOR_VECTORS(signed char, char, 2, 4)
EMULATOR_VECTORS(unsigned char, uchar, 2, 4)
EMULATOR_VECTORS(short, short, 4, 8)
EMULATOR_VECTORS(unsigned short, ushort, 4, 8)
EMULATOR_VECTORS(int, int, 8, 16)
EMULATOR_VECTORS(unsigned, uint, 8, 16)
EMULATOR_VECTORS(long long, longlong, 16, 16)
EMULATOR_VECTORS(unsigned long long, ulonglong, 16, 16)
EMULATOR_VECTORS(float, float, 8, 16)
EMULATOR_VECTORS(double, double, 16, 16)
#undef EMULATOR_VECTORS

struct dim3 {
    unsigned x = 1, y = 1, z = 1;
};
