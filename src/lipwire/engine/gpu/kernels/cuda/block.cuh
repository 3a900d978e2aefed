enum Ending { NO_MOUTH, SIGMOID, CLIP, AS_IT_IS };

struct WeightOffsets {  // of weights and biases in an image, in bytes
    u32 expand, expand_bias, depthwise, depthwise_bias, project, project_bias, mouth, mouth_bias;
};

struct BlockArgs {
    u64 weights;  // table of images, one a frame
    u64 first;    // a tensor, or the table of crops (320, 320, 3) uint8, one a frame
    u64 second;
    u64 out;  // a tensor, or mouths (height, width, 3) uint8
    int height, width;  // of the source
    int mask_top, mask_bottom, mask_left, mask_right;  // black in the second half of PIXELS
    int tiles_down;
    int tiles_each;  // of those one below the other, how many a block of threads does
    WeightOffsets at;
};

// A tile of an inverted residual:
//
//     1x1 to more channels, relu ─▶ 3x3 of each channel, relu ─▶ 1x1 to fewer channels (+ source)
//
// WARPS warps make 8 x (2 * STRIPS * WARPS) pixels, each STRIPS strips of 8x2 pixels: 16 rows of a
// left matrix. The middle is made CHUNK channels at a time, in turns in two buffers.
template <Source SOURCE, int CHANNELS_1, int CHANNELS_2, int MIDDLE, int OUTPUTS, int STRIDE, bool ADD,
          Ending ENDING, int WARPS, int STRIPS>
struct Block {
    static constexpr int THREADS = 32 * WARPS;
    static constexpr int INPUTS = CHANNELS_1 + CHANNELS_2;
    static constexpr int K = rounded_up(INPUTS, 16);
    static constexpr int STEPS = K / 16;
    static constexpr int WIDE = rounded_up(MIDDLE, 16);
    static constexpr int CHUNK = WIDE % 32 == 0 ? 32 : 16;
    static constexpr int CHUNKS = WIDE / CHUNK;
    static constexpr int NARROW = rounded_up(OUTPUTS, 8);
    static constexpr int COLUMNS = 8;
    static constexpr int ROWS = 2 * STRIPS * WARPS;
    static constexpr int IN_COLUMNS = (COLUMNS - 1) * STRIDE + 3;
    static constexpr int IN_ROWS = (ROWS - 1) * STRIDE + 3;
    static constexpr int IN_PIXELS = IN_COLUMNS * IN_ROWS;
    static constexpr int STRIPS_EACH = rounded_up(IN_PIXELS, 16 * WARPS) / (16 * WARPS);
    static constexpr int IN_STRIPS = STRIPS_EACH * WARPS;
    // A row is 16 bytes longer than its values: rows that are read together lie in other banks.
    static constexpr int K_PITCH = K + 8;
    static constexpr int CHUNK_PITCH = CHUNK + 8;
    static constexpr int WIDE_PITCH = WIDE + 8;
    static constexpr int TAPS = 12;  // nine, and what makes a channel's begin at 16 bytes

    struct Shared {
        alignas(16) u16 expand[WIDE * K_PITCH];
        alignas(16) u16 project[NARROW * WIDE_PITCH];
        alignas(16) u32 taps[(WIDE + 1) * TAPS];
        alignas(16) float expand_bias[WIDE];
        alignas(16) float depthwise_bias[WIDE];
        alignas(16) float project_bias[NARROW];
        union {
            alignas(16) u16 source[IN_STRIPS * 16 * K_PITCH];
            alignas(16) u16 middle[2][IN_STRIPS * 16 * CHUNK_PITCH];
        };
    };

    const BlockArgs& args;
    Shared& shared;
    const int frame;
    const int thread, warp, lane, g, t;
    int left, top;  // of the tile in the output
    u32 held[STRIPS_EACH][STEPS][4];
    u32 inside;  // two bits for each strip: whether rows g and g + 8 are inside the picture
    float sums[STRIPS][NARROW / 8][4];

    DEVICE Block(const BlockArgs& args)
        : args(args),
          shared(*(Shared*)shared_memory()),
          frame(block_z()),
          thread(thread_index()),
          warp(thread_index() / 32),
          lane(thread_index() % 32),
          g(thread_index() % 32 / 4),
          t(thread_index() % 4) {}

    DEVICE void run() {
        load_matrix<WIDE, K, K_PITCH, MIDDLE, INPUTS>(shared.expand, weights(args.at.expand));
        load_matrix<NARROW, WIDE, WIDE_PITCH, OUTPUTS, MIDDLE>(shared.project, weights(args.at.project));
        left = (int)block_x() * COLUMNS;
        for (int i = 0; i < args.tiles_each; i++) {
            const int tile = (int)block_y() * args.tiles_each + i;
            if (tile >= args.tiles_down) return;
            top = tile * ROWS;
            if (i > 0) barrier();  // nobody reads what is overwritten now
            load_source();
            copies_commit();
            if (i == 0) load_taps_and_biases();  // while copies are on their way
            copies_wait<0>();
            barrier();
            hold_source();
            barrier();
#pragma unroll
            for (int strip = 0; strip < STRIPS; strip++)
#pragma unroll
                for (int n = 0; n < NARROW / 8; n++)
#pragma unroll
                    for (int j = 0; j < 4; j++) sums[strip][n][j] = 0;
#pragma unroll 1
            for (int chunk = 0; chunk < CHUNKS; chunk++) {
                expand(chunk);
                barrier();
                project(chunk);
            }
            if (ENDING == NO_MOUTH)
                store();
            else
                store_mouth();
        }
    }

    DEVICE const u16* weights(u32 offset_bytes) const {
        return weights_at(args.weights, frame, offset_bytes);
    }

    DEVICE void load_taps_and_biases() {
        // As they lie in the diagonal of a right matrix: in the upper half where the channel is odd.
        // Behind the last channel there are zeros, for what is beside the diagonal.
        const u16* taps = weights(args.at.depthwise);
        for (int i = thread; i < (WIDE + 1) * TAPS; i += THREADS) {
            const int channel = i / TAPS, tap = i % TAPS;
            const u32 value = channel < MIDDLE && tap < 9 ? taps[channel * 9 + tap] : (u16)0;
            shared.taps[i] = value << channel % 2 * 16;
        }
        for (int i = thread; i < WIDE; i += THREADS) {
            const bool there = i < MIDDLE;
            shared.expand_bias[i] =
                there ? bias_at(args.weights, frame, args.at.expand_bias, i) : 0.0f;
            shared.depthwise_bias[i] =
                there ? bias_at(args.weights, frame, args.at.depthwise_bias, i) : 0.0f;
        }
        for (int i = thread; i < NARROW; i += THREADS)
            shared.project_bias[i] =
                i < OUTPUTS ? bias_at(args.weights, frame, args.at.project_bias, i) : 0.0f;
    }

    // (N, K) with zeros where `from`, (ROWS_THERE, COLUMNS_THERE), ends.
    template <int N, int DEPTH, int PITCH, int ROWS_THERE, int COLUMNS_THERE>
    DEVICE void load_matrix(u16* to, const u16* from) {
        if (COLUMNS_THERE % 8 == 0) {
            for (int i = thread; i < N * (DEPTH / 8); i += THREADS) {
                const int row = i / (DEPTH / 8), column = i % (DEPTH / 8) * 8;
                const bool there = row < ROWS_THERE && column < COLUMNS_THERE;
                copy16(to + row * PITCH + column, from + (there ? row * COLUMNS_THERE + column : 0),
                       there);
            }
        } else {
            for (int i = thread; i < N * DEPTH; i += THREADS) {
                const int row = i / DEPTH, column = i % DEPTH;
                const bool there = row < ROWS_THERE && column < COLUMNS_THERE;
                to[row * PITCH + column] = there ? from[row * COLUMNS_THERE + column] : (u16)0;
            }
        }
    }

    // The tile's source and a pixel round it, zeros outside the picture. What is done to a pixel is
    // the same in a whole warp: channels that are copied and those that are made have their own turns.
    DEVICE void load_source() {
        const u64 pixels = (u64)args.height * args.width;
        if constexpr (SOURCE == PIXELS) {
            for_pixels<2>([&](u16* to, int y, int x, bool there, int vec) {
                store16(to + vec * 8, there && vec == 0 ? pixel_of(y, x) : zeros());
            });
        } else {
            if constexpr (SOURCE == DOUBLED) {
                const u16* small = (const u16*)args.first + frame * (pixels / 4) * CHANNELS_1;
                const float row_step = stretch(args.height / 2, args.height);
                const float column_step = stretch(args.width / 2, args.width);
                for_pixels<CHANNELS_1 / 8>([&](u16* to, int y, int x, bool there, int vec) {
                    store16(to + vec * 8, there ? doubled(small, args.height, args.width, CHANNELS_1,
                                                          row_step, column_step, y, x, vec * 8)
                                                : zeros());
                });
            } else
                copy_source<CHANNELS_1>((const u16*)args.first + frame * pixels * CHANNELS_1, 0);
            if constexpr (CHANNELS_2 > 0)
                copy_source<CHANNELS_2>((const u16*)args.second + frame * pixels * CHANNELS_2,
                                        CHANNELS_1);
            if constexpr (K > INPUTS)
                for_pixels<(K - INPUTS) / 8>([&](u16* to, int, int, bool, int vec) {
                    store16(to + INPUTS + vec * 8, zeros());
                });
        }
    }

    template <int CHANNELS>
    DEVICE void copy_source(const u16* from, int first_channel) {
        for_pixels<CHANNELS / 8>([&](u16* to, int y, int x, bool there, int vec) {
            copy16(to + first_channel + vec * 8,
                   from + (there ? (y * args.width + x) * CHANNELS + vec * 8 : 0), there);
        });
    }

    // Calls `make(place, y, x, whether that is inside the picture, vec)` for VECS vecs of each pixel.
    template <int VECS, typename Make>
    DEVICE void for_pixels(Make make) {
        const int first_row = top * STRIDE - 1, first_column = left * STRIDE - 1;
        for (int i = thread; i < IN_STRIPS * 16 * VECS; i += THREADS) {
            const int pixel = i / VECS;
            const int y = first_row + pixel / IN_COLUMNS, x = first_column + pixel % IN_COLUMNS;
            const bool there =
                pixel < IN_PIXELS && y >= 0 && y < args.height && x >= 0 && x < args.width;
            make(shared.source + pixel * K_PITCH, y, x, there, i % VECS);
        }
    }

    // The crop's three colours, and again, black in the mask.
    DEVICE Vec pixel_of(int y, int x) const {
        const u8* crop = (const u8*)((const u64*)args.first)[frame] + (y * args.width + x) * 3;
        // As halves these are what divisions by 255 give, for all 256 values.
        const float a = (float)crop[0] * (1 / 255.0f), b = (float)crop[1] * (1 / 255.0f),
                    c = (float)crop[2] * (1 / 255.0f);
        const bool black =
            y >= args.mask_top && y < args.mask_bottom && x >= args.mask_left && x < args.mask_right;
        const float seen = black ? 0.0f : 1.0f;
        return Vec{{pack(a, b), pack(c, a * seen), pack(b * seen, c * seen), 0}};
    }

    // Takes the source into registers, where it stays: shared memory is for the middle.
    DEVICE void hold_source() {
        inside = 0;
#pragma unroll
        for (int i = 0; i < STRIPS_EACH; i++) {
            const int strip = warp + i * WARPS;
            const u16* row = shared.source + (strip * 16 + lane % 16) * K_PITCH + lane / 16 * 8;
#pragma unroll
            for (int step = 0; step < STEPS; step++) load_matrix_4(held[i][step], row + step * 16);
#pragma unroll
            for (int half = 0; half < 2; half++) {
                const int pixel = strip * 16 + half * 8 + g;
                const int y = top * STRIDE - 1 + pixel / IN_COLUMNS;
                const int x = left * STRIDE - 1 + pixel % IN_COLUMNS;
                if (y >= 0 && y < args.height && x >= 0 && x < args.width) inside |= 1u << (2 * i + half);
            }
        }
    }

    // Makes CHUNK channels of the middle for the tile and the pixel round it. Outside the picture it
    // is zero, as the 3x3 wants it, and not what a bias makes of zeros.
    DEVICE void expand(int chunk) {
        u16* middle = shared.middle[chunk % 2];
#pragma unroll
        for (int n = 0; n < CHUNK / 8; n++) {
            const int channel = chunk * CHUNK + n * 8;
            const float bias_0 = shared.expand_bias[channel + 2 * t];
            const float bias_1 = shared.expand_bias[channel + 2 * t + 1];
            const float biases[4] = {bias_0, bias_1, bias_0, bias_1};
            float made[STRIPS_EACH][4];
            const u16* row = shared.expand + (channel + lane % 8) * K_PITCH + lane / 8 % 2 * 8;
#pragma unroll
            for (int step = 0; step < STEPS; step++) {
                u32 right[2];
                load_matrix_2(right, row + step * 16);
#pragma unroll
                for (int i = 0; i < STRIPS_EACH; i++) {
                    if (step == 0)
                        multiply_add(made[i], held[i][step], right[0], right[1], biases);
                    else
                        multiply(made[i], held[i][step], right[0], right[1]);
                }
            }
#pragma unroll
            for (int i = 0; i < STRIPS_EACH; i++) {
                const int strip = warp + i * WARPS;
                u16* to = middle + (strip * 16 + g) * CHUNK_PITCH + n * 8 + 2 * t;
#pragma unroll
                for (int half = 0; half < 2; half++) {
                    const u32 both = pack_relu(made[i][2 * half], made[i][2 * half + 1]);
                    *(u32*)(to + half * 8 * CHUNK_PITCH) = inside >> (2 * i + half) & 1 ? both : 0u;
                }
            }
        }
    }

    // The 3x3 of CHUNK channels, made where the product wants its left side, and their part of the
    // sums. What a product leaves in registers lies there as the left side of the next one does.
    DEVICE void project(int chunk) {
        const u16* middle = shared.middle[chunk % 2];
#pragma unroll
        for (int step = 0; step < CHUNK / 16; step++) {
            float made[STRIPS][2][4];
            depthwise(middle + step * 16, chunk * CHUNK + step * 16, made);
            u32 left_side[STRIPS][4];
#pragma unroll
            for (int strip = 0; strip < STRIPS; strip++)
#pragma unroll
                for (int j = 0; j < 4; j++)
                    left_side[strip][j] = pack_relu(made[strip][j / 2][j % 2 * 2],
                                                    made[strip][j / 2][j % 2 * 2 + 1]);
            const u16* row = shared.project + lane % 8 * WIDE_PITCH + chunk * CHUNK + step * 16 +
                             lane / 8 % 2 * 8;
#pragma unroll
            for (int n = 0; n < NARROW / 8; n++) {
                u32 right[2];
                load_matrix_2(right, row + n * 8 * WIDE_PITCH);
#pragma unroll
                for (int strip = 0; strip < STRIPS; strip++)
                    multiply(sums[strip][n], left_side[strip], right[0], right[1]);
            }
        }
    }

    // The 3x3 of 16 channels from `first` on: for each tap a product with a diagonal matrix, eight
    // channels at a time. That takes a third of the instructions that single sums do.
    DEVICE void depthwise(const u16* middle, int first, float (&made)[STRIPS][2][4]) {
        u32 taps[2][TAPS];
#pragma unroll
        for (int n = 0; n < 2; n++) {
            const int channel = first + n * 8;
            const u32* from = shared.taps + (t == g / 2 ? channel + g : WIDE) * TAPS;
#pragma unroll
            for (int i = 0; i < TAPS / 4; i++) {
                const Vec four = load16(from + i * 4);
#pragma unroll
                for (int j = 0; j < 4; j++) taps[n][i * 4 + j] = four.x[j];
            }
            const float bias_0 = shared.depthwise_bias[channel + 2 * t];
            const float bias_1 = shared.depthwise_bias[channel + 2 * t + 1];
#pragma unroll
            for (int strip = 0; strip < STRIPS; strip++) {
                made[strip][n][0] = made[strip][n][2] = bias_0;
                made[strip][n][1] = made[strip][n][3] = bias_1;
            }
        }
        // Rows of eight pixels that are IN_STEP apart are loaded in pairs. At a stride of one, what a
        // row is to one tap it is to the next one's row above.
        constexpr int IN_STEP = STRIDE;
        constexpr int PAIRS = STRIDE == 1 ? STRIPS + 1 : 3 * STRIPS;
        const u16* from = middle + lane / 16 * 8 +
                          ((warp * 2 * STRIPS * STRIDE + lane / 8 % 2 * IN_STEP) * IN_COLUMNS +
                           lane % 8 * STRIDE) *
                              CHUNK_PITCH;
#pragma unroll
        for (int x = 0; x < 3; x++) {
            u32 rows[PAIRS][4];
#pragma unroll
            for (int pair = 0; pair < PAIRS; pair++) {
                const int row = STRIDE == 1 ? 2 * pair : pair / 3 * 4 + pair % 3;
                load_matrix_4(rows[pair], from + (row * IN_COLUMNS + x) * CHUNK_PITCH);
            }
#pragma unroll
            for (int strip = 0; strip < STRIPS; strip++)
#pragma unroll
                for (int y = 0; y < 3; y++)
#pragma unroll
                    for (int n = 0; n < 2; n++) {
                        // Row r of the warp's is half r % 2 of pair r / 2.
                        const int r = 2 * strip + y;
                        const u32 upper = STRIDE == 1 ? rows[r / 2][2 * n + r % 2]
                                                      : rows[strip * 3 + y][2 * n];
                        const u32 lower = STRIDE == 1 ? rows[(r + 1) / 2][2 * n + (r + 1) % 2]
                                                      : rows[strip * 3 + y][2 * n + 1];
                        multiply_8(made[strip][n], upper, lower, taps[n][y * 3 + x]);
                    }
        }
    }

    // Calls `make(number of the pixel in the batch, strip, half)` for this thread's results that are
    // in the picture.
    template <typename Make>
    DEVICE void for_results(Make make) const {
        const int height = (args.height - 1) / STRIDE + 1, width = (args.width - 1) / STRIDE + 1;
        const int x = left + g;
#pragma unroll
        for (int strip = 0; strip < STRIPS; strip++)
#pragma unroll
            for (int half = 0; half < 2; half++) {
                const int y = top + (warp * STRIPS + strip) * 2 + half;
                if (y < height && x < width) make(((u64)frame * height + y) * width + x, strip, half);
            }
    }

    // What pixels' channels n * 8 + 2t and the next one are, as halves. A load waits for the stores
    // before it, which may be to its place: here are all of them.
    DEVICE void results(u32 (&made)[STRIPS][2][NARROW / 8]) const {
        if (ADD)
            for_results([&](u64 pixel, int strip, int half) {
                const u16* from = (const u16*)args.first + pixel * INPUTS + 2 * t;
#pragma unroll
                for (int n = 0; n < NARROW / 8; n++) made[strip][half][n] = *(const u32*)(from + n * 8);
            });
#pragma unroll
        for (int strip = 0; strip < STRIPS; strip++)
#pragma unroll
            for (int half = 0; half < 2; half++)
#pragma unroll
                for (int n = 0; n < NARROW / 8; n++) {
                    const int channel = n * 8 + 2 * t;
                    u32 both = pack(sums[strip][n][2 * half] + shared.project_bias[channel],
                                    sums[strip][n][2 * half + 1] + shared.project_bias[channel + 1]);
                    const u32 source = made[strip][half][n];
                    if (ADD) both = pack(low(both) + low(source), high(both) + high(source));
                    made[strip][half][n] = both;
                }
    }

    DEVICE void store() {
        u32 made[STRIPS][2][NARROW / 8] = {};
        results(made);
        for_results([&](u64 pixel, int strip, int half) {
            u16* to = (u16*)args.out + pixel * OUTPUTS + 2 * t;
#pragma unroll
            for (int n = 0; n < NARROW / 8; n++) *(u32*)(to + n * 8) = made[strip][half][n];
        });
    }

    // A last 1x1 to the three colours. Sums of two times eight channels are, as they lie in
    // registers, the left side of another product.
    DEVICE void store_mouth() {
        const u16* from = weights(args.at.mouth);
        u32 right[2] = {0, 0};
        if (g < 3) {
            right[0] = *(const u32*)(from + g * OUTPUTS + 2 * t);
            if (NARROW > 8) right[1] = *(const u32*)(from + g * OUTPUTS + 8 + 2 * t);
        }
        float biases[2] = {0, 0};
#pragma unroll
        for (int j = 0; j < 2; j++)
            if (2 * t + j < 3) biases[j] = bias_at(args.weights, frame, args.at.mouth_bias, 2 * t + j);
        u32 left_sides[STRIPS][2][NARROW / 8] = {};
        results(left_sides);
        float made[STRIPS][4];
#pragma unroll
        for (int strip = 0; strip < STRIPS; strip++) {
            u32 left_side[4] = {0, 0, 0, 0};
#pragma unroll
            for (int half = 0; half < 2; half++)
#pragma unroll
                for (int n = 0; n < NARROW / 8; n++)
                    left_side[2 * n + half] = left_sides[strip][half][n];
#pragma unroll
            for (int j = 0; j < 4; j++) made[strip][j] = 0;
            multiply(made[strip], left_side, right[0], right[1]);
        }
        for_results([&](u64 pixel, int strip, int half) {
            u8* to = (u8*)args.out + pixel * 3;
#pragma unroll
            for (int j = 0; j < 2; j++)
                if (2 * t + j < 3)
                    to[2 * t + j] = colour(made[strip][2 * half + j] + biases[j]);
        });
    }

    // Rounded to float16 where the network ends, and to whole colours.
    DEVICE static u8 colour(float value) {
        value = half_to_float(float_to_half(value));
        if (ENDING == SIGMOID)
            value = half_to_float(float_to_half(1.0f / (1.0f + exponential(-value))));
        return (u8)round_even(smaller(larger(value * 255.0f, 0.0f), 255.0f));
    }
};
