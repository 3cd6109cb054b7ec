// Device memory: pages of the host, each allocation with unmapped pages around it, so that most accesses out of bounds are faults at once; the few bytes
// between its ends and those pages hold a pattern that is looked at after each launch.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include <string>

namespace emulator {

constexpr size_t total_memory = size_t(16) << 30;

size_t free_memory();
// Null where there is no room. Holds junk (NaN, -1).
void* allocate(size_t bytes);
// What was wrong, or nothing. The memory is unmapped, and its addresses are not given again soon.
bool release(void* p, std::string& damage);
// Whether these bytes are within one live allocation.
bool is_device(const void* p, size_t bytes);
// What was written beside allocations; each damage is told once.
std::string damage();
// What is at an address that caused a fault, in words.
std::string memory_at(const void* p);

}  // namespace emulator
