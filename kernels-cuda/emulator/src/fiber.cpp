#include "fiber.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

namespace emulator {

#ifdef EMULATOR_UCONTEXT

void switch_context(Context& from, const Context& to) { swapcontext(&from.place, &to.place); }

void begin_context(Context& context, unsigned char* stack, size_t bytes, void (*entry)()) {
    getcontext(&context.place);
    context.place.uc_stack.ss_sp = stack;
    context.place.uc_stack.ss_size = bytes;
    context.place.uc_link = nullptr;
    makecontext(&context.place, entry, 0);
}

#else

// By hand, because swapcontext makes a system call each time. Only what a called function must keep is saved.
extern "C" void emulator_switch(void** from, void* to);
asm(R"(
    .text
    .globl emulator_switch
    .hidden emulator_switch
    .type emulator_switch, @function
emulator_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
    .size emulator_switch, .-emulator_switch
)");

void switch_context(Context& from, const Context& to) { emulator_switch(&from.stack_pointer, to.stack_pointer); }

void begin_context(Context& context, unsigned char* stack, size_t bytes, void (*entry)()) {
    auto top = reinterpret_cast<uintptr_t>(stack + bytes) & ~uintptr_t(15);
    void** frame = reinterpret_cast<void**>(top);
    *--frame = nullptr;  // where a return address would be: the stack is aligned as after a call
    *--frame = reinterpret_cast<void*>(entry);
    for (int saved = 0; saved < 6; saved++) *--frame = nullptr;
    context.stack_pointer = frame;
}

#endif

unsigned char* stack_memory(unsigned index) {
    constexpr size_t page = 4096, pitch = stack_bytes + 2 * page;
    static unsigned char* memory = [] {
        void* mapped = mmap(nullptr, 1024 * pitch, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (mapped == MAP_FAILED) {
            perror("cuda emulator: stacks");
            abort();
        }
        for (size_t i = 0; i < 1024; i++)
            mprotect(static_cast<unsigned char*>(mapped) + i * pitch + page, pitch - page, PROT_READ | PROT_WRITE);
        return static_cast<unsigned char*>(mapped);
    }();
    // Tops at different distances from the page's beginning: stacks that all began alike would share a few lines of the cache.
    return memory + index * pitch + page + index % 16 * 256;
}

}  // namespace emulator
