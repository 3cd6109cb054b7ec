// A stack that a thread of a kernel runs on, and switching between such stacks.
#pragma once

#include <stddef.h>

#if !defined(__x86_64__) || defined(EMULATOR_UCONTEXT)
#include <ucontext.h>
#define EMULATOR_UCONTEXT 1
#endif

namespace emulator {

// Where a stack that does not run would go on.
struct Context {
#ifdef EMULATOR_UCONTEXT
    ucontext_t place;
#else
    void* stack_pointer;
#endif
};

// Goes on at `to`, and comes back when something switches to `from`.
void switch_context(Context& from, const Context& to);

// Makes `context` the beginning of `entry` (which never returns) on a stack.
void begin_context(Context& context, unsigned char* stack, size_t bytes, void (*entry)());

// Memory of stack `index` below 1024, mapped once with an unmapped page below each, so that an overflow is a fault and not another thread's data.
constexpr size_t stack_bytes = 128 << 10;
unsigned char* stack_memory(unsigned index);

}  // namespace emulator
