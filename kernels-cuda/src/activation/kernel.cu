// target: sm_80
// The activation of the feed-forward network with sub-norm and quantiser, and its backward (mod.rs has the formulas).
//
//   activation_*            bytes an element of h: gate 2, up 2, then 1 for int8 and 2 for each bf16 form
//   activation_backward_*   dy 2, gate 2, up 2 read; dgate 2, dup 2 written
//
// About 25 operations an element (45 for silu), twice that in the backward; memory is the limit. A block has a row in registers, 16 elements a thread up to a width of
// 6144 and 32 from there on. In the backward a block has rows `block, block + blocks, …` and keeps its sum of the weight's gradient in registers;
// a thread writes an element after all it reads of that element, so that gradients may lie over what they are made from.
#include "memory.cuh"
#include "row.cuh"

enum Kind { RELU2_GATE = 0, SILU_GATE = 1, RELU2 = 2 };

__device__ __forceinline__ float sigmoid(float x) { return 1.0f / (1.0f + __expf(-x)); }
// NaN passes through, where fmaxf would drop it.
__device__ __forceinline__ float relu(float x) { return x < 0.0f ? 0.0f : x; }

__device__ __forceinline__ float activated(unsigned kind, float g, float u) {
    if (kind == SILU_GATE) return g * sigmoid(g) * u;
    if (kind == RELU2) g = u;
    float r = relu(g);
    return kind == RELU2 ? r * r : r * r * u;
}

__device__ __forceinline__ float element(unsigned packed, int k) { return k % 2 ? high_f32(packed) : low_f32(packed); }

template <int N>
__device__ __forceinline__ void activation_row(const bf16* __restrict__ gate_up, unsigned kind, const float* __restrict__ weight, float eps, float* __restrict__ rstd,
                                               const RowOutputs& out, unsigned rows, unsigned width) {
    __shared__ float scratch[2][ROW_SCRATCH];
    const BlockRow at;
    const unsigned long long row = at.group();
    const bool gated = kind != RELU2;
    const bf16* gate = gate_up + row * width * (gated ? 2 : 1);
    const bf16* up = gated ? gate + width : gate;
    unsigned g[N / 2] = {}, u[N / 2] = {};
#pragma unroll
    for (int i = 0; i < N / 8; i++) {
        unsigned j = (at.rank() + i * at.size()) * 8;
        if (j >= width) break;
        if (gated) load_words<8>(gate + j, g + 4 * i);
        load_words<8>(up + j, u + 4 * i);
    }
    float h[N], squares = 0.0f;
#pragma unroll
    for (int i = 0; i < N; i++) {
        h[i] = activated(kind, element(g[i / 2], i), element(u[i / 2], i));
        squares = fmaf(h[i], h[i], squares);
    }
    if (weight != nullptr) {
        squares = at.sum(squares, scratch[0]);
        float r = 1.0f / sqrtf(squares / (float)width + eps);
        // A row of zeros has no gradient (rms_norm).
        if (at.rank() == 0) rstd[row] = squares == 0.0f ? 0.0f : r;
#pragma unroll
        for (int i = 0; i < N / 8; i++) {
            unsigned j = (at.rank() + i * at.size()) * 8;
            if (j >= width) break;
            float w[8];
            load_f32<8>(weight + j, w);
#pragma unroll
            for (int k = 0; k < 8; k++) h[8 * i + k] = h[8 * i + k] * r * w[k];
        }
    }
    write_row<BlockRow, 8, N>(at, out, row, width, h, scratch[1]);
}

#define ACTIVATION(NAME, N, THREADS, BLOCKS)                                                                                                                                    \
    extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)                                                                                                          \
        NAME(const bf16* __restrict__ gate_up, unsigned kind, const float* __restrict__ weight, float eps, float* __restrict__ rstd, signed char* codes,       \
             float* steps, bf16* plain, bf16* blend, const float* anneal, unsigned rows, unsigned width) {                                                     \
        activation_row<N>(gate_up, kind, weight, eps, rstd, RowOutputs{codes, steps, plain, blend, anneal}, rows, width);                                      \
    }

ACTIVATION(activation_16, 16, 384, 2)
ACTIVATION(activation_32, 32, 512, 1)

// Gradients of gate and up from that of h.
__device__ __forceinline__ void slopes(unsigned kind, float g, float u, float dh, float& dg, float& du) {
    if (kind == SILU_GATE) {
        float s = sigmoid(g);
        dg = s * fmaf(g, 1.0f - s, 1.0f) * u * dh;
        du = g * s * dh;
    } else if (kind == RELU2_GATE) {
        float r = relu(g);
        dg = 2.0f * r * u * dh;
        du = r * r * dh;
    } else {
        du = 2.0f * relu(u) * dh;
    }
}

template <int N>
__device__ __forceinline__ void activation_backward_rows(const bf16* dy, const bf16* gate_up, unsigned kind, const float* __restrict__ weight,
                                                         const float* __restrict__ rstd, bf16* dgate_up, float* __restrict__ partials, unsigned rows,
                                                         unsigned width) {
    __shared__ float scratch[2][ROW_SCRATCH];
    const BlockRow at;
    const bool gated = kind != RELU2;
    float dw[N] = {};
    unsigned turn = 0;
    for (unsigned row = at.group(); row < rows; row += at.groups(), turn ^= 1) {
        const unsigned long long base = (unsigned long long)row * width, from = base * (gated ? 2 : 1), up = from + (gated ? width : 0);
        unsigned g[N / 2] = {}, u[N / 2] = {}, d[N / 2] = {};
#pragma unroll
        for (int i = 0; i < N / 8; i++) {
            unsigned j = (at.rank() + i * at.size()) * 8;
            if (j >= width) break;
            if (gated) load_words<8>(gate_up + from + j, g + 4 * i);
            load_words<8>(gate_up + up + j, u + 4 * i);
            load_words<8>(dy + base + j, d + 4 * i);
        }
        float r = 1.0f, mean = 0.0f;
        if (weight != nullptr) {
            r = rstd[row];
            float products = 0.0f;
#pragma unroll
            for (int i = 0; i < N / 8; i++) {
                unsigned j = (at.rank() + i * at.size()) * 8;
                if (j >= width) break;
                float w[8];
                load_f32<8>(weight + j, w);
#pragma unroll
                for (int k = 0; k < 8; k++) {
                    int word = 4 * i + k / 2;
                    float h = activated(kind, element(g[word], k), element(u[word], k));
                    products = fmaf(element(d[word], k) * w[k], h, products);
                }
            }
            mean = at.sum(products, scratch[turn]) * r / (float)width;
        }
#pragma unroll
        for (int i = 0; i < N / 8; i++) {
            unsigned j = (at.rank() + i * at.size()) * 8;
            if (j >= width) break;
            float w[8], dg[8], du[8];
            if (weight != nullptr) load_f32<8>(weight + j, w);
#pragma unroll
            for (int k = 0; k < 8; k++) {
                int word = 4 * i + k / 2;
                float gk = element(g[word], k), uk = element(u[word], k), dh = element(d[word], k);
                if (weight != nullptr) {
                    float normed = activated(kind, gk, uk) * r;
                    dw[8 * i + k] = fmaf(dh, normed, dw[8 * i + k]);
                    dh = r * (dh * w[k] - normed * mean);
                }
                slopes(kind, gk, uk, dh, dg[k], du[k]);
            }
            if (gated) store_bf16<8>(dgate_up + from + j, dg);
            store_bf16<8>(dgate_up + up + j, du);
        }
    }
    if (weight == nullptr) return;
    float* to = partials + (unsigned long long)blockIdx.x * width;
#pragma unroll
    for (int i = 0; i < N / 4; i++) {
        unsigned j = (at.rank() + i / 2 * at.size()) * 8 + i % 2 * 4;
        if (j < width) *reinterpret_cast<float4*>(to + j) = make_float4(dw[4 * i], dw[4 * i + 1], dw[4 * i + 2], dw[4 * i + 3]);
    }
}

#define ACTIVATION_BACKWARD(NAME, N, THREADS, BLOCKS)                                                                                                                              \
    extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)                                                                                                             \
        NAME(const bf16* dy, const bf16* gate_up, unsigned kind, const float* __restrict__ weight, const float* __restrict__ rstd,      \
             bf16* dgate_up, float* __restrict__ partials, unsigned rows, unsigned width) {                                                          \
        activation_backward_rows<N>(dy, gate_up, kind, weight, rstd, dgate_up, partials, rows, width);                                                            \
    }

ACTIVATION_BACKWARD(activation_backward_16, 16, 384, 2)
ACTIVATION_BACKWARD(activation_backward_32, 32, 512, 1)
