// target: sm_80
// out[m, n] = sum over k of A·B, scaled; A as [m, k] or [k, m], B as [n, k] or [k, n]; bf16 with f32 sums, int8 with i32 sums.
//
// Cost: 2·m·n·k operations; each block reads (BLOCK + BLOCK)·k values, mostly from the L2 cache, and writes its BLOCK·BLOCK results once.
//
// A block of 128 threads makes a tile of BLOCK x BLOCK (128 or 64) results, each of its four warps (2 x 2) a quarter of it: 64 x 64 sums are 128 registers a thread,
// and take 2 bytes of shared memory for 32 multiply-adds, where tensor cores want them no faster than for 8 (compute capability 8.0: 1024 multiply-adds and 128 bytes a cycle).
//
// k goes in steps of 64 bytes (32 bf16, 64 int8) through four stages of shared memory, which asynchronous copies fill three steps ahead. A stage has for each operand
//   contiguous along k:      BLOCK rows of 64 bytes, two rows to a line of 128 bytes: 16-byte chunk c of row r in place c ^ (r / 2 % 4) of its half line;
//   contiguous along m or n: 32 rows (one for each k) of BLOCK values, chunk c of row r in place c ^ (r % 8),
// so that the eight rows of an 8x8 matrix, which a phase of ldmatrix reads, lie in different banks. Both operand types have the same bytes in the same places: products of
// 16x8x16 bf16 and of 16x8x32 int8 differ in nothing but the instruction.
//
// blockIdx.z counts the products of a batch, whose matrices lie at equal distances.
//
// What lies outside A or B, k's ragged end too, is filled with zeros by the copies themselves, which read no byte of it: garbage (not a number, maybe) adds nothing.
#include "mma.cuh"
#include "product.cuh"

constexpr int THREADS = 128;
constexpr int STAGES = 4;
constexpr int STEP_BYTES = 64;

// One operand: where this thread copies from and to, and where this lane loads fragments from. SIZE is that of an element in bytes.
template <bool ALONG_K, int SIZE, int BLOCK>
struct Operand {
    static constexpr int BYTES = BLOCK * STEP_BYTES;       // of a stage
    static constexpr int COPIES = BYTES / 16 / THREADS;    // of a thread
    static constexpr int STEP = STEP_BYTES / SIZE;         // values of k
    static constexpr int CHUNKS = ALONG_K ? 4 : BLOCK / 8; // of 16 bytes in a row
    static constexpr int ROWS = THREADS / CHUNKS;          // from one copy of a thread to its next

    const unsigned char* from;
    size_t row_bytes;
    unsigned to;
    unsigned row; // along k of this thread's first copy (contiguous along m or n)
    unsigned valid; // bits: rows that there are (contiguous along k); bytes: that there are of a chunk (along m or n)

    // `first` of `count` rows (contiguous along k) or columns.
    __device__ __forceinline__ Operand(const void* data, size_t stride, unsigned first, unsigned count, unsigned k_begin) {
        unsigned chunk = threadIdx.x % CHUNKS;
        row = threadIdx.x / CHUNKS;
        row_bytes = stride * SIZE;
        from = static_cast<const unsigned char*>(data);
        if (ALONG_K) {
            from += (size_t)(first + row) * row_bytes + (size_t)k_begin * SIZE + chunk * 16;
            to = row * 64 + (chunk ^ (row / 2 % 4)) * 16;
            valid = 0;
#pragma unroll
            for (int i = 0; i < COPIES; i++) valid |= (unsigned)(first + row + i * ROWS < count) << i;
        } else {
            unsigned col = first + chunk * (16 / SIZE);
            from += (size_t)(k_begin + row) * row_bytes + (size_t)col * SIZE;
            to = row * (BLOCK * 2) + (chunk ^ (row % 8)) * 16;
            valid = col >= count ? 0 : min((count - col) * SIZE, 16u);
        }
    }

    // Starts copying the next step, of whose k there are `left`.
    __device__ __forceinline__ void copy(unsigned char* stage, int left) {
        int bytes = min(max(left * SIZE - (int)(threadIdx.x % CHUNKS) * 16, 0), 16);
#pragma unroll
        for (int i = 0; i < COPIES; i++) {
            unsigned char* shared = stage + to + i * ROWS * CHUNKS * 16;
            const unsigned char* global = from + i * ROWS * row_bytes;
            if (ALONG_K) {
                copy_async16_part(shared, global, valid >> i & 1 ? bytes : 0);
            } else {
                copy_async16_part(shared, global, (int)row + i * ROWS < left ? (int)valid : 0);
            }
        }
        from += ALONG_K ? (size_t)STEP_BYTES : STEP * row_bytes;
    }
};

// Where this lane's row of an 8x8 matrix lies: `across` of the operand's rows or columns (a multiple of 8, and `lane_across` of them, 0 or 8, of this lane's matrix),
// `lane_k` bytes, 0 or 16, along k (contiguous along k), or half as many values of k.
template <bool ALONG_K, int BLOCK>
__device__ __forceinline__ unsigned matrix_row(unsigned across, unsigned lane_across, unsigned lane_k) {
    unsigned lane = threadIdx.x % 8;
    if (ALONG_K) {
        unsigned row = across + lane_across + lane;
        return row * 64 + ((lane_k / 16) ^ (row / 2 % 4)) * 16;
    }
    unsigned row = lane_k / 2 + lane;
    return row * (BLOCK * 2) + (((across + lane_across) / 8) ^ (row % 8)) * 16;
}

// From the first 16 rows or columns and the first 16 (bf16) or 32 (int8) values of k of a warp's part to the `i`th and the `k`th of a stage.
template <bool ALONG_K, int BLOCK>
__device__ __forceinline__ unsigned next_matrices(unsigned first, unsigned i, unsigned k) {
    return ALONG_K ? (first ^ k * 32) + i * 16 * 64 : (first ^ i * 32) + k * 16 * BLOCK * 2;
}

__device__ __forceinline__ void multiply(float (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2]) { mma_bf16(c, a, b); }
__device__ __forceinline__ void multiply(int (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2]) { mma_s8(c, a, b); }

// `k_piece` is what one blockIdx.y sums up. Partial sums of each are `piece` elements behind those of the one before.
template <typename Sum, int SIZE, bool A_ALONG_K, bool B_ALONG_K, int BLOCK>
__device__ __forceinline__ void product(const void* a, size_t a_stride, const void* b, size_t b_stride, unsigned k, unsigned k_piece, ProductOutput to, size_t piece) {
    using OperandA = Operand<A_ALONG_K, SIZE, BLOCK>;
    using OperandB = Operand<B_ALONG_K, SIZE, BLOCK>;
    constexpr int STAGE = OperandA::BYTES + OperandB::BYTES;
    constexpr int STEP = STEP_BYTES / SIZE;
    constexpr int WARP = BLOCK / 2; // rows and columns of a warp's results
    constexpr int PARTS = WARP / 16;
    DYNAMIC_SHARED(unsigned char, stages);

    // Blocks run in about this order, and those that run at a time share most of A and B: they are 16 rows of tiles high.
    unsigned tiles_m = (to.m + BLOCK - 1) / BLOCK, tiles_n = (to.n + BLOCK - 1) / BLOCK;
    unsigned band = blockIdx.x / (16 * tiles_n) * 16, place = blockIdx.x % (16 * tiles_n);
    unsigned band_rows = min(tiles_m - band, 16u);
    unsigned first_row = (band + place % band_rows) * BLOCK, first_col = place / band_rows * BLOCK;

    unsigned k_begin = blockIdx.y * k_piece;
    int left = (int)min(k - k_begin, k_piece);
    int steps = (left + STEP - 1) / STEP;
    OperandA copy_a(a, a_stride, first_row, to.m, k_begin);
    OperandB copy_b(b, b_stride, first_col, to.n, k_begin);

    unsigned warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    unsigned warp_row = warp / 2 * WARP, warp_col = warp % 2 * WARP;
    // The four matrices of a load are in the order of the fragment's registers: for A those of rows 0 and 8, then of the second half of k;
    // for B (two fragments of 8 columns) the halves of k, then columns 8.
    unsigned from_a = matrix_row<A_ALONG_K, BLOCK>(warp_row, lane / 8 % 2 * 8, lane / 16 * 16);
    unsigned from_b = OperandA::BYTES + matrix_row<B_ALONG_K, BLOCK>(warp_col, lane / 16 * 8, lane / 8 % 2 * 16);

    Sum sums[PARTS][2 * PARTS][4] = {};
    unsigned fragments_a[2][PARTS][4], fragments_b[2][PARTS][4];

    auto copy = [&](int step) {
        if (step < steps) {
            unsigned char* stage = stages + step % STAGES * STAGE;
            copy_a.copy(stage, left - step * STEP);
            copy_b.copy(stage + OperandA::BYTES, left - step * STEP);
        }
        copy_async_commit(); // an empty group at the end, so that counting them stays the same
    };
    auto load = [&](int step, int half) {
        const unsigned char* stage = stages + step % STAGES * STAGE;
#pragma unroll
        for (int i = 0; i < PARTS; i++) {
            const unsigned char* at = stage + next_matrices<A_ALONG_K, BLOCK>(from_a, i, half);
            if (A_ALONG_K) load_matrices(fragments_a[half][i], at);
            else load_matrices_transposed(fragments_a[half][i], at);
        }
#pragma unroll
        for (int j = 0; j < PARTS; j++) {
            const unsigned char* at = stage + next_matrices<B_ALONG_K, BLOCK>(from_b, j, half);
            if (B_ALONG_K) load_matrices(fragments_b[half][j], at);
            else load_matrices_transposed(fragments_b[half][j], at);
        }
    };
    auto multiply_all = [&](int half) {
#pragma unroll
        for (int i = 0; i < PARTS; i++)
#pragma unroll
            for (int j = 0; j < PARTS; j++) {
                const unsigned b0[2] = {fragments_b[half][j][0], fragments_b[half][j][1]};
                const unsigned b1[2] = {fragments_b[half][j][2], fragments_b[half][j][3]};
                multiply(sums[i][2 * j], fragments_a[half][i], b0);
                multiply(sums[i][2 * j + 1], fragments_a[half][i], b1);
            }
    };

#pragma unroll
    for (int step = 0; step < STAGES - 1; step++) copy(step);
    copy_async_wait<STAGES - 2>();
    __syncthreads();
    load(0, 0);
#pragma unroll 1
    for (int step = 0; step < steps; step++) {
        // Fragments are loaded one product ahead. The stage that is filled now was last read before the barrier below, a step ago.
        load(step, 1);
        copy(step + STAGES - 1);
        multiply_all(0);
        copy_async_wait<STAGES - 2>();
        __syncthreads();
        load(step + 1, 0); // after the last step: bytes of no meaning, not used
        multiply_all(1);
    }
    copy_async_wait<0>();
    __syncthreads(); // what other warps load after the last step is not used, but neither is it written meanwhile

    // Sums to memory, 32 rows of a warp at a time through shared memory, so that rows are written whole; 8 more columns keep banks apart.
    constexpr int ROWS = 32, WIDTH = WARP + 8, LANES = WARP / 4, PASS = 32 / LANES;
    static_assert(4 * ROWS * WIDTH * 4 <= STAGES * STAGE, "rows of four warps fit");
    Sum* rows = reinterpret_cast<Sum*>(stages) + warp * ROWS * WIDTH;
    unsigned left_col = first_col + warp_col, col = left_col + lane % LANES * 4;
    float4 factors = column_factors(to, col);
    // Rows of partial sums are filled up to whole fours: what lies beyond n is 0 there.
    unsigned n = to.mode == OUTPUT_PARTIAL ? (to.n + 3) / 4 * 4 : to.n;
    bool whole = left_col + WARP <= n || to.mode == OUTPUT_PARTIAL;
    if (to.mode == OUTPUT_PARTIAL) to.out = static_cast<float*>(to.out) + blockIdx.y * piece;
#pragma unroll
    for (int i = 0; i < PARTS; i += ROWS / 16) {
        unsigned top_row = first_row + warp_row + i * 16;
#pragma unroll
        for (int part = 0; part < ROWS / 16; part++)
#pragma unroll
            for (int j = 0; j < 2 * PARTS; j++) {
                Sum* at = rows + (part * 16 + lane / 4) * WIDTH + j * 8 + lane % 4 * 2;
                const Sum(&c)[4] = sums[i + part][j];
                *reinterpret_cast<uint2*>(at) = make_uint2(sum_bits(c[0]), sum_bits(c[1]));
                *reinterpret_cast<uint2*>(at + 8 * WIDTH) = make_uint2(sum_bits(c[2]), sum_bits(c[3]));
            }
        __syncwarp();
        if (whole) {
            constexpr int AT_A_TIME = 4; // so many reads of what sums are added to are under way
#pragma unroll 1
            for (unsigned r = lane / LANES; r < ROWS; r += AT_A_TIME * PASS) {
                float4 old[AT_A_TIME];
#pragma unroll
                for (int pass = 0; pass < AT_A_TIME; pass++) {
                    unsigned row = top_row + r + pass * PASS;
                    if (row < to.m && col < n) old[pass] = old_values(to, row, col);
                }
#pragma unroll
                for (int pass = 0; pass < AT_A_TIME; pass++) {
                    unsigned row = top_row + r + pass * PASS;
                    __align__(16) Sum four[4];
                    *reinterpret_cast<uint4*>(four) = *reinterpret_cast<const uint4*>(rows + (r + pass * PASS) * WIDTH + lane % LANES * 4);
                    if (row < to.m && col < n) write_four(to, row, col, four, factors, old[pass]);
                }
            }
        } else {
#pragma unroll 1
            for (int at = lane; at < ROWS * WARP; at += 32) {
                unsigned r = at / WARP, c = at % WARP;
                if (top_row + r < to.m && left_col + c < n) write_one(to, top_row + r, left_col + c, rows[r * WIDTH + c]);
            }
        }
        __syncwarp();
    }
}

#define PRODUCT(name, Sum, SIZE, A_ALONG_K, B_ALONG_K, BLOCK)                                                                                      \
    extern "C" __global__ void __launch_bounds__(THREADS, BLOCK == 128 ? 2 : 4)                                                                    \
        name(const void* a, size_t a_stride, const void* b, size_t b_stride, unsigned k, unsigned k_piece, void* out, size_t out_stride,         \
             const float* rows, const float* cols, float alpha, unsigned m, unsigned n, unsigned mode, size_t piece, size_t a_step,              \
             size_t b_step, size_t out_step) {                                                                                                     \
        a = static_cast<const unsigned char*>(a) + blockIdx.z * a_step * SIZE;                                                                     \
        b = static_cast<const unsigned char*>(b) + blockIdx.z * b_step * SIZE;                                                                     \
        out = static_cast<unsigned char*>(out) + blockIdx.z * out_step * (mode == OUTPUT_BF16 ? 2 : 4);                                            \
        ProductOutput to = {out, out_stride, rows, cols, alpha, m, n, mode};                                                                       \
        product<Sum, SIZE, A_ALONG_K, B_ALONG_K, BLOCK>(a, a_stride, b, b_stride, k, k_piece, to, piece);                                          \
    }

PRODUCT(gemm_nt_bf16_128, float, 2, true, true, 128)
PRODUCT(gemm_nn_bf16_128, float, 2, true, false, 128)
PRODUCT(gemm_tn_bf16_128, float, 2, false, false, 128)
PRODUCT(gemm_nt_s8_128, int, 1, true, true, 128)
PRODUCT(gemm_nt_bf16_64, float, 2, true, true, 64)
PRODUCT(gemm_nn_bf16_64, float, 2, true, false, 64)
PRODUCT(gemm_tn_bf16_64, float, 2, false, false, 64)
PRODUCT(gemm_nt_s8_64, int, 1, true, true, 64)
