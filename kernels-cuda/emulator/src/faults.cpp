// Faults of kernels: the processor's (memory that is not mapped, misaligned vectors, division by zero), and what the compiler's checks find.
#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#include "memory.h"
#include "shared.h"

namespace emulator {
namespace {

constexpr int caught[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL};
struct sigaction before[4];
// Only this thread is in a kernel; a fault of another is none of ours.
pthread_t runner;

std::string place(void* address) {
    Dl_info found;
    if (!address || !dladdr(address, &found) || !found.dli_fname) return "";
    char text[512];
    const auto offset = (size_t)((char*)address - (char*)found.dli_fbase);
    snprintf(text, sizeof text, " (addr2line -Cifpe %s %#zx)", found.dli_fname, offset);
    return text;
}

void on_fault(int signal, siginfo_t* information, void* context) {
    if (!in_kernel() || !pthread_equal(runner, pthread_self())) {
        // The fault happens again when this returns, and goes to whoever was here before.
        for (int i = 0; i < 4; i++)
            if (caught[i] == signal) sigaction(signal, &before[i], nullptr);
        return;
    }
    void* instruction = nullptr;
#if defined(__x86_64__) && defined(__linux__)
    instruction = (void*)static_cast<ucontext_t*>(context)->uc_mcontext.gregs[REG_RIP];
#else
    (void)context;
#endif
    const std::string where = place(instruction);
    switch (signal) {
    case SIGFPE: fail_launch(719, "integer division by zero, or overflow" + where);
    case SIGILL: fail_launch(719, "undefined behaviour, or __builtin_trap" + where);
    default: fail_launch(700, "illegal access: " + memory_at(information->si_addr) + where);
    }
}

}  // namespace

void faults_begin() {
    // A fiber whose stack has overflowed cannot handle that on the stack. Rust's threads have another for signals; others get one here.
    stack_t own;
    sigaltstack(nullptr, &own);
    if (own.ss_flags & SS_DISABLE) {
        own.ss_size = 64 << 10;
        own.ss_sp = malloc(own.ss_size);
        own.ss_flags = 0;
        sigaltstack(&own, nullptr);
    }
    runner = pthread_self();
    struct sigaction action = {};
    action.sa_sigaction = on_fault;
    // NODEFER, because the handler is left by a switch of stacks and never returns.
    action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
    for (int i = 0; i < 4; i++) sigaction(caught[i], &action, &before[i]);
}

void faults_end() {
    for (int i = 0; i < 4; i++) sigaction(caught[i], &before[i], nullptr);
}

}  // namespace emulator

// Kernels are compiled with -fsanitize=alignment,bounds, whose checks call these instead of the compiler's library.
extern "C" {

struct SourcePlace {
    const char* file;
    unsigned line, column;
};
struct TypeMismatch {
    SourcePlace place;
    const void* type;
    unsigned char log_alignment, access;
};

void __ubsan_handle_type_mismatch_v1_abort(TypeMismatch* found, uintptr_t address) {
    if (address == 0) emulator_fail(found->place.file, (int)found->place.line, "null pointer");
    emulator_fail(found->place.file, (int)found->place.line, "misaligned access: %#zx is not a multiple of %u bytes", (size_t)address, 1u << found->log_alignment);
}
void __ubsan_handle_out_of_bounds_abort(SourcePlace* found, uintptr_t index) {
    emulator_fail(found->file, (int)found->line, "index %lld out of the array's bounds", (long long)index);
}
}
