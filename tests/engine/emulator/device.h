// The primitives of lipwire/engine/gpu/kernels/cuda/device.h for g++: kernels run on the processor.
//
// KERNEL makes a C function that runs a whole grid; runtime.cpp has what is behind it. What is
// declared here is in the namespace `emulator`, the primitives themselves are global.

#pragma once

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define DEVICE inline

struct alignas(16) Vec {
    u32 x[4];
};

namespace emulator {

struct Shape {
    u32 grid_x, grid_y, grid_z;
    u32 threads;  // of a block
    u32 shared_bytes;
};

// The block that runs, as its threads see it.
struct Block : Shape {
    u32 x, y, z;
    u32 thread;  // the one that runs now
    u8* shared;
};

extern __thread Block* block;

constexpr u32 MOST_THREADS = 1024;  // of a block, on every GPU

struct Kernel {
    const char* name;
    u32 most_threads;
    void (*body)(const void* arguments);
};

// 0, or 1 where the kernel did what a GPU does not allow: emulator_error() says what.
int run(const Kernel& kernel, const Shape& shape, const void* arguments, u64 schedule);

// Ends the run if these 16 bytes cannot be accessed at once, or are beside the shared memory.
void check16(const char* primitive, const void* pointer);
void wait_for_copies(u64 but_the_last);

// __fp16 is what C++ for ARM calls it.
#ifdef __aarch64__
typedef __fp16 Half;
#else
typedef _Float16 Half;
#endif

}  // namespace emulator

#define KERNEL(NAME, THREADS, CTAS, ARGS)                                                        \
    static_assert(THREADS <= emulator::MOST_THREADS);                                            \
    static void NAME##_body(const ARGS& args);                                                   \
    extern "C" __attribute__((visibility("default"))) const u32 NAME##_bytes = sizeof(ARGS);     \
    extern "C" __attribute__((visibility("default"))) int NAME(                                  \
        u32 grid_x, u32 grid_y, u32 grid_z, u32 threads, u32 shared_bytes, const void* given,    \
        u64 schedule) {                                                                          \
        alignas(ARGS) u8 arguments[sizeof(ARGS)];                                                \
        __builtin_memcpy(arguments, given, sizeof(ARGS));                                        \
        const auto body = [](const void* it) { NAME##_body(*static_cast<const ARGS*>(it)); };    \
        return emulator::run({#NAME, THREADS, body},                                             \
                             {grid_x, grid_y, grid_z, threads, shared_bytes}, arguments,         \
                             schedule);                                                          \
    }                                                                                            \
    static void NAME##_body([[maybe_unused]] const ARGS& args)

DEVICE u32 thread_index() { return emulator::block->thread; }
DEVICE u32 block_x() { return emulator::block->x; }
DEVICE u32 block_y() { return emulator::block->y; }
DEVICE u32 block_z() { return emulator::block->z; }
DEVICE u32 grid_x() { return emulator::block->grid_x; }
DEVICE u32 grid_y() { return emulator::block->grid_y; }
DEVICE u32 grid_z() { return emulator::block->grid_z; }
DEVICE u8* shared_memory() { return emulator::block->shared; }

void barrier();

DEVICE float half_to_float(u16 bits) {
    emulator::Half half;
    __builtin_memcpy(&half, &bits, 2);
    return half;
}

DEVICE u16 float_to_half(float value) {
    const emulator::Half half = static_cast<emulator::Half>(value);
    u16 bits;
    __builtin_memcpy(&bits, &half, 2);
    return bits;
}

DEVICE u32 pack(float low, float high) {
    return float_to_half(low) | static_cast<u32>(float_to_half(high)) << 16;
}

// As PTX's cvt.relu and min: of what is not a number, min takes the other one.
DEVICE u32 pack_relu(float low, float high) {
    const auto finite = [](float value) {
        const u16 half = float_to_half(value <= 0 ? 0 : value);
        return half > 0x7bff ? static_cast<u16>(0x7bff) : half;
    };
    return finite(low) | static_cast<u32>(finite(high)) << 16;
}

DEVICE float low(u32 both) { return half_to_float(static_cast<u16>(both)); }
DEVICE float high(u32 both) { return half_to_float(static_cast<u16>(both >> 16)); }

DEVICE Vec load16(const void* pointer) {
    emulator::check16("load16", pointer);
    return *static_cast<const Vec*>(pointer);
}

DEVICE void store16(void* pointer, const Vec& value) {
    emulator::check16("store16", pointer);
    *static_cast<Vec*>(pointer) = value;
}

void copy16(void* shared, const void* global, bool valid);
void copies_commit();

template <int N>
DEVICE void copies_wait() {
    static_assert(N >= 0);
    emulator::wait_for_copies(N);
}

void load_matrix_4(u32 (&r)[4], const void* row);
void load_matrix_2(u32 (&r)[2], const void* row);
void multiply_add(float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1, const float (&c)[4]);

DEVICE void multiply(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    multiply_add(c, a, b0, b1, c);
}

DEVICE void multiply_8(float (&c)[4], u32 a0, u32 a1, u32 b0) {
    const u32 a[4] = {a0, a1, 0, 0};
    multiply(c, a, b0, 0);
}

DEVICE float exponential(float x) { return __builtin_expf(x); }
DEVICE float round_even(float x) { return __builtin_rintf(x); }

// The other one where one is not a number, as on GPUs.
DEVICE float larger(float a, float b) { return a > b || b != b ? a : b; }
DEVICE float smaller(float a, float b) { return a < b || b != b ? a : b; }
