// The instructions of a whole warp: its 32 lanes' operands, and one computation for all of them.
//
// Where lanes have the elements of matrices is PTX's, "ldmatrix" and "Matrix Fragments for
// mma.m16n8k16 with floating point type" (https://docs.nvidia.com/cuda/parallel-thread-execution).

#pragma once

#include <cstring>

#include "device.h"

namespace emulator {

constexpr u32 LANES = 32;

// What a lane gives, and where its results go: on its stack, which lies still meanwhile.
struct Operands {
    void* results;
    const void* row;
    const u32* a;
    u32 b0, b1;
    const float* c;
};

// Row i of matrix m is where lane 8m + i says. Lane l gets, of row l / 4 of each, the elements
// 2(l % 4) and 2(l % 4) + 1.
inline void load_matrices(const Operands* warp, u32 matrices) {
    for (u32 i = 0; i < 8 * matrices; ++i) {
        const u8* row = static_cast<const u8*>(warp[i].row);
        for (u32 j = 0; j < 4; ++j) {
            u32* results = static_cast<u32*>(warp[4 * (i % 8) + j].results);
            std::memcpy(&results[i / 8], row + 4 * j, 4);
        }
    }
}

typedef float Row __attribute__((vector_size(32)));  // of B and C: 8 floats

inline Row floats_of(const u16 (&halves)[8]) {
#if defined(__F16C__) && !defined(PORTABLE)
    typedef short Bits __attribute__((vector_size(16)));
    Bits bits;
    std::memcpy(&bits, halves, sizeof bits);
    return __builtin_ia32_vcvtph2ps256(bits);
#else
    Row row;
    for (int i = 0; i < 8; ++i) row[i] = half_to_float(halves[i]);
    return row;
#endif
}

// D = A * B + C, of (16, 16) and (16, 8). With g = l / 4 and t = 2(l % 4), lane l has of A elements
// t and t + 1 of rows g and g + 8 (a[0], a[1]), then t + 8 and t + 9 (a[2], a[3]); of column g of B
// the elements t and t + 1 (b0), then t + 8 and t + 9 (b1); of C and D t and t + 1 of rows g and
// g + 8.
inline void multiply_matrices(const Operands* warp) {
    u16 a[16][2][8];  // row, half of the columns, column
    u16 b[16][8];
    Row c[16];
    const auto element = [&c](u32 row, u32 column) {
        return reinterpret_cast<float*>(&c[row]) + column;
    };
    for (u32 l = 0; l < LANES; ++l) {
        const Operands& lane = warp[l];
        const u32 g = l / 4, t = 2 * (l % 4);
        std::memcpy(&a[g][0][t], &lane.a[0], 4);
        std::memcpy(&a[g + 8][0][t], &lane.a[1], 4);
        std::memcpy(&a[g][1][t], &lane.a[2], 4);
        std::memcpy(&a[g + 8][1][t], &lane.a[3], 4);
        b[t][g] = static_cast<u16>(lane.b0);
        b[t + 1][g] = static_cast<u16>(lane.b0 >> 16);
        b[t + 8][g] = static_cast<u16>(lane.b1);
        b[t + 9][g] = static_cast<u16>(lane.b1 >> 16);
        std::memcpy(element(g, t), lane.c, 8);
        std::memcpy(element(g + 8, t), lane.c + 2, 8);
    }
    Row rows[16];
    for (u32 k = 0; k < 16; ++k) rows[k] = floats_of(b[k]);
    for (u32 i = 0; i < 16; ++i) {
        const Row left[2] = {floats_of(a[i][0]), floats_of(a[i][1])};
        for (u32 k = 0; k < 16; ++k) c[i] += left[k / 8][k % 8] * rows[k];
    }
    for (u32 l = 0; l < LANES; ++l) {
        const u32 g = l / 4, t = 2 * (l % 4);
        float* results = static_cast<float*>(warp[l].results);
        std::memcpy(results, element(g, t), 8);
        std::memcpy(results + 2, element(g + 8, t), 8);
    }
}

}  // namespace emulator
