// target: sm_80
// Rows of a table f32 [vocab, dim] by token id, and the backward: dtable[id] += sum of dx[t] over the positions t of id, without atomics, by the plan of
// planner.rs. Everything is moved in chunks of 16 bytes, `columns` = dim / 4 of them a row.
#include "bf16.cuh"

__device__ __forceinline__ void add(float4& sum, float4 x) {
    sum.x += x.x;
    sum.y += x.y;
    sum.z += x.z;
    sum.w += x.w;
}

// x[t] = table[ids[t]], and the same in bf16 where `narrow` is not null: a block a token. An id outside the table gives a row of NaN.
// Cost: 4 bytes read and 4 (6) written an element.
extern "C" __global__ void __launch_bounds__(256)
    embedding(const float4* table, const unsigned* ids, unsigned vocab, unsigned columns, float4* x, uint2* narrow) {
    const size_t token = blockIdx.x;
    const unsigned id = ids[token];
    const float nan = __int_as_float(0x7fc00000);
    for (unsigned c = threadIdx.x; c < columns; c += blockDim.x) {
        float4 value = make_float4(nan, nan, nan, nan);
        if (id < vocab) value = __ldg(&table[(size_t)id * columns + c]);
        x[token * columns + c] = value;
        if (narrow) narrow[token * columns + c] = make_uint2(pack_bf16(value.x, value.y), pack_bf16(value.z, value.w));
    }
}

// dtable[id] = 0 for each id whose bit of `present` is not set: a block a row. Cost: 4 bytes written an element.
extern "C" __global__ void __launch_bounds__(256) embedding_zero_absent(const unsigned* present, unsigned columns, float4* dtable) {
    const size_t id = blockIdx.x;
    if (present[id / 32] >> (id % 32) & 1) return;
    for (unsigned c = threadIdx.x; c < columns; c += blockDim.x) dtable[id * columns + c] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
}

// Adds the rows of each segment in the order of the text. A segment that is all there is of an id goes to dtable[id] (which it is added to, or which it
// replaces), another to its row of `partials`. Segment s is positions order[start[s]]..order[start[s+1]]; `segments` holds pairs (start, destination),
// whose highest bit says that the destination is a row of partials. Blocks of up to 128 threads: x over segments with stride gridDim.x, y over columns.
// What the plan names beyond the arrays is left out. Cost: 4 bytes read an element of dx, 4 (8) moved an element of what is written.
extern "C" __global__ void __launch_bounds__(128)
    embedding_segments(const float4* dx, const unsigned* counts, const uint2* segments, const unsigned* order, unsigned tokens, unsigned vocab,
                       unsigned partial_rows, unsigned columns, unsigned accumulate, float4* partials, float4* dtable) {
    const unsigned c = blockIdx.y * blockDim.x + threadIdx.x;
    if (c >= columns) return;
    const unsigned count = min(counts[0], tokens);
    for (unsigned s = blockIdx.x; s < count; s += gridDim.x) {
        const uint2 segment = segments[s];
        const unsigned end = min(segments[s + 1].x, tokens);
        float4 sum = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
#pragma unroll 4
        for (unsigned i = segment.x; i < end; i++) {
            unsigned position = order[i];
            if (position < tokens) add(sum, __ldg(&dx[(size_t)position * columns + c]));
        }
        const unsigned destination = segment.y & 0x7fffffffu;
        if (segment.y >> 31) {
            if (destination < partial_rows) partials[(size_t)destination * columns + c] = sum;
        } else if (destination < vocab) {
            float4* out = &dtable[(size_t)destination * columns + c];
            if (accumulate) {
                float4 before = *out;
                add(before, sum);
                sum = before;
            }
            *out = sum;
        }
    }
}

// Adds the partial sums of each id that has several segments. `frequent` holds triples (id, first row of partials, rows). Blocks of 16 warps: x over these
// ids with stride gridDim.x, y over columns, 32 a block; each warp adds a sixteenth of the rows in order, and the first adds the warps' sums in order.
// Cost: 4 bytes read an element of the partials.
extern "C" __global__ void __launch_bounds__(512)
    embedding_frequent(const float4* partials, const unsigned* counts, const unsigned* frequent, unsigned most, unsigned vocab, unsigned partial_rows,
                       unsigned columns, unsigned accumulate, float4* dtable) {
    __shared__ float4 sums[16][32];
    const unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const unsigned c = blockIdx.y * 32 + lane;
    const unsigned count = min(counts[1], most);
    for (unsigned f = blockIdx.x; f < count; f += gridDim.x) {
        const unsigned id = frequent[3 * f], first = frequent[3 * f + 1], rows = frequent[3 * f + 2];
        const unsigned each = (rows + 15) / 16;
        const unsigned begin = min(first + warp * each, partial_rows);
        const unsigned end = min(min(first + (warp + 1) * each, first + rows), partial_rows);
        float4 sum = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        if (c < columns) {
#pragma unroll 8
            for (unsigned row = begin; row < end; row++) add(sum, partials[(size_t)row * columns + c]);
        }
        sums[warp][lane] = sum;
        __syncthreads();
        if (warp == 0 && c < columns && id < vocab) {
            float4* out = &dtable[(size_t)id * columns + c];
            float4 total = sums[0][lane];
            for (unsigned w = 1; w < 16; w++) add(total, sums[w][lane]);
            if (accumulate) {
                float4 before = *out;
                add(before, total);
                total = before;
            }
            *out = total;
        }
        __syncthreads();
    }
}
