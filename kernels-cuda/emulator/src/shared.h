// What runs around and beside the threads of a block: shared memory, copies into it that are under way, and faults.
#pragma once

#include "launch.h"

namespace emulator {

unsigned running_thread();
const Launch& running_launch();

// Fills the block's shared memory with junk; afterwards, finds writes behind the dynamic part.
void shared_begin(const Launch& launch);
void shared_end(const Launch& launch, Failure& failure);

// Forgets copies under way: of all threads, of one that has returned.
void copies_begin();
void copies_end(unsigned thread);

// While a kernel runs, its faults (SIGSEGV, SIGBUS, SIGFPE, SIGILL) end the launch; others go where they went before.
void faults_begin();
void faults_end();

}  // namespace emulator
