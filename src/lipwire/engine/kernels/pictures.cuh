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

struct Picture {
    const u16* first;
    const u16* second;
    int height, width;  // of what they make together
    int channels_1, channels_2;
};

DEVICE const u16* weights_at(u64 table, u32 frame, u32 offset_bytes) {
    return (const u16*)(((const u64*)table)[frame] + offset_bytes);
}

DEVICE float bias_at(u64 table, u32 frame, u32 offset_bytes, int index) {
    return offset_bytes == NONE ? 0.0f : half_to_float(weights_at(table, frame, offset_bytes)[index]);
}

DEVICE Vec zeros() { return Vec{{0, 0, 0, 0}}; }

// Eight channels at (y, x) of `small` stretched to twice its size, corners on corners.
DEVICE Vec doubled(const u16* small, int height, int width, int channels, int y, int x, int channel) {
    const int rows = height / 2, columns = width / 2;
    const float row = height > 1 ? (float)y * (float)(rows - 1) / (float)(height - 1) : 0.0f;
    const float column = width > 1 ? (float)x * (float)(columns - 1) / (float)(width - 1) : 0.0f;
    const int top = (int)row, left = (int)column;
    const int bottom = top + 1 < rows ? top + 1 : rows - 1;
    const int right = left + 1 < columns ? left + 1 : columns - 1;
    const float down = row - (float)top, along = column - (float)left;
    const Vec a = load16(small + (top * columns + left) * channels + channel);
    const Vec b = load16(small + (top * columns + right) * channels + channel);
    const Vec c = load16(small + (bottom * columns + left) * channels + channel);
    const Vec d = load16(small + (bottom * columns + right) * channels + channel);
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

// Eight channels at (y, x), inside the picture.
template <Source SOURCE>
DEVICE Vec channels_of(const Picture& picture, int y, int x, int channel) {
    const int at = y * picture.width + x;
    if (SOURCE == PLAIN || channel < picture.channels_1) {
        if (SOURCE == DOUBLED)
            return doubled(picture.first, picture.height, picture.width, picture.channels_1, y, x,
                           channel);
        return load16(picture.first + at * picture.channels_1 + channel);
    }
    return load16(picture.second + at * picture.channels_2 + channel - picture.channels_1);
}

struct SpeechArgs {
    u64 speech;  // (channels, height, width) float32, one a frame
    u64 out;
    int channels, height, width, reserved;
};

// The window of speech as a picture.
DEVICE void speech_as_picture(const SpeechArgs& args) {
    const int pixels = args.height * args.width, values = pixels * args.channels;
    const float* speech = (const float*)args.speech + (u64)block_z() * values;
    u16* out = (u16*)args.out + (u64)block_z() * values;
    for (int i = block_x() * 128 + thread_index(); i < values; i += grid_x() * 128)
        out[i] = float_to_half(speech[i % args.channels * pixels + i / args.channels]);
}

KERNEL(speech_picture, 128, 1, SpeechArgs) { speech_as_picture(args); }
