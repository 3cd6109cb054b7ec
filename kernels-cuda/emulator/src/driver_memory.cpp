// Memory, and copies.
#include <stdlib.h>
#include <string.h>

#include "driver.h"

using namespace emulator;

namespace {

std::set<void*> pinned;

CUresult need_device(const void* p, size_t bytes, const char* what) {
    if (is_device(p, bytes)) return CUDA_SUCCESS;
    return fail(CUDA_ERROR_INVALID_VALUE, std::string(what) + ": " + std::to_string(bytes) + " bytes at " + memory_at(p) + " are not in device memory");
}

CUresult copy(void* stream, uint64_t to, bool device_to, uint64_t from, bool device_from, size_t bytes, const char* what) {
    auto target = reinterpret_cast<void*>(to);
    auto source = reinterpret_cast<const void*>(from);
    if (device_to)
        if (CUresult answer = need_device(target, bytes, what)) return answer;
    if (device_from)
        if (CUresult answer = need_device(source, bytes, what)) return answer;
    return submit(stream, Copy{target, source, bytes});
}

}  // namespace

EMULATED cuMemGetInfo_v2(size_t* free, size_t* total) {
    EMULATED_WITH_CONTEXT;
    *free = free_memory();
    *total = total_memory;
    return CUDA_SUCCESS;
}
EMULATED cuMemAlloc_v2(uint64_t* address, size_t bytes) {
    EMULATED_WITH_CONTEXT;
    if (bytes == 0) return fail(CUDA_ERROR_INVALID_VALUE, "cuMemAlloc of 0 bytes");
    void* p = allocate(bytes);
    if (!p) return CUDA_ERROR_OUT_OF_MEMORY;
    *address = reinterpret_cast<uint64_t>(p);
    return CUDA_SUCCESS;
}
EMULATED cuMemFree_v2(uint64_t address) {
    EMULATED_WITH_CONTEXT;
    if (address == 0) return CUDA_SUCCESS;
    std::string damage;
    if (!release(reinterpret_cast<void*>(address), damage)) return fail(CUDA_ERROR_INVALID_VALUE, "cuMemFree of what was not allocated");
    return damage.empty() ? CUDA_SUCCESS : fail(CUDA_ERROR_ILLEGAL_ADDRESS, damage);
}
EMULATED cuMemHostAlloc(void** p, size_t bytes, unsigned) {
    EMULATED_WITH_CONTEXT;
    *p = malloc(bytes ? bytes : 1);
    if (!*p) return CUDA_ERROR_OUT_OF_MEMORY;
    memset(*p, 0xff, bytes);
    pinned.insert(*p);
    return CUDA_SUCCESS;
}
EMULATED cuMemAllocHost_v2(void** p, size_t bytes) { return cuMemHostAlloc(p, bytes, 0); }
EMULATED cuMemFreeHost(void* p) {
    EMULATED_WITH_CONTEXT;
    if (pinned.erase(p) == 0) return fail(CUDA_ERROR_INVALID_VALUE, "cuMemFreeHost of what was not allocated");
    free(p);
    return CUDA_SUCCESS;
}

EMULATED cuMemcpyHtoDAsync_v2(uint64_t to, const void* from, size_t bytes, void* stream) {
    EMULATED_WITH_CONTEXT;
    return copy(stream, to, true, reinterpret_cast<uint64_t>(from), false, bytes, "copy to the device");
}
EMULATED cuMemcpyDtoHAsync_v2(void* to, uint64_t from, size_t bytes, void* stream) {
    EMULATED_WITH_CONTEXT;
    return copy(stream, reinterpret_cast<uint64_t>(to), false, from, true, bytes, "copy from the device");
}
EMULATED cuMemcpyDtoDAsync_v2(uint64_t to, uint64_t from, size_t bytes, void* stream) {
    EMULATED_WITH_CONTEXT;
    return copy(stream, to, true, from, true, bytes, "copy on the device");
}
EMULATED cuMemsetD8Async(uint64_t to, unsigned char value, size_t bytes, void* stream) {
    EMULATED_WITH_CONTEXT;
    auto target = reinterpret_cast<void*>(to);
    if (CUresult answer = need_device(target, bytes, "fill")) return answer;
    return submit(stream, Fill{target, value, bytes});
}
