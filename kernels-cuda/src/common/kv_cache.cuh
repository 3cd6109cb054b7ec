// The cache of keys and values as attention reads it: blocks of positions, how an element is kept, and one or two neighbours at once.
#pragma once

#include "exact.cuh"

// Positions of a block; those of a panel of transposed keys.
constexpr unsigned POSITIONS = 128, PANEL = 64;

enum Type : int { F32 = 0, F16 = 1, INT8 = 3 };
template <int TYPE>
struct Element;
template <>
struct Element<F32> {
    typedef float type;
    static __device__ __forceinline__ float open(float x) { return x; }
    static __device__ __forceinline__ float close(float x, float) { return x; }
    typedef float2 two;
    static __device__ __forceinline__ float2 open_two(float2 x) { return x; }
};
template <>
struct Element<F16> {
    typedef unsigned short type;
    static __device__ __forceinline__ float open(unsigned short x) { return f16_to_f32(x); }
    static __device__ __forceinline__ unsigned short close(float x, float) { return f32_to_f16(x); }
    typedef unsigned two;
    static __device__ __forceinline__ float2 open_two(unsigned x) { return make_float2(f16_to_f32((unsigned short)x), f16_to_f32((unsigned short)(x >> 16))); }
};
template <>
struct Element<INT8> {
    typedef signed char type;
    static __device__ __forceinline__ float open(signed char x) { return (float)x; }
    static __device__ __forceinline__ signed char close(float x, float scale) {
        int v = quantize_i8(x, scale);
        return (signed char)(v < -127 ? -127 : v);
    }
    typedef unsigned short two;
    static __device__ __forceinline__ float2 open_two(unsigned short x) { return make_float2((float)(signed char)x, (float)(signed char)(x >> 8)); }
};

// `WIDTH` neighbours as they lie, and opened.
template <int TYPE, int WIDTH>
struct Neighbours {
    typename Element<TYPE>::two raw;
    __device__ __forceinline__ void load(const typename Element<TYPE>::type* p) { raw = *reinterpret_cast<const typename Element<TYPE>::two*>(p); }
    __device__ __forceinline__ void open(float (&x)[WIDTH]) const {
        float2 both = Element<TYPE>::open_two(raw);
        x[0] = both.x, x[WIDTH - 1] = both.y;
    }
};
template <int TYPE>
struct Neighbours<TYPE, 1> {
    typename Element<TYPE>::type raw;
    __device__ __forceinline__ void load(const typename Element<TYPE>::type* p) { raw = *p; }
    __device__ __forceinline__ void open(float (&x)[1]) const { x[0] = Element<TYPE>::open(raw); }
};
