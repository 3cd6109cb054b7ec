// target: sm_80
// AdamW with both moments in 8 bits and one f32 scale for each 256 elements; kernels-cpu/src/adamw8bit has the codes and why, and the same bits. A warp has
// such a block: lane l elements 4l.. and 128 + 4l... Moments are opened, updated as in adamw.cu, used in f32 for the parameters, and closed again: the largest
// of the block is the new scale, and between two codes one is drawn by a hash of element and step, so that the mean is exact. Equal inputs give equal bytes.
// `element` is the number of the first, which is not 0 for a slice: it draws what the whole would.
// Cost: 10 bytes read and 6 written an element (2 less read with bf16 gradients), about 120 instructions: bound by memory.
#include "optimizer.cuh"
#include "reduce.cuh"

struct Betas {
    float beta1, rest1, beta2, rest2, eps;
};

// 32 random bits for an element at a step (the finaliser "lowbias32" of C. Wellons).
__device__ __forceinline__ unsigned hash(unsigned element, unsigned step) {
    unsigned x = element * 0x9e3779b9u ^ (step + 1u) * 0x85ebca6bu;
    x ^= x >> 16;
    x *= 0x7feb352du;
    x ^= x >> 15;
    x *= 0x846ca68bu;
    return x ^ x >> 16;
}

// q -> sign(q) (q / 127)^2
__device__ __forceinline__ float open_mean(unsigned byte, float scale) {
    float q = (float)(int)(signed char)byte * (1.0f / 127.0f);
    return q * fabsf(q) * scale;
}

// q -> ((q + 1) / 256)^4
__device__ __forceinline__ float open_square(unsigned byte, float scale) {
    float k = (float)(byte + 1u) * (1.0f / 256.0f);
    return (k * k) * (k * k) * scale;
}

// `inverse` is 1 / scale, and 0 where the scale is 0.
__device__ __forceinline__ unsigned close_mean(float m, float inverse, float uniform) {
    float y = fminf(fabsf(m) * inverse, 1.0f) * 16129.0f;
    float q = floorf(sqrtf(y));
    // From q^2 to (q + 1)^2 there are 2q + 1, and the upper is drawn for the share of it that y has behind it.
    bool up = uniform * fmaf(2.0f, q, 1.0f) < fmaf(-q, q, y);
    int code = min((int)q + (up ? 1 : 0), 127);
    return (unsigned)(m < 0.0f ? -code : code) & 0xffu;
}

// `root` is the root of v, `root_inverse` that of `inverse`.
__device__ __forceinline__ unsigned close_square(float v, float root, float inverse, float root_inverse, float uniform) {
    float w = fminf(v * inverse, 1.0f);
    float k = fminf(fmaxf(floorf(256.0f * sqrtf(root * root_inverse)), 1.0f), 256.0f);
    float square = k * k;
    // From k^4 to (k + 1)^4 there are 4k^3 + 6k^2 + 4k + 1; 2^32 is the largest.
    float distance = fmaf(4.0f * k, square, fmaf(6.0f, square, fmaf(4.0f, k, 1.0f)));
    bool up = uniform * distance < fmaf(-square, square, w * 4294967296.0f);
    return (unsigned)min((int)k - 1 + (up ? 1 : 0), 255);
}

__device__ __forceinline__ float& part(float4& x, int i) { return i == 0 ? x.x : i == 1 ? x.y : i == 2 ? x.z : x.w; }

template <typename T>
__device__ __forceinline__ void adamw8bit_step(float4* p, const T* g, unsigned* m, unsigned* v, float* m_scale, float* v_scale, const unsigned char* decay,
                                               const StepScalars* scalars, const Guard* guard, size_t blocks, size_t element, Betas b) {
    const unsigned lane = threadIdx.x % 32;
    const size_t block = (size_t)blockIdx.x * 8 + threadIdx.x / 32;
    if (block >= blocks) return;
    float4 pi[2], gi[2];
    unsigned codes_m[2], codes_v[2];
#pragma unroll
    for (int half = 0; half < 2; half++) {
        size_t chunk = block * 64 + half * 32 + lane;
        pi[half] = p[chunk];
        gi[half] = load_gradients(g, chunk);
        codes_m[half] = __ldcs(&m[chunk]);
        codes_v[half] = __ldcs(&v[chunk]);
    }
    const float old_m = m_scale[block], old_v = v_scale[block];
    const float scale = guard->scale, step_size = scalars->step_size, root_scale = scalars->root_scale;
    const float decayed = scalars->keep, keep = decay[block] ? decayed : 1.0f;
    const unsigned step = scalars->step;
    // Only now, so that no load waits for it; the same for all lanes.
    if (!guard->applies) return;

    float mean[8], square[8], root[8], most_m = 0.0f, most_v = 0.0f;
#pragma unroll
    for (int i = 0; i < 8; i++) {
        const int half = i / 4, at = i % 4;
        float gradient = part(gi[half], at) * scale;
        float& parameter = part(pi[half], at);
        mean[i] = fmaf(b.beta1, open_mean(codes_m[half] >> (8 * at) & 0xffu, old_m), b.rest1 * gradient);
        square[i] = fmaf(b.beta2, open_square(codes_v[half] >> (8 * at) & 0xffu, old_v), b.rest2 * (gradient * gradient));
        root[i] = sqrtf(square[i]);
        float denominator = fmaf(root[i], root_scale, b.eps);
        parameter = fmaf(-step_size, mean[i] / denominator, parameter * keep);
        most_m = fmaxf(most_m, fabsf(mean[i]));
        most_v = fmaxf(most_v, square[i]);
    }
    most_m = warp_max(most_m);
    most_v = warp_max(most_v);
    // Below this the inverse would not be finite.
    most_m = most_m > 1e-37f ? most_m : 0.0f;
    most_v = most_v > 1e-37f ? most_v : 0.0f;
    const float inverse_m = most_m > 0.0f ? 1.0f / most_m : 0.0f;
    const float inverse_v = most_v > 0.0f ? 1.0f / most_v : 0.0f;
    const float root_inverse_v = sqrtf(inverse_v);
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const size_t chunk = block * 64 + half * 32 + lane;
        unsigned new_m = 0, new_v = 0;
#pragma unroll
        for (int at = 0; at < 4; at++) {
            unsigned random = hash((unsigned)(element + 4 * chunk + at), step);
            float low = ((float)(random & 0xffffu) + 0.5f) * (1.0f / 65536.0f);
            float high = ((float)(random >> 16) + 0.5f) * (1.0f / 65536.0f);
            new_m |= close_mean(mean[4 * half + at], inverse_m, low) << (8 * at);
            new_v |= close_square(square[4 * half + at], root[4 * half + at], inverse_v, root_inverse_v, high) << (8 * at);
        }
        p[chunk] = pi[half];
        __stcs(&m[chunk], new_m);
        __stcs(&v[chunk], new_v);
    }
    if (lane == 0) {
        m_scale[block] = most_m;
        v_scale[block] = most_v;
    }
}

extern "C" __global__ void __launch_bounds__(256)
    adamw8bit(float4* p, const float* g, unsigned* m, unsigned* v, float* m_scale, float* v_scale, const unsigned char* decay, const StepScalars* scalars,
              const Guard* guard, size_t blocks, size_t element, float beta1, float rest1, float beta2, float rest2, float eps) {
    adamw8bit_step(p, g, m, v, m_scale, v_scale, decay, scalars, guard, blocks, element, Betas{beta1, rest1, beta2, rest2, eps});
}

extern "C" __global__ void __launch_bounds__(256)
    adamw8bit_bf16(float4* p, const bf16* g, unsigned* m, unsigned* v, float* m_scale, float* v_scale, const unsigned char* decay,
                   const StepScalars* scalars, const Guard* guard, size_t blocks, size_t element, float beta1, float rest1, float beta2, float rest2,
                   float eps) {
    adamw8bit_step(p, g, m, v, m_scale, v_scale, decay, scalars, guard, blocks, element, Betas{beta1, rest1, beta2, rest2, eps});
}
