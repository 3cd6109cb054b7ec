// Runs the kernels beside this file through the driver's functions, as a program would, and compares.
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <string>
#include <vector>

extern "C" {
int cuInit(unsigned);
int cuDevicePrimaryCtxRetain(void**, int);
int cuCtxSetCurrent(void*);
int cuStreamCreate(void**, unsigned);
int cuStreamBeginCapture_v2(void*, int);
int cuStreamEndCapture(void*, void**);
int cuStreamSynchronize(void*);
int cuGraphInstantiateWithFlags(void**, void*, unsigned long long);
int cuGraphLaunch(void*, void*);
int cuModuleLoadData(void**, const void*);
int cuModuleGetFunction(void**, void*, const char*);
int cuFuncGetAttribute(int*, int, void*);
int cuMemAlloc_v2(uint64_t*, size_t);
int cuMemFree_v2(uint64_t);
int cuMemcpyHtoDAsync_v2(uint64_t, const void*, size_t, void*);
int cuMemcpyDtoHAsync_v2(void*, uint64_t, size_t, void*);
int cuMemcpyDtoDAsync_v2(uint64_t, uint64_t, size_t, void*);
int cuLaunchKernel(void*, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, void*, void**, void**);
}

static void *stream, *together, *tensor;
static int failures;

static void expect(bool holds, const std::string& what) {
    printf("%s %s\n", holds ? "ok    " : "FAILED", what.c_str());
    if (!holds) failures++;
}

// PTX as far as the emulator reads it: names and the parameters' sizes ("ppu": two pointers and an unsigned).
static std::string ptx(const std::vector<std::pair<const char*, const char*>>& kernels) {
    std::string text = "// a test\n.version 9.0\n.target sm_80\n.address_size 64\n";
    for (auto& [name, parameters] : kernels) {
        text += ".visible .entry " + std::string(name) + "(";
        for (const char* p = parameters; *p; p++)
            text += std::string(p == parameters ? "" : ",") + "\n.param ." + (*p == 'u' ? "u32" : *p == 'q' ? "u64" : "u64 .ptr .global .align 1") + " p" + std::to_string(p - parameters);
        text += std::string(") ") + (strcmp(name, "shuffles") ? "" : ".maxntid 64 ") + "{ .shared .align 4 .b8 scratch[128]; { ret; } }\n";
    }
    return text;
}

template <class T>
struct Array {
    uint64_t address = 0;
    size_t count;
    explicit Array(size_t n) : count(n) { cuMemAlloc_v2(&address, n * sizeof(T)); }
    explicit Array(const std::vector<T>& v) : Array(v.size()) { cuMemcpyHtoDAsync_v2(address, v.data(), v.size() * sizeof(T), stream); }
    ~Array() { cuMemFree_v2(address); }
    std::vector<T> get() const {
        std::vector<T> v(count);
        cuMemcpyDtoHAsync_v2(v.data(), address, count * sizeof(T), stream);
        return v;
    }
};

template <class... A>
static int launch(void* module, const char* name, unsigned blocks, unsigned threads, unsigned shared, A... arguments) {
    void *function, *pointers[] = {&arguments..., nullptr};
    if (int code = cuModuleGetFunction(&function, module, name)) return code;
    return cuLaunchKernel(function, blocks, 1, 1, threads, 1, 1, shared, stream, pointers, nullptr);
}

static uint64_t state = 1;
static unsigned draw() {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (unsigned)(state >> 33);
}
static float to_f32(uint16_t x) {
    uint32_t bits = (uint32_t)x << 16;
    float f;
    memcpy(&f, &bits, 4);
    return f;
}

static void threads_together() {
    {
        std::vector<float> x(4 * 256);
        for (float& v : x) v = (float)(draw() % 1000);
        Array<float> in(x), out(8);
        expect(launch(together, "sum_of_blocks", 4, 256, 0, in.address, out.address) == 0, "reductions run");
        bool same = true;
        for (int b = 0; b < 4; b++) {
            float sum = 0, most = 0;
            for (int i = 0; i < 256; i++) sum += x[b * 256 + i], most = fmaxf(most, x[b * 256 + i]);
            same &= out.get()[2 * b] == sum && out.get()[2 * b + 1] == most;
        }
        expect(same, "block_sum, block_max");
    }
    {
        Array<unsigned> out(64 * 8);
        launch(together, "shuffles", 1, 64, 0, out.address);
        auto v = out.get();
        bool same = true;
        for (unsigned i = 0; i < 64; i++) {
            const unsigned warp = i / 32 * 32;
            unsigned expected_ballot = 0;
            for (unsigned lane = 0; lane < 32; lane++) expected_ballot |= ((warp + lane) % 3 == 0) << lane;
            const unsigned expected[8] = {warp + 5, i ^ 3, i % 8 + 4 < 8 ? i + 4 : i, i % 32 ? i - 1 : i, expected_ballot, warp ? 1u : 2u, 32, i % 32 < 16 ? i ^ 1 : i ^ 2};
            for (int k = 0; k < 8; k++)
                if (v[8 * i + k] != expected[k]) same = false, printf("thread %u, value %d: %u, expected %u\n", i, k, v[8 * i + k], expected[k]);
        }
        expect(same, "shuffles and votes");
        expect(launch(together, "shuffles", 1, 65, 0, out.address) == 1, "more threads than __launch_bounds__ are refused");
    }
    {
        Array<unsigned> counter(std::vector<unsigned>{0}), seen(32);
        launch(together, "last_block", 7, 32, 0, counter.address, seen.address);
        expect(seen.get() == std::vector<unsigned>(32, 6) && counter.get()[0] == 0, "a counter finds the last block");
    }
    {
        Array<unsigned> out(100);
        launch(together, "early_return", 1, 128, 0, out.address, 100u);
        expect(out.get() == std::vector<unsigned>(100, 100), "threads that have returned are not waited for");
    }
    Array<unsigned> out(256);
    std::vector<unsigned> expected(256);
    for (unsigned i = 0; i < 256; i++) expected[i] = 255 - i;
    launch(together, "reversed", 1, 256, 0, out.address, 1u);
    expect(out.get() == expected, "a barrier between writing and reading");
    launch(together, "reversed", 1, 256, 0, out.address, 0u);
    expect(out.get() != expected, "a missing barrier shows");
    expect(launch(together, "half_at_barrier", 1, 128, 0, out.address) == 719, "different barriers are found");
    expect(launch(together, "lanes_apart", 1, 32, 0, out.address) == 719, "lanes in different shuffles are found");
    expect(launch(together, "trap", 1, 32, 0) == 719, "__trap ends the launch");
    expect(launch(together, "deep", 1, 1, 0, out.address, 50u) == 0, "50 KB of stack are there");
    expect(launch(together, "deep", 1, 1, 0, out.address, 100000u) == 700, "an overflow of the stack is found");
    expect(launch(together, "reversed", 1, 256, 0, out.address, 1u) == 0 && out.get() == expected, "launches after failed ones run");
}

static void bounds() {
    Array<unsigned char> bytes(1000), whole(4096);
    Array<unsigned> out(4);
    uint64_t freed;
    {
        Array<unsigned char> gone(64);
        freed = gone.address;
    }
    auto write = [&](uint64_t address, long long where) { return launch(together, "write_at", 1, 32, 0, address, where); };
    expect(write(bytes.address, 999) == 0, "a write to the last byte");
    expect(write(bytes.address, 1000) == 700, "a write just behind is found");
    expect(write(bytes.address, -1) == 700, "a write just before is found");
    expect(write(bytes.address, 1024) == 700, "a write farther behind is found");
    expect(write(whole.address, 4096) == 700, "a write behind whole pages is found");
    expect(write(freed, 0) == 700, "a write to freed memory is found");
    expect(write(0, 0) == 700, "a write to null is found");
    expect(write(bytes.address, 0) == 0, "damage is told once");
    Array<float> x(std::vector<float>(64, 1.0f));
    Array<float> wide(4);
    expect(launch(together, "read_wide", 1, 1, 0, x.address, wide.address, 4u) == 0, "an aligned float4");
    expect(launch(together, "read_wide", 1, 1, 0, x.address, wide.address, 5u) == 719, "a misaligned one is found");
    expect(launch(together, "local_index", 1, 1, 0, out.address, 15u) == 0, "the last element of a shared array");
    expect(launch(together, "local_index", 1, 1, 0, out.address, 16u) == 719, "the one behind is found");
    expect(launch(tensor, "beyond_dynamic", 1, 1, 400, 99u) == 0, "the last element of dynamic shared memory");
    expect(launch(tensor, "beyond_dynamic", 1, 1, 400, 100u) == 700, "the one behind is found");
    expect(launch(tensor, "beyond_dynamic", 1, 1, 60000, 0u) == 1, "more dynamic shared memory than was allowed is refused");
    expect(cuMemcpyDtoDAsync_v2(bytes.address, whole.address, 1001, stream) == 1, "a copy that is too long is refused");
}

static void tensor_cores() {
    std::vector<uint16_t> a(16 * 16), b(16 * 8), padded(32 * 8, 0x7fc0);
    for (uint16_t& v : a) v = (uint16_t)(0x3f00 + draw() % 512 + (draw() % 2 << 15));
    for (uint16_t& v : b) v = (uint16_t)(0x3f00 + draw() % 512 + (draw() % 2 << 15));
    std::vector<float> expected(16 * 8);
    for (int i = 0; i < 16; i++)
        for (int j = 0; j < 8; j++)
            for (int k = 0; k < 16; k++) expected[i * 8 + j] = fmaf(to_f32(a[i * 16 + k]), to_f32(b[k * 8 + j]), expected[i * 8 + j]);
    std::copy(b.begin(), b.end(), padded.begin());
    Array<uint16_t> da(a), db(b), dpadded(padded);
    Array<float> c(16 * 8);
    launch(tensor, "multiply_bf16", 1, 32, 0, da.address, db.address, c.address);
    expect(c.get() == expected, "mma_bf16");
    launch(tensor, "multiply_loaded", 1, 32, 1024, da.address, dpadded.address, c.address, 1u);
    expect(c.get() == expected, "copies, load_matrices, load_matrices_transposed");
    launch(tensor, "multiply_loaded", 1, 32, 1024, da.address, dpadded.address, c.address, 0u);
    expect(c.get() != expected, "a missing wait shows");
    expect(launch(tensor, "load_from_global", 1, 32, 0, da.address, c.address) == 719, "load_matrices from global memory is found");
    expect(launch(tensor, "multiply_bf16", 1, 31, 0, da.address, db.address, c.address) == 719, "an mma without all lanes is found");

    std::vector<signed char> sa(16 * 32), sb(8 * 32);
    for (signed char& v : sa) v = (signed char)draw();
    for (signed char& v : sb) v = (signed char)draw();
    std::vector<int> products(16 * 8);
    for (int i = 0; i < 16; i++)
        for (int j = 0; j < 8; j++)
            for (int k = 0; k < 32; k++) products[i * 8 + j] += sa[i * 32 + k] * sb[j * 32 + k];
    Array<signed char> dsa(sa), dsb(sb);
    Array<int> dc(16 * 8), d(5);
    launch(tensor, "multiply_s8", 1, 32, 0, dsa.address, dsb.address, dc.address);
    expect(dc.get() == products, "mma_s8");
    launch(tensor, "dots", 1, 1, 0, d.address);
    const int by_hand[] = {-1 * 1 + 2 * -2 + 3 * 3 + -128 * 127 + 5, 255 * 1 + 2 * -2 + 3 * 3 + 128 * 127 + 5, 0x77114400, (int)(2u + 10u * 0x7fffffffu), (int)0xbf823f80u};
    auto got = d.get();
    for (int i = 0; i < 5; i++) expect(got[i] == by_hand[i], "dot4_s8s8, dot4_u8s8, __byte_perm, __float2int_rn, pack_bf16: " + std::to_string(i));

    timespec begin, end;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &begin);
    Array<float> many(32);
    launch(tensor, "many", 1, 32, 0, many.address, 100000u);
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &end);
    printf("       one mma_bf16: %.2f us of the CPU\n", ((double)(end.tv_sec - begin.tv_sec) * 1e9 + (double)(end.tv_nsec - begin.tv_nsec)) / 1e8);
}

static void recordings() {
    Array<unsigned> out(256), copy(256);
    void *graph, *executable;
    cuStreamBeginCapture_v2(stream, 2);
    launch(together, "reversed", 1, 256, 0, out.address, 1u);
    cuMemcpyDtoDAsync_v2(copy.address, out.address, 1024, stream);
    expect(cuStreamSynchronize(stream) == 900, "a recording stream is not waited for");
    cuStreamEndCapture(stream, &graph);
    expect(out.get()[0] == ~0u, "what is recorded does not run yet");
    cuGraphInstantiateWithFlags(&executable, graph, 0);
    expect(cuGraphLaunch(executable, stream) == 0 && copy.get()[0] == 255, "a recording runs");
    void* other;
    expect(cuModuleLoadData(&other, ".version 9.0 .target sm_90a .entry a() {}") == 209, "PTX for Hopper is refused");
    expect(cuModuleLoadData(&other, ptx({{"trap", "p"}}).c_str()) == 0 && launch(other, "trap", 1, 1, 0) == 500, "PTX with other parameters is refused");
}

int main() {
    void* context;
    expect(cuStreamCreate(&stream, 0) == 3, "nothing before cuInit");
    if (cuInit(0)) return 1;
    cuDevicePrimaryCtxRetain(&context, 0);
    expect(cuStreamCreate(&stream, 0) == 201, "nothing without a current context");
    cuCtxSetCurrent(context);
    cuStreamCreate(&stream, 1);
    const std::string first = ptx({{"sum_of_blocks", "pp"}, {"shuffles", "p"}, {"last_block", "pp"}, {"early_return", "pu"}, {"reversed", "pu"}, {"half_at_barrier", "p"},
                                   {"lanes_apart", "p"}, {"write_at", "pq"}, {"read_wide", "ppu"}, {"local_index", "pu"}, {"trap", ""}, {"deep", "pu"}});
    const std::string second = ptx({{"multiply_bf16", "ppp"}, {"multiply_s8", "ppp"}, {"multiply_loaded", "pppu"}, {"load_from_global", "pp"}, {"beyond_dynamic", "u"},
                                    {"dots", "p"}, {"many", "pu"}});
    expect(cuModuleLoadData(&together, first.c_str()) == 0 && cuModuleLoadData(&tensor, second.c_str()) == 0, "modules");
    void* function;
    int shared;
    if (cuModuleGetFunction(&function, together, "sum_of_blocks")) return 1;
    expect(cuFuncGetAttribute(&shared, 1, function) == 0 && shared == 128, "static shared memory from the PTX");
    threads_together();
    bounds();
    tensor_cores();
    recordings();
    printf("%d failures\n", failures);
    return failures != 0;
}
