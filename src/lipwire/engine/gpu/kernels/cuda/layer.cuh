enum Left { COPIED, DEPTHWISE };

struct LayerArgs {
    u64 weights;  // table of images, one a frame
    u64 first, second;
    u64 residual;  // added to the result; 0 for nothing
    u64 out;
    int in_height, in_width, height, width;
    int channels_1, channels_2;
    int depth;  // of the product
    int outputs;
    int relu;
    int tiles_across;  // of DEPTHWISE
    u32 weight, bias, depthwise, depthwise_bias;  // in an image, in bytes
};

// out (pixels, outputs) = left (pixels, depth) * weight (outputs, depth) + bias
//
// The left side is a picture's channels (COPIED, also of two joined), or the 3x3 of each channel with
// its relu (DEPTHWISE). It is brought or made 32 columns at a time, while those before are multiplied
// and AHEAD times as many are on their way.
//
// A block of threads makes PIXELS_EACH pixels in a row, or, of DEPTHWISE, a tile of the picture.
template <Left LEFT, int STRIDE, int TILE_ROWS, int TILE_COLUMNS, int PIXELS_EACH, int OUTPUTS_EACH,
          int WARPS_DOWN, int WARPS_ACROSS, int AHEAD>
struct Layer {
    static constexpr int WARPS = WARPS_DOWN * WARPS_ACROSS;
    static constexpr int THREADS = 32 * WARPS;
    static constexpr int CHUNK = 32;
    static constexpr int VEC_COLUMNS = CHUNK / 8;
    static constexpr int PITCH = CHUNK + 8;
    static constexpr int STRIPS = PIXELS_EACH / WARPS_DOWN / 16;
    static constexpr int TILES = OUTPUTS_EACH / WARPS_ACROSS / 8;
    static constexpr int LEFT_VECS = PIXELS_EACH * VEC_COLUMNS / THREADS;
    static constexpr int RIGHT_VECS = OUTPUTS_EACH * VEC_COLUMNS / THREADS;
    static constexpr bool TILED = LEFT == DEPTHWISE;
    static constexpr int IN_COLUMNS = TILED ? (TILE_COLUMNS - 1) * STRIDE + 3 : 0;
    static constexpr int IN_ROWS = TILED ? (TILE_ROWS - 1) * STRIDE + 3 : 0;
    static constexpr int IN_VECS = rounded_up(IN_COLUMNS * IN_ROWS * VEC_COLUMNS, THREADS) / THREADS;
    static constexpr int LEFT_STAGES = TILED ? 2 : AHEAD + 1;
    static constexpr int RIGHT_STAGES = AHEAD + 1;
    static constexpr int TAP_VECS = CHUNK * 9 / 8;
    static_assert(AHEAD >= 2, "DEPTHWISE is a chunk ahead of the product, and what it takes another");
    static_assert(TILES % 2 == 0, "two tiles are loaded at a time");
    static_assert(PIXELS_EACH * VEC_COLUMNS % THREADS == 0, "threads load the same");
    static_assert(OUTPUTS_EACH * VEC_COLUMNS % THREADS == 0, "threads load the same");
    static_assert(!TILED || PIXELS_EACH == 16 * WARPS, "a warp makes a strip of the left side");

    struct Halo {
        alignas(16) u16 pixels[IN_VECS * THREADS / VEC_COLUMNS * PITCH];
        alignas(16) u16 taps[CHUNK * 9];
        alignas(16) u16 biases[CHUNK];
    };
    struct Untiled {
        alignas(16) u16 left[LEFT_STAGES][PIXELS_EACH * PITCH];
        alignas(16) u16 right[RIGHT_STAGES][OUTPUTS_EACH * PITCH];
    };
    struct Tiled {
        alignas(16) u16 left[LEFT_STAGES][PIXELS_EACH * PITCH];
        alignas(16) u16 right[RIGHT_STAGES][OUTPUTS_EACH * PITCH];
        alignas(16) Halo source[AHEAD];
    };
    using Shared = conditional<TILED, Tiled, Untiled>;

    const LayerArgs& args;
    Shared& shared;
    const int frame, thread, warp, lane, g, t;
    const int row, column;  // of this thread's first vec in a stage
    const int first_pixel, first_output;
    const u16* first;
    const u16* second;
    int from_pixel[TILED ? IN_VECS : LEFT_VECS];  // what this thread brings; -1 for zeros
    float sums[STRIPS][TILES][4];

    DEVICE Layer(const LayerArgs& args)
        : args(args),
          shared(*(Shared*)shared_memory()),
          frame(block_z()),
          thread(thread_index()),
          warp(thread_index() / 32),
          lane(thread_index() % 32),
          g(thread_index() % 32 / 4),
          t(thread_index() % 4),
          row(thread_index() / VEC_COLUMNS),
          column(thread_index() % VEC_COLUMNS * 8),
          first_pixel(block_x() * PIXELS_EACH),
          first_output(block_y() * OUTPUTS_EACH) {
        const u64 pixels = (u64)frame * args.in_height * args.in_width;
        first = (const u16*)args.first + pixels * args.channels_1;
        second = (const u16*)args.second + pixels * args.channels_2;
        if constexpr (TILED) {
            const int top = (int)block_x() / args.tiles_across * TILE_ROWS * STRIDE - 1;
            const int left = (int)block_x() % args.tiles_across * TILE_COLUMNS * STRIDE - 1;
#pragma unroll
            for (int i = 0; i < IN_VECS; i++) {
                const int in = row + i * (THREADS / VEC_COLUMNS);
                const int y = top + in / IN_COLUMNS, x = left + in % IN_COLUMNS;
                const bool there = in < IN_COLUMNS * IN_ROWS && y >= 0 && y < args.in_height &&
                                   x >= 0 && x < args.in_width;
                from_pixel[i] = there ? y * args.in_width + x : -1;
            }
        } else {
#pragma unroll
            for (int i = 0; i < LEFT_VECS; i++)
                from_pixel[i] = out_pixel(row + i * (THREADS / VEC_COLUMNS));
        }
    }

    // Which pixel of the result is number `at` of this block of threads; -1 for none.
    DEVICE int out_pixel(int at) const {
        if constexpr (TILED) {
            const int y = (int)block_x() / args.tiles_across * TILE_ROWS + at / TILE_COLUMNS;
            const int x = (int)block_x() % args.tiles_across * TILE_COLUMNS + at % TILE_COLUMNS;
            const bool there = at < TILE_ROWS * TILE_COLUMNS && y < args.height && x < args.width;
            return there ? y * args.width + x : -1;
        } else {
            const int pixel = first_pixel + at;
            return pixel < args.height * args.width ? pixel : -1;
        }
    }

    DEVICE void run() {
#pragma unroll
        for (int strip = 0; strip < STRIPS; strip++)
#pragma unroll
            for (int n = 0; n < TILES; n++)
#pragma unroll
                for (int j = 0; j < 4; j++) sums[strip][n][j] = 0;

        const int chunks = (args.depth + CHUNK - 1) / CHUNK;
#pragma unroll
        for (int chunk = 0; chunk < AHEAD; chunk++) bring(chunk, chunks);
        if constexpr (TILED) {
            copies_wait<AHEAD - 1>();
            barrier();
            depthwise(0);
        }
#pragma unroll 1
        for (int chunk = 0; chunk < chunks; chunk++) {
            copies_wait<TILED ? AHEAD - 2 : AHEAD - 1>();  // DEPTHWISE is a chunk ahead
            barrier();
            bring(chunk + AHEAD, chunks);
            if constexpr (TILED)
                if (chunk + 1 < chunks) depthwise(chunk + 1);
            add_product(shared.left[chunk % LEFT_STAGES], shared.right[chunk % RIGHT_STAGES]);
        }
        store();
    }

    DEVICE void add_product(const u16* left, const u16* right) {
        left += (warp / WARPS_ACROSS * STRIPS * 16 + lane % 16) * PITCH + lane / 16 * 8;
        right += (warp % WARPS_ACROSS * TILES * 8 + lane % 8 + lane / 16 * 8) * PITCH + lane / 8 % 2 * 8;
#pragma unroll
        for (int step = 0; step < CHUNK; step += 16) {
            u32 a[STRIPS][4];
#pragma unroll
            for (int strip = 0; strip < STRIPS; strip++)
                load_matrix_4(a[strip], left + strip * 16 * PITCH + step);
#pragma unroll
            for (int n = 0; n < TILES; n += 2) {
                u32 b[4];
                load_matrix_4(b, right + n * 8 * PITCH + step);
#pragma unroll
                for (int strip = 0; strip < STRIPS; strip++) {
                    multiply(sums[strip][n], a[strip], b[0], b[1]);
                    multiply(sums[strip][n + 1], a[strip], b[2], b[3]);
                }
            }
        }
    }

    // Sends for a chunk of the right side, and for what the left side is or is made of.
    DEVICE void bring(int chunk, int chunks) {
        const int k = chunk * CHUNK + column;
        if (chunk < chunks) {
            const u16* weight = weights_at(args.weights, frame, args.weight);
            u16* to = shared.right[chunk % RIGHT_STAGES] + row * PITCH + column;
#pragma unroll
            for (int i = 0; i < RIGHT_VECS; i++) {
                const int output = first_output + row + i * (THREADS / VEC_COLUMNS);
                const bool there = output < args.outputs && k < args.depth;
                copy16(to + i * (THREADS / VEC_COLUMNS) * PITCH,
                       weight + (there ? output * args.depth + k : 0), there);
            }
            if constexpr (TILED)
                bring_source(chunk, k);
            else
                bring_left(chunk, k);
        }
        copies_commit();
    }

    DEVICE void bring_left(int chunk, int k) {
        u16* to = shared.left[chunk % LEFT_STAGES] + row * PITCH + column;
        const bool behind = k >= args.channels_1;
        const u16* from = behind ? second + k - args.channels_1 : first + k;
        const int channels = behind ? args.channels_2 : args.channels_1;
#pragma unroll
        for (int i = 0; i < LEFT_VECS; i++) {
            const bool there = from_pixel[i] >= 0 && k < args.depth;
            copy16(to + i * (THREADS / VEC_COLUMNS) * PITCH,
                   there ? from + from_pixel[i] * channels : first, there);
        }
    }

    DEVICE void bring_source(int chunk, int k) {
        Halo& source = shared.source[chunk % AHEAD];
        u16* to = source.pixels + row * PITCH + column;
#pragma unroll
        for (int i = 0; i < IN_VECS; i++) {
            const bool there = from_pixel[i] >= 0 && k < args.depth;
            copy16(to + i * (THREADS / VEC_COLUMNS) * PITCH,
                   first + (there ? from_pixel[i] * args.channels_1 + k : 0), there);
        }
        if (thread < TAP_VECS) {
            const int at = chunk * CHUNK * 9 + thread * 8;
            const bool there = at < args.depth * 9;
            copy16(source.taps + thread * 8,
                   weights_at(args.weights, frame, args.depthwise) + (there ? at : 0), there);
        } else if (thread < TAP_VECS + VEC_COLUMNS) {
            const int at = (thread - TAP_VECS) * 8, channel = chunk * CHUNK + at;
            const bool there = args.depthwise_bias != NONE && channel < args.depth;
            copy16(source.biases + at,
                   weights_at(args.weights, frame, there ? args.depthwise_bias + channel * 2 : 0), there);
        }
    }

    // Makes 16 pixels of a chunk of the left side, by products with diagonal matrices as `Block` does.
    DEVICE void depthwise(int chunk) {
        const Halo& source = shared.source[chunk % AHEAD];
        const int at = warp * 16 + lane % 16;
        const int pixel = at < TILE_ROWS * TILE_COLUMNS ? at : 0;
        const u16* from = source.pixels + lane / 16 * 8 +
                          (pixel / TILE_COLUMNS * IN_COLUMNS + pixel % TILE_COLUMNS) * STRIDE * PITCH;
        u16* to = shared.left[chunk % LEFT_STAGES] + (warp * 16 + g) * PITCH + 2 * t;
        const u32 on_diagonal = t == g / 2 ? 1u << g % 2 * 16 : 0u;
#pragma unroll
        for (int step = 0; step < CHUNK; step += 16) {
            float made[2][4];
            u32 taps[2][9];
#pragma unroll
            for (int n = 0; n < 2; n++) {
                const u32 biases = *(const u32*)(source.biases + step + n * 8 + 2 * t);
                made[n][0] = made[n][2] = low(biases);
                made[n][1] = made[n][3] = high(biases);
#pragma unroll
                for (int tap = 0; tap < 9; tap++)
                    taps[n][tap] = source.taps[(step + n * 8 + g) * 9 + tap] * on_diagonal;
            }
#pragma unroll
            for (int tap = 0; tap < 9; tap++) {
                u32 seen[4];
                load_matrix_4(seen, from + (tap / 3 * IN_COLUMNS + tap % 3) * PITCH + step);
                multiply_8(made[0], seen[0], seen[1], taps[0][tap]);
                multiply_8(made[1], seen[2], seen[3], taps[1][tap]);
            }
#pragma unroll
            for (int n = 0; n < 2; n++)
#pragma unroll
                for (int half = 0; half < 2; half++)
                    *(u32*)(to + half * 8 * PITCH + step + n * 8) =
                        pack_relu(made[n][2 * half], made[n][2 * half + 1]);
        }
    }

    DEVICE void store() {
        const int pixels = args.height * args.width;
        const int down = warp / WARPS_ACROSS, across = warp % WARPS_ACROSS;
        u16* out = (u16*)args.out + (u64)frame * pixels * args.outputs;
        const u16* residual = (const u16*)args.residual + (u64)frame * pixels * args.outputs;
        int at[STRIPS][2];
#pragma unroll
        for (int strip = 0; strip < STRIPS; strip++)
#pragma unroll
            for (int half = 0; half < 2; half++)
                at[strip][half] = out_pixel((down * STRIPS + strip) * 16 + half * 8 + g);
        // A load waits for the stores before it, which may be to its place: here are all of them.
        u32 biases[TILES], added[TILES][STRIPS][2];
#pragma unroll
        for (int n = 0; n < TILES; n++) {
            const int output = first_output + (across * TILES + n) * 8 + 2 * t;
            const bool there = output < args.outputs;
            biases[n] = there ? two_biases_at(args.weights, frame, args.bias, output) : 0u;
#pragma unroll
            for (int strip = 0; strip < STRIPS; strip++)
#pragma unroll
                for (int half = 0; half < 2; half++)
                    added[n][strip][half] =
                        args.residual && there && at[strip][half] >= 0
                            ? *(const u32*)(residual + at[strip][half] * args.outputs + output)
                            : 0u;
        }
#pragma unroll
        for (int n = 0; n < TILES; n++) {
            const int output = first_output + (across * TILES + n) * 8 + 2 * t;
            if (output >= args.outputs) continue;
#pragma unroll
            for (int strip = 0; strip < STRIPS; strip++)
#pragma unroll
                for (int half = 0; half < 2; half++) {
                    if (at[strip][half] < 0) continue;
                    const float a = sums[strip][n][2 * half] + low(biases[n]);
                    const float b = sums[strip][n][2 * half + 1] + high(biases[n]);
                    u32 both = args.relu ? pack_relu(a, b) : pack(a, b);
                    const u32 source = added[n][strip][half];
                    if (args.residual) both = pack(low(both) + low(source), high(both) + high(source));
                    *(u32*)(out + at[strip][half] * args.outputs + output) = both;
                }
        }
    }
};
