// Threads that give way to each other only where they say so, all on one thread of the processor.

#pragma once

#include <memory>
#include <new>

#include <sys/mman.h>

#if !defined(__x86_64__) || defined(PORTABLE)
#include <ucontext.h>
#endif

namespace emulator {

#if defined(__x86_64__) && !defined(PORTABLE)

// What the System V ABI has a called function keep, on the stack that is left; 20 times faster than
// swapcontext, which also asks the system for the signal mask.
asm(R"(
.text
.hidden emulator_switch
.globl emulator_switch
.type emulator_switch, @function
emulator_switch:
    push %rbp
    push %rbx
    push %r12
    push %r13
    push %r14
    push %r15
    mov %rsp, (%rdi)
    mov %rsi, %rsp
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %rbx
    pop %rbp
    ret
.size emulator_switch, .-emulator_switch
)");
extern "C" void emulator_switch(void** left, void* entered);

struct Context {
    void* stack;

    // top: a multiple of 16
    void begin(unsigned char*, unsigned char* top, void (*start)()) {
        void** words = reinterpret_cast<void**>(top);
        *--words = nullptr;  // where start would return to
        *--words = reinterpret_cast<void*>(start);
        for (int i = 0; i < 6; ++i) *--words = nullptr;
        stack = words;
    }
    void change_to(Context& other) { emulator_switch(&stack, other.stack); }
};

#else

struct Context {
    ucontext_t state;

    void begin(unsigned char* bottom, unsigned char* top, void (*start)()) {
        getcontext(&state);
        state.uc_stack.ss_sp = bottom;
        state.uc_stack.ss_size = top - bottom;
        state.uc_link = nullptr;
        makecontext(&state, start, 0);
    }
    void change_to(Context& other) { swapcontext(&state, &other.state); }
};

#endif

// Fibers 0 to count - 1, and the thread outside of them that enters them.
class Fibers {
   public:
    Fibers() = default;
    Fibers(const Fibers&) = delete;
    ~Fibers() { release(); }

    // They all begin anew, with `start`, which never returns.
    void prepare(unsigned count, void (*start)()) {
        if (count > count_) {
            release();
            void* mapped = mmap(nullptr, count * STRIDE, PROT_READ | PROT_WRITE,
                                MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
            if (mapped == MAP_FAILED) throw std::bad_alloc();
            memory_ = static_cast<unsigned char*>(mapped);
            // A stack that overflows ends the process, not its neighbour.
            for (unsigned i = 0; i < count; ++i) mprotect(memory_ + i * STRIDE, PAGE, PROT_NONE);
            contexts_ = std::make_unique<Context[]>(count);
            count_ = count;
        }
        for (unsigned i = 0; i < count; ++i) {
            unsigned char* bottom = memory_ + i * STRIDE + PAGE;
            // Not all at one place of their pages: the stacks of a warp would share a few sets of
            // the processor's cache.
            contexts_[i].begin(bottom, bottom + STACK - i % 32 * 128, start);
        }
    }

    void enter(unsigned to) { outside_.change_to(contexts_[to]); }
    void change(unsigned from, unsigned to) { contexts_[from].change_to(contexts_[to]); }
    void leave(unsigned from) { contexts_[from].change_to(outside_); }

   private:
    static constexpr unsigned long PAGE = 4096;
    static constexpr unsigned long STACK = 64 << 10;
    static constexpr unsigned long STRIDE = PAGE + STACK;

    void release() {
        if (count_) munmap(memory_, count_ * STRIDE);
        count_ = 0;
    }

    unsigned count_ = 0;
    unsigned char* memory_ = nullptr;
    std::unique_ptr<Context[]> contexts_;
    Context outside_;
};

}  // namespace emulator
