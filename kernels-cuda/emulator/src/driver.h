// What the driver's functions share: its types as the C interface has them, one lock, handles, and errors that say more than their number.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <variant>
#include <vector>

#include "launch.h"
#include "memory.h"
#include "module.h"

// The numbers of CUresult that are used.
enum CUresult : int {
    CUDA_SUCCESS = 0,
    CUDA_ERROR_INVALID_VALUE = 1,
    CUDA_ERROR_OUT_OF_MEMORY = 2,
    CUDA_ERROR_NOT_INITIALIZED = 3,
    CUDA_ERROR_INVALID_DEVICE = 101,
    CUDA_ERROR_INVALID_CONTEXT = 201,
    CUDA_ERROR_NO_BINARY_FOR_GPU = 209,
    CUDA_ERROR_INVALID_PTX = 218,
    CUDA_ERROR_FILE_NOT_FOUND = 301,
    CUDA_ERROR_INVALID_HANDLE = 400,
    CUDA_ERROR_NOT_FOUND = 500,
    CUDA_ERROR_NOT_READY = 600,
    CUDA_ERROR_ILLEGAL_ADDRESS = 700,
    CUDA_ERROR_LAUNCH_FAILED = 719,
    CUDA_ERROR_NOT_SUPPORTED = 801,
    CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED = 900,
    CUDA_ERROR_ILLEGAL_STATE = 401,
};

namespace emulator {

// Everything of the emulator happens under this lock, so that a kernel has the process's fault handlers for itself.
extern std::mutex lock;

// Writes "cuda emulator: …" to the standard error output, and gives `code`.
CUresult fail(int code, const std::string& what);

// Device memory to and from device or host memory, or a byte repeated.
struct Copy {
    void* to;
    const void* from;
    size_t bytes;
};
struct Fill {
    void* to;
    unsigned char value;
    size_t bytes;
};
// An operation of another library (nccl/), which waits for other processes: it lets go of the lock meanwhile.
struct Foreign {
    std::function<CUresult()> run;
};
using Work = std::variant<Launch, Copy, Fill, Foreign>;

struct Stream {
    bool capturing = false;
    std::vector<Work> recorded;
    // The recording stream that this one takes part in the recording of, since it waited for an event there. What is recorded comes in the order in which it was asked for.
    Stream* joined = nullptr;
};
struct Event {
    bool recorded = false;
    double seconds = 0.0;
    // The recording stream whose recording it is part of.
    Stream* captured = nullptr;
};
struct Graph {
    std::vector<Work> work;
};

// Live handles of one kind: what is none of them is told from them, instead of being followed.
template <class T>
class Handles {
    std::set<T*> live;

public:
    T* add(std::unique_ptr<T> made) {
        live.insert(made.get());
        return made.release();
    }
    T* get(void* handle) const {
        auto found = live.find(static_cast<T*>(handle));
        return found == live.end() ? nullptr : *found;
    }
    auto begin() const { return live.begin(); }
    auto end() const { return live.end(); }
    bool remove(void* handle) {
        T* object = get(handle);
        if (!object) return false;
        live.erase(object);
        delete object;
        return true;
    }
};
extern Handles<Stream> streams;
extern Handles<Event> events;
extern Handles<Graph> graphs, executables;
extern Handles<Module> modules;

// Whether this thread has made the context current; every function but the first few needs it.
CUresult need_context(const char* function);

// Does `work` now, or records it where the stream is recording.
CUresult submit(void* stream, Work work);
CUresult perform(const Work& work);

}  // namespace emulator

// The functions: exported under their C names, under the lock.
#define EMULATED extern "C" __attribute__((visibility("default"))) CUresult
#define EMULATED_WITH_CONTEXT                                                        \
    std::lock_guard<std::mutex> held(emulator::lock);                                \
    if (CUresult answer = emulator::need_context(__func__)) return answer
