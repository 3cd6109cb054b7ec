//! dense_gemv
