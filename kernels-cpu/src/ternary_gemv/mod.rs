//! ternary_gemv
