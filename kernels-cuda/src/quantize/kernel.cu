// target: sm_80
// quantize:   rows of bf16 to int8 with a step for each, or to their blend (mod.rs has the formulas). Reads 2 bytes an element, writes 1 (int8) or 2.
//             A warp has a row of up to 1024 elements, 16 or 32 a lane; a block has a longer one, 16 or 32 a thread.
// dequantize: int8 to bf16. Reads 1 byte an element, writes 2; 16 elements a thread. About 3 operations an element; memory is the limit of both.
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
