// In place of the part of src/common/product.cuh that needs nvcc.
#pragma once

EMULATOR_INLINE void copy_async16_part(void* shared, const void* global, int bytes, EMULATOR_SITE) {
    if (bytes < 0 || bytes > 16) emulator_fail(file, line, "asynchronous copy of %d bytes of 16", bytes);
    if (bytes == 0 || bytes == 16) {
        emulator_copy_async(shared, global, 16, bytes != 0, file, line);
        return;
    }
    if ((uintptr_t)global % 16 || (uintptr_t)shared % 16) emulator_fail(file, line, "asynchronous copy from %p to %p: not multiples of 16 bytes", global, shared);
    for (int i = 0; i < 16; i++) {
        emulator_copy_async(static_cast<unsigned char*>(shared) + i, static_cast<const unsigned char*>(global) + i, 1, i < bytes, file, line);
    }
}
