// In place of the part of src/common/product.cuh that needs nvcc.
#pragma once

EMULATOR_INLINE void copy_async16_part(void* shared, const void* global, int bytes, EMULATOR_SITE) {
    emulator_copy_async(shared, global, (unsigned)bytes, file, line);
}
