//! Instruction sets and their capability tokens.
//!
//! A token such as [`Avx2`] can only be had from `detect`, so holding one proves that the CPU runs these instructions.
//! `ONEBIT_ISA=scalar|avx2|avx512vnni` forces a path (with the `std` feature).

/// The portable path: no token needed, always there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scalar;

/// Proof that the CPU has AVX2 and FMA.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Avx2(());

/// Proof that the CPU has AVX-512 F, BW, DQ, VL and VNNI (and AVX2 and FMA); knows whether it has VBMI too.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Avx512 {
    vbmi: bool,
}

/// Asks for a CPU feature: at run time with `std`, at compile time without.
#[cfg(target_arch = "x86_64")]
macro_rules! has {
    ($($f:tt),+) => {{
        #[cfg(feature = "std")]
        { true $(&& std::arch::is_x86_feature_detected!($f))+ }
        #[cfg(not(feature = "std"))]
        { true $(&& cfg!(target_feature = $f))+ }
    }};
}

#[cfg(target_arch = "x86_64")]
impl Avx2 {
    /// The token, if this CPU has AVX2 and FMA.
    pub fn detect() -> Option<Self> {
        has!("avx2", "fma", "f16c").then_some(Self(()))
    }
}

#[cfg(target_arch = "x86_64")]
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

/// An instruction set that this CPU has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isa {
    /// Portable Rust.
    Scalar(Scalar),
    /// x86-64 with AVX2 and FMA.
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
    /// x86-64 with AVX-512 and VNNI.
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512),
}

/// `ONEBIT_ISA` names a path that does not exist or that this CPU lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownIsa;

impl Isa {
    /// The portable path.
    pub const SCALAR: Isa = Isa::Scalar(Scalar);

    /// Every path that this CPU has, slowest first.
    pub fn available() -> impl Iterator<Item = Isa> {
        let all: [Option<Isa>; 3] = [
            Some(Isa::SCALAR),
            #[cfg(target_arch = "x86_64")]
            Avx2::detect().map(Isa::Avx2),
            #[cfg(target_arch = "x86_64")]
            Avx512::detect().map(Isa::Avx512),
            #[cfg(not(target_arch = "x86_64"))]
            None,
            #[cfg(not(target_arch = "x86_64"))]
            None,
        ];
        all.into_iter().flatten()
    }

    /// The fastest path that this CPU has.
    pub fn best() -> Isa {
        Self::available().last().unwrap_or(Isa::SCALAR)
    }

    /// The path called `name` (`scalar`, `avx2`, `avx512vnni`), if this CPU has it.
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
            Isa::Avx512(_) => "avx512vnni",
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
