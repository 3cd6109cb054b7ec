// target: sm_80
// Rows whose logits are wanted, one behind the other for the head: out[r] = x[rows[r]], `[rows, cols]`, a block a row. Bytes: 8 a value.

extern "C" __global__ void __launch_bounds__(256) gather_rows(const float* x, const unsigned* rows, unsigned cols, float* out) {
    const float* from = x + (size_t)rows[blockIdx.x] * cols;
    float* to = out + (size_t)blockIdx.x * cols;
    for (unsigned i = threadIdx.x; i < cols; i += blockDim.x) to[i] = from[i];
}
