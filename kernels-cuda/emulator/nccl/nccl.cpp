// NCCL between emulated GPUs: the collectives that are used, over memory that the processes of one machine share.
//
// A communicator is a file in /dev/shm, named by its unique id: a counter for each rank, and a window for each that a piece of its array goes through. An operation walks through its arrays piece by
// piece: every rank copies its piece into its window, waits until all have, reads what it wants, and waits until all have read. Sums are added in the order of ranks, in f32 (bf16 is rounded once, at
// the end). A rank that does not come lets the others wait for ever, as NCCL does.
//
// Operations are work on a stream like any other: done when they are asked for, or recorded.
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <string>

#include "../src/driver.h"

namespace {

enum Result { SUCCESS = 0, SYSTEM_ERROR = 2, INTERNAL_ERROR = 3, INVALID_ARGUMENT = 4 };
enum Type { INT8 = 0, UINT8 = 1, UINT32 = 3, FLOAT32 = 7, BFLOAT16 = 9 };
constexpr int most_ranks = 64;
constexpr size_t window = 256 << 10;

thread_local std::string last_error;

Result fail(Result code, const std::string& what) {
    last_error = what;
    fprintf(stderr, "nccl emulator: %s\n", what.c_str());
    return code;
}

struct Shared {
    // How many meetings each rank has come to.
    std::atomic<uint64_t> meetings[most_ranks];
};

struct Communicator {
    Shared* shared;
    unsigned char* windows;
    size_t bytes;
    int rank, size;
    uint64_t meeting = 0;

    // Waits until all ranks are here.
    void meet() {
        shared->meetings[rank].store(++meeting, std::memory_order_release);
        for (int other = 0; other < size; other++)
            for (unsigned spins = 0; shared->meetings[other].load(std::memory_order_acquire) < meeting; spins++) {
                const timespec pause = {0, spins < 200 ? 1000 : 200000};
                nanosleep(&pause, nullptr);
            }
    }
    unsigned char* of(int who) const { return windows + (size_t)who * window; }
};

size_t size_of(int type) {
    switch (type) {
    case INT8: case UINT8: return 1;
    case UINT32: case FLOAT32: return 4;
    case BFLOAT16: return 2;
    default: return 0;
    }
}

float from_bf16(uint16_t bits) {
    const uint32_t wide = (uint32_t)bits << 16;
    float value;
    memcpy(&value, &wide, 4);
    return value;
}
uint16_t to_bf16(float value) {
    uint32_t bits;
    memcpy(&bits, &value, 4);
    if (value != value) return (uint16_t)(bits >> 16 | 0x40);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

// Element i of the sum over ranks of `count` elements that begin at byte `at` of the windows.
void add(const Communicator& c, int type, size_t at, size_t count, unsigned char* to) {
    for (size_t i = 0; i < count; i++) {
        if (type == UINT32) {
            uint32_t sum = 0;
            for (int r = 0; r < c.size; r++) sum += reinterpret_cast<const uint32_t*>(c.of(r) + at)[i];
            reinterpret_cast<uint32_t*>(to)[i] = sum;
        } else if (type == FLOAT32) {
            float sum = reinterpret_cast<const float*>(c.of(0) + at)[i];
            for (int r = 1; r < c.size; r++) sum += reinterpret_cast<const float*>(c.of(r) + at)[i];
            reinterpret_cast<float*>(to)[i] = sum;
        } else {
            float sum = from_bf16(reinterpret_cast<const uint16_t*>(c.of(0) + at)[i]);
            for (int r = 1; r < c.size; r++) sum += from_bf16(reinterpret_cast<const uint16_t*>(c.of(r) + at)[i]);
            reinterpret_cast<uint16_t*>(to)[i] = to_bf16(sum);
        }
    }
}

Result submit(void* stream, std::function<void()> run) {
    std::lock_guard<std::mutex> held(emulator::lock);
    const CUresult answer = emulator::submit(stream, emulator::Foreign{[run] {
        run();
        return CUDA_SUCCESS;
    }});
    return answer == CUDA_SUCCESS ? SUCCESS : fail(INTERNAL_ERROR, "the stream did not take the operation");
}

Result check(const void* from, const void* to, size_t sent, size_t received) {
    std::lock_guard<std::mutex> held(emulator::lock);
    if (!emulator::is_device(from, sent)) return fail(INVALID_ARGUMENT, std::to_string(sent) + " bytes to send are not in device memory");
    if (!emulator::is_device(to, received)) return fail(INVALID_ARGUMENT, std::to_string(received) + " bytes to receive are not in device memory");
    return SUCCESS;
}

}  // namespace

#define NCCL extern "C" __attribute__((visibility("default")))

NCCL int ncclGetVersion(int* version) {
    *version = 22800;
    return SUCCESS;
}
NCCL const char* ncclGetErrorString(int code) {
    switch (code) {
    case SUCCESS: return "no error";
    case SYSTEM_ERROR: return "unhandled system error";
    case INVALID_ARGUMENT: return "invalid argument";
    default: return "internal error";
    }
}
NCCL const char* ncclGetLastError(void*) { return last_error.c_str(); }

struct UniqueId {
    char internal[128];
};

NCCL int ncclGetUniqueId(UniqueId* id) {
    memset(id, 0, sizeof *id);
    timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    snprintf(id->internal, sizeof id->internal, "/onebit-nccl-%d-%lld-%ld", (int)getpid(), (long long)now.tv_sec, now.tv_nsec);
    return SUCCESS;
}

NCCL int ncclCommInitRank(void** made, int size, UniqueId id, int rank) {
    if (size < 1 || size > most_ranks || rank < 0 || rank >= size) return fail(INVALID_ARGUMENT, "rank " + std::to_string(rank) + " of " + std::to_string(size));
    const char* name = id.internal;
    const size_t bytes = sizeof(Shared) + (size_t)size * window;
    const int file = shm_open(name, O_CREAT | O_RDWR, 0600);
    if (file < 0 || ftruncate(file, (off_t)bytes) != 0) return fail(SYSTEM_ERROR, std::string(name) + ": " + strerror(errno));
    void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (memory == MAP_FAILED) return fail(SYSTEM_ERROR, std::string(name) + ": " + strerror(errno));
    auto shared = static_cast<Shared*>(memory);
    auto c = new Communicator{shared, static_cast<unsigned char*>(memory) + sizeof(Shared), bytes, rank, size};
    c->meet();
    // All have it open.
    if (rank == 0) shm_unlink(name);
    *made = c;
    return SUCCESS;
}
NCCL int ncclCommDestroy(void* handle) {
    auto c = static_cast<Communicator*>(handle);
    munmap(c->shared, c->bytes);
    delete c;
    return SUCCESS;
}

NCCL int ncclAllReduce(const void* from, void* to, size_t count, int type, int op, void* handle, void* stream) {
    auto c = static_cast<Communicator*>(handle);
    const size_t width = size_of(type);
    if (width < 2 || op != 0) return fail(INVALID_ARGUMENT, "sums of f32, bf16 and u32 are emulated");
    if (Result answer = check(from, to, count * width, count * width)) return answer;
    return submit(stream, [=] {
        for (size_t at = 0; at < count; at += window / width) {
            const size_t n = count - at < window / width ? count - at : window / width;
            memcpy(c->of(c->rank), static_cast<const unsigned char*>(from) + at * width, n * width);
            c->meet();
            add(*c, type, 0, n, static_cast<unsigned char*>(to) + at * width);
            c->meet();
        }
    });
}

NCCL int ncclReduceScatter(const void* from, void* to, size_t count, int type, int op, void* handle, void* stream) {
    auto c = static_cast<Communicator*>(handle);
    const size_t width = size_of(type), piece = window / width;
    if (width < 2 || op != 0) return fail(INVALID_ARGUMENT, "sums of f32, bf16 and u32 are emulated");
    if (Result answer = check(from, to, count * width * (size_t)c->size, count * width)) return answer;
    return submit(stream, [=] {
        // Before anything is written: the target is part of the source.
        for (int owner = 0; owner < c->size; owner++)
            for (size_t at = 0; at < count; at += piece) {
                const size_t n = count - at < piece ? count - at : piece;
                memcpy(c->of(c->rank), static_cast<const unsigned char*>(from) + ((size_t)owner * count + at) * width, n * width);
                c->meet();
                if (owner == c->rank) add(*c, type, 0, n, static_cast<unsigned char*>(to) + at * width);
                c->meet();
            }
    });
}

NCCL int ncclAllGather(const void* from, void* to, size_t count, int type, void* handle, void* stream) {
    auto c = static_cast<Communicator*>(handle);
    const size_t bytes = count * size_of(type);
    if (size_of(type) == 0) return fail(INVALID_ARGUMENT, "this type is not emulated");
    if (Result answer = check(from, to, bytes, bytes * (size_t)c->size)) return answer;
    return submit(stream, [=] {
        for (size_t at = 0; at < bytes; at += window) {
            const size_t n = bytes - at < window ? bytes - at : window;
            memcpy(c->of(c->rank), static_cast<const unsigned char*>(from) + at, n);
            c->meet();
            for (int r = 0; r < c->size; r++) memcpy(static_cast<unsigned char*>(to) + (size_t)r * bytes + at, c->of(r), n);
            c->meet();
        }
    });
}
