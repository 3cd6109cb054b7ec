#include "shared.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

using namespace emulator;

extern "C" {
unsigned char* emulator_dynamic_shared;
}

namespace emulator {
namespace {

// What unwritten memory holds: NaN as a float, -1 as an integer.
constexpr int junk = 0xff;
constexpr unsigned char guard = 0xb5;
constexpr size_t most = 227 << 10, guarded = 1024, page = 4096;

struct Copy {
    void* shared;
    const void* global;
    unsigned bytes;
    bool valid;
    unsigned group;
};
struct Copies {
    std::vector<Copy> under_way;
    unsigned group = 0;
};
Copies copies[1024];

unsigned char* dynamic_memory() {
    static unsigned char* memory = [] {
        const size_t bytes = (most + guarded + page - 1) / page * page;
        void* mapped = mmap(nullptr, bytes + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (mapped == MAP_FAILED) abort();
        mprotect(static_cast<unsigned char*>(mapped) + bytes, page, PROT_NONE);
        return static_cast<unsigned char*>(mapped);
    }();
    return memory;
}

bool within(const void* p, size_t bytes, const unsigned char* begin, const unsigned char* end) {
    auto at = static_cast<const unsigned char*>(p);
    return at >= begin && at <= end && bytes <= (size_t)(end - at);
}

}  // namespace

void shared_begin(const Launch& launch) {
    emulator_dynamic_shared = dynamic_memory();
    memset(launch.source->shared_begin, junk, (size_t)(launch.source->shared_end - launch.source->shared_begin));
    memset(emulator_dynamic_shared, junk, launch.shared);
    memset(emulator_dynamic_shared + launch.shared, guard, guarded);
}

void shared_end(const Launch& launch, Failure& failure) {
    for (size_t i = 0; i < guarded; i++)
        if (emulator_dynamic_shared[launch.shared + i] != guard) {
            failure = {700, whereabouts() + " (the block's last): written " + std::to_string(i) + " bytes behind the " + std::to_string(launch.shared) +
                                " bytes of dynamic shared memory"};
            return;
        }
}

void copies_begin() {
    for (Copies& c : copies)
        if (c.group || !c.under_way.empty()) c.under_way.clear(), c.group = 0;
}

void copies_end(unsigned thread) {
    copies[thread].under_way.clear();
    copies[thread].group = 0;
}

}  // namespace emulator

extern "C" {

void emulator_need_shared(const void* p, size_t bytes, const char* what, const char* file, int line) {
    const Launch& launch = running_launch();
    if ((uintptr_t)p % bytes) emulator_fail(file, line, "%s: %p is not a multiple of %zu bytes", what, p, bytes);
    if (!within(p, bytes, emulator_dynamic_shared, emulator_dynamic_shared + launch.shared) &&
        !within(p, bytes, launch.source->shared_begin, launch.source->shared_end))
        emulator_fail(file, line, "%s: %p is not in the block's shared memory", what, p);
}

void emulator_copy_async(void* shared, const void* global, unsigned bytes, bool valid, const char* file, int line) {
    emulator_need_shared(shared, bytes, "asynchronous copy", file, line);
    if (valid && (uintptr_t)global % bytes) emulator_fail(file, line, "asynchronous copy: %p is not a multiple of %u bytes", global, bytes);
    memset(shared, junk, bytes);
    Copies& own = copies[running_thread()];
    own.under_way.push_back({shared, global, bytes, valid, own.group});
}

void emulator_copy_commit() { copies[running_thread()].group++; }

void emulator_copy_wait(unsigned pending) {
    Copies& own = copies[running_thread()];
    size_t done = 0;
    // Groups are in order. The open one, to which copies not committed belong, has number `group` and never arrives.
    for (; done < own.under_way.size() && own.under_way[done].group + pending < own.group; done++) {
        const Copy& copy = own.under_way[done];
        if (copy.valid)
            memcpy(copy.shared, copy.global, copy.bytes);
        else
            memset(copy.shared, 0, copy.bytes);
    }
    own.under_way.erase(own.under_way.begin(), own.under_way.begin() + (ptrdiff_t)done);
}
}
