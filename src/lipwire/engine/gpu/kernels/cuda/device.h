// What the kernels of network.cu need of a GPU: compute capability 8.0 and later, no other headers.
//
// Fragments are those of PTX's mma.m16n8k16 with float16 operands
// (https://docs.nvidia.com/cuda/parallel-thread-execution). With g = lane / 4 and t = lane % 4, a
// lane holds of a 16x16 matrix A (g, 2t..2t+1), (g+8, 2t..2t+1), (g, 2t+8..2t+9) and
// (g+8, 2t+8..2t+9), of B (16x8) rows 2t..2t+1 and 2t+8..2t+9 of column g, and of C (16x8)
// (g, 2t..2t+1) and (g+8, 2t..2t+1).

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define DEVICE __device__ __forceinline__

// The beginning of a kernel that sees `args`, of which CTAS blocks shall fit on a multiprocessor.
#define KERNEL(NAME, THREADS, CTAS, ARGS) \
    extern "C" __global__ void __launch_bounds__(THREADS, CTAS) NAME(const __grid_constant__ ARGS args)

// Eight halves.
struct alignas(16) Vec {
    u32 x[4];
};

DEVICE u32 thread_index() { return threadIdx.x; }
DEVICE u32 block_x() { return blockIdx.x; }
DEVICE u32 block_y() { return blockIdx.y; }
DEVICE u32 block_z() { return blockIdx.z; }
DEVICE u32 grid_x() { return gridDim.x; }
DEVICE u32 grid_y() { return gridDim.y; }
DEVICE u32 grid_z() { return gridDim.z; }

DEVICE void barrier() { __syncthreads(); }

DEVICE u8* shared_memory() {
    extern __shared__ __align__(128) u8 memory[];
    return memory;
}

DEVICE u32 shared_address(const void* pointer) { return (u32)__cvta_generic_to_shared(pointer); }

DEVICE float half_to_float(u16 half) {
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(half));
    return value;
}

DEVICE u16 float_to_half(float value) {
    u16 half;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(half) : "f"(value));
    return half;
}

// Two halves, the first one in the lower bits.
DEVICE u32 pack(float low, float high) {
    u32 both;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
    return both;
}

// The same of what is above zero, and zero for the rest. What is too large for a half is the largest
// one: infinity times a zero beside a diagonal would be no number, and spread to other channels.
DEVICE u32 pack_relu(float low, float high) {
    u32 both;
    asm("cvt.rn.relu.f16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
    asm("min.f16x2 %0, %0, %1;" : "+r"(both) : "r"(0x7bff7bffu));
    return both;
}

DEVICE float low(u32 both) { return half_to_float((u16)(both & 0xffff)); }
DEVICE float high(u32 both) { return half_to_float((u16)(both >> 16)); }

DEVICE Vec load16(const void* pointer) {
    const uint4 loaded = *(const uint4*)pointer;
    return Vec{{loaded.x, loaded.y, loaded.z, loaded.w}};
}

DEVICE void store16(void* pointer, const Vec& value) {
    *(uint4*)pointer = make_uint4(value.x[0], value.x[1], value.x[2], value.x[3]);
}

// Zeros where it is not `valid`; `global` is not read then.
DEVICE void copy16(void* shared, const void* global, bool valid) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)),
                 "l"(global), "r"(valid ? 16 : 0)
                 : "memory");
}

DEVICE void copies_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Until all groups but the last N are there, of this thread's.
template <int N>
DEVICE void copies_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

// Four 8x8 matrices of halves; lane i says where row i % 8 of matrix i / 8 is.
DEVICE void load_matrix_4(u32 (&r)[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row))
                 : "memory");
}

DEVICE void load_matrix_2(u32 (&r)[2], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
                 : "=r"(r[0]), "=r"(r[1])
                 : "r"(shared_address(row))
                 : "memory");
}

// d = a * b + c
DEVICE void multiply_add(float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1, const float (&c)[4]) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7},"
        " {%8, %9}, {%10, %11, %12, %13};"
        : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1), "f"(c[0]), "f"(c[1]),
          "f"(c[2]), "f"(c[3]));
}

DEVICE void multiply(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7},"
        " {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// The same with the first eight columns of a, and the first eight rows of b: c += a * b
DEVICE void multiply_8(float (&c)[4], u32 a0, u32 a1, u32 b0) {
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6},"
        " {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a0), "r"(a1), "r"(b0));
}

DEVICE float exponential(float x) { return __expf(x); }
DEVICE float round_even(float x) { return rintf(x); }
DEVICE float larger(float a, float b) { return fmaxf(a, b); }
DEVICE float smaller(float a, float b) { return fminf(a, b); }
