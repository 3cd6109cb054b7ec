// target: sm_90a
// Backward of causal grouped-query attention on Hopper, the part that belongs to keys and values, for heads of 64 and 128: dk and dv, as in backward_keys.cu.
// How blocks go about it is told in attention_backward_wgmma.cuh.
//
// sᵀ = k·qᵀ, dpᵀ = v·doᵀ, dv += pᵀ·do, dk += dsᵀ·q: 8·head_dim·seq²/2 operations a query head. Queries and gradients of the output stream, with their
// log-sum-exp and delta, which warp 1 brings, once for every 128 keys.
#include "attention_backward_wgmma.cuh"

template <int D, int groups, int stages, int buffers>
__device__ __forceinline__ void key_gradients(const TensorMap& qkv, const TensorMap& d_o, const Arguments& args) {
    const Plan<D, groups, stages, buffers> plan;
    plan.init(2);
    DYNAMIC_SHARED(unsigned char, shared);
    float* values = reinterpret_cast<float*>(shared + (plan.values_at - plan.own_at)); // [stages][64 lse, 64 delta]
    const int seq = args.seq, heads = args.heads, kv_heads = args.kv_heads, ratio = heads / kv_heads;
    const int tiles = (seq + plan.rows - 1) / plan.rows;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    Ring<stages> ring;
    Ring<buffers> own;
    const int group = __shfl_sync(0xffffffffu, warp / 4, 0) - 1;

    if (group < 0) {
        give_registers<plan.producer_registers>();
        if (warp > 1 || (warp == 0 && lane != 0)) return;
        int tile, which;
        for (int turn = 0; take_tile(turn, tiles, args.batch * kv_heads, args.section, args.order, tile, which); turn++, own.next()) {
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
                    unsigned to = plan.stage_at + ring.at * plan.stage_bytes, barrier = plan.full_at + 8 * ring.at, empty = plan.empty_at + 8 * ring.at;
                    if (warp == 0) {
                        mbarrier_wait(empty, ring.parity ^ 1);
                        mbarrier_arrive_expect(barrier, plan.stage_bytes);
                        plan.load(to, qkv, barrier, head * D, sequence * seq + query);
                        plan.load(to + plan.units * UNIT, d_o, barrier, head * D, sequence * seq + query);
                    } else {
                        // Log-sum-exp in powers of two; behind the end all probabilities become 0. Loaded while the step before is still in their place.
                        size_t at = (size_t)(sequence * heads + head) * seq + query;
                        bool here = query + lane < seq, there = query + 32 + lane < seq;
                        float l0 = here ? args.lse[at + lane] * LOG2_E : INFINITE, l1 = there ? args.lse[at + 32 + lane] * LOG2_E : INFINITE;
                        float d0 = here ? args.delta[at + lane] : 0.0f, d1 = there ? args.delta[at + 32 + lane] : 0.0f;
                        mbarrier_wait(empty, ring.parity ^ 1);
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
    int tile, which;
    for (int turn = 0; take_tile(turn, tiles, args.batch * kv_heads, args.section, args.order, tile, which); turn++, own.next()) {
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

BACKWARD(attention_keys_wgmma_64, key_gradients, 64, 2, 4, 2)
BACKWARD(attention_keys_wgmma_128, key_gradients, 128, 2, 4, 1)
