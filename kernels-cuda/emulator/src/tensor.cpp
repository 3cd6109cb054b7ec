// The operations of the tensor cores, for a whole warp at once.
#include <string.h>

#include <type_traits>

#include "../include/runtime.h"
#include "../include/tensor.h"

using namespace emulator;

namespace {

void need_all(const Lanes& lanes) {
    if (lanes.mask != ~0u) emulator_fail("mma.cuh", 0, "an operation of the tensor cores without all 32 lanes (%#x)", lanes.mask);
}

float as_float(unsigned bits) {
    float x;
    memcpy(&x, &bits, 4);
    return x;
}

// A row of B or C.
typedef float Row8f __attribute__((vector_size(32)));
typedef int Row8i __attribute__((vector_size(32)));
template <class T>
using Row = std::conditional_t<std::is_same_v<T, float>, Row8f, Row8i>;

// c (16x8) += a (16xK) · b (Kx8), sums in the order of k.
template <class T, int K>
void multiply(const Lanes& lanes, const T (&a)[16][K], const Row<T> (&b)[K]) {
    Row<T> c[16];
    for (unsigned lane = 0; lane < 32; lane++) {
        const T* own = lanes.get<Mma<T>>(lane).c;
        const unsigned g = lane / 4, t = lane % 4;
        c[g][2 * t] = own[0], c[g][2 * t + 1] = own[1], c[g + 8][2 * t] = own[2], c[g + 8][2 * t + 1] = own[3];
    }
    // Four rows at a time, whose sums do not wait for each other.
    for (int i = 0; i < 16; i += 4) {
        Row<T> c0 = c[i], c1 = c[i + 1], c2 = c[i + 2], c3 = c[i + 3];
        for (int k = 0; k < K; k++) {
            c0 += a[i][k] * b[k];
            c1 += a[i + 1][k] * b[k];
            c2 += a[i + 2][k] * b[k];
            c3 += a[i + 3][k] * b[k];
        }
        c[i] = c0, c[i + 1] = c1, c[i + 2] = c2, c[i + 3] = c3;
    }
    for (unsigned lane = 0; lane < 32; lane++) {
        T* own = lanes.get<Mma<T>>(lane).c;
        const unsigned g = lane / 4, t = lane % 4;
        own[0] = c[g][2 * t], own[1] = c[g][2 * t + 1], own[2] = c[g + 8][2 * t], own[3] = c[g + 8][2 * t + 1];
    }
}

// Takes every lane's words apart into `per_word` values each.
template <class T, int K, class Take>
void gather(const Lanes& lanes, T (&a)[16][K], Row<T> (&b)[K], Take take) {
    constexpr unsigned per_word = K / 8;
    for (unsigned lane = 0; lane < 32; lane++) {
        const Mma<T>& operands = lanes.get<Mma<T>>(lane);
        const unsigned g = lane / 4, t = lane % 4;
        for (unsigned word = 0; word < 4; word++)
            for (unsigned i = 0; i < per_word; i++) a[g + word % 2 * 8][t * per_word + word / 2 * (K / 2) + i] = take(operands.a[word], i);
        for (unsigned word = 0; word < 2; word++)
            for (unsigned i = 0; i < per_word; i++) b[t * per_word + word * (K / 2) + i][g] = take(operands.b[word], i);
    }
}

const unsigned char* row_address(const Lanes& lanes, unsigned lane) { return static_cast<const unsigned char*>(lanes.get<MatrixLoad>(lane).row); }

void need_rows(const Lanes& lanes) {
    need_all(lanes);
    for (unsigned lane = 0; lane < 32; lane++) {
        const MatrixLoad& load = lanes.get<MatrixLoad>(lane);
        emulator_need_shared(load.row, 16, "load_matrices", load.file, load.line);
    }
}

}  // namespace

extern "C" {

void emulator_mma_bf16(const Lanes& lanes) {
    need_all(lanes);
    float a[16][16];
    Row<float> b[16];
    gather(lanes, a, b, [](unsigned word, unsigned i) { return as_float(i ? word & 0xffff0000u : word << 16); });
    multiply(lanes, a, b);
}

void emulator_mma_s8(const Lanes& lanes) {
    need_all(lanes);
    int a[16][32];
    Row<int> b[32];
    gather(lanes, a, b, [](unsigned word, unsigned i) { return (int)(signed char)(word >> (8 * i)); });
    multiply(lanes, a, b);
}

void emulator_load_matrices(const Lanes& lanes) {
    need_rows(lanes);
    for (unsigned lane = 0; lane < 32; lane++)
        for (unsigned matrix = 0; matrix < 4; matrix++)
            memcpy(&lanes.get<MatrixLoad>(lane).r[matrix], row_address(lanes, matrix * 8 + lane / 4) + lane % 4 * 4, 4);
}

void emulator_load_matrices_transposed(const Lanes& lanes) {
    need_rows(lanes);
    for (unsigned lane = 0; lane < 32; lane++)
        for (unsigned matrix = 0; matrix < 4; matrix++) {
            uint16_t pair[2];
            for (unsigned i = 0; i < 2; i++) memcpy(&pair[i], row_address(lanes, matrix * 8 + lane % 4 * 2 + i) + lane / 4 * 2, 2);
            memcpy(&lanes.get<MatrixLoad>(lane).r[matrix], pair, 4);
        }
}
}
