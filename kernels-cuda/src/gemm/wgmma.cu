// target: sm_90a
// C [m,n] = sum over k of A . B, times alpha, row_scale [m], col_scale [n]: bf16 (three layouts) or int8 (both operands with k contiguous), on Hopper.
//
// Cost: 2 m n k operations; a tile of 128 x 256 (128) needs 48 (32) KB of operands for each 128 bytes of k, a third of which comes with the other block's copy.
//
// A persistent grid of clusters of two blocks, one block a multiprocessor. A cluster takes two tiles of C, one below the other, so both blocks need the same
// columns of B: each loads half of them and sends it to both. Tiles go by groups of `group_pairs` pairs of rows, and within a group column by column,
// so that what is in progress at a time shares rows of A and columns of B in the L2 cache.
//
// A block has three warpgroups. Warp 0 of the first is the producer: one thread asks for copies into a ring of stages in shared memory, each of which is
// 128 bytes of k of the block's A and B. A stage has a barrier `full` (its bytes have come) and one `empty` (the consumers of both blocks are done with it:
// both, because a copy writes into both). The other two warpgroups multiply:
//   cooperative  a tile of 128 x 256, each half of its rows. Fewest bytes a product; nothing is multiplied while C is stored, which long k makes up for.
//   ping-pong    tiles of 128 x 128 in turns: one multiplies while the other stores its tile.
//
// C leaves by way of shared memory: a warp puts 16 rows of 128 bytes there and asks for a bulk copy, which cuts off what lies outside of C and which also
// does the addition where C is added to. (An element gets one addition a launch, so there is no order that could change the result.)
//
// Split-K: tiles are counted once for each split, and a split's sums go to its own rows of a workspace, f32 for bf16 and i32 for int8.
#include "mbarrier.cuh"
#include "tma.cuh"
#include "wgmma.cuh"
#include "bf16.cuh"

constexpr unsigned group_pairs = 8;
constexpr unsigned tile_m = 128;
constexpr unsigned consumer_warps = 8;
// Bytes of a warp's part of C on its way out, of which there are two.
constexpr unsigned box_bytes = 16 * 128;

enum Output { BF16, F32, ADD_F32, PARTIAL };

struct Arguments {
    const float* row_scale;
    const float* col_scale;
    float alpha;
    unsigned m, n, k, splits, partial_rows, output;
};

struct Tile {
    unsigned row, col;      // of this block's tile, in elements
    unsigned first, end;    // of k, in stages
    unsigned out_row;       // where `row` goes
};

// Rounds of the ring: which stage, and the parity of the phase of its `full` barrier.
template <unsigned stages>
struct Ring {
    unsigned stage = 0, parity = 0;
    __device__ __forceinline__ void next() {
        if (++stage == stages) stage = 0, parity ^= 1;
    }
    __device__ __forceinline__ void skip(unsigned count) {
        stage += count;
        parity ^= (stage / stages) & 1;
        stage %= stages;
    }
};

template <bool pingpong, typename Sum, int a_mn, int b_mn>
struct Gemm {
    static constexpr unsigned tile_n = pingpong ? 128 : 256;
    static constexpr unsigned stages = pingpong ? 6 : 4;
    // Elements of 128 bytes of k.
    static constexpr unsigned block_k = Sum(0.5f) == Sum(0) ? 128 : 64;
    static constexpr unsigned a_bytes = tile_m * 128, b_bytes = tile_n * 128, stage_bytes = a_bytes + b_bytes;
    // Products of 64 rows that a warpgroup has under way.
    static constexpr unsigned parts = pingpong ? 2 : 1;

    const TensorMap &a, &b, &c;
    const Arguments& args;
    unsigned stage_at, boxes_at, full_at, empty_at;
    unsigned rank, cluster, clusters, columns, pairs, tiles, blocks_k;

    __device__ __forceinline__ Gemm(const TensorMap& a, const TensorMap& b, const TensorMap& c, const Arguments& args) : a(a), b(b), c(c), args(args) {
        DYNAMIC_SHARED(unsigned char, shared);
        stage_at = shared_address(shared);
        boxes_at = stage_at + stages * stage_bytes;
        full_at = boxes_at + consumer_warps * 2 * box_bytes;
        empty_at = full_at + stages * 8;
        rank = cluster_rank();
        cluster = blockIdx.x / 2;
        clusters = gridDim.x / 2;
        columns = (args.n + tile_n - 1) / tile_n;
        pairs = (args.m + 2 * tile_m - 1) / (2 * tile_m);
        tiles = columns * pairs * args.splits;
        blocks_k = (args.k + block_k - 1) / block_k;
    }

    __device__ __forceinline__ Tile tile(unsigned index) const {
        unsigned split = index / (columns * pairs), rest = index % (columns * pairs);
        unsigned first_pair = rest / (group_pairs * columns) * group_pairs, inner = rest % (group_pairs * columns);
        unsigned group = min(group_pairs, pairs - first_pair);
        Tile t;
        t.row = ((first_pair + inner % group) * 2 + rank) * tile_m;
        t.col = inner / group * tile_n;
        t.first = blocks_k * split / args.splits;
        t.end = blocks_k * (split + 1) / args.splits;
        t.out_row = split * args.partial_rows + t.row;
        return t;
    }

    __device__ __forceinline__ void init() const {
        if (threadIdx.x == 0) {
            tma_prefetch(a);
            tma_prefetch(b);
            tma_prefetch(c);
            for (unsigned s = 0; s < stages; s++) {
                mbarrier_init(full_at + 8 * s, 1);
                // A warp of each warpgroup that reads the stage, of both blocks.
                mbarrier_init(empty_at + 8 * s, 2 * (pingpong ? 4 : 8));
            }
            mbarrier_init_fence();
        }
        __syncwarp();
        cluster_sync();
    }

    // One thread.
    __device__ __forceinline__ void produce() const {
        constexpr unsigned short both = 3;
        Ring<stages> ring;
        for (unsigned index = cluster; index < tiles; index += clusters) {
            const Tile t = tile(index);
            for (unsigned block = t.first; block < t.end; block++, ring.next()) {
                // The phase before the first counts as over.
                mbarrier_wait(empty_at + 8 * ring.stage, ring.parity ^ 1);
                const unsigned full = full_at + 8 * ring.stage, a_at = stage_at + ring.stage * stage_bytes, b_at = a_at + a_bytes;
                mbarrier_arrive_expect(full, stage_bytes);
                if (a_mn) {
#pragma unroll
                    for (unsigned part = 0; part < tile_m / 64; part++) tma_load(a_at + part * 8192, a, full, t.row + part * 64, block * block_k);
                } else {
                    tma_load(a_at, a, full, block * block_k, t.row);
                }
                if (b_mn) {
#pragma unroll
                    for (unsigned i = 0; i < tile_n / 128; i++) {
                        const unsigned part = rank * (tile_n / 128) + i;
                        tma_load_multicast(b_at + part * 8192, b, full, t.col + part * 64, block * block_k, both);
                    }
                } else {
                    tma_load_multicast(b_at + rank * (b_bytes / 2), b, full, block * block_k, t.col + rank * (tile_n / 2), both);
                }
            }
        }
    }

    // Tells the producers of both blocks that this warp has read a stage.
    __device__ __forceinline__ void release(unsigned stage) const {
        const unsigned lane = threadIdx.x % 32;
        if (lane < 2) mbarrier_arrive_at(empty_at + 8 * stage, lane);
    }

    // d = A . B over the k of a tile. `row`: the first of the rows of A that are this warpgroup's. `next`, if not 0: a named barrier at which to arrive when
    // the last products are on their way, because others may line up behind them.
    __device__ __forceinline__ void multiply(Sum (&d)[parts][tile_n / 2], unsigned row, const Tile& t, Ring<stages>& ring, unsigned next) const {
        unsigned previous = 0;
        for (unsigned block = t.first; block < t.end; block++) {
            mbarrier_wait(full_at + 8 * ring.stage, ring.parity);
            // 64 rows of A are 8192 bytes either way.
            const unsigned at = stage_at + ring.stage * stage_bytes;
            const unsigned long long a_first = a_mn ? wgmma_operand(at + row * 128, 8192, 1024) : wgmma_operand(at + row * 128, 16, 1024);
            const unsigned long long b_first = wgmma_operand(at + a_bytes, b_mn ? 8192 : 16, 1024);
            wgmma_fence();
#pragma unroll
            for (unsigned step = 0; step < 4; step++) {
#pragma unroll
                for (unsigned part = 0; part < parts; part++) {
                    // Addresses within an operand are in units of 16 bytes.
                    const unsigned a_step = (step * (a_mn ? 16 * 128 : 32) + part * 8192) / 16, b_step = step * (b_mn ? 16 * 128 : 32) / 16;
                    wgmma<a_mn, b_mn>(d[part], a_first + a_step, b_first + b_step, block != t.first || step != 0);
                }
            }
            wgmma_commit();
            // All but what was just begun is over, so the stage before this one has been read.
            wgmma_wait<1>();
            if (block != t.first) release(previous);
            previous = ring.stage;
            ring.next();
        }
        if (pingpong && next) named_arrive(next, 256);
        wgmma_wait<0>();
#pragma unroll
        for (unsigned part = 0; part < parts; part++) wgmma_settle(d[part]);
        release(previous);
    }

    __device__ __forceinline__ float row_factor(unsigned row) const {
        return args.row_scale && row < args.m ? args.alpha * __ldg(args.row_scale + row) : args.alpha;
    }

    // Factors of columns `col` (even) and the next.
    __device__ __forceinline__ float2 col_factors(unsigned col) const {
        float2 factors = make_float2(1.0f, 1.0f);
        if (args.col_scale) {
            if (col + 1 < args.n) {
                factors = __ldg(reinterpret_cast<const float2*>(args.col_scale + col));
            } else if (col < args.n) {
                factors.x = __ldg(args.col_scale + col);
            }
        }
        return factors;
    }

    // A warp's turn at one of its two boxes: waits until what was in it has left.
    __device__ __forceinline__ void open_box() const {
        if (threadIdx.x % 32 == 0) tma_wait_read<1>();
        __syncwarp();
    }
    __device__ __forceinline__ void send_box(unsigned box, unsigned row, unsigned col) const {
        fence_async_shared();
        __syncwarp();
        if (threadIdx.x % 32 == 0) {
            if (args.output == ADD_F32) {
                tma_add(c, box, col, row);
            } else {
                tma_store(c, box, col, row);
            }
            tma_commit();
        }
    }

    // 16 rows of this warp: `row` has the factors of its row lane / 4 and the eighth after that, `first` those of the first 64 columns (8 times 2 of a lane's);
    // `out` and `col`: where the first element goes.
    template <bool to_bf16>
    __device__ __forceinline__ void store(const Sum (&d)[tile_n / 2], float2 row, const float2 (&first)[8], unsigned boxes, unsigned out, unsigned col) const {
        constexpr unsigned chunks = tile_n / 64;
        float2 factors[8], next[8];
        copy_factors(factors, first);
#pragma unroll
        for (unsigned chunk = 0; chunk < chunks; chunk++) {
            // On their way while this chunk is stored.
            if (chunk + 1 < chunks) load_factors(next, col + (chunk + 1) * 64);
            if (to_bf16) {
                store_bf16(d, chunk * 32, row, factors, boxes + chunk % 2 * box_bytes, out, col + chunk * 64);
            } else {
                store_f32(d, chunk * 32, row, factors, boxes, out, col + chunk * 64);
                store_f32(d, chunk * 32 + 16, row, factors + 4, boxes + box_bytes, out, col + chunk * 64 + 32);
            }
            if (chunk + 1 < chunks) copy_factors(factors, next);
        }
    }
    __device__ __forceinline__ void load_factors(float2 (&factors)[8], unsigned col) const {
#pragma unroll
        for (unsigned j = 0; j < 8; j++) factors[j] = col_factors(col + j * 8 + threadIdx.x % 4 * 2);
    }
    static __device__ __forceinline__ void copy_factors(float2 (&to)[8], const float2 (&from)[8]) {
#pragma unroll
        for (unsigned j = 0; j < 8; j++) to[j] = from[j];
    }

    // 64 columns, whose sums begin at d[begin].
    __device__ __forceinline__ void store_bf16(const Sum (&d)[tile_n / 2], unsigned begin, float2 row, const float2 (&factors)[8], unsigned box, unsigned out,
                                               unsigned col) const {
        const unsigned lane = threadIdx.x % 32;
        // Of the four matrices of a store, the second and fourth are rows 8 to 15, the third and fourth columns 8 to 15.
        const unsigned line = lane % 16 * 128, half = lane / 16;
        open_box();
#pragma unroll
        for (unsigned j = 0; j < 8; j += 2) {
            unsigned packed[4];
#pragma unroll
            for (unsigned i = 0; i < 2; i++) {
                const unsigned at = begin + (j + i) * 4;
                const float2 factor = factors[j + i];
                packed[2 * i] = pack_bf16((float)d[at] * row.x * factor.x, (float)d[at + 1] * row.x * factor.y);
                packed[2 * i + 1] = pack_bf16((float)d[at + 2] * row.y * factor.x, (float)d[at + 3] * row.y * factor.y);
            }
            store_matrices(box + line + ((j + half) ^ lane % 8) * 16, packed[0], packed[1], packed[2], packed[3]);
        }
        send_box(box, out, col);
    }

    // 32 columns.
    __device__ __forceinline__ void store_f32(const Sum (&d)[tile_n / 2], unsigned begin, float2 row, const float2* factors, unsigned box, unsigned out,
                                              unsigned col) const {
        const unsigned lane = threadIdx.x % 32, line = lane / 4, quad = lane % 4;
        const bool odd = line % 2;
        float v[4][4];
#pragma unroll
        for (unsigned j = 0; j < 4; j++) {
            const unsigned at = begin + j * 4;
            v[j][0] = finish(d[at], row.x, factors[j].x);
            v[j][1] = finish(d[at + 1], row.x, factors[j].y);
            v[j][2] = finish(d[at + 2], row.y, factors[j].x);
            v[j][3] = finish(d[at + 3], row.y, factors[j].y);
        }
        open_box();
#pragma unroll
        for (unsigned j = 0; j < 4; j++) {
            // Odd rows begin with the other half, so that 16 lanes write to 32 different banks.
            const unsigned at = box + line * 128 + (((2 * (j ^ (odd ? 2 : 0)) + quad / 2) ^ line) * 16) + quad % 2 * 8;
            shared_store(at, odd ? v[j ^ 2][0] : v[j][0], odd ? v[j ^ 2][1] : v[j][1]);
            shared_store(at + 1024, odd ? v[j ^ 2][2] : v[j][2], odd ? v[j ^ 2][3] : v[j][3]);
        }
        send_box(box, out, col);
    }
    // Partial sums stay what they are: integers as their bits.
    __device__ __forceinline__ float finish(float sum, float row, float col) const { return sum * row * col; }
    __device__ __forceinline__ float finish(int sum, float row, float col) const {
        return args.output == PARTIAL ? __int_as_float(sum) : (float)sum * row * col;
    }

    // Warpgroup `group` (0 or 1) of those that multiply.
    __device__ __forceinline__ void consume(unsigned group) const {
        const unsigned warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32;
        const unsigned boxes = boxes_at + (group * 4 + warp) * 2 * box_bytes;
        Ring<stages> ring;
        // In ping-pong, barrier 1 + group is where that group waits for its turn to multiply; the first turn is group 0's.
        if (pingpong && group == 1 && cluster < tiles) named_arrive(1, 256);
        unsigned turn = 0;
        for (unsigned index = cluster; index < tiles; index += clusters, turn ^= 1) {
            const Tile t = tile(index);
            if (pingpong && turn != group) {
                ring.skip(t.end - t.first);
                continue;
            }
            const unsigned row = pingpong ? 0 : group * 64;
            float2 factors[parts];
#pragma unroll
            for (unsigned part = 0; part < parts; part++) {
                const unsigned r = t.row + row + part * 64 + warp * 16 + lane / 4;
                factors[part] = make_float2(row_factor(r), row_factor(r + 8));
            }
            float2 first[8];
            load_factors(first, t.col);
            Sum d[parts][tile_n / 2];
            if (pingpong) named_sync(1 + group, 256);
            multiply(d, row, t, ring, pingpong && index + clusters < tiles ? 2 - group : 0);
#pragma unroll
            for (unsigned part = 0; part < parts; part++) {
                const unsigned r = row + part * 64 + warp * 16;
                // A pair's second tile, or rows of a tile, can lie below C; in a workspace, other sums are there.
                if (t.row + r < args.m) {
                    if (args.output == BF16) {
                        store<true>(d[part], factors[part], first, boxes, t.out_row + r, t.col);
                    } else {
                        store<false>(d[part], factors[part], first, boxes, t.out_row + r, t.col);
                    }
                }
            }
        }
        // Shared memory must not go before it was read.
        if (lane == 0) tma_wait_read<0>();
        __syncwarp();
    }

    __device__ __forceinline__ void run() const {
        init();
        const unsigned group = __shfl_sync(0xffffffffu, threadIdx.x / 128, 0);
        if (group == 0) {
            give_registers<40>();
            if (threadIdx.x == 0) produce();
            __syncwarp();
        } else {
            take_registers<232>();
            consume(group - 1);
        }
        // The other block may still write to this one's shared memory and arrive at its barriers.
        cluster_sync();
    }
};

#define GEMM(name, pingpong, Sum, a_mn, b_mn)                                                                                                         \
    extern "C" __global__ void __cluster_dims__(2, 1, 1) __launch_bounds__(384, 1)                                                                    \
        name(const __grid_constant__ TensorMap a, const __grid_constant__ TensorMap b, const __grid_constant__ TensorMap c, const float* row_scale,   \
             const float* col_scale, float alpha, unsigned m, unsigned n, unsigned k, unsigned splits, unsigned partial_rows, unsigned output) {      \
        const Arguments args = {row_scale, col_scale, alpha, m, n, k, splits, partial_rows, output};                                                  \
        Gemm<pingpong, Sum, a_mn, b_mn>(a, b, c, args).run();                                                                                         \
    }

GEMM(cooperative_bf16_nt, false, float, 0, 0)
GEMM(cooperative_bf16_nn, false, float, 0, 1)
GEMM(cooperative_bf16_tn, false, float, 1, 1)
GEMM(cooperative_s8_nt, false, int, 0, 0)
GEMM(pingpong_bf16_nt, true, float, 0, 0)
GEMM(pingpong_bf16_nn, true, float, 0, 1)
GEMM(pingpong_bf16_tn, true, float, 1, 1)
GEMM(pingpong_s8_nt, true, int, 0, 0)
