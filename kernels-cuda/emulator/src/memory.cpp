#include "memory.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include <deque>
#include <map>

namespace emulator {
namespace {

constexpr size_t page = 4096, alignment = 256;
constexpr unsigned char guard = 0xb5;
// Freed allocations whose addresses are kept unmapped.
constexpr size_t quarantined = 2048;

struct Allocation {
    unsigned char* mapped;
    size_t mapped_bytes;
    size_t bytes;
    // Of the guard, whose end is that of the last accessible page.
    size_t tail;
};
std::map<unsigned char*, Allocation> live;
std::deque<std::pair<unsigned char*, Allocation>> freed;
size_t used;

std::string say(unsigned char* p, size_t bytes) {
    char text[96];
    snprintf(text, sizeof text, "the allocation of %zu bytes at %p", bytes, (void*)p);
    return text;
}

// The first damaged byte of a guard, or `bytes`; damage is repaired.
size_t damaged(unsigned char* p, size_t bytes) {
    size_t i = 0;
    while (i < bytes && p[i] == guard) i++;
    if (i < bytes) memset(p, guard, bytes);
    return i;
}

std::string check(unsigned char* p, const Allocation& a) {
    const size_t behind = damaged(p + a.bytes, a.tail), front = damaged(p - alignment, alignment);
    if (behind < a.tail) return "written " + std::to_string(behind) + " bytes behind " + say(p, a.bytes);
    if (front < alignment) return "written " + std::to_string(alignment - front) + " bytes before " + say(p, a.bytes);
    return "";
}

const std::pair<unsigned char* const, Allocation>* below(const void* p) {
    auto next = live.upper_bound(static_cast<unsigned char*>(const_cast<void*>(p)));
    return next == live.begin() ? nullptr : &*--next;
}

}  // namespace

size_t free_memory() { return total_memory - used; }

void* allocate(size_t bytes) {
    if (bytes > free_memory()) return nullptr;
    // [unmapped page][… guard | data | guard], [unmapped page]: the data ends as near to the page behind as its alignment allows.
    const size_t rounded = (bytes + alignment - 1) / alignment * alignment;
    const size_t inner = (rounded + alignment + page - 1) / page * page;
    void* mapped = mmap(nullptr, inner + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mapped == MAP_FAILED) return nullptr;
    auto begin = static_cast<unsigned char*>(mapped);
    if (mprotect(begin + page, inner, PROT_READ | PROT_WRITE) != 0) {
        munmap(mapped, inner + 2 * page);
        return nullptr;
    }
    unsigned char* p = begin + page + inner - rounded;
    const size_t tail = rounded - bytes;
    memset(p - alignment, guard, alignment);
    memset(p, 0xff, bytes);
    memset(p + bytes, guard, tail);
    live[p] = {begin, inner + 2 * page, bytes, tail};
    used += bytes;
    return p;
}

bool release(void* pointer, std::string& damage) {
    auto p = static_cast<unsigned char*>(pointer);
    auto found = live.find(p);
    if (found == live.end()) return false;
    const Allocation a = found->second;
    damage = check(p, a);
    live.erase(found);
    used -= a.bytes;
    // Mapped anew: gives the memory back and keeps the addresses.
    mmap(a.mapped, a.mapped_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
    freed.push_back({p, a});
    if (freed.size() > quarantined) {
        munmap(freed.front().second.mapped, freed.front().second.mapped_bytes);
        freed.pop_front();
    }
    return true;
}

bool is_device(const void* p, size_t bytes) {
    auto found = below(p);
    if (!found) return false;
    const size_t offset = (size_t)(static_cast<const unsigned char*>(p) - found->first);
    return offset <= found->second.bytes && bytes <= found->second.bytes - offset;
}

std::string damage() {
    std::string all;
    for (auto& [p, a] : live) {
        std::string one = check(p, a);
        if (!one.empty()) all += (all.empty() ? "" : "; ") + one;
    }
    return all;
}

std::string memory_at(const void* pointer) {
    auto p = static_cast<unsigned char*>(const_cast<void*>(pointer));
    char address[32];
    snprintf(address, sizeof address, "%p", pointer);
    auto inside = [&](unsigned char* begin, const Allocation& a) {
        return p >= a.mapped && p < a.mapped + a.mapped_bytes
                   ? std::string(address) + " is " + (p < begin ? std::to_string(begin - p) + " bytes before " : std::to_string(p - begin) + " bytes into ") +
                         say(begin, a.bytes)
                   : "";
    };
    for (auto& [begin, a] : live)
        if (std::string text = inside(begin, a); !text.empty()) return text;
    for (auto& [begin, a] : freed)
        if (std::string text = inside(begin, a); !text.empty()) return text + ", which was freed";
    return pointer ? std::string(address) + " is no device memory" : "a null pointer, or a misaligned vector, or no address at all";
}

}  // namespace emulator
