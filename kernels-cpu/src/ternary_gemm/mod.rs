//! ternary_gemm
