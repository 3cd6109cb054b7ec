// Modules: the PTX says which kernels there are and what they take; the kernels that run are those compiled from the .cu files.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "../include/runtime.h"

namespace emulator {

// What PTX says of a kernel.
struct Entry {
    std::string name;
    std::vector<size_t> parameters;
    // Bytes of static shared memory; the most threads of a block, where the PTX says so, or 1024.
    size_t shared = 0;
    unsigned threads = 1024;
};

struct Function {
    Entry entry;
    const Source* source;
    const Kernel* kernel;
    size_t dynamic_shared = 48 << 10;
};

struct Module {
    std::string hash;
    std::vector<Entry> entries;
    std::map<std::string, Function> functions;
};

// Finds what build.sh compiled, beside this library. Says what is wrong with it.
bool load_sources(std::string& why);

// The kernels of a PTX text; a CUresult.
int parse(const char* ptx, Module& module, std::string& why);

// The kernel `name` of a module; a CUresult.
int find(Module& module, const char* name, Function*& function, std::string& why);

}  // namespace emulator
