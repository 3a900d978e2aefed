// Blocks run one after another on each of the processor's threads. A block's threads are fibers.
//
// A warp's lanes run one after another, each until it stops: at a barrier, at an instruction of the
// whole warp, or at the kernel's end. The last one to stop looks what they stopped at, does the
// warp's instruction for all of them, and chooses the warp that goes on. With schedule 0 that is
// the first that can, lanes in the order of their numbers. With another both orders are drawn anew
// each time, and copies may arrive as soon as they are issued: what a kernel leaves to chance shows
// as a result that depends on the schedule.

#include <algorithm>
#include <atomic>
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <memory>
#include <mutex>
#include <numeric>
#include <thread>
#include <vector>

#include "copies.h"
#include "device.h"
#include "fibers.h"
#include "matrices.h"

namespace emulator {

__thread Block* block;

namespace {

constexpr u32 MOST_YZ = 65535;      // blocks along y and along z, on every GPU
constexpr u32 GUARD_BYTES = 4096;   // on both sides of the shared memory
constexpr u8 GUARD = 0xA5;
constexpr u32 BLOCKS_AT_ONCE = 4;   // that a thread of the processor takes
constexpr u32 ERROR_BYTES = 512;

thread_local char error[ERROR_BYTES];

enum Stop : u8 { BARRIER, LOAD_4, LOAD_2, MULTIPLY, FINISHED };
constexpr const char* STOPS[] = {"barrier", "load_matrix_4", "load_matrix_2", "multiply",
                                 "its end"};

// splitmix64 (Steele, Lea, Flood 2014)
struct Random {
    u64 state;

    u64 next() {
        u64 z = state += 0x9E3779B97F4A7C15;
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9;
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB;
        return z ^ (z >> 31);
    }
    u32 below(u32 end) { return static_cast<u32>((next() >> 32) * end >> 32); }
};

// Runs blocks of one launch after another.
class Machine : public Block {
   public:
    // To the end of the block, or to what is wrong with it: error() says so, else it is empty.
    void run_block(u64 number);
    void prepare(const Kernel& kernel, const Shape& shape, const void* arguments, u64 schedule);

    void stop(Stop where);
    [[noreturn]] void fail(const char* format, ...) __attribute__((format(printf, 2, 3)));
    bool is_shared(const void* pointer) const;
    bool is_beside_shared(const void* pointer) const;
    Operands& operands() { return operands_[thread]; }
    Copies& copies() { return copies_[thread]; }
    const char* error() const { return error_; }
    bool copies_arrive_at_once() { return schedule_ != 0 && random_.next() & 1; }

   private:
    static void thread_main();
    u32 next_warp();
    bool finish_instruction();
    void begin_warp();
    void load(u32 matrices);
    u8* guarded() { return shared - GUARD_BYTES; }

    Kernel kernel_;
    const void* arguments_;
    u64 schedule_;
    Random random_;

    Fibers fibers_;
    Operands operands_[MOST_THREADS];
    Copies copies_[MOST_THREADS];
    Stop stops_[MOST_THREADS];
    std::vector<u8> memory_;
    std::vector<u32> ready_;  // warps, in the order of their numbers
    u32 finished_ = 0;        // warps

    u32 first_ = 0;   // thread of the warp that runs
    u32 width_ = 0;   // lanes that the warp has
    u32 place_ = 0;   // in order_, of the lane that runs
    u8 order_[LANES];
    char error_[ERROR_BYTES];
};

Machine& machine() { return *static_cast<Machine*>(block); }

void Machine::prepare(const Kernel& kernel, const Shape& shape, const void* arguments,
                      u64 schedule) {
    static_cast<Shape&>(*this) = shape;
    kernel_ = kernel;
    arguments_ = arguments;
    schedule_ = schedule;
    error_[0] = 0;
    // Aligned to 128 bytes, and to no more.
    memory_.resize(shared_bytes + 2 * GUARD_BYTES + 512);
    shared = memory_.data() + GUARD_BYTES;
    shared += -reinterpret_cast<u64>(shared) % 256 + 128;
    std::memset(guarded(), GUARD, GUARD_BYTES);
    std::memset(shared + shared_bytes, GUARD, GUARD_BYTES);
    fibers_.prepare(threads, thread_main);
}

void Machine::thread_main() {
    // Block after block: a fiber that has stopped at the end goes on here with the next block.
    for (;;) {
        Machine& mine = machine();
        mine.kernel_.body(mine.arguments_);
        mine.stop(FINISHED);
    }
}

void Machine::run_block(u64 number) {
    block = this;
    x = static_cast<u32>(number % grid_x);
    y = static_cast<u32>(number / grid_x % grid_y);
    z = static_cast<u32>(number / grid_x / grid_y);
    random_.state = schedule_ * 0xD1342543DE82EF95 + number;
    std::memset(shared, 0xFF, shared_bytes);
    for (u32 i = 0; i < threads; ++i) copies_[i].clear();
    ready_.resize((threads + LANES - 1) / LANES);
    std::iota(ready_.begin(), ready_.end(), 0);
    finished_ = 0;
    begin_warp();
    fibers_.enter(thread = first_ + order_[0]);
    if (error_[0]) return;
    const auto is_guard = [](u8 byte) { return byte == GUARD; };
    if (!std::all_of(guarded(), shared, is_guard) ||
        !std::all_of(shared + shared_bytes, shared + shared_bytes + GUARD_BYTES, is_guard)) {
        std::snprintf(error_, ERROR_BYTES,
                      "%s: block (%u, %u, %u) wrote beside its %u bytes of shared memory",
                      kernel_.name, x, y, z, shared_bytes);
    }
}

void Machine::fail(const char* format, ...) {
    const int used = std::snprintf(error_, ERROR_BYTES, "%s: block (%u, %u, %u), thread %u: ",
                                   kernel_.name, x, y, z, thread);
    va_list values;
    va_start(values, format);
    std::vsnprintf(error_ + used, ERROR_BYTES - used, format, values);
    va_end(values);
    fibers_.leave(thread);
    __builtin_unreachable();  // the fibers of a failed block are not entered again
}

void Machine::stop(Stop where) {
    stops_[thread] = where;
    const u32 from = thread;
    const u32 to = ++place_ < width_ ? first_ + order_[place_] : next_warp();
    if (to == MOST_THREADS) {
        fibers_.leave(from);
    } else {
        thread = to;
        if (to != from) fibers_.change(from, to);
    }
}

// The first thread of the warp that runs next; MOST_THREADS at the end of the block.
u32 Machine::next_warp() {
    if (!finish_instruction()) {
        ready_.erase(std::find(ready_.begin(), ready_.end(), first_ / LANES));
        const u32 warps = (threads + LANES - 1) / LANES;
        if (ready_.empty()) {
            if (finished_ == warps) return MOST_THREADS;
            if (finished_ != 0)
                fail("%u of the %u warps ended and did not reach the barrier of the others",
                     finished_, warps);
            ready_.resize(warps);
            std::iota(ready_.begin(), ready_.end(), 0);
        }
    }
    begin_warp();
    return first_ + order_[0];
}

void Machine::begin_warp() {
    const u32 count = static_cast<u32>(ready_.size());
    first_ = LANES * ready_[schedule_ ? random_.below(count) : 0];
    width_ = std::min(LANES, threads - first_);
    place_ = 0;
    std::iota(order_, order_ + width_, 0);
    if (schedule_)
        for (u32 i = width_; i > 1; --i) std::swap(order_[i - 1], order_[random_.below(i)]);
}

// What the warp's lanes, which have all stopped, stopped for. Whether the warp goes on now.
bool Machine::finish_instruction() {
    const Stop where = stops_[first_];
    for (u32 i = 1; i < width_; ++i) {
        const Stop other = stops_[first_ + i];
        if (other != where) {
            thread = first_ + i;
            fail("stopped at %s, lane 0 of its warp at %s", STOPS[other], STOPS[where]);
        }
    }
    if (where == FINISHED) ++finished_;
    if (where == FINISHED || where == BARRIER) return false;
    if (width_ != LANES) fail("%s by a warp of %u threads, not %u", STOPS[where], width_, LANES);
    if (where == MULTIPLY) {
        multiply_matrices(&operands_[first_]);
    } else {
        load(where == LOAD_4 ? 4 : 2);
    }
    return true;
}

void Machine::load(u32 matrices) {
    for (u32 i = 0; i < 8 * matrices; ++i) {
        thread = first_ + i;
        const void* row = operands_[thread].row;
        const char* name = STOPS[stops_[thread]];
        check16(name, row);
        if (!is_shared(row)) fail("%s of %p, which is not shared memory", name, row);
    }
    load_matrices(&operands_[first_], matrices);
}

bool Machine::is_shared(const void* pointer) const {
    const u64 offset = static_cast<const u8*>(pointer) - shared;
    return offset < shared_bytes && offset + sizeof(Vec) <= shared_bytes;
}

bool Machine::is_beside_shared(const void* pointer) const {
    const u64 offset = static_cast<const u8*>(pointer) - (shared - GUARD_BYTES);
    return offset < shared_bytes + 2 * GUARD_BYTES && !is_shared(pointer);
}

// Machines that no launch uses: their stacks are worth keeping.
std::mutex idle_lock;
std::vector<std::unique_ptr<Machine>> idle;

std::unique_ptr<Machine> take_machine() {
    std::lock_guard held(idle_lock);
    if (idle.empty()) return std::make_unique<Machine>();
    std::unique_ptr<Machine> taken = std::move(idle.back());
    idle.pop_back();
    return taken;
}

}  // namespace

int run(const Kernel& kernel, const Shape& shape, const void* arguments, u64 schedule) {
    const auto [x, y, z, threads, shared_bytes] = shape;
    const u64 blocks = static_cast<u64>(x) * y * z;
    if (threads == 0 || threads > kernel.most_threads || blocks == 0 ||
        y > MOST_YZ || z > MOST_YZ) {
        std::snprintf(error, ERROR_BYTES,
                      "%s: cannot be launched as (%u, %u, %u) blocks of %u threads", kernel.name, x,
                      y, z, threads);
        return 1;
    }
    std::atomic<u64> begun = 0;
    const auto work = [&](char* failure) {
        std::unique_ptr<Machine> mine = take_machine();
        mine->prepare(kernel, shape, arguments, schedule);
        for (u64 i; (i = begun.fetch_add(BLOCKS_AT_ONCE)) < blocks && !failure[0];) {
            const u64 end = std::min(i + BLOCKS_AT_ONCE, blocks);
            for (; i < end && !failure[0]; ++i) {
                // Backwards, as good as any order, with an odd schedule.
                mine->run_block(schedule % 2 ? blocks - 1 - i : i);
                std::memcpy(failure, mine->error(), ERROR_BYTES);
            }
        }
        if (failure[0]) begun = blocks;  // for the others too
        std::lock_guard held(idle_lock);
        idle.push_back(std::move(mine));
    };
    const u64 most = (blocks + BLOCKS_AT_ONCE - 1) / BLOCKS_AT_ONCE;
    const u64 count = std::min<u64>(most, std::max(1u, std::thread::hardware_concurrency()));
    std::vector<std::thread> others;
    std::vector<char> failures(count * ERROR_BYTES);
    for (u64 i = 1; i < count; ++i) others.emplace_back(work, &failures[i * ERROR_BYTES]);
    work(&failures[0]);
    for (std::thread& other : others) other.join();
    for (u64 i = 0; i < count; ++i) {
        if (failures[i * ERROR_BYTES]) {
            std::memcpy(error, &failures[i * ERROR_BYTES], ERROR_BYTES);
            return 1;
        }
    }
    return 0;
}

void check16(const char* primitive, const void* pointer) {
    Machine& mine = machine();
    if (reinterpret_cast<u64>(pointer) % sizeof(Vec))
        mine.fail("%s of %p, which is not aligned to 16 bytes", primitive, pointer);
    if (mine.is_beside_shared(pointer))
        mine.fail("%s of byte %ld of %u bytes of shared memory", primitive,
                  static_cast<long>(static_cast<const u8*>(pointer) - mine.shared),
                  mine.shared_bytes);
}

void wait_for_copies(u64 but_the_last) { machine().copies().wait(but_the_last); }

}  // namespace emulator

using emulator::machine;

void barrier() { machine().stop(emulator::BARRIER); }

void copy16(void* shared, const void* global, bool valid) {
    emulator::Machine& mine = machine();
    emulator::check16("copy16 to", shared);
    if (!mine.is_shared(shared)) mine.fail("copy16 to %p, which is not shared memory", shared);
    emulator::check16("copy16 from", global);
    if (valid && mine.is_shared(global))
        mine.fail("copy16 from %p, which is shared memory", global);
    const void* source = valid ? global : nullptr;
    if (mine.copies_arrive_at_once()) {
        emulator::Copies::copy(shared, source);
    } else {
        mine.copies().issue(shared, source);
    }
}

void copies_commit() { machine().copies().commit(); }

void load_matrix_4(u32 (&r)[4], const void* row) {
    emulator::Machine& mine = machine();
    emulator::Operands& lane = mine.operands();
    lane.results = r;
    lane.row = row;
    mine.stop(emulator::LOAD_4);
}

void load_matrix_2(u32 (&r)[2], const void* row) {
    emulator::Machine& mine = machine();
    emulator::Operands& lane = mine.operands();
    lane.results = r;
    lane.row = row;
    mine.stop(emulator::LOAD_2);
}

void multiply_add(float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1, const float (&c)[4]) {
    emulator::Machine& mine = machine();
    emulator::Operands& lane = mine.operands();
    lane.results = d;
    lane.a = a;
    lane.b0 = b0;
    lane.b1 = b1;
    lane.c = c;
    mine.stop(emulator::MULTIPLY);
}

extern "C" __attribute__((visibility("default"))) const char* emulator_error() {
    return emulator::error;
}
