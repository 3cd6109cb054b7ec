//! int8_gemv
