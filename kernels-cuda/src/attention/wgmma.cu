// target: sm_90a
// Causal grouped-query attention, forward, with Hopper's tensor-core products of a warpgroup; what is computed, and what is read and written, is as in
// forward.cu.
//
// A block has 128 queries of a head, each of its two warpgroups 64 of them, a thread parts of two rows. Keys and values come in steps of 64, two of which
// are in shared memory, as are the queries; probabilities are in registers. A warpgroup waits for its own products; two blocks on a multiprocessor, which
// 128 registers a thread allow, are four warpgroups, so that the exponentials of some run beside the products of others.
//
// Queries are not kept in registers, though for heads of 64 they would fit: ptxas 13.0 takes the registers of an operand A to be free after a product, even
// if the next step has the same operand again, and gave them to the probabilities. An operand A in registers must be new for each product.
#include "attention.cuh"
#include "attention_wgmma.cuh"

constexpr int QUERIES = 128, KEYS = 64, THREADS = 256;

// As `load_tile`, in parts of 64 columns.
template <int D, int ROWS>
__device__ __forceinline__ void load_parts(bf16* tile, const bf16* matrix, int stride, int first, int rows, int columns) {
    constexpr int chunks = D / 8, step = THREADS / chunks;
    int row = threadIdx.x / chunks, chunk = threadIdx.x % chunks, at = (first + row) * stride + chunk * 8;
    int there = chunk * 8 < columns ? rows - first - row : 0;
    bf16* to = tile + chunk / 8 * ROWS * 64 + tile_at<64>(row, chunk % 8);
    static_assert(step % 8 == 0, "a thread's rows have their chunks in the same order");
#pragma unroll
    for (int i = 0; i < ROWS / step; i++, at += step * stride) {
        bool valid = i * step < there;
        copy_async16(to + i * step * 64, matrix + (valid ? at : 0), valid);
    }
}

template <int D>
__device__ __forceinline__ void attend(const bf16* __restrict__ qkv, bf16* __restrict__ o, float* __restrict__ lse, int batch, int seq, int heads, int kv_heads,
                                       int head_dim, int section, float scale) {
    DYNAMIC_SHARED(bf16, queries);
    bf16* keys = queries + QUERIES * D;
    bf16* values = keys + 2 * KEYS * D;
    __shared__ int head_of_block; // for the end: in a register it, or what follows from it, would be spilled

    int tiles = (seq + QUERIES - 1) / QUERIES, tile, which;
    pick_tile(tiles, batch * heads, section, tile, which);
    tile = tiles - 1 - tile; // the last queries see the most keys
    int sequence = which / heads, head = which % heads, kv_head = head / (heads / kv_heads);
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, first = tile * QUERIES;
    if (threadIdx.x == 0) head_of_block = which;
    // The same in all threads of a warp, which the compiler does not see by itself.
    int group = __shfl_sync(0xffffffffu, warp / 4, 0), group_first = first + 64 * group;
    int row = first + 16 * warp + lane / 4; // and row + 8

    int stride = (heads + 2 * kv_heads) * head_dim;
    const bf16* q = qkv + (size_t)sequence * seq * stride + head * head_dim;
    const bf16* k = qkv + (size_t)sequence * seq * stride + (heads + kv_head) * head_dim;
    int to_values = kv_heads * head_dim;
    load_parts<D, QUERIES>(queries, q, stride, first, seq, head_dim);
    load_parts<D, KEYS>(keys, k, stride, 0, seq, head_dim);
    load_parts<D, KEYS>(values, k + to_values, stride, 0, seq, head_dim);
    copy_async_commit();

    float sums[D / 2], most[2] = {-1e30f, -1e30f}, total[2] = {0.0f, 0.0f}; // maxima in powers of two
#pragma unroll
    for (int i = 0; i < D / 2; i++) sums[i] = 0.0f;
    const float to_log2 = scale * LOG2_E;

    const int end = min(first + QUERIES, seq);
    int stage = 0;
#pragma unroll 1
    for (int key = 0; key < end; key += KEYS, stage ^= 1) {
        copy_async_wait<0>();
        wgmma_publish();
        __syncthreads();
        if (key + KEYS < end) {
            int other = (stage ^ 1) * KEYS * D;
            load_parts<D, KEYS>(keys + other, k, stride, key + KEYS, seq, head_dim);
            load_parts<D, KEYS>(values + other, k + to_values, stride, key + KEYS, seq, head_dim);
            copy_async_commit();
        }
        if (key > group_first + 63 || group_first >= seq) continue; // nothing that these queries see, or no queries

        float scores[KEYS / 2];
        unsigned q_at = shared_address(queries) + group * 64 * 128, k_at = shared_address(keys) + stage * KEYS * D * 2;
        wgmma_begin();
#pragma unroll
        for (int i = 0; i < D / 16; i++) {
            unsigned long long b = wgmma_rows(k_at + i / 4 * KEYS * 128 + i % 4 * 32, 16);
            wgmma_columns(scores, wgmma_rows(q_at + i / 4 * QUERIES * 128 + i % 4 * 32, 16), b, i > 0);
        }
        wgmma_finish(scores);

        if (key + KEYS - 1 > group_first) {
#pragma unroll
            for (int i = 0; i < KEYS / 2; i++)
                if (key + i / 4 * 8 + lane % 4 * 2 + i % 2 > row + i / 2 % 2 * 8) scores[i] = -INFINITE;
        }
        float largest[2];
        bool raise = false;
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float x = scores[2 * half];
#pragma unroll
            for (int i = 2 * half; i < KEYS / 2; i += 4) x = fmaxf(fmaxf(x, scores[i]), scores[i + 1]);
            largest[half] = x;
            raise |= x * to_log2 > most[half] + 8.0f;
        }
        if (__any_sync(0xffffffffu, raise)) {
#pragma unroll
            for (int half = 0; half < 2; half++) {
                float x = fmaxf(largest[half], __shfl_xor_sync(0xffffffffu, largest[half], 1));
                x = fmaxf(fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 2)) * to_log2, most[half]);
                float factor = exp2_fast(most[half] - x);
                most[half] = x;
                total[half] *= factor;
#pragma unroll
                for (int i = 2 * half; i < D / 2; i += 4) sums[i] *= factor, sums[i + 1] *= factor;
            }
        }
        unsigned probabilities[KEYS / 16][4];
#pragma unroll
        for (int i = 0; i < KEYS / 2; i += 2) {
            int half = i / 2 % 2;
            float x = exp2_fast(fmaf(scores[i], to_log2, -most[half])), y = exp2_fast(fmaf(scores[i + 1], to_log2, -most[half]));
            total[half] += x + y;
            probabilities[i / 8][i / 2 % 4] = pack_bf16(x, y);
        }
        unsigned v_at = shared_address(values) + stage * KEYS * D * 2;
        wgmma_begin();
#pragma unroll
        for (int i = 0; i < KEYS / 16; i++) wgmma_rows_add(sums, probabilities[i], wgmma_rows(v_at + i * 16 * 128, KEYS * 128));
        wgmma_finish(sums);
    }

    if (first + 16 * warp >= seq) return;
    which = head_of_block, sequence = which / heads, head = which % heads;
    int o_stride = heads * head_dim;
    bf16* out = o + (size_t)sequence * seq * o_stride + head * head_dim;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        float x = total[half] + __shfl_xor_sync(0xffffffffu, total[half], 1);
        x += __shfl_xor_sync(0xffffffffu, x, 2);
        int at = row + 8 * half;
        if (lane % 4 == 0 && at < seq) lse[(size_t)which * seq + at] = most[half] * LN_2 + logf(x);
        float inverse = 1.0f / x;
#pragma unroll
        for (int n = 0; n < D / 8; n++)
            if (at < seq && 8 * n < head_dim)
                *reinterpret_cast<unsigned*>(out + at * o_stride + 8 * n + lane % 4 * 2) =
                    pack_bf16(sums[4 * n + 2 * half] * inverse, sums[4 * n + 2 * half + 1] * inverse);
    }
}

#define ATTENTION(D)                                                                                                                            \
    extern "C" __global__ void __launch_bounds__(THREADS, 2) attention_wgmma_##D(const bf16* qkv, bf16* o, float* lse, unsigned batch, unsigned seq,   \
                                                                                 unsigned heads, unsigned kv_heads, unsigned head_dim, unsigned section, \
                                                                                 float scale) {                                                       \
        attend<D>(qkv, o, lse, batch, seq, heads, kv_heads, head_dim, section, scale);                                                          \
    }
ATTENTION(64)
ATTENTION(128)
