//! The tensor types that are read and written.

/// How the values of a tensor are stored. The numbers are ggml's; 36 is `I2_S` in bitnet.cpp alone, elsewhere it was removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TensorType {
    /// Single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// bfloat16.
    Bf16,
    /// 4.5 bits: [blocks of 32](super::blocks::q4_0).
    Q4_0,
    /// 8.5 bits: [blocks of 32](super::blocks::q8_0).
    Q8_0,
    /// 6.5625 bits: [blocks of 256](super::blocks::q6_k).
    Q6K,
    /// 1.6875 bits, ternary: [blocks of 256](super::blocks::tq1_0).
    Tq1_0,
    /// 2.0625 bits, ternary: [blocks of 256](super::blocks::tq2_0).
    Tq2_0,
    /// 2 bits, ternary, one scale a tensor: [bitnet.cpp's](super::blocks::i2_s).
    I2S,
}

impl TensorType {
    /// Every type.
    pub const ALL: [Self; 9] = [
        Self::F32,
        Self::F16,
        Self::Bf16,
        Self::Q4_0,
        Self::Q8_0,
        Self::Q6K,
        Self::Tq1_0,
        Self::Tq2_0,
        Self::I2S,
    ];

    /// Name, number, values of a block, bytes of a block.
    const fn facts(self) -> (&'static str, u32, usize, usize) {
        match self {
            Self::F32 => ("F32", 0, 1, 4),
            Self::F16 => ("F16", 1, 1, 2),
            Self::Bf16 => ("BF16", 30, 1, 2),
            Self::Q4_0 => ("Q4_0", 2, 32, 18),
            Self::Q8_0 => ("Q8_0", 8, 32, 34),
            Self::Q6K => ("Q6_K", 14, 256, 210),
            Self::Tq1_0 => ("TQ1_0", 34, 256, 54),
            Self::Tq2_0 => ("TQ2_0", 35, 256, 66),
            Self::I2S => ("I2_S", 36, 128, 32),
        }
    }

    /// The type of this number.
    pub fn by_id(id: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.id() == id)
    }

    /// The type of this name, in either case.
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.name().eq_ignore_ascii_case(name))
    }

    /// ggml's name.
    pub const fn name(self) -> &'static str {
        self.facts().0
    }

    /// ggml's number.
    pub const fn id(self) -> u32 {
        self.facts().1
    }

    /// Values of a block.
    pub const fn block_len(self) -> usize {
        self.facts().2
    }

    /// Whether a tensor of this type holds trits.
    pub const fn is_ternary(self) -> bool {
        matches!(self, Self::Tq1_0 | Self::Tq2_0 | Self::I2S)
    }

    /// Bytes of `len` values, a whole number of blocks. `None` if they overflow.
    pub fn bytes(self, len: usize) -> Option<usize> {
        let (_, _, block, bytes) = self.facts();
        let tail = match self {
            Self::I2S => super::blocks::i2_s::TAIL,
            _ => 0,
        };
        (len / block).checked_mul(bytes)?.checked_add(tail)
    }

    /// Every name.
    pub(super) fn names() -> String {
        Self::ALL.map(Self::name).join(", ")
    }
}
