// In place of the part of src/common/memory.cuh that needs nvcc.
#pragma once

#define DYNAMIC_SHARED(type, name) type* name = reinterpret_cast<type*>(emulator_dynamic_shared)

EMULATOR_INLINE void copy_async16(void* shared, const void* global, bool valid = true, EMULATOR_SITE) {
    emulator_copy_async(shared, global, 16, valid, file, line);
}
EMULATOR_INLINE void copy_async_commit() { emulator_copy_commit(); }
template <int pending>
EMULATOR_INLINE void copy_async_wait() {
    emulator_copy_wait(pending);
}
