// What `Layer` takes as a picture and is none yet. Every thread makes a few values.

constexpr int PREPARE_THREADS = 128;

struct SpeechArgs {
    u64 speech;  // (channels, height, width) float32, one a frame
    u64 out;
    int channels, height, width, reserved;
};

KERNEL(speech_picture, PREPARE_THREADS, 1, SpeechArgs) {
    const int pixels = args.height * args.width, values = pixels * args.channels;
    const float* speech = (const float*)args.speech + (u64)block_z() * values;
    u16* out = (u16*)args.out + (u64)block_z() * values;
    for (int i = block_x() * PREPARE_THREADS + thread_index(); i < values;
         i += grid_x() * PREPARE_THREADS)
        out[i] = float_to_half(speech[i % args.channels * pixels + i / args.channels]);
}

struct DoubledArgs {
    u64 small;
    u64 out;
    int height, width, channels;  // of what is made
    int reserved;
};

KERNEL(doubled_picture, PREPARE_THREADS, 1, DoubledArgs) {
    const int vecs_each = args.channels / 8, vecs = args.height * args.width * vecs_each;
    const u16* small = (const u16*)args.small + (u64)block_z() * vecs * 2;
    u16* out = (u16*)args.out + (u64)block_z() * vecs * 8;
    const float row_step = stretch(args.height / 2, args.height);
    const float column_step = stretch(args.width / 2, args.width);
    for (int i = block_x() * PREPARE_THREADS + thread_index(); i < vecs;
         i += grid_x() * PREPARE_THREADS) {
        const int pixel = i / vecs_each;
        store16(out + i * 8,
                doubled(small, args.height, args.width, args.channels, row_step, column_step,
                        pixel / args.width, pixel % args.width, i % vecs_each * 8));
    }
}

struct NeighboursArgs {
    u64 picture;
    u64 out;
    int in_height, in_width, height, width;
    int channels, stride, padding, reserved;
};

// For each pixel of a 3x3 convolution's result what it sees, in the order of the convolution's
// weights: nine values of the first channel, nine of the next.
KERNEL(neighbours_picture, PREPARE_THREADS, 1, NeighboursArgs) {
    const int depth = args.channels * 9, values = args.height * args.width * depth;
    const u16* picture =
        (const u16*)args.picture + (u64)block_z() * args.in_height * args.in_width * args.channels;
    u16* out = (u16*)args.out + (u64)block_z() * values;
    for (int i = block_x() * PREPARE_THREADS + thread_index(); i < values;
         i += grid_x() * PREPARE_THREADS) {
        const int pixel = i / depth, tap = i % depth % 9, channel = i % depth / 9;
        const int y = pixel / args.width * args.stride - args.padding + tap / 3;
        const int x = pixel % args.width * args.stride - args.padding + tap % 3;
        const bool there = y >= 0 && y < args.in_height && x >= 0 && x < args.in_width;
        out[i] = there ? picture[(y * args.in_width + x) * args.channels + channel] : (u16)0;
    }
}
