// target: sm_90a
// Backward of causal grouped-query attention on Hopper, the part that belongs to queries, for heads of 64 and 128: delta and dq, as in backward_queries.cu.
// How blocks go about it is told in attention_backward_wgmma.cuh.
//
// s = q·kᵀ, dp = do·vᵀ, dq += ds·k: 6·head_dim·seq²/2 operations a head. Keys and values stream, once for every 192 queries (128 for heads of 128).
#include "attention_backward_wgmma.cuh"

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
    const int tiles = (seq + plan.rows - 1) / plan.rows;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    Ring<stages> ring;
    Ring<buffers> own;
    // The same in all threads of a warp, which the compiler does not see by itself.
    const int group = __shfl_sync(0xffffffffu, warp / 4, 0) - 1;

    if (group < 0) {
        give_registers<plan.producer_registers>();
        if (threadIdx.x != 0) return;
        int tile, which;
        for (int turn = 0; take_tile(turn, tiles, args.batch * heads, args.section, args.order, tile, which); turn++, own.next()) {
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
    int tile, which;
    for (int turn = 0; take_tile(turn, tiles, args.batch * heads, args.section, args.order, tile, which); turn++, own.next()) {
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

BACKWARD(attention_queries_wgmma_64, query_gradients, 64, 3, 4, 2)
BACKWARD(attention_queries_wgmma_128, query_gradients, 128, 2, 4, 1)
