// What threads do together: barriers, shuffles, votes.
#pragma once

EMULATOR_INLINE void __syncthreads(EMULATOR_SITE) { emulator_barrier(0, 0, false, file, line); }
EMULATOR_INLINE int __syncthreads_count(int predicate, EMULATOR_SITE) { return (int)emulator_barrier(0, 0, predicate, file, line); }
EMULATOR_INLINE int __syncthreads_or(int predicate, EMULATOR_SITE) { return emulator_barrier(0, 0, predicate, file, line) != 0; }
EMULATOR_INLINE int __syncthreads_and(int predicate, EMULATOR_SITE) { return emulator_barrier(0, 0, !predicate, file, line) == 0; }

namespace emulator {

inline void synchronize(const Lanes&) {}

// A value of up to eight bytes, and the lane whose value this one asks for.
struct Shuffle {
    unsigned long long value;
    unsigned source;
    unsigned long long result;
};
inline void shuffle(const Lanes& lanes) {
    for (unsigned lane = 0; lane < 32; lane++) {
        if (!lanes.has(lane)) continue;
        Shuffle& operands = lanes.get<Shuffle>(lane);
        // What a lane that is not taking part would give is undefined: NaN, or -1.
        operands.result = lanes.has(operands.source) ? lanes.get<Shuffle>(operands.source).value : ~0ull;
    }
}

struct Vote {
    bool predicate;
    unsigned ballot, lanes;
};
inline void vote(const Lanes& lanes) {
    unsigned ballot = 0;
    for (unsigned lane = 0; lane < 32; lane++)
        if (lanes.has(lane) && lanes.get<Vote>(lane).predicate) ballot |= 1u << lane;
    for (unsigned lane = 0; lane < 32; lane++)
        if (lanes.has(lane)) lanes.get<Vote>(lane).ballot = ballot, lanes.get<Vote>(lane).lanes = lanes.mask;
}

struct Value {
    unsigned long long value;
    Lanes lanes;
};
// Every lane gets every lane's value.
inline void exchange(const Lanes& lanes) {
    for (unsigned lane = 0; lane < 32; lane++)
        if (lanes.has(lane)) lanes.get<Value>(lane).lanes = lanes;
}

template <class T>
inline T shuffled(unsigned mask, T value, unsigned source, const char* name, const char* file, int line) {
    static_assert(sizeof(T) == 4 || sizeof(T) == 8, "CUDA shuffles four or eight bytes");
    Shuffle operands = {0, source, 0};
    memcpy(&operands.value, &value, sizeof(T));
    emulator_warp(&operands, shuffle, mask, name, file, line);
    memcpy(&value, &operands.result, sizeof(T));
    return value;
}

inline Vote voted(unsigned mask, bool predicate, const char* name, const char* file, int line) {
    Vote operands = {predicate, 0, 0};
    emulator_warp(&operands, vote, mask, name, file, line);
    return operands;
}

}  // namespace emulator

// Lanes are in segments of `width`; a lane outside one's own segment is oneself.
template <class T>
EMULATOR_INLINE T __shfl_sync(unsigned mask, T value, int source, int width = 32, EMULATOR_SITE) {
    unsigned segment = emulator_lane & ~(unsigned)(width - 1);
    return emulator::shuffled(mask, value, segment | ((unsigned)source & (unsigned)(width - 1)), "__shfl_sync", file, line);
}
template <class T>
EMULATOR_INLINE T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32, EMULATOR_SITE) {
    unsigned source = emulator_lane ^ (unsigned)lanes, end = (emulator_lane & ~(unsigned)(width - 1)) + (unsigned)width;
    return emulator::shuffled(mask, value, source < end ? source : emulator_lane, "__shfl_xor_sync", file, line);
}
template <class T>
EMULATOR_INLINE T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, EMULATOR_SITE) {
    unsigned in_segment = emulator_lane & (unsigned)(width - 1);
    return emulator::shuffled(mask, value, in_segment + delta < (unsigned)width ? emulator_lane + delta : emulator_lane, "__shfl_down_sync", file, line);
}
template <class T>
EMULATOR_INLINE T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, EMULATOR_SITE) {
    unsigned in_segment = emulator_lane & (unsigned)(width - 1);
    return emulator::shuffled(mask, value, in_segment >= delta ? emulator_lane - delta : emulator_lane, "__shfl_up_sync", file, line);
}

EMULATOR_INLINE void __syncwarp(unsigned mask = 0xffffffffu, EMULATOR_SITE) {
    emulator_warp(nullptr, emulator::synchronize, mask, "__syncwarp", file, line);
}
EMULATOR_INLINE unsigned __ballot_sync(unsigned mask, int predicate, EMULATOR_SITE) {
    return emulator::voted(mask, predicate, "__ballot_sync", file, line).ballot;
}
EMULATOR_INLINE int __any_sync(unsigned mask, int predicate, EMULATOR_SITE) {
    return emulator::voted(mask, predicate, "__any_sync", file, line).ballot != 0;
}
EMULATOR_INLINE int __all_sync(unsigned mask, int predicate, EMULATOR_SITE) {
    emulator::Vote result = emulator::voted(mask, predicate, "__all_sync", file, line);
    return result.ballot == result.lanes;
}
