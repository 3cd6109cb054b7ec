// Devices, contexts, errors, modules and functions.
#include "driver.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

namespace emulator {

std::mutex lock;
Handles<Module> modules;

namespace {
bool initialized;
int primary_context;
unsigned retained;

// Every process has its own memory on each of them.
int devices() {
    const char* count = getenv("ONEBIT_EMULATOR_GPUS");
    return count ? atoi(count) : 1;
}
thread_local void* current;
}  // namespace

CUresult fail(int code, const std::string& what) {
    fprintf(stderr, "cuda emulator: %s\n", what.c_str());
    return static_cast<CUresult>(code);
}

CUresult need_context(const char* function) {
    if (!initialized) return fail(CUDA_ERROR_NOT_INITIALIZED, std::string(function) + " before cuInit");
    if (!current || !retained) return fail(CUDA_ERROR_INVALID_CONTEXT, std::string(function) + " on a thread without a current context");
    return CUDA_SUCCESS;
}

}  // namespace emulator

using namespace emulator;

EMULATED cuInit(unsigned flags) {
    std::lock_guard<std::mutex> held(lock);
    if (flags != 0) return fail(CUDA_ERROR_INVALID_VALUE, "cuInit takes no flags");
    if (initialized) return CUDA_SUCCESS;
    std::string why;
    if (!load_sources(why)) return fail(CUDA_ERROR_FILE_NOT_FOUND, why);
    initialized = true;
    return CUDA_SUCCESS;
}

EMULATED cuDriverGetVersion(int* version) {
    *version = 13000;
    return CUDA_SUCCESS;
}

static const struct {
    int code;
    const char *name, *text;
} errors[] = {
    {CUDA_SUCCESS, "CUDA_SUCCESS", "no error"},
    {CUDA_ERROR_INVALID_VALUE, "CUDA_ERROR_INVALID_VALUE", "invalid argument"},
    {CUDA_ERROR_OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory"},
    {CUDA_ERROR_NOT_INITIALIZED, "CUDA_ERROR_NOT_INITIALIZED", "initialization error"},
    {CUDA_ERROR_INVALID_DEVICE, "CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"},
    {CUDA_ERROR_INVALID_CONTEXT, "CUDA_ERROR_INVALID_CONTEXT", "invalid device context"},
    {CUDA_ERROR_NO_BINARY_FOR_GPU, "CUDA_ERROR_NO_BINARY_FOR_GPU", "no kernel image is available for execution on the device"},
    {CUDA_ERROR_INVALID_PTX, "CUDA_ERROR_INVALID_PTX", "a PTX JIT compilation failed"},
    {CUDA_ERROR_FILE_NOT_FOUND, "CUDA_ERROR_FILE_NOT_FOUND", "file not found"},
    {CUDA_ERROR_INVALID_HANDLE, "CUDA_ERROR_INVALID_HANDLE", "invalid resource handle"},
    {CUDA_ERROR_ILLEGAL_STATE, "CUDA_ERROR_ILLEGAL_STATE", "the operation cannot be performed in the present state"},
    {CUDA_ERROR_NOT_FOUND, "CUDA_ERROR_NOT_FOUND", "named symbol not found"},
    {CUDA_ERROR_NOT_READY, "CUDA_ERROR_NOT_READY", "device not ready"},
    {CUDA_ERROR_ILLEGAL_ADDRESS, "CUDA_ERROR_ILLEGAL_ADDRESS", "an illegal memory access was encountered (see the emulator's message)"},
    {CUDA_ERROR_LAUNCH_FAILED, "CUDA_ERROR_LAUNCH_FAILED", "unspecified launch failure (see the emulator's message)"},
    {CUDA_ERROR_NOT_SUPPORTED, "CUDA_ERROR_NOT_SUPPORTED", "operation not supported"},
    {CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED", "operation not permitted when stream is capturing"},
};

EMULATED cuGetErrorName(CUresult error, const char** name) {
    for (const auto& e : errors)
        if (e.code == error) return *name = e.name, CUDA_SUCCESS;
    *name = nullptr;
    return CUDA_ERROR_INVALID_VALUE;
}
EMULATED cuGetErrorString(CUresult error, const char** text) {
    for (const auto& e : errors)
        if (e.code == error) return *text = e.text, CUDA_SUCCESS;
    *text = nullptr;
    return CUDA_ERROR_INVALID_VALUE;
}

EMULATED cuDeviceGetCount(int* count) {
    if (!initialized) return fail(CUDA_ERROR_NOT_INITIALIZED, "cuDeviceGetCount before cuInit");
    *count = devices();
    return CUDA_SUCCESS;
}
EMULATED cuDeviceGet(int* device, int ordinal) {
    if (!initialized) return fail(CUDA_ERROR_NOT_INITIALIZED, "cuDeviceGet before cuInit");
    if (ordinal < 0 || ordinal >= devices()) return CUDA_ERROR_INVALID_DEVICE;
    *device = ordinal;
    return CUDA_SUCCESS;
}
EMULATED cuDeviceGetName(char* name, int bytes, int device) {
    if (device < 0 || device >= devices()) return CUDA_ERROR_INVALID_DEVICE;
    snprintf(name, (size_t)bytes, "emulated");
    return CUDA_SUCCESS;
}
EMULATED cuDeviceTotalMem_v2(size_t* bytes, int device) {
    if (device < 0 || device >= devices()) return CUDA_ERROR_INVALID_DEVICE;
    *bytes = total_memory;
    return CUDA_SUCCESS;
}
EMULATED cuDeviceGetAttribute(int* value, int attribute, int device) {
    if (device < 0 || device >= devices()) return CUDA_ERROR_INVALID_DEVICE;
    switch (attribute) {
    case 1: *value = 1024; break;        // threads of a block
    case 2: case 3: *value = 1024; break; // of them in x, y
    case 4: *value = 64; break;          // in z
    case 5: *value = 0x7fffffff; break;  // blocks in x
    case 6: case 7: *value = 65535; break; // in y, z
    case 8: *value = 48 << 10; break;    // shared memory of a block, unless it opts in
    case 10: *value = 32; break;         // threads of a warp
    case 12: *value = 65536; break;      // registers of a block
    case 16: *value = 4; break;          // multiprocessors
    case 38: *value = 50 << 20; break;   // second-level cache
    case 39: *value = 2048; break;       // threads of a multiprocessor
    case 75: *value = 8; break;          // compute capability, major
    case 76: *value = 0; break;          // and minor
    case 81: *value = 228 << 10; break;  // shared memory of a multiprocessor
    case 97: *value = 227 << 10; break;  // of a block that opts in
    default: return fail(CUDA_ERROR_INVALID_VALUE, "device attribute " + std::to_string(attribute) + " is not emulated");
    }
    return CUDA_SUCCESS;
}

EMULATED cuDevicePrimaryCtxRetain(void** context, int device) {
    std::lock_guard<std::mutex> held(lock);
    if (!initialized) return fail(CUDA_ERROR_NOT_INITIALIZED, "cuDevicePrimaryCtxRetain before cuInit");
    if (device < 0 || device >= devices()) return CUDA_ERROR_INVALID_DEVICE;
    retained++;
    *context = &primary_context;
    return CUDA_SUCCESS;
}
EMULATED cuDevicePrimaryCtxRelease_v2(int device) {
    std::lock_guard<std::mutex> held(lock);
    if (device < 0 || device >= devices()) return CUDA_ERROR_INVALID_DEVICE;
    if (retained == 0) return fail(CUDA_ERROR_INVALID_CONTEXT, "the context was released more often than retained");
    retained--;
    return CUDA_SUCCESS;
}
EMULATED cuCtxSetCurrent(void* context) {
    std::lock_guard<std::mutex> held(lock);
    if (context && (context != &primary_context || !retained)) return fail(CUDA_ERROR_INVALID_CONTEXT, "cuCtxSetCurrent of no context");
    current = context;
    return CUDA_SUCCESS;
}
EMULATED cuCtxGetCurrent(void** context) {
    *context = current;
    return CUDA_SUCCESS;
}
EMULATED cuCtxSynchronize() {
    EMULATED_WITH_CONTEXT;
    return CUDA_SUCCESS;
}

// Libraries, whose kernels belong to every context. None of the options is emulated.
EMULATED cuLibraryLoadData(void** handle, const void* code, void*, void*, unsigned options, void*, void*, unsigned library_options) {
    EMULATED_WITH_CONTEXT;
    if (options || library_options) return fail(CUDA_ERROR_INVALID_VALUE, "options of cuLibraryLoadData are not emulated");
    auto module = std::make_unique<Module>();
    std::string why;
    if (int error = parse(static_cast<const char*>(code), *module, why)) return fail(error, why);
    *handle = modules.add(std::move(module));
    return CUDA_SUCCESS;
}
EMULATED cuLibraryUnload(void* handle) {
    EMULATED_WITH_CONTEXT;
    return modules.remove(handle) ? CUDA_SUCCESS : fail(CUDA_ERROR_INVALID_HANDLE, "cuLibraryUnload of no library");
}
EMULATED cuLibraryGetKernel(void** handle, void* library, const char* name) {
    EMULATED_WITH_CONTEXT;
    Module* module = modules.get(library);
    if (!module) return fail(CUDA_ERROR_INVALID_HANDLE, "cuLibraryGetKernel of no library");
    Function* function = nullptr;
    std::string why;
    if (int code = find(*module, name, function, why)) return fail(code, why);
    *handle = function;
    return CUDA_SUCCESS;
}
EMULATED cuKernelGetFunction(void** handle, void* kernel) {
    EMULATED_WITH_CONTEXT;
    *handle = kernel;
    return CUDA_SUCCESS;
}

EMULATED cuFuncGetAttribute(int* value, int attribute, void* handle) {
    EMULATED_WITH_CONTEXT;
    const auto& function = *static_cast<Function*>(handle);
    switch (attribute) {
    case 0: *value = (int)function.entry.threads; break;
    case 1: *value = (int)function.entry.shared; break;
    case 8: *value = (int)function.dynamic_shared; break;
    default: return fail(CUDA_ERROR_INVALID_VALUE, "function attribute " + std::to_string(attribute) + " is not emulated");
    }
    return CUDA_SUCCESS;
}
EMULATED cuFuncSetAttribute(void* handle, int attribute, int value) {
    EMULATED_WITH_CONTEXT;
    auto& function = *static_cast<Function*>(handle);
    if (attribute == 9) return CUDA_SUCCESS;  // the preferred carveout: a hint
    if (attribute != 8) return fail(CUDA_ERROR_INVALID_VALUE, "function attribute " + std::to_string(attribute) + " is not emulated");
    if (value < 0 || (size_t)value + function.entry.shared > 227 << 10)
        return fail(CUDA_ERROR_INVALID_VALUE, function.entry.name + ": " + std::to_string(value) + " bytes of dynamic shared memory are more than there are");
    function.dynamic_shared = (size_t)value;
    return CUDA_SUCCESS;
}
EMULATED cuTensorMapEncodeTiled(void*, ...) { return fail(CUDA_ERROR_NOT_SUPPORTED, "tensor maps need Hopper, and sm_80 is emulated"); }
