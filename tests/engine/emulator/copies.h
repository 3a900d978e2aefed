// Copies into shared memory that one thread has issued: PTX's cp.async and its groups.

#pragma once

#include <cstring>
#include <vector>

#include "device.h"

namespace emulator {

class Copies {
   public:
    // source: null for zeros
    static void copy(void* target, const void* source) {
        if (source) {
            std::memcpy(target, source, sizeof(Vec));
        } else {
            std::memset(target, 0, sizeof(Vec));
        }
    }

    void clear() { pending_.clear(); }
    void issue(void* target, const void* source) { pending_.push_back({target, source, groups_}); }
    void commit() { ++groups_; }

    // Those of all groups that were committed, but for the last ones, arrive.
    void wait(u64 but_the_last) {
        auto copied = pending_.begin();
        for (; copied != pending_.end() && copied->group + but_the_last < groups_; ++copied)
            copy(copied->target, copied->source);
        pending_.erase(pending_.begin(), copied);
    }

   private:
    struct Copy {
        void* target;
        const void* source;
        u64 group;
    };

    std::vector<Copy> pending_;  // in the order of their issue
    u64 groups_ = 0;             // committed
};

}  // namespace emulator
