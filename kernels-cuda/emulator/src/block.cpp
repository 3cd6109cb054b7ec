// Runs one block: its threads take turns on one OS thread. A thread runs until it has to wait for others; then the next ready one goes on.
// A thread that never waits needs no stack of its own: the following one begins where it ended.
#include <stdarg.h>
#include <string.h>

#include <algorithm>
#include <mutex>
#include <numeric>

#include "fiber.h"
#include "launch.h"
#include "shared.h"

using emulator::Index3;

extern "C" {
Index3 emulator_thread, emulator_block, emulator_block_size, emulator_grid_size;
unsigned emulator_lane;
}

namespace emulator {
namespace {

struct Thread {
    Context context;
    // None before it begins, and after its end.
    int stack = -1;
    Index3 position;
};

struct Waiting {
    WarpOperation operation;
    unsigned mask;
    const char *name, *file;
    int line;
};

struct Warp {
    // Bits of lanes: those that could run, those that have not returned, those that are in an operation of the warp.
    unsigned ready, live, waiting;
    Lanes lanes;
    Waiting at[32];
};

struct Barrier {
    unsigned arrived, predicates, threads;
    const char* file;
    int line;
    unsigned lanes[32];
    unsigned result;
};

struct Block {
    Thread threads[1024];
    Warp warps[32];
    Barrier barriers[16];
    // Bits of warps that have ready lanes.
    unsigned ready, live;
    unsigned current;
    int free_stacks[1024];
    unsigned free_count;
    Context outside;
    const Launch* launch;
    void* parameters[64];
    Failure failure;
    bool running;
    uint32_t random;
};
Block block;

unsigned next_random() {
    block.random ^= block.random << 13;
    block.random ^= block.random >> 17;
    block.random ^= block.random << 5;
    return block.random;
}

// A bit of `mask` (not 0): the lowest, or one by chance.
unsigned choose(unsigned mask) {
    if (block.random == 0) return (unsigned)__builtin_ctz(mask);
    unsigned turn = next_random() >> 27;
    unsigned turned = mask >> turn | mask << (-turn & 31);
    return ((unsigned)__builtin_ctz(turned) + turn) & 31;
}

void set_ready(unsigned warp, unsigned lanes) {
    if (lanes == 0) return;
    block.warps[warp].ready |= lanes;
    block.ready |= 1u << warp;
}

// The thread to go on with; one of the same warp while it has any. -1 where all wait, or have returned.
int take_ready() {
    unsigned warp = block.current / 32;
    if (!(block.ready >> warp & 1)) {
        if (block.ready == 0) return -1;
        warp = choose(block.ready);
    }
    unsigned& ready = block.warps[warp].ready;
    unsigned lane = choose(ready);
    ready &= ~(1u << lane);
    if (ready == 0) block.ready &= ~(1u << warp);
    return (int)(warp * 32 + lane);
}

void make_current(unsigned index) {
    block.current = index;
    emulator_thread = block.threads[index].position;
    emulator_lane = index % 32;
}

[[noreturn]] void leave() {
    Context dropped;
    switch_context(dropped, block.outside);
    __builtin_unreachable();
}

std::string at(const char* name, const char* file, int line) {
    return std::string(name) + " at " + file + ":" + std::to_string(line);
}

// All who have not returned wait. Says for what.
[[noreturn]] void fail_stuck() {
    std::string what = "threads wait for others that never come:";
    unsigned said = 0;
    for (const Barrier& barrier : block.barriers)
        if (barrier.arrived) {
            what += " " + std::to_string(barrier.arrived) + " at the barrier at " + barrier.file + ":" + std::to_string(barrier.line) + ";";
            said += barrier.arrived;
        }
    unsigned in_warps = 0;
    for (const Warp& warp : block.warps) in_warps += (unsigned)__builtin_popcount(warp.waiting);
    if (in_warps) {
        what += " " + std::to_string(in_warps) + " in operations of their warp, among them";
        const Warp* warp = std::find_if(block.warps, block.warps + 32, [](const Warp& w) { return w.waiting; });
        const Waiting& waiting = warp->at[__builtin_ctz(warp->waiting)];
        what += " " + at(waiting.name, waiting.file, waiting.line) + ";";
    }
    what += " " + std::to_string(block.live - said - in_warps) + " elsewhere";
    fail_launch(719, what);
}

void thread_main();

void go_on_with(unsigned index, Context& from) {
    Thread& thread = block.threads[index];
    if (thread.stack < 0) {
        thread.stack = block.free_stacks[--block.free_count];
        begin_context(thread.context, stack_memory((unsigned)thread.stack), stack_bytes, thread_main);
    }
    make_current(index);
    switch_context(from, thread.context);
}

// Lets others run until someone makes this thread ready.
void suspend() {
    Thread& self = block.threads[block.current];
    int next = take_ready();
    if (next < 0) fail_stuck();
    go_on_with((unsigned)next, self.context);
}

// Performs an operation of the warp if all of `mask` that live are there.
bool perform(Warp& warp, unsigned mask, int self) {
    unsigned group = mask & warp.live;
    if ((warp.waiting & group) != group) return false;
    const Waiting* first = nullptr;
    for (unsigned rest = group; rest; rest &= rest - 1) {
        const Waiting& waiting = warp.at[__builtin_ctz(rest)];
        if (!first) first = &waiting;
        if (waiting.operation != first->operation || waiting.mask != first->mask || waiting.line != first->line) {
            char masks[64];
            snprintf(masks, sizeof masks, " (masks %#x and %#x)", first->mask, waiting.mask);
            fail_launch(719, "lanes of a warp are in different operations: " + at(first->name, first->file, first->line) + " and " +
                                 at(waiting.name, waiting.file, waiting.line) + masks);
        }
    }
    warp.lanes.mask = group;
    first->operation(warp.lanes);
    warp.waiting &= ~group;
    set_ready((unsigned)(&warp - block.warps), self < 0 ? group : group & ~(1u << self));
    return true;
}

bool complete(Barrier& barrier, int self) {
    unsigned needed = barrier.threads ? barrier.threads : block.live;
    if (barrier.arrived < needed) return false;
    barrier.result = barrier.predicates;
    barrier.arrived = barrier.predicates = 0;
    for (unsigned warp = 0; warp < 32; warp++) {
        unsigned lanes = barrier.lanes[warp];
        barrier.lanes[warp] = 0;
        if (self >= 0 && (unsigned)self / 32 == warp) lanes &= ~(1u << self % 32);
        set_ready(warp, lanes);
    }
    return true;
}

// The current thread has returned; those who wait need not wait for it.
void finish() {
    Thread& self = block.threads[block.current];
    Warp& warp = block.warps[block.current / 32];
    self.stack = -1;
    copies_end(block.current);
    warp.live &= ~(1u << block.current % 32);
    block.live--;
    for (unsigned rest = warp.waiting; rest;) {
        unsigned mask = warp.at[__builtin_ctz(rest)].mask;
        perform(warp, mask, -1);
        rest &= ~mask;
    }
    for (Barrier& barrier : block.barriers)
        if (barrier.arrived && barrier.threads == 0) complete(barrier, -1);
}

void thread_main() {
    for (;;) {
        block.launch->kernel->call(block.parameters);
        int stack = block.threads[block.current].stack;
        finish();
        int next = take_ready();
        if (next < 0) {
            if (block.live) fail_stuck();
            leave();
        }
        if (block.threads[next].stack < 0) {
            block.threads[next].stack = stack;
            make_current((unsigned)next);
        } else {
            // Nothing else runs before the switch, so that the stack may be given away while still in use.
            block.free_stacks[block.free_count++] = stack;
            Context dropped;
            go_on_with((unsigned)next, dropped);
        }
    }
}

void run_block(Index3 index) {
    const Index3 size = block.launch->block;
    const unsigned threads = size.x * size.y * size.z;
    emulator_block = index;
    for (unsigned i = 0; i < threads; i++) {
        block.threads[i].stack = -1;
        block.threads[i].position = {i % size.x, i / size.x % size.y, i / size.x / size.y};
    }
    memset(block.warps, 0, sizeof block.warps);
    memset(block.barriers, 0, sizeof block.barriers);
    block.ready = 0;
    block.live = threads;
    for (unsigned begin = 0; begin < threads; begin += 32) {
        unsigned lanes = threads - begin >= 32 ? ~0u : (1u << (threads - begin)) - 1;
        block.warps[begin / 32].live = lanes;
        set_ready(begin / 32, lanes);
    }
    block.free_count = 1024;
    for (int i = 0; i < 1024; i++) block.free_stacks[i] = 1023 - i;
    block.current = block.random ? choose(block.ready) * 32 : 0;
    shared_begin(*block.launch);
    copies_begin();
    go_on_with((unsigned)take_ready(), block.outside);
    if (!block.failure.code) shared_end(*block.launch, block.failure);
}

uint32_t seed() {
    static const uint32_t value = [] {
        const char* text = getenv("ONEBIT_EMULATOR_SEED");
        return text ? (uint32_t)strtoul(text, nullptr, 0) : 1u;
    }();
    return value;
}

}  // namespace

Failure run(const Launch& launch) {
    const size_t blocks = (size_t)launch.grid.x * launch.grid.y * launch.grid.z;
    emulator_block_size = launch.block;
    emulator_grid_size = launch.grid;
    block.launch = &launch;
    block.failure = {};
    block.random = seed() ? seed() * 2654435761u | 1u : 0u;
    for (unsigned i = 0; i < launch.kernel->parameters; i++) block.parameters[i] = const_cast<unsigned char*>(&launch.bytes[0]) + argument_pitch * i;
    std::vector<unsigned> order(blocks);
    std::iota(order.begin(), order.end(), 0u);
    if (block.random)
        for (size_t i = blocks; i > 1; i--) std::swap(order[i - 1], order[next_random() % i]);
    faults_begin();
    block.running = true;
    for (size_t i = 0; i < blocks && !block.failure.code; i++) {
        const unsigned x = launch.grid.x, y = launch.grid.y, n = order[i];
        run_block({n % x, n / x % y, n / x / y});
    }
    block.running = false;
    faults_end();
    return std::move(block.failure);
}

bool in_kernel() { return block.running; }

std::string whereabouts() {
    char text[256];
    const Index3 b = emulator_block, t = emulator_thread;
    snprintf(text, sizeof text, "kernel %s, block (%u,%u,%u), thread (%u,%u,%u)", block.launch->kernel->name, b.x, b.y, b.z, t.x, t.y, t.z);
    return text;
}

void fail_launch(int code, const std::string& what) {
    block.failure = {code, whereabouts() + ": " + what};
    leave();
}

unsigned running_thread() { return block.current; }
const Launch& running_launch() { return *block.launch; }

}  // namespace emulator

using namespace emulator;

extern "C" {

void emulator_fail(const char* file, int line, const char* format, ...) {
    char text[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    fail_launch(719, std::string(text) + " at " + file + ":" + std::to_string(line));
}

void emulator_warp(void* operands, WarpOperation operation, unsigned mask, const char* name, const char* file, int line) {
    const unsigned lane = block.current % 32;
    Warp& warp = block.warps[block.current / 32];
    if (!(mask >> lane & 1)) emulator_fail(file, line, "%s: lane %u is not in its own mask %#x", name, lane, mask);
    warp.lanes.operands[lane] = operands;
    warp.at[lane] = {operation, mask, name, file, line};
    warp.waiting |= 1u << lane;
    if (!perform(warp, mask, (int)lane)) suspend();
}

unsigned emulator_barrier(unsigned id, unsigned threads, bool predicate, const char* file, int line) {
    if (id >= 16) emulator_fail(file, line, "there is no barrier %u", id);
    Barrier& barrier = block.barriers[id];
    if (barrier.arrived == 0) {
        barrier.file = file;
        barrier.line = line;
        barrier.threads = threads;
    } else if (barrier.line != line || barrier.threads != threads) {
        emulator_fail(file, line, "threads wait at different barriers, the others (%u) at %s:%d, this one", barrier.arrived, barrier.file, barrier.line);
    }
    barrier.arrived++;
    barrier.predicates += predicate;
    barrier.lanes[block.current / 32] |= 1u << block.current % 32;
    if (!complete(barrier, (int)block.current)) suspend();
    return barrier.result;
}
}
