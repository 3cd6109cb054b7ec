// Arithmetic of a single thread. The approximate functions (__expf, …) are exact here: tests have to allow the GPU's error anyway.
#pragma once

#define EMULATOR_INLINE static inline __attribute__((always_inline, unused))

EMULATOR_INLINE unsigned __float_as_uint(float x) { return __builtin_bit_cast(unsigned, x); }
EMULATOR_INLINE int __float_as_int(float x) { return __builtin_bit_cast(int, x); }
EMULATOR_INLINE float __uint_as_float(unsigned x) { return __builtin_bit_cast(float, x); }
EMULATOR_INLINE float __int_as_float(int x) { return __builtin_bit_cast(float, x); }
EMULATOR_INLINE long long __double_as_longlong(double x) { return __builtin_bit_cast(long long, x); }
EMULATOR_INLINE double __longlong_as_double(long long x) { return __builtin_bit_cast(double, x); }

// Conversions to integers saturate on a GPU, and take NaN to 0.
EMULATOR_INLINE int emulator_to_int(float x) {
    if (x != x) return 0;
    if (x >= 2147483648.0f) return INT32_MAX;
    return x <= -2147483648.0f ? INT32_MIN : (int)x;
}
EMULATOR_INLINE unsigned emulator_to_uint(float x) {
    if (!(x > 0.0f)) return 0;
    return x >= 4294967296.0f ? UINT32_MAX : (unsigned)x;
}
EMULATOR_INLINE int __float2int_rn(float x) { return emulator_to_int(rintf(x)); }
EMULATOR_INLINE int __float2int_rz(float x) { return emulator_to_int(truncf(x)); }
EMULATOR_INLINE int __float2int_rd(float x) { return emulator_to_int(floorf(x)); }
EMULATOR_INLINE int __float2int_ru(float x) { return emulator_to_int(ceilf(x)); }
EMULATOR_INLINE unsigned __float2uint_rn(float x) { return emulator_to_uint(rintf(x)); }
EMULATOR_INLINE unsigned __float2uint_rz(float x) { return emulator_to_uint(truncf(x)); }
EMULATOR_INLINE float __int2float_rn(int x) { return (float)x; }
EMULATOR_INLINE float __uint2float_rn(unsigned x) { return (float)x; }
EMULATOR_INLINE float __double2float_rn(double x) { return (float)x; }

// The functions named after a rounding are never fused with others; an empty `asm` keeps this compiler from it.
EMULATOR_INLINE float emulator_rounded(float x) {
    asm volatile("" : "+m"(x));
    return x;
}
EMULATOR_INLINE float __fadd_rn(float a, float b) { return emulator_rounded(a + b); }
EMULATOR_INLINE float __fsub_rn(float a, float b) { return emulator_rounded(a - b); }
EMULATOR_INLINE float __fmul_rn(float a, float b) { return emulator_rounded(a * b); }
EMULATOR_INLINE float __fdiv_rn(float a, float b) { return emulator_rounded(a / b); }
EMULATOR_INLINE float __frcp_rn(float x) { return 1.0f / x; }
EMULATOR_INLINE float __fsqrt_rn(float x) { return sqrtf(x); }
EMULATOR_INLINE float __frsqrt_rn(float x) { return 1.0f / sqrtf(x); }
EMULATOR_INLINE float __fmaf_rn(float a, float b, float c) { return __builtin_fmaf(a, b, c); }

EMULATOR_INLINE float rsqrtf(float x) { return 1.0f / sqrtf(x); }
// Macros, because some C libraries have functions of these names.
#define __expf expf
#define __exp10f exp10f
#define __logf logf
#define __log2f log2f
#define __log10f log10f
#define __powf powf
#define __sinf sinf
#define __cosf cosf
#define __tanhf tanhf
EMULATOR_INLINE float __fdividef(float a, float b) { return a / b; }
EMULATOR_INLINE float fdividef(float a, float b) { return a / b; }
EMULATOR_INLINE float __saturatef(float x) { return x != x ? 0.0f : fminf(fmaxf(x, 0.0f), 1.0f); }
EMULATOR_INLINE float sinpif(float x) { return (float)sin(M_PI * (double)x); }
EMULATOR_INLINE float cospif(float x) { return (float)cos(M_PI * (double)x); }

EMULATOR_INLINE int __popc(unsigned x) { return __builtin_popcount(x); }
EMULATOR_INLINE int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
EMULATOR_INLINE int __clz(int x) { return x == 0 ? 32 : __builtin_clz((unsigned)x); }
EMULATOR_INLINE int __clzll(long long x) { return x == 0 ? 64 : __builtin_clzll((unsigned long long)x); }
EMULATOR_INLINE int __ffs(int x) { return __builtin_ffs(x); }
EMULATOR_INLINE unsigned __brev(unsigned x) {
    unsigned reversed = 0;
    for (int bit = 0; bit < 32; bit++) reversed |= (x >> bit & 1u) << (31 - bit);
    return reversed;
}
EMULATOR_INLINE unsigned __umulhi(unsigned a, unsigned b) { return (unsigned)((unsigned long long)a * b >> 32); }
EMULATOR_INLINE int __mulhi(int a, int b) { return (int)((long long)a * b >> 32); }
EMULATOR_INLINE unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    return (unsigned long long)((unsigned __int128)a * b >> 64);
}
EMULATOR_INLINE unsigned __funnelshift_l(unsigned low, unsigned high, unsigned shift) {
    return (unsigned)((((unsigned long long)high << 32 | low) << (shift & 31)) >> 32);
}
EMULATOR_INLINE unsigned __funnelshift_r(unsigned low, unsigned high, unsigned shift) {
    return (unsigned)(((unsigned long long)high << 32 | low) >> (shift & 31));
}
// Byte i of the result is byte `selector >> 4 i & 7` of b:a; with bit 3 of the selector set, its sign eight times.
EMULATOR_INLINE unsigned __byte_perm(unsigned a, unsigned b, unsigned selector) {
    unsigned long long bytes = (unsigned long long)b << 32 | a;
    unsigned picked = 0;
    for (int i = 0; i < 4; i++) {
        unsigned choice = selector >> (4 * i);
        unsigned byte = (unsigned)(bytes >> (8 * (choice & 7))) & 0xffu;
        if (choice & 8) byte = byte & 0x80u ? 0xffu : 0u;
        picked |= byte << (8 * i);
    }
    return picked;
}
EMULATOR_INLINE int __dp4a(int a, int b, int sum) {
    for (int i = 0; i < 4; i++) sum += (int)(signed char)(a >> (8 * i)) * (signed char)(b >> (8 * i));
    return sum;
}
EMULATOR_INLINE unsigned __dp4a(unsigned a, unsigned b, unsigned sum) {
    for (int i = 0; i < 4; i++) sum += (a >> (8 * i) & 0xffu) * (b >> (8 * i) & 0xffu);
    return sum;
}

// CUDA has min and max for every pair of arithmetic types; of two integers, the result has the type of their sum.
#define EMULATOR_MIN_MAX(A, B, C)                                             \
    EMULATOR_INLINE constexpr C min(A a, B b) { return (C)a < (C)b ? (C)a : (C)b; } \
    EMULATOR_INLINE constexpr C max(A a, B b) { return (C)a > (C)b ? (C)a : (C)b; }
EMULATOR_MIN_MAX(int, int, int)
EMULATOR_MIN_MAX(unsigned, unsigned, unsigned)
EMULATOR_MIN_MAX(int, unsigned, unsigned)
EMULATOR_MIN_MAX(unsigned, int, unsigned)
EMULATOR_MIN_MAX(long, long, long)
EMULATOR_MIN_MAX(unsigned long, unsigned long, unsigned long)
EMULATOR_MIN_MAX(long long, long long, long long)
EMULATOR_MIN_MAX(unsigned long long, unsigned long long, unsigned long long)
#undef EMULATOR_MIN_MAX
EMULATOR_INLINE float min(float a, float b) { return fminf(a, b); }
EMULATOR_INLINE float max(float a, float b) { return fmaxf(a, b); }
EMULATOR_INLINE double min(double a, double b) { return fmin(a, b); }
EMULATOR_INLINE double max(double a, double b) { return fmax(a, b); }

// Loads and stores with a hint for the caches.
#define EMULATOR_LOAD(name)                   \
    template <class T>                        \
    EMULATOR_INLINE T name(const T* p) {      \
        return *p;                            \
    }
#define EMULATOR_STORE(name)                  \
    template <class T>                        \
    EMULATOR_INLINE void name(T* p, T x) {    \
        *p = x;                               \
    }
EMULATOR_LOAD(__ldg)
EMULATOR_LOAD(__ldcs)
EMULATOR_LOAD(__ldcg)
EMULATOR_LOAD(__ldca)
EMULATOR_LOAD(__ldlu)
EMULATOR_LOAD(__ldcv)
EMULATOR_STORE(__stcs)
EMULATOR_STORE(__stcg)
EMULATOR_STORE(__stwb)
EMULATOR_STORE(__stwt)
#undef EMULATOR_LOAD
#undef EMULATOR_STORE

[[noreturn]] EMULATOR_INLINE void __trap(EMULATOR_SITE) { emulator_fail(file, line, "__trap()"); }
