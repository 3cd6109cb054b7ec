// target: sm_90a
// Backward of causal grouped-query attention with Hopper's tensor-core products of a warpgroup, for heads of 64 and 128; what the two kernels compute is as
// in backward_queries.cu and backward_keys.cu.
//
// A persistent grid, one block a multiprocessor, which takes tiles of rows (queries of a head, or keys of a head) in turn. Warps 0 and 1 of a block bring
// operands: bulk copies of the tile's own rows, and of what streams past it in steps of 64 rows through a ring of stages (keys and values, or queries and
// gradients of the output with their log-sum-exp and delta). Each further warpgroup owns 64 rows of the tile. All operands in shared memory are units of
// 64 rows of 64 columns, swizzled.
//
//   queries  s = q·kᵀ, dp = do·vᵀ, dq += ds·k                           6·head_dim·seq²/2 operations a head
//   keys     sᵀ = k·qᵀ, dpᵀ = v·doᵀ, dv += pᵀ·do, dk += dsᵀ·q           8·head_dim·seq²/2 operations a query head
//
// p and ds are operands from registers, since the rows of the result are rows of the tile. The exponentials run beside the second product, ds beside the
// third, and all that a warpgroup does on its own beside the products of the others. Rows behind a sequence's end are those of the next sequence: their
// probabilities are 0, and what is summed for them is not stored.
#include "attention.cuh"
#include "attention_wgmma.cuh"
#include "mbarrier.cuh"
#include "tma.cuh"
#include "wgmma.cuh"

constexpr int STEP = 64, UNIT = 64 * 128; // rows of a step; bytes of a unit

struct Arguments {
    const bf16 *o, *d_o;
    const float* lse;
    float* delta;
    const float *cosines, *sines;
    bf16* dqkv;
    int batch, seq, heads, kv_heads, section;
    float scale;
};

// Where things are in shared memory. `groups` warpgroups own rows; their rows are there `buffers` times, so that the next tile's can come early.
template <int D, int groups, int stages, int buffers>
struct Plan {
    static constexpr int units = D / 64, rows = 64 * groups, own_bytes = 2 * units * UNIT, stage_bytes = 2 * units * UNIT;
    static constexpr int registers = groups == 2 ? 232 : 160, producer_registers = groups == 2 ? 40 : 32;
    unsigned own_at, stage_at, values_at, full_at, empty_at, own_full_at, own_empty_at;

    __device__ __forceinline__ Plan() {
        DYNAMIC_SHARED(unsigned char, shared);
        own_at = shared_address(shared);
        stage_at = own_at + buffers * groups * own_bytes;
        values_at = stage_at + stages * stage_bytes;
        full_at = values_at + stages * 2 * STEP * 4;
        empty_at = full_at + stages * 8;
        own_full_at = empty_at + stages * 8;
        own_empty_at = own_full_at + buffers * groups * 8;
    }
    __device__ __forceinline__ void init(int arrivals) const {
        if (threadIdx.x == 0) {
            for (int i = 0; i < stages; i++) {
                mbarrier_init(full_at + 8 * i, arrivals);
                mbarrier_init(empty_at + 8 * i, 4 * groups);
            }
            for (int i = 0; i < buffers * groups; i++) {
                mbarrier_init(own_full_at + 8 * i, 1);
                mbarrier_init(own_empty_at + 8 * i, 4);
            }
            mbarrier_init_fence();
        }
        __syncthreads();
    }
    // A row of units.
    __device__ __forceinline__ void load(unsigned to, const TensorMap& map, unsigned barrier, int x, int y) const {
#pragma unroll
        for (int i = 0; i < units; i++) tma_load(to + i * UNIT, map, barrier, x + 64 * i, y);
    }
};

// A turn in a ring of `count`.
template <int count>
struct Ring {
    int at = 0;
    unsigned parity = 0;
    __device__ __forceinline__ void next() {
        if (++at == count) at = 0, parity ^= 1;
    }
};

// As `pick_tile`, by index.
__device__ __forceinline__ void pick(int index, int tiles, int heads, int section, int& tile, int& head) {
    int first = index / (section * tiles) * section, rest = index - first * tiles;
    int width = min(section, heads - first);
    tile = rest / width;
    head = first + rest % width;
}

__device__ __forceinline__ void release(unsigned barrier) {
    if (threadIdx.x % 32 == 0) mbarrier_arrive(barrier);
}

// d = a · bᵀ of two rows of units, by the descriptors of their first.
template <int D>
__device__ __forceinline__ void scores(float (&d)[32], unsigned long long a, unsigned long long b) {
#pragma unroll
    for (int i = 0; i < D / 16; i++) {
        constexpr int unit = UNIT / 16, further = 32 / 16; // descriptors count in 16 bytes
        wgmma_columns(d, a + i / 4 * unit + i % 4 * further, b + i / 4 * unit + i % 4 * further, i > 0);
    }
    wgmma_commit();
}
// d += a · b.
template <int N>
__device__ __forceinline__ void add_rows(float (&d)[N], const unsigned (&a)[4][4], unsigned long long b) {
#pragma unroll
    for (int i = 0; i < 4; i++) wgmma_rows_add(d, a[i], b + i * 16 * 128 / 16);
    wgmma_commit();
}

// Turns the gradient of 64 rotated rows back, of which this thread has position `first` and the eighth after it.
template <int D>
__device__ __forceinline__ void turn_back(float (&x)[D / 2], const float* cosines, const float* sines, int first, int positions) {
    constexpr int far = D / 4; // from an element to that of the other half of the head
    int lane = threadIdx.x % 32;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        int position = first + 8 * half;
        if (position >= positions) continue;
#pragma unroll
        for (int n = 0; n < D / 16; n++) {
            int at = position * (D / 2) + 8 * n + lane % 4 * 2, i = 4 * n + 2 * half;
            float2 c = *reinterpret_cast<const float2*>(cosines + at), s = *reinterpret_cast<const float2*>(sines + at);
            float a0 = x[i], a1 = x[i + 1], b0 = x[i + far], b1 = x[i + far + 1];
            x[i] = a0 * c.x + b0 * s.x;
            x[i + 1] = a1 * c.y + b1 * s.y;
            x[i + far] = b0 * c.x - a0 * s.x;
            x[i + far + 1] = b1 * c.y - a1 * s.y;
        }
    }
}

// Writes a warp's 16 rows, times `factor`, to rows `first..` of `matrix`, which has `rows`, by way of its rows of the units at `through`.
template <int D>
__device__ __forceinline__ void store_own(unsigned char* through, const float (&x)[D / 2], float factor, bf16* matrix, int stride, int first, int rows) {
    int lane = threadIdx.x % 32, own = threadIdx.x / 32 % 4 * 16;
#pragma unroll
    for (int n = 0; n < D / 8; n++) {
#pragma unroll
        for (int half = 0; half < 2; half++) {
            int row = own + 8 * half + lane / 4;
            *reinterpret_cast<unsigned*>(through + n / 8 * UNIT + row * 128 + (n % 8 ^ row % 8) * 16 + lane % 4 * 4) =
                pack_bf16(x[4 * n + 2 * half] * factor, x[4 * n + 2 * half + 1] * factor);
        }
    }
    __syncwarp();
#pragma unroll
    for (int i = 0; i < D / 16; i++) {
        int at = 32 * i + lane, row = own + at / (D / 8), chunk = at % (D / 8);
        if (first + row < rows)
            *reinterpret_cast<uint4*>(matrix + (size_t)(first + row) * stride + chunk * 8) =
                *reinterpret_cast<const uint4*>(through + chunk / 8 * UNIT + row * 128 + (chunk % 8 ^ row % 8) * 16);
    }
}

// The part of eight columns' dot product that this lane has loaded.
__device__ __forceinline__ float dot8(uint4 a, uint4 b) {
    return low_f32(a.x) * low_f32(b.x) + high_f32(a.x) * high_f32(b.x) + low_f32(a.y) * low_f32(b.y) + high_f32(a.y) * high_f32(b.y) +
           low_f32(a.z) * low_f32(b.z) + high_f32(a.z) * high_f32(b.z) + low_f32(a.w) * low_f32(b.w) + high_f32(a.w) * high_f32(b.w);
}

template <int D, int groups, int stages, int buffers>
__device__ __forceinline__ void query_gradients(const TensorMap& qkv, const TensorMap& d_o, const Arguments& args) {
    const Plan<D, groups, stages, buffers> plan;
    plan.init(1);
    const int seq = args.seq, heads = args.heads, kv_heads = args.kv_heads;
    const int tiles = (seq + plan.rows - 1) / plan.rows, total = tiles * args.batch * heads;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    Ring<stages> ring;
    Ring<buffers> own;
    // The same in all threads of a warp, which the compiler does not see by itself.
    const int group = __shfl_sync(0xffffffffu, warp / 4, 0) - 1;

    if (group < 0) {
        give_registers<plan.producer_registers>();
        if (threadIdx.x != 0) return;
        for (int index = blockIdx.x; index < total; index += gridDim.x, own.next()) {
            int tile, which;
            pick(index, tiles, args.batch * heads, args.section, tile, which);
            int sequence = which / heads, head = which % heads, kv_head = head / (heads / kv_heads), first = (tiles - 1 - tile) * plan.rows;
#pragma unroll
            for (int g = 0; g < groups; g++) {
                unsigned at = own.at * groups + g, to = plan.own_at + at * plan.own_bytes, barrier = plan.own_full_at + 8 * at;
                mbarrier_wait(plan.own_empty_at + 8 * at, own.parity ^ 1);
                mbarrier_arrive_expect(barrier, plan.own_bytes);
                plan.load(to, qkv, barrier, head * D, sequence * seq + first + 64 * g);
                plan.load(to + plan.units * UNIT, d_o, barrier, head * D, sequence * seq + first + 64 * g);
            }
#pragma unroll 1
            for (int key = 0, end = min(first + plan.rows, seq); key < end; key += STEP, ring.next()) {
                unsigned to = plan.stage_at + ring.at * plan.stage_bytes, barrier = plan.full_at + 8 * ring.at;
                mbarrier_wait(plan.empty_at + 8 * ring.at, ring.parity ^ 1);
                mbarrier_arrive_expect(barrier, plan.stage_bytes);
                plan.load(to, qkv, barrier, (heads + kv_head) * D, sequence * seq + key);
                plan.load(to + plan.units * UNIT, qkv, barrier, (heads + kv_heads + kv_head) * D, sequence * seq + key);
            }
        }
        return;
    }

    take_registers<plan.registers>();
    constexpr int further = plan.units * UNIT / 16; // in descriptors, from queries (keys) to gradients (values)
    const float to_log2 = args.scale * LOG2_E;
    for (int index = blockIdx.x; index < total; index += gridDim.x, own.next()) {
        int tile, which;
        pick(index, tiles, args.batch * heads, args.section, tile, which);
        int sequence = which / heads, head = which % heads, first = (tiles - 1 - tile) * plan.rows, group_first = first + 64 * group;
        int row = group_first + warp % 4 * 16 + lane / 4; // and row + 8

        float shift[2], middle[2];
#pragma unroll
        for (int half = 0; half < 2; half++) {
            int at = row + 8 * half;
            float dot = 0.0f;
            shift[half] = 0.0f;
            if (at < seq) {
                shift[half] = args.lse[(size_t)which * seq + at] * LOG2_E;
                size_t begin = ((size_t)(sequence * seq + at) * heads + head) * D + lane % 4 * 8;
#pragma unroll
                for (int i = 0; i < D / 32; i++)
                    dot += dot8(*reinterpret_cast<const uint4*>(args.o + begin + 32 * i), *reinterpret_cast<const uint4*>(args.d_o + begin + 32 * i));
            }
            dot += __shfl_xor_sync(0xffffffffu, dot, 1);
            dot += __shfl_xor_sync(0xffffffffu, dot, 2);
            middle[half] = dot;
            if (lane % 4 == 0 && at < seq) args.delta[(size_t)which * seq + at] = dot;
        }

        float sums[D / 2];
#pragma unroll
        for (int i = 0; i < D / 2; i++) sums[i] = 0.0f;
        unsigned own_barrier = own.at * groups + group, own_at = plan.own_at + own_barrier * plan.own_bytes;
        mbarrier_wait(plan.own_full_at + 8 * own_barrier, own.parity);
        int previous = -1;
#pragma unroll 1
        for (int key = 0, end = min(first + plan.rows, seq); key < end; key += STEP, ring.next()) {
            mbarrier_wait(plan.full_at + 8 * ring.at, ring.parity);
            if (key > group_first + 63 || group_first >= seq) { // nothing that these queries see, or no queries
                release(plan.empty_at + 8 * ring.at);
                continue;
            }
            unsigned stage = plan.stage_at + ring.at * plan.stage_bytes;
            float p[32], dp[32];
            wgmma_fence();
            const unsigned long long other = wgmma_rows(stage, UNIT), mine = wgmma_rows(own_at, UNIT);
            scores<D>(p, mine, other);
            scores<D>(dp, mine + further, other + further);
            wgmma_wait<1>(); // the scores, and the step before
            wgmma_settle(p);
            if (previous >= 0) release(plan.empty_at + 8 * previous);
            previous = ring.at;
            if (key + STEP - 1 > group_first) {
#pragma unroll
                for (int i = 0; i < 32; i++)
                    if (key + i / 4 * 8 + lane % 4 * 2 + i % 2 > row + i / 2 % 2 * 8) p[i] = -INFINITE;
            }
#pragma unroll
            for (int i = 0; i < 32; i++) p[i] = exp2_fast(fmaf(p[i], to_log2, -shift[i / 2 % 2]));
            wgmma_wait<0>();
            wgmma_settle(dp);
            unsigned ds[4][4];
#pragma unroll
            for (int i = 0; i < 32; i += 2) {
                float x = middle[i / 2 % 2];
                ds[i / 8][i / 2 % 4] = pack_bf16(p[i] * (dp[i] - x), p[i + 1] * (dp[i + 1] - x));
            }
            wgmma_fence();
            add_rows(sums, ds, other);
        }
        wgmma_wait<0>();
        wgmma_settle(sums);
        if (previous >= 0) release(plan.empty_at + 8 * previous);

        if (group_first < seq) {
            if (args.cosines != nullptr) turn_back<D>(sums, args.cosines, args.sines, row, seq);
            named_sync(1 + group, 128); // all warps' products have read the rows
            DYNAMIC_SHARED(unsigned char, shared);
            int stride = (heads + 2 * kv_heads) * D;
            store_own<D>(shared + (own_at - plan.own_at), sums, args.scale, args.dqkv + (size_t)sequence * seq * stride + head * D, stride, group_first, seq);
        }
        fence_async_shared();
        __syncwarp();
        release(plan.own_empty_at + 8 * own_barrier);
    }
}

template <int D, int groups, int stages, int buffers>
__device__ __forceinline__ void key_gradients(const TensorMap& qkv, const TensorMap& d_o, const Arguments& args) {
    const Plan<D, groups, stages, buffers> plan;
    plan.init(2);
    DYNAMIC_SHARED(unsigned char, shared);
    float* values = reinterpret_cast<float*>(shared + (plan.values_at - plan.own_at)); // [stages][64 lse, 64 delta]
    const int seq = args.seq, heads = args.heads, kv_heads = args.kv_heads, ratio = heads / kv_heads;
    const int tiles = (seq + plan.rows - 1) / plan.rows, total = tiles * args.batch * kv_heads;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    Ring<stages> ring;
    Ring<buffers> own;
    const int group = __shfl_sync(0xffffffffu, warp / 4, 0) - 1;

    if (group < 0) {
        give_registers<plan.producer_registers>();
        if (warp > 1 || (warp == 0 && lane != 0)) return;
        for (int index = blockIdx.x; index < total; index += gridDim.x, own.next()) {
            int tile, which;
            pick(index, tiles, args.batch * kv_heads, args.section, tile, which);
            int sequence = which / kv_heads, kv_head = which % kv_heads, first = tile * plan.rows;
            if (warp == 0) {
#pragma unroll
                for (int g = 0; g < groups; g++) {
                    unsigned at = own.at * groups + g, to = plan.own_at + at * plan.own_bytes, barrier = plan.own_full_at + 8 * at;
                    mbarrier_wait(plan.own_empty_at + 8 * at, own.parity ^ 1);
                    mbarrier_arrive_expect(barrier, plan.own_bytes);
                    plan.load(to, qkv, barrier, (heads + kv_head) * D, sequence * seq + first + 64 * g);
                    plan.load(to + plan.units * UNIT, qkv, barrier, (heads + kv_heads + kv_head) * D, sequence * seq + first + 64 * g);
                }
            }
#pragma unroll 1
            for (int head = kv_head * ratio; head < (kv_head + 1) * ratio; head++) {
#pragma unroll 1
                for (int query = first; query < seq; query += STEP, ring.next()) {
                    unsigned to = plan.stage_at + ring.at * plan.stage_bytes, barrier = plan.full_at + 8 * ring.at;
                    mbarrier_wait(plan.empty_at + 8 * ring.at, ring.parity ^ 1);
                    if (warp == 0) {
                        mbarrier_arrive_expect(barrier, plan.stage_bytes);
                        plan.load(to, qkv, barrier, head * D, sequence * seq + query);
                        plan.load(to + plan.units * UNIT, d_o, barrier, head * D, sequence * seq + query);
                    } else {
                        // Log-sum-exp in powers of two; behind the end all probabilities become 0.
                        size_t at = (size_t)(sequence * heads + head) * seq + query;
                        bool here = query + lane < seq, there = query + 32 + lane < seq;
                        float l0 = here ? args.lse[at + lane] * LOG2_E : INFINITE, l1 = there ? args.lse[at + 32 + lane] * LOG2_E : INFINITE;
                        float d0 = here ? args.delta[at + lane] : 0.0f, d1 = there ? args.delta[at + 32 + lane] : 0.0f;
                        float* line = values + ring.at * 2 * STEP + lane;
                        line[0] = l0, line[32] = l1, line[64] = d0, line[96] = d1;
                        __syncwarp();
                        release(barrier);
                    }
                }
            }
        }
        return;
    }

    take_registers<plan.registers>();
    constexpr int further = plan.units * UNIT / 16; // in descriptors, from queries (keys) to gradients (values)
    const float to_log2 = args.scale * LOG2_E;
    for (int index = blockIdx.x; index < total; index += gridDim.x, own.next()) {
        int tile, which;
        pick(index, tiles, args.batch * kv_heads, args.section, tile, which);
        int sequence = which / kv_heads, kv_head = which % kv_heads, first = tile * plan.rows, group_first = first + 64 * group;
        int row = group_first + warp % 4 * 16 + lane / 4;

        float dk[D / 2], dv[D / 2];
#pragma unroll
        for (int i = 0; i < D / 2; i++) dk[i] = dv[i] = 0.0f;
        unsigned own_barrier = own.at * groups + group, own_at = plan.own_at + own_barrier * plan.own_bytes;
        mbarrier_wait(plan.own_full_at + 8 * own_barrier, own.parity);
        int previous = -1, steps = (seq - first + STEP - 1) / STEP, left = steps * ratio, query = first;
#pragma unroll 1
        for (; left > 0; left--, ring.next()) {
            int here = query;
            query = query + STEP < seq ? query + STEP : first;
            mbarrier_wait(plan.full_at + 8 * ring.at, ring.parity);
            if (here + 63 < group_first || group_first >= seq) { // these queries do not see these keys, or there are none
                release(plan.empty_at + 8 * ring.at);
                continue;
            }
            unsigned stage = plan.stage_at + ring.at * plan.stage_bytes;
            const float* line = values + ring.at * 2 * STEP + lane % 4 * 2;
            float x[32], dp[32];
            wgmma_fence();
            const unsigned long long other = wgmma_rows(stage, UNIT), mine = wgmma_rows(own_at, UNIT);
            scores<D>(x, mine, other);
            scores<D>(dp, mine + further, other + further);
            wgmma_wait<1>(); // the scores, and the step before
            wgmma_settle(x);
            if (previous >= 0) release(plan.empty_at + 8 * previous);
            previous = ring.at;
            if (here < group_first + 63) {
#pragma unroll
                for (int i = 0; i < 32; i++)
                    if (here + i / 4 * 8 + lane % 4 * 2 + i % 2 < row + i / 2 % 2 * 8) x[i] = -INFINITE;
            }
            unsigned p[4][4], ds[4][4];
#pragma unroll
            for (int n = 0; n < 8; n++) {
                float2 shift = *reinterpret_cast<const float2*>(line + 8 * n);
#pragma unroll
                for (int e = 0; e < 4; e++) {
                    float& y = x[4 * n + e];
                    y = exp2_fast(fmaf(y, to_log2, -(e % 2 ? shift.y : shift.x)));
                }
                p[n / 2][n % 2 * 2] = pack_bf16(x[4 * n], x[4 * n + 1]);
                p[n / 2][n % 2 * 2 + 1] = pack_bf16(x[4 * n + 2], x[4 * n + 3]);
            }
            wgmma_fence();
            add_rows(dv, p, other + further);
            wgmma_wait<1>();
            wgmma_settle(dp);
#pragma unroll
            for (int n = 0; n < 8; n++) {
                float2 middle = *reinterpret_cast<const float2*>(line + STEP + 8 * n);
#pragma unroll
                for (int half = 0; half < 2; half++) {
                    int i = 4 * n + 2 * half;
                    unsigned packed = p[n / 2][n % 2 * 2 + half];
                    float first_p = D == 64 ? x[i] : low_f32(packed), second_p = D == 64 ? x[i + 1] : high_f32(packed); // as registers allow
                    ds[n / 2][n % 2 * 2 + half] = pack_bf16(first_p * (dp[i] - middle.x), second_p * (dp[i + 1] - middle.y));
                }
            }
            wgmma_fence();
            add_rows(dk, ds, other);
            if (D == 128) wgmma_wait<0>(); // the registers of the operands are needed for the next scores
        }
        wgmma_wait<0>();
        wgmma_settle(dk);
        wgmma_settle(dv);
        if (previous >= 0) release(plan.empty_at + 8 * previous);

        if (group_first < seq) {
            if (args.cosines != nullptr) turn_back<D>(dk, args.cosines, args.sines, row, seq);
            named_sync(1 + group, 128); // all warps' products have read the rows
            unsigned char* through = shared + (own_at - plan.own_at);
            int stride = (heads + 2 * kv_heads) * D;
            bf16* to = args.dqkv + (size_t)sequence * seq * stride + (heads + kv_head) * D;
            store_own<D>(through, dk, args.scale, to, stride, group_first, seq);
            store_own<D>(through + plan.units * UNIT, dv, 1.0f, to + kv_heads * D, stride, group_first, seq);
        }
        fence_async_shared();
        __syncwarp();
        release(plan.own_empty_at + 8 * own_barrier);
    }
}

#define BACKWARD(name, function, D, GROUPS, STAGES, BUFFERS)                                                                                                \
    extern "C" __global__ void __launch_bounds__(128 * (GROUPS + 1), 1) name(                                                                              \
        const __grid_constant__ TensorMap qkv, const __grid_constant__ TensorMap d_o, const bf16* o, const bf16* gradient, const float* lse, float* delta, \
        const float* cosines, const float* sines, bf16* dqkv, unsigned batch, unsigned seq, unsigned heads, unsigned kv_heads, unsigned section,           \
        float scale) {                                                                                                                                     \
        Arguments args = {o, gradient, lse, delta, cosines, sines, dqkv, (int)batch, (int)seq, (int)heads, (int)kv_heads, (int)section, scale};            \
        function<D, GROUPS, STAGES, BUFFERS>(qkv, d_o, args);                                                                                              \
    }
BACKWARD(attention_queries_wgmma_64, query_gradients, 64, 3, 4, 2)
BACKWARD(attention_queries_wgmma_128, query_gradients, 128, 2, 4, 1)
BACKWARD(attention_keys_wgmma_64, key_gradients, 64, 2, 4, 2)
BACKWARD(attention_keys_wgmma_128, key_gradients, 128, 2, 4, 1)
