// target: sm_80
// quantize:   rows of bf16 to int8 with a step for each, or to their blend (mod.rs has the formulas). Reads 2 bytes an element, writes 1 (int8) or 2.
//             A warp has a row of up to 1024 elements, 16 or 32 a lane; a block has a longer one, 16 or 32 a thread.
// blend_groups: rows of bf16 to their blend with bytes that have a step for each 32 columns. Reads 2 bytes an element, writes 2; four threads a group, 8 elements each.
// dequantize: int8 to bf16. Reads 1 byte an element, writes 2; 16 elements a thread. About 3 operations an element; memory is the limit of all.
#include "memory.cuh"
#include "row.cuh"

template <class Row, int N>
__device__ __forceinline__ void quantize_rows(const bf16* __restrict__ x, unsigned long long stride, const RowOutputs& out, unsigned rows, unsigned cols) {
    __shared__ float scratch[ROW_SCRATCH];
    const Row at;
    unsigned long long row = at.group();
    if (row >= rows) return;
    float y[N] = {};
#pragma unroll
    for (int i = 0; i < N / 8; i++) {
        unsigned j = (at.rank() + i * at.size()) * 8;
        if (j < cols) load_bf16<8>(x + row * stride + j, y + 8 * i);
    }
    write_row<Row, 8, N>(at, out, row, cols, y, scratch);
}

#define QUANTIZE(NAME, ROW, N, THREADS)                                                                                                                          \
    extern "C" __global__ void __launch_bounds__(THREADS)                                                                                                        \
        NAME(const bf16* __restrict__ x, unsigned long long stride, signed char* codes, float* steps, bf16* plain, bf16* blend, const float* anneal, unsigned rows, \
             unsigned cols) {                                                                                                                                    \
        quantize_rows<ROW, N>(x, stride, RowOutputs{codes, steps, plain, blend, anneal}, rows, cols);                                                            \
    }

QUANTIZE(quantize_warp16, WarpRow, 16, 256)
QUANTIZE(quantize_warp32, WarpRow, 32, 256)
QUANTIZE(quantize_block16, BlockRow, 16, 384)
QUANTIZE(quantize_block32, BlockRow, 32, 512)

extern "C" __global__ void __launch_bounds__(256)
    blend_groups(const bf16* __restrict__ x, bf16* __restrict__ out, const float* __restrict__ anneal, unsigned groups, unsigned groups_of_row, unsigned cols) {
    const unsigned group = blockIdx.x * 64 + threadIdx.x / 4, column = group % groups_of_row * 32 + threadIdx.x % 4 * 8;
    // Threads without elements fold zeros: the shuffles want whole warps.
    const bool has = group < groups && column < cols;
    const unsigned long long at = (unsigned long long)(group / groups_of_row) * cols + column;
    float v[8] = {}, largest = 1e-30f, rest = 0.0f;
    if (has) load_bf16<8>(x + at, v);
#pragma unroll
    for (int k = 0; k < 8; k++) {
        largest = fmaxf(fabsf(v[k]), largest);
        // 0, or NaN where a value is not finite.
        rest += v[k] - v[k];
    }
#pragma unroll
    for (int lane = 2; lane > 0; lane /= 2) {
        largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, lane));
        rest += __shfl_xor_sync(0xffffffffu, rest, lane);
    }
    if (!has) return;
    const float a = *anneal, step = largest / 127.0f + rest, scale = 127.0f / largest;
#pragma unroll
    for (int k = 0; k < 8; k++) {
        float hard = fminf(fmaxf(rintf(v[k] * scale), -127.0f), 127.0f) * step;
        v[k] = a >= 1.0f ? hard : fmaf(a, hard, (1.0f - a) * v[k]);
    }
    *reinterpret_cast<uint4*>(out + at) = make_uint4(pack_bf16(v[0], v[1]), pack_bf16(v[2], v[3]), pack_bf16(v[4], v[5]), pack_bf16(v[6], v[7]));
}

__device__ __forceinline__ unsigned dequantized2(unsigned codes, int shift, float step) {
    return pack_bf16((float)(signed char)(codes >> shift) * step, (float)(signed char)(codes >> (shift + 8)) * step);
}

extern "C" __global__ void __launch_bounds__(256)
    dequantize(const uint4* __restrict__ codes, const float* __restrict__ steps, uint4* __restrict__ out, unsigned vectors, unsigned vectors_of_row) {
    unsigned i = blockIdx.x * 256 + threadIdx.x;
    if (i >= vectors) return;
    uint4 q = codes[i];
    float step = steps[i / vectors_of_row];
    out[2ull * i] = make_uint4(dequantized2(q.x, 0, step), dequantized2(q.x, 16, step), dequantized2(q.y, 0, step), dequantized2(q.y, 16, step));
    out[2ull * i + 1] = make_uint4(dequantized2(q.z, 0, step), dequantized2(q.z, 16, step), dequantized2(q.w, 0, step), dequantized2(q.w, 16, step));
}
