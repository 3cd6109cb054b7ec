// What a master weight becomes: its code, and the bf16 weight that products read (weights/mod.rs has the formulas).
#pragma once

enum Mode { FULL = 0, TERNARY = 1, BINARY = 2, INT8 = 3, INT4 = 4 };

// Columns of an int4 matrix that share a step.
static const unsigned GROUP_COLUMNS = 32;

// `clamp(round(v), ±most)`; a NaN becomes the lower end.
__device__ __forceinline__ float round_clamp(float v, float most) { return fminf(fmaxf(rintf(v), -most), most); }

__device__ __forceinline__ float tanh_of(float x) { return 1.0f - 2.0f / (__expf(2.0f * x) + 1.0f); }

// What an element of a block's chunk becomes; the annealing value and the scale are the same for all of them, the step of a row or group changes.
template <int MODE>
struct Rule {
    float a, scale, inverse, sharpness, soft_step;

    __device__ __forceinline__ void set(float anneal, float gamma) {
        a = anneal;
        scale = gamma;
        inverse = 1.0f / gamma;
        sharpness = 2.0f / (1.0f - a);
        soft_step = a * gamma * 0.5f;
    }
    __device__ __forceinline__ void set_step(float step) {
        scale = step;
        // Where no step is a number, or all weights are 0, codes are 0.
        if (MODE == INT4) inverse = step == 0.0f ? 0.0f : 1.0f / step;
    }
    __device__ __forceinline__ float code(float w) const {
        if (MODE == TERNARY) return round_clamp(w * inverse, 1.0f);
        if (MODE == BINARY) return 0.0f > w ? -1.0f : 1.0f;
        if (MODE == INT8) return round_clamp(w / scale, 127.0f);
        if (MODE == INT4) return inverse == 0.0f ? 0.0f : fminf(fmaxf(rintf(w * inverse), -8.0f), 7.0f);
        return 0.0f;
    }
    __device__ __forceinline__ float dense(float w, float q) const {
        if (MODE == FULL || a <= 0.0f) return w;
        // A code has no negative zero, and what is made of codes alone (shards) is to have these bits.
        float hard = (q + 0.0f) * scale;
        if (a >= 1.0f) return hard;
        float kept = (1.0f - a) * w;
        if (MODE != TERNARY) return fmaf(a, hard, kept);
        float u = w * inverse;
        return fmaf(soft_step, tanh_of(sharpness * (u - 0.5f)) + tanh_of(sharpness * (u + 0.5f)), kept);
    }
};
