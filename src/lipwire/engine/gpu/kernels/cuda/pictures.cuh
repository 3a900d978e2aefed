#include "device.h"

// The U-Net of the SyncTalk_2D family: pictures are (height, width, channels) in float16, sums are
// taken in float32, and every layer's result is rounded to float16 once, as ONNX Runtime does.
//
// Two kernels do nearly all of it. `block` does a whole inverted residual for a tile of the picture
// and is for few channels at high resolutions, where the time goes into moving the wide pictures in
// the middle of one: they stay in shared memory. `layer` is a product of matrices (pixels by weights)
// that makes its left side on the way: where channels are many and pixels few, an inverted residual
// is two of them.
//
// Weights are read through a table that has the place of each frame's avatar, in the order in which
// ONNX has them: one program serves all avatars, also in one batch.

constexpr u32 NONE = 0xffffffffu;  // a bias that is not there

enum Source { PIXELS, PLAIN, JOINED, DOUBLED };  // DOUBLED: the first of two joined, at half the size

constexpr int rounded_up(int value, int unit) { return (value + unit - 1) / unit * unit; }

template <bool CONDITION, typename A, typename B>
struct Conditional {
    using type = A;
};
template <typename A, typename B>
struct Conditional<false, A, B> {
    using type = B;
};
template <bool CONDITION, typename A, typename B>
using conditional = typename Conditional<CONDITION, A, B>::type;

DEVICE const u16* weights_at(u64 table, u32 frame, u32 offset_bytes) {
    return (const u16*)(((const u64*)table)[frame] + offset_bytes);
}

DEVICE float bias_at(u64 table, u32 frame, u32 offset_bytes, int index) {
    return offset_bytes == NONE ? 0.0f : half_to_float(weights_at(table, frame, offset_bytes)[index]);
}

// Those of `index`, which is even, and the next one.
DEVICE u32 two_biases_at(u64 table, u32 frame, u32 offset_bytes, int index) {
    return offset_bytes == NONE ? 0u : *(const u32*)(weights_at(table, frame, offset_bytes) + index);
}

DEVICE Vec zeros() { return Vec{{0, 0, 0, 0}}; }

// How far it is from one pixel to the next of a picture, `to` long, that another one of `from` is
// stretched to, corners on corners.
DEVICE float stretch(int from, int to) { return to > 1 ? (float)(from - 1) / (float)(to - 1) : 0.0f; }

// Eight channels at (y, x) of `small`, of half the size, stretched to (height, width).
DEVICE Vec doubled(const u16* small, int height, int width, int channels, float row_step,
                   float column_step, int y, int x, int channel) {
    const int rows = height / 2, columns = width / 2;
    const float row = (float)y * row_step, column = (float)x * column_step;
    const int top = (int)row, left = (int)column;
    const int to_bottom = top + 1 < rows ? columns * channels : 0;
    const int to_right = left + 1 < columns ? channels : 0;
    const float down = row - (float)top, along = column - (float)left;
    const u16* from = small + (top * columns + left) * channels + channel;
    const Vec a = load16(from), b = load16(from + to_right);
    const Vec c = load16(from + to_bottom), d = load16(from + to_bottom + to_right);
    const float of_a = (1 - down) * (1 - along), of_b = (1 - down) * along;
    const float of_c = down * (1 - along), of_d = down * along;
    Vec result;
#pragma unroll
    for (int i = 0; i < 4; i++)
        result.x[i] = pack(
            of_a * low(a.x[i]) + of_b * low(b.x[i]) + of_c * low(c.x[i]) + of_d * low(d.x[i]),
            of_a * high(a.x[i]) + of_b * high(b.x[i]) + of_c * high(c.x[i]) + of_d * high(d.x[i]));
    return result;
}
