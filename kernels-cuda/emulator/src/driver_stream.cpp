// Streams, events, launches and graphs. All work is done when it is asked for, or recorded.
#include <string.h>
#include <time.h>

#include "driver.h"

namespace emulator {

Handles<Stream> streams;
Handles<Event> events;
Handles<Graph> graphs, executables;

CUresult perform(const Work& work) {
    if (auto fill = std::get_if<Fill>(&work)) {
        memset(fill->to, fill->value, fill->bytes);
    } else if (auto copy = std::get_if<Copy>(&work)) {
        memmove(copy->to, copy->from, copy->bytes);
    } else if (auto foreign = std::get_if<Foreign>(&work)) {
        lock.unlock();
        const CUresult answer = foreign->run();
        lock.lock();
        return answer;
    } else {
        const Launch& launch = std::get<Launch>(work);
        const Failure failure = run(launch);
        if (failure.code) {
            damage();  // told once: the failure is the reason
            return fail(failure.code, failure.what);
        }
        const std::string written = damage();
        if (!written.empty()) return fail(CUDA_ERROR_ILLEGAL_ADDRESS, std::string("kernel ") + launch.kernel->name + ": " + written);
    }
    return CUDA_SUCCESS;
}

CUresult submit(void* handle, Work work) {
    Stream* stream = streams.get(handle);
    if (!stream) return fail(CUDA_ERROR_INVALID_HANDLE, "work on no stream");
    if (stream->joined) stream = stream->joined;
    if (!stream->capturing) return perform(work);
    stream->recorded.push_back(std::move(work));
    return CUDA_SUCCESS;
}

std::vector<unsigned char> copied_arguments(const Kernel& kernel, void* const* parameters) {
    std::vector<unsigned char> bytes(kernel.parameters * argument_pitch);
    for (unsigned i = 0; i < kernel.parameters; i++) memcpy(&bytes[i * argument_pitch], parameters[i], kernel.sizes[i]);
    return bytes;
}

}  // namespace emulator

using namespace emulator;

EMULATED cuStreamCreate(void** handle, unsigned) {
    EMULATED_WITH_CONTEXT;
    *handle = streams.add(std::make_unique<Stream>());
    return CUDA_SUCCESS;
}
EMULATED cuStreamDestroy_v2(void* handle) {
    EMULATED_WITH_CONTEXT;
    return streams.remove(handle) ? CUDA_SUCCESS : fail(CUDA_ERROR_INVALID_HANDLE, "cuStreamDestroy of no stream");
}
EMULATED cuStreamSynchronize(void* handle) {
    EMULATED_WITH_CONTEXT;
    Stream* stream = streams.get(handle);
    if (!stream) return fail(CUDA_ERROR_INVALID_HANDLE, "cuStreamSynchronize of no stream");
    return stream->capturing ? fail(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "waiting for a stream that is recording") : CUDA_SUCCESS;
}
EMULATED cuStreamBeginCapture_v2(void* handle, int) {
    EMULATED_WITH_CONTEXT;
    Stream* stream = streams.get(handle);
    if (!stream) return fail(CUDA_ERROR_INVALID_HANDLE, "cuStreamBeginCapture of no stream");
    if (stream->capturing) return fail(CUDA_ERROR_ILLEGAL_STATE, "the stream is recording already");
    stream->capturing = true;
    return CUDA_SUCCESS;
}
EMULATED cuStreamEndCapture(void* handle, void** graph) {
    EMULATED_WITH_CONTEXT;
    Stream* stream = streams.get(handle);
    if (!stream || !stream->capturing) return fail(CUDA_ERROR_ILLEGAL_STATE, "cuStreamEndCapture of a stream that is not recording");
    stream->capturing = false;
    for (Stream* other : streams) {
        if (other->joined == stream) return fail(CUDA_ERROR_ILLEGAL_STATE, "a recording ends although another stream has not come back to it");
    }
    for (Event* event : events)
        if (event->captured == stream) event->captured = nullptr;
    auto made = std::make_unique<Graph>();
    made->work.swap(stream->recorded);
    *graph = graphs.add(std::move(made));
    return CUDA_SUCCESS;
}
EMULATED cuStreamIsCapturing(void* handle, int* status) {
    EMULATED_WITH_CONTEXT;
    Stream* stream = streams.get(handle);
    if (!stream) return fail(CUDA_ERROR_INVALID_HANDLE, "cuStreamIsCapturing of no stream");
    *status = stream->capturing;
    return CUDA_SUCCESS;
}

EMULATED cuEventCreate(void** handle, unsigned) {
    EMULATED_WITH_CONTEXT;
    *handle = events.add(std::make_unique<Event>());
    return CUDA_SUCCESS;
}
EMULATED cuEventDestroy_v2(void* handle) {
    EMULATED_WITH_CONTEXT;
    return events.remove(handle) ? CUDA_SUCCESS : fail(CUDA_ERROR_INVALID_HANDLE, "cuEventDestroy of no event");
}
EMULATED cuEventRecord(void* handle, void* stream_handle) {
    EMULATED_WITH_CONTEXT;
    Event* event = events.get(handle);
    Stream* stream = streams.get(stream_handle);
    if (!event || !stream) return fail(CUDA_ERROR_INVALID_HANDLE, "cuEventRecord of no event, or on no stream");
    event->captured = stream->capturing ? stream : stream->joined;
    if (event->captured) return CUDA_SUCCESS;
    timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    event->recorded = true;
    event->seconds = (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
    return CUDA_SUCCESS;
}
EMULATED cuStreamWaitEvent(void* stream_handle, void* handle, unsigned flags) {
    EMULATED_WITH_CONTEXT;
    Event* event = events.get(handle);
    Stream* stream = streams.get(stream_handle);
    if (!event || !stream) return fail(CUDA_ERROR_INVALID_HANDLE, "cuStreamWaitEvent of no event, or on no stream");
    if (flags) return fail(CUDA_ERROR_NOT_SUPPORTED, "flags of cuStreamWaitEvent are not emulated");
    if (!event->captured && !event->recorded) return fail(CUDA_ERROR_INVALID_VALUE, "waiting for an event that was not recorded");
    if (event->captured && stream != event->captured) {
        stream->joined = event->captured;
    } else if (event->captured) {
        // All that takes part and was waited for is back: there is one such stream.
        for (Stream* other : streams)
            if (other->joined == stream) other->joined = nullptr;
    }
    return CUDA_SUCCESS;
}
EMULATED cuEventQuery(void* handle) {
    EMULATED_WITH_CONTEXT;
    return events.get(handle) ? CUDA_SUCCESS : fail(CUDA_ERROR_INVALID_HANDLE, "cuEventQuery of no event");
}
EMULATED cuEventSynchronize(void* handle) {
    EMULATED_WITH_CONTEXT;
    return events.get(handle) ? CUDA_SUCCESS : fail(CUDA_ERROR_INVALID_HANDLE, "cuEventSynchronize of no event");
}
EMULATED cuEventElapsedTime_v2(float* milliseconds, void* from, void* to) {
    EMULATED_WITH_CONTEXT;
    const Event *begin = events.get(from), *end = events.get(to);
    if (!begin || !end || !begin->recorded || !end->recorded) return fail(CUDA_ERROR_INVALID_HANDLE, "the time between events that were not recorded");
    *milliseconds = (float)((end->seconds - begin->seconds) * 1e3);
    return CUDA_SUCCESS;
}

struct LaunchAttribute {
    unsigned id;
    char pad[4];
    char value[64];
};
struct LaunchConfig {
    unsigned grid[3], block[3], shared;
    void* stream;
    LaunchAttribute* attributes;
    unsigned attribute_count;
};

EMULATED cuLaunchKernelEx(const LaunchConfig* config, void* handle, void** parameters, void** extra) {
    EMULATED_WITH_CONTEXT;
    const auto& function = *static_cast<const Function*>(handle);
    const std::string& name = function.entry.name;
    const unsigned *grid = config->grid, *block = config->block;
    if (extra) return fail(CUDA_ERROR_NOT_SUPPORTED, name + ": arguments as one buffer are not emulated");
    for (unsigned i = 0; i < config->attribute_count; i++)
        // Launches that may overlap with the one before (programmatic serialization) come one after the other here, which they must allow for.
        if (config->attributes[i].id != 6)
            return fail(CUDA_ERROR_NOT_SUPPORTED, name + ": launch attribute " + std::to_string(config->attributes[i].id) + " is not emulated");
    const size_t threads = (size_t)block[0] * block[1] * block[2];
    if (grid[0] == 0 || grid[0] > 0x7fffffffu || grid[1] - 1 >= 65535 || grid[2] - 1 >= 65535 || threads == 0 || threads > function.entry.threads || block[2] > 64)
        return fail(CUDA_ERROR_INVALID_VALUE, name + ": a grid of " + std::to_string(grid[0]) + "x" + std::to_string(grid[1]) + "x" + std::to_string(grid[2]) +
                                                  " blocks of " + std::to_string(threads) + " threads (of at most " + std::to_string(function.entry.threads) + ")");
    if (config->shared > function.dynamic_shared || config->shared + function.entry.shared > 227 << 10)
        return fail(CUDA_ERROR_INVALID_VALUE, name + ": " + std::to_string(config->shared) + " bytes of dynamic shared memory, and " +
                                                  std::to_string(function.dynamic_shared) + " are allowed");
    for (unsigned i = 0; i < function.kernel->parameters; i++)
        if (function.kernel->sizes[i] > argument_pitch) return fail(CUDA_ERROR_NOT_SUPPORTED, name + ": a parameter of more than 128 bytes is not emulated");
    return submit(config->stream, Launch{function.source, function.kernel, {grid[0], grid[1], grid[2]}, {block[0], block[1], block[2]}, config->shared,
                                         copied_arguments(*function.kernel, parameters)});
}
EMULATED cuLaunchKernel(void* function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared, void* stream,
                        void** parameters, void** extra) {
    const LaunchConfig config = {{gx, gy, gz}, {bx, by, bz}, shared, stream, nullptr, 0};
    return cuLaunchKernelEx(&config, function, parameters, extra);
}

EMULATED cuGraphInstantiateWithFlags(void** executable, void* handle, unsigned long long flags) {
    EMULATED_WITH_CONTEXT;
    Graph* graph = graphs.get(handle);
    if (!graph) return fail(CUDA_ERROR_INVALID_HANDLE, "cuGraphInstantiate of no graph");
    if (flags) return fail(CUDA_ERROR_NOT_SUPPORTED, "flags of graphs are not emulated");
    *executable = executables.add(std::make_unique<Graph>(*graph));
    return CUDA_SUCCESS;
}
EMULATED cuGraphDestroy(void* handle) {
    EMULATED_WITH_CONTEXT;
    return graphs.remove(handle) ? CUDA_SUCCESS : fail(CUDA_ERROR_INVALID_HANDLE, "cuGraphDestroy of no graph");
}
EMULATED cuGraphExecDestroy(void* handle) {
    EMULATED_WITH_CONTEXT;
    return executables.remove(handle) ? CUDA_SUCCESS : fail(CUDA_ERROR_INVALID_HANDLE, "cuGraphExecDestroy of no graph");
}
EMULATED cuGraphUpload(void* handle, void*) {
    EMULATED_WITH_CONTEXT;
    return executables.get(handle) ? CUDA_SUCCESS : fail(CUDA_ERROR_INVALID_HANDLE, "cuGraphUpload of no graph");
}
EMULATED cuGraphLaunch(void* handle, void* stream_handle) {
    EMULATED_WITH_CONTEXT;
    Graph* graph = executables.get(handle);
    Stream* stream = streams.get(stream_handle);
    if (!graph || !stream) return fail(CUDA_ERROR_INVALID_HANDLE, "cuGraphLaunch of no graph, or on no stream");
    if (stream->capturing) return fail(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "recordings in recordings are not emulated");
    for (const Work& work : graph->work)
        if (CUresult answer = perform(work)) return answer;
    return CUDA_SUCCESS;
}
