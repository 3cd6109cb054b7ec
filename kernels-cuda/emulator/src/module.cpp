#include "module.h"

#include <ctype.h>
#include <dirent.h>
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

#include <algorithm>
#include <string_view>

namespace emulator {
namespace {

std::vector<const Source*> sources;

bool is_word(char c) { return isalnum((unsigned char)c) || c == '_' || c == '$' || c == '.' || c == '%'; }

// The pieces of PTX: words, numbers and single signs; comments are skipped.
struct Reader {
    std::string_view text;
    size_t at = 0;
    std::string_view next() {
        for (;;) {
            while (at < text.size() && isspace((unsigned char)text[at])) at++;
            if (text.substr(at, 2) == "//")
                at = std::min(text.find('\n', at), text.size());
            else
                break;
        }
        const size_t begin = at;
        if (at == text.size()) return {};
        do at++;
        while (is_word(text[begin]) && at < text.size() && is_word(text[at]));
        return text.substr(begin, at - begin);
    }
};

// ".align 16 .b8 name[64]", or ".u64 name": the bytes; `piece` becomes what follows.
size_t declared_bytes(Reader& reader, std::string_view& piece) {
    size_t bytes = 0, elements = 1;
    for (piece = reader.next(); !piece.empty() && piece != "," && piece != ")" && piece != ";" && piece != "="; piece = reader.next()) {
        if (piece == ".align")
            reader.next();
        else if (piece == "[")
            elements *= strtoull(std::string(reader.next()).c_str(), nullptr, 10);
        else if (piece.size() >= 3 && piece[0] == '.' && strchr("busf", piece[1]) && isdigit((unsigned char)piece[2]))
            bytes = strtoull(std::string(piece.substr(2)).c_str(), nullptr, 10) / 8;
    }
    return bytes * elements;
}

// From behind `.entry` to the end of the body.
Entry parse_entry(Reader& reader) {
    Entry entry;
    entry.name = reader.next();
    std::string_view piece = reader.next();
    if (piece == "(")
        for (piece = reader.next(); piece == ".param" || piece == ",";) {
            if (piece == ",") piece = reader.next();
            entry.parameters.push_back(declared_bytes(reader, piece));
        }
    for (piece = reader.next(); !piece.empty() && piece != "{" && piece != ";"; piece = reader.next())
        if (piece == ".maxntid" || piece == ".reqntid") entry.threads = (unsigned)strtoul(std::string(reader.next()).c_str(), nullptr, 10);
    if (piece != "{") return entry;
    for (int depth = 1; depth > 0;) {
        piece = reader.next();
        if (piece.empty()) break;
        if (piece == ".shared") entry.shared += declared_bytes(reader, piece);
        if (piece == "{") depth++;
        if (piece == "}") depth--;
    }
    return entry;
}

std::string library_folder() {
    Dl_info found;
    if (!dladdr((void*)&load_sources, &found) || !found.dli_fname) return ".";
    const std::string path = found.dli_fname;
    const size_t slash = path.rfind('/');
    return slash == std::string::npos ? "." : path.substr(0, slash);
}

bool holds(const Source& source, const Module& module) {
    return std::all_of(module.entries.begin(), module.entries.end(), [&](const Entry& entry) {
        return std::any_of(source.kernels, source.kernels + source.count, [&](const Kernel& kernel) { return entry.name == kernel.name; });
    });
}

}  // namespace

bool load_sources(std::string& why) {
    const std::string folder = library_folder() + "/kernels";
    DIR* directory = opendir(folder.c_str());
    if (!directory) {
        why = "there is no " + folder + ": build.sh writes it";
        return false;
    }
    while (const dirent* file = readdir(directory)) {
        const std::string name = file->d_name;
        if (name.size() < 4 || name.substr(name.size() - 3) != ".so") continue;
        void* library = dlopen((folder + "/" + name).c_str(), RTLD_NOW | RTLD_LOCAL);
        auto source = library ? static_cast<const Source*>(dlsym(library, "emulator_source")) : nullptr;
        if (!source) {
            why = dlerror();
            closedir(directory);
            return false;
        }
        sources.push_back(source);
    }
    closedir(directory);
    return true;
}

int parse(const char* ptx, Module& module, std::string& why) {
    const std::string_view text = ptx;
    const size_t hash = text.find(", sources ");
    if (text.substr(0, 3) == "// " && hash < text.find('\n')) module.hash = text.substr(hash + 10, 64);
    Reader reader{text};
    bool target = false;
    for (std::string_view piece = reader.next(); !piece.empty(); piece = reader.next()) {
        if (piece == ".target") {
            const std::string_view architecture = reader.next();
            target = true;
            if (architecture != "sm_80") {
                why = "PTX for " + std::string(architecture) + " is not emulated, only sm_80";
                return 209;  // no binary for this GPU
            }
        }
        if (piece == ".entry") module.entries.push_back(parse_entry(reader));
    }
    if (!target) {
        why = "no PTX: .target is missing";
        return 218;  // invalid PTX
    }
    return 0;
}

int find(Module& module, const char* name, Function*& function, std::string& why) {
    if (auto known = module.functions.find(name); known != module.functions.end()) {
        function = &known->second;
        return 0;
    }
    const auto entry = std::find_if(module.entries.begin(), module.entries.end(), [&](const Entry& e) { return e.name == name; });
    if (entry == module.entries.end()) {
        why = std::string("the module has no kernel ") + name;
        return 500;
    }
    // The file with this hash; otherwise (the PTX is older than the source) the only one that has all kernels of this module.
    std::vector<const Source*> candidates;
    for (const Source* source : sources)
        if (holds(*source, module)) candidates.push_back(source);
    auto same = std::find_if(candidates.begin(), candidates.end(), [&](const Source* s) { return module.hash == s->hash; });
    if (same != candidates.end()) candidates = {*same};
    if (candidates.size() != 1) {
        why = std::string(candidates.empty() ? "no" : "more than one") + " source that was built has the kernels of the module of " + name + ": run build.sh again";
        return 500;
    }
    const Source* source = candidates[0];
    const Kernel* kernel = std::find_if(source->kernels, source->kernels + source->count, [&](const Kernel& k) { return entry->name == k.name; });
    const bool fits = entry->parameters.size() == kernel->parameters && std::equal(entry->parameters.begin(), entry->parameters.end(), kernel->sizes);
    if (!fits) {
        why = std::string("the PTX of ") + name + " takes other parameters than " + source->path + ": one of both is out of date (build-ptx.sh, build.sh)";
        return 500;
    }
    function = &module.functions.insert({name, Function{*entry, source, kernel}}).first->second;
    return 0;
}

}  // namespace emulator
