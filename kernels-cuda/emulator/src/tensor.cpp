// The operations of the tensor cores, for a whole warp at once.
#include <string.h>

#include "../include/runtime.h"
#include "../include/tensor.h"

using namespace emulator;

namespace {

template <class T>
void need_all(const Lanes& lanes) {
    (void)sizeof(T);
    if (lanes.mask != ~0u) emulator_fail("mma.cuh", 0, "an operation of the tensor cores without all 32 lanes (%#x)", lanes.mask);
}

float as_float(unsigned bits) {
    float x;
    memcpy(&x, &bits, 4);
    return x;
}

// c (16x8) += a (16xK) · b (Kx8), sums in the order of k.
template <class Sum, class Value, int K>
void multiply(const Lanes& lanes, const Value (&a)[16][K], const Value (&b)[K][8]) {
    for (int i = 0; i < 16; i++) {
        Sum row[8];
        for (unsigned t = 0; t < 4; t++)
            for (unsigned pair = 0; pair < 2; pair++) row[2 * t + pair] = lanes.get<Mma<Sum>>((unsigned)i % 8 * 4 + t).c[i / 8 * 2 + (int)pair];
        for (int k = 0; k < K; k++)
            for (int j = 0; j < 8; j++) row[j] += a[i][k] * b[k][j];
        for (unsigned t = 0; t < 4; t++)
            for (unsigned pair = 0; pair < 2; pair++) lanes.get<Mma<Sum>>((unsigned)i % 8 * 4 + t).c[i / 8 * 2 + (int)pair] = row[2 * t + pair];
    }
}

// Takes every lane's words apart into `per_word` values each.
template <class Sum, class Value, int K, class Take>
void gather(const Lanes& lanes, Value (&a)[16][K], Value (&b)[K][8], Take take) {
    constexpr unsigned per_word = K / 8;
    for (unsigned lane = 0; lane < 32; lane++) {
        const Mma<Sum>& operands = lanes.get<Mma<Sum>>(lane);
        const unsigned g = lane / 4, t = lane % 4;
        for (unsigned word = 0; word < 4; word++)
            for (unsigned i = 0; i < per_word; i++) a[g + word % 2 * 8][t * per_word + word / 2 * (K / 2) + i] = take(operands.a[word], i);
        for (unsigned word = 0; word < 2; word++)
            for (unsigned i = 0; i < per_word; i++) b[t * per_word + word * (K / 2) + i][g] = take(operands.b[word], i);
    }
}

const unsigned char* row_address(const Lanes& lanes, unsigned lane) { return static_cast<const unsigned char*>(lanes.get<MatrixLoad>(lane).row); }

void need_rows(const Lanes& lanes) {
    need_all<MatrixLoad>(lanes);
    for (unsigned lane = 0; lane < 32; lane++) {
        const MatrixLoad& load = lanes.get<MatrixLoad>(lane);
        emulator_need_shared(load.row, 16, "load_matrices", load.file, load.line);
    }
}

}  // namespace

extern "C" {

void emulator_mma_bf16(const Lanes& lanes) {
    need_all<Mma<float>>(lanes);
    float a[16][16], b[16][8];
    gather<float>(lanes, a, b, [](unsigned word, unsigned i) { return as_float(i ? word & 0xffff0000u : word << 16); });
    multiply<float>(lanes, a, b);
}

void emulator_mma_s8(const Lanes& lanes) {
    need_all<Mma<int>>(lanes);
    int a[16][32], b[32][8];
    gather<int>(lanes, a, b, [](unsigned word, unsigned i) { return (int)(signed char)(word >> (8 * i)); });
    multiply<int>(lanes, a, b);
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
