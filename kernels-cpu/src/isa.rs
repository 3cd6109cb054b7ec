//! Instruction sets and their capability tokens.
//!
//! A token such as [`Avx2`] can only be had from `detect`, so holding one proves that the CPU runs these instructions.
//! `ONEBIT_ISA` forces a path by its name (with the `std` feature):
//!
//! | name | needs | float kernels | byte dot products |
//! |---|---|---|---|
//! | `scalar` | nothing | portable | portable |
//! | `avx2` | x86-64, AVX2, FMA, F16C | 2 × 256 bits | `vpmaddubsw`, `vpmaddwd` |
//! | `avxvnni` | and AVX-VNNI | as `avx2` | `vpdpbusd`, 256 bits |
//! | `avxvnni-evex` | and AVX-512 VL, VNNI, but not AVX-VNNI | as `avx2` | the same kernels in AVX-512's encoding of the instruction |
//! | `avx512vnni` | and AVX-512 F, BW, DQ, VL, VNNI | 512 bits | `vpdpbusd`, 512 bits |
//! | `neon` | aarch64, NEON | 4 × 128 bits | `smull`, `smlal2`, `sadalp` |
//! | `dotprod` | and FEAT_DotProd | as `neon` | `sdot` |
//! | `i8mm` | and FEAT_I8MM | as `neon` | `smmla` for many tokens, `sdot` for one |
//! | `dsp` | Cortex-M with the DSP extension, known when it is compiled (`build.rs`) | portable | `smlad` for ternary weights and one token |
//! | `simd128` | WebAssembly compiled with `-C target-feature=+simd128`; a module cannot ask | 4 × 128 bits, fused multiply-adds in f64 | `i32x4.dot_i16x8_s` |
//!
//! A CPU that has AVX-512 VNNI but not AVX-VNNI can run the 256-bit kernels all the same, since the two encodings are one operation. It has
//! them under a name of their own, so that nobody takes a run of the one for a run of the other.

/// The portable path: no token needed, always there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scalar;

/// Asks for CPU features: at run time with `std`, at compile time without. Miri interprets portable Rust alone.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
macro_rules! has {
    ($($f:tt),+) => {{
        #[cfg(all(feature = "std", target_arch = "x86_64"))]
        { !cfg!(miri) $(&& std::arch::is_x86_feature_detected!($f))+ }
        #[cfg(all(feature = "std", target_arch = "aarch64"))]
        { !cfg!(miri) $(&& std::arch::is_aarch64_feature_detected!($f))+ }
        #[cfg(not(feature = "std"))]
        { !cfg!(miri) $(&& cfg!(target_feature = $f))+ }
    }};
}

#[cfg(target_arch = "x86_64")]
pub use x86::{Avx2, Avx512, AvxVnni};

/// The tokens of x86-64.
#[cfg(target_arch = "x86_64")]
mod x86 {
    /// Proof that the CPU has AVX2, FMA and F16C.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Avx2(());

    /// Proof that the CPU has 256-bit VNNI (and AVX2, FMA and F16C); knows in which encoding.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct AvxVnni {
        avx2: Avx2,
        vex: bool,
    }

    /// Proof that the CPU has AVX-512 F, BW, DQ, VL and VNNI (and AVX2, FMA and F16C); knows whether it has VBMI too.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Avx512 {
        vbmi: bool,
    }

    impl Avx2 {
        /// The token, if this CPU has AVX2, FMA and F16C.
        pub fn detect() -> Option<Self> {
            has!("avx2", "fma", "f16c").then_some(Self(()))
        }
    }

    impl AvxVnni {
        /// The token, if this CPU has AVX-VNNI, or else AVX-512 VL and VNNI.
        pub fn detect() -> Option<Self> {
            let avx2 = Avx2::detect()?;
            let vex = has!("avxvnni");
            (vex || has!("avx512f", "avx512vl", "avx512vnni")).then_some(Self { avx2, vex })
        }

        /// Whether the instructions are to be encoded as AVX-VNNI has them; else as AVX-512 does.
        pub fn is_vex(self) -> bool {
            self.vex
        }

        /// What it includes.
        pub fn avx2(self) -> Avx2 {
            self.avx2
        }
    }

    impl Avx512 {
        /// The token, if this CPU has AVX-512 F, BW, DQ, VL and VNNI.
        pub fn detect() -> Option<Self> {
            Avx2::detect()?;
            has!("avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512vnni").then(|| Self {
                vbmi: has!("avx512vbmi"),
            })
        }

        /// Whether the CPU has VBMI: lookups of 64 bytes at once.
        pub fn has_vbmi(self) -> bool {
            self.vbmi
        }
    }
}

#[cfg(target_arch = "aarch64")]
pub use arm::{Dotprod, I8mm, Neon};

/// The tokens of aarch64.
#[cfg(target_arch = "aarch64")]
mod arm {
    /// Proof that the CPU has NEON.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Neon(());

    /// Proof that the CPU has byte dot products (FEAT_DotProd), and NEON.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Dotprod(Neon);

    /// Proof that the CPU has byte matrix products (FEAT_I8MM), and FEAT_DotProd and NEON.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct I8mm(Dotprod);

    impl Neon {
        /// The token, if this CPU has NEON.
        pub fn detect() -> Option<Self> {
            has!("neon").then_some(Self(()))
        }
    }

    impl Dotprod {
        /// The token, if this CPU has FEAT_DotProd.
        pub fn detect() -> Option<Self> {
            let neon = Neon::detect()?;
            has!("dotprod").then_some(Self(neon))
        }

        /// What it includes.
        pub fn neon(self) -> Neon {
            self.0
        }
    }

    impl I8mm {
        /// The token, if this CPU has FEAT_I8MM and FEAT_DotProd.
        pub fn detect() -> Option<Self> {
            let dotprod = Dotprod::detect()?;
            has!("i8mm").then_some(Self(dotprod))
        }

        /// What it includes.
        pub fn dotprod(self) -> Dotprod {
            self.0
        }
    }
}

/// Proof that the processor is a Cortex-M with the DSP extension.
#[cfg(arm_dsp)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dsp(());

#[cfg(arm_dsp)]
impl Dsp {
    /// The token. The target has the extension, or the program would not have been compiled for it.
    pub fn detect() -> Option<Self> {
        Some(Self(()))
    }
}

/// Proof that the module is compiled for engines with SIMD128: another does not load it.
#[cfg(target_feature = "simd128")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Simd128(());

#[cfg(target_feature = "simd128")]
impl Simd128 {
    /// The token.
    pub fn detect() -> Option<Self> {
        Some(Self(()))
    }
}

/// An instruction set that this CPU has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isa {
    /// Portable Rust.
    Scalar(Scalar),
    /// x86-64 with AVX2 and FMA.
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
    /// x86-64 with 256-bit VNNI.
    #[cfg(target_arch = "x86_64")]
    AvxVnni(AvxVnni),
    /// x86-64 with AVX-512 and VNNI.
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512),
    /// aarch64 with NEON.
    #[cfg(target_arch = "aarch64")]
    Neon(Neon),
    /// aarch64 with byte dot products.
    #[cfg(target_arch = "aarch64")]
    Dotprod(Dotprod),
    /// aarch64 with byte matrix products.
    #[cfg(target_arch = "aarch64")]
    I8mm(I8mm),
    /// Cortex-M with the DSP extension.
    #[cfg(arm_dsp)]
    Dsp(Dsp),
    /// WebAssembly with SIMD128.
    #[cfg(target_feature = "simd128")]
    Simd128(Simd128),
}

/// The vectors that float kernels are written over; several paths of [`Isa`] share one.
#[derive(Clone, Copy)]
pub(crate) enum FloatIsa {
    Scalar(Scalar),
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512),
    #[cfg(target_arch = "aarch64")]
    Neon(Neon),
    #[cfg(target_feature = "simd128")]
    Simd128(Simd128),
}

/// `ONEBIT_ISA` names a path that does not exist or that this CPU lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownIsa;

impl Isa {
    /// The portable path.
    pub const SCALAR: Isa = Isa::Scalar(Scalar);

    /// Every path that this CPU has, slowest first.
    pub fn available() -> impl Iterator<Item = Isa> {
        #[cfg(target_arch = "x86_64")]
        let vector = [
            Avx2::detect().map(Isa::Avx2),
            AvxVnni::detect().map(Isa::AvxVnni),
            Avx512::detect().map(Isa::Avx512),
        ];
        #[cfg(target_arch = "aarch64")]
        let vector = [
            Neon::detect().map(Isa::Neon),
            Dotprod::detect().map(Isa::Dotprod),
            I8mm::detect().map(Isa::I8mm),
        ];
        #[cfg(arm_dsp)]
        let vector = [Dsp::detect().map(Isa::Dsp)];
        #[cfg(target_feature = "simd128")]
        let vector = [Simd128::detect().map(Isa::Simd128)];
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64", arm_dsp, target_feature = "simd128")))]
        let vector: [Option<Isa>; 0] = [];
        core::iter::once(Isa::SCALAR).chain(vector.into_iter().flatten())
    }

    /// The fastest path that this CPU has.
    pub fn best() -> Isa {
        Self::available().last().unwrap_or(Isa::SCALAR)
    }

    /// The path called `name` (see the [module](self)), if this CPU has it.
    ///
    /// # Errors
    /// [`UnknownIsa`] if there is no such path here.
    pub fn by_name(name: &str) -> Result<Isa, UnknownIsa> {
        Self::available().find(|isa| isa.name() == name).ok_or(UnknownIsa)
    }

    /// The path to use: `ONEBIT_ISA` if set, else the fastest.
    ///
    /// # Errors
    /// [`UnknownIsa`] if `ONEBIT_ISA` names a path that is not available here.
    #[cfg(feature = "std")]
    pub fn from_env() -> Result<Isa, UnknownIsa> {
        match std::env::var("ONEBIT_ISA") {
            Ok(name) if !name.is_empty() => Self::by_name(&name),
            _ => Ok(Self::best()),
        }
    }

    /// The name that `ONEBIT_ISA` takes.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Scalar(_) => "scalar",
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2(_) => "avx2",
            #[cfg(target_arch = "x86_64")]
            Isa::AvxVnni(token) if token.is_vex() => "avxvnni",
            #[cfg(target_arch = "x86_64")]
            Isa::AvxVnni(_) => "avxvnni-evex",
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512(_) => "avx512vnni",
            #[cfg(target_arch = "aarch64")]
            Isa::Neon(_) => "neon",
            #[cfg(target_arch = "aarch64")]
            Isa::Dotprod(_) => "dotprod",
            #[cfg(target_arch = "aarch64")]
            Isa::I8mm(_) => "i8mm",
            #[cfg(arm_dsp)]
            Isa::Dsp(_) => "dsp",
            #[cfg(target_feature = "simd128")]
            Isa::Simd128(_) => "simd128",
        }
    }

    /// The vectors of its float kernels.
    pub(crate) fn floats(self) -> FloatIsa {
        match self {
            Isa::Scalar(token) => FloatIsa::Scalar(token),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2(token) => FloatIsa::Avx2(token),
            #[cfg(target_arch = "x86_64")]
            Isa::AvxVnni(token) => FloatIsa::Avx2(token.avx2()),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512(token) => FloatIsa::Avx512(token),
            #[cfg(target_arch = "aarch64")]
            Isa::Neon(token) => FloatIsa::Neon(token),
            #[cfg(target_arch = "aarch64")]
            Isa::Dotprod(token) => FloatIsa::Neon(token.neon()),
            #[cfg(target_arch = "aarch64")]
            Isa::I8mm(token) => FloatIsa::Neon(token.dotprod().neon()),
            #[cfg(arm_dsp)]
            Isa::Dsp(_) => FloatIsa::Scalar(Scalar),
            #[cfg(target_feature = "simd128")]
            Isa::Simd128(token) => FloatIsa::Simd128(token),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_find_their_paths() {
        for isa in Isa::available() {
            std::println!("path available: {}", isa.name());
            assert_eq!(Isa::by_name(isa.name()), Ok(isa));
        }
        assert_eq!(Isa::by_name("avx1024"), Err(UnknownIsa));
    }
}
