//! Counter-based random numbers: Philox4x32-10.
//!
//! A number is a pure function of (seed, purpose, step, index): there is no state to save, any part of a stream can be
//! made on any thread, and a GPU makes the same numbers. Ten rounds of the Philox bijection turn a 128-bit counter into
//! four 32-bit words (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011).
//!
//! ```text
//! Key::new:   (key0, key1, high0, high1) = philox(counter = (purpose, 0, step low, step high), key = seed)
//! Key::block: words b = 0, 1, 2, …       = philox(counter = (b low, b high, high0, high1), key = (key0, key1))
//! ```
//! For one seed, different (purpose, step) give different 128-bit states, because Philox is a bijection of its counter.
//! Cost: 20 widening multiplications for four words.

#[cfg(test)]
mod tests;

/// Words that [`Key::batch`] makes at once.
pub(crate) const BATCH: usize = 64;

/// The key of one stream of numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    key: [u32; 2],
    high: [u32; 2],
}

impl Key {
    /// The stream of (`seed`, `purpose`, `step`); `purpose` is the caller's number for what the stream is used for.
    pub fn new(seed: u64, purpose: u32, step: u64) -> Key {
        let [key0, key1, high0, high1] = philox(
            [purpose, 0, step as u32, (step >> 32) as u32],
            [seed as u32, (seed >> 32) as u32],
        );
        Key {
            key: [key0, key1],
            high: [high0, high1],
        }
    }

    /// The state as four words `[key0, key1, high0, high1]`, for a kernel on another device.
    pub fn words(&self) -> [u32; 4] {
        [self.key[0], self.key[1], self.high[0], self.high[1]]
    }

    /// Words `4·block .. 4·block + 4` of the stream.
    #[inline(always)]
    pub fn block(&self, block: u64) -> [u32; 4] {
        philox(
            [block as u32, (block >> 32) as u32, self.high[0], self.high[1]],
            self.key,
        )
    }

    /// Sixteen blocks from `first` on, as loops over sixteen lanes that the compiler turns into vector code.
    #[inline(always)]
    pub(crate) fn batch(&self, first: u64) -> [u32; BATCH] {
        let mut c0 = [0u32; 16];
        let mut c1 = [0u32; 16];
        let mut c2 = [self.high[0]; 16];
        let mut c3 = [self.high[1]; 16];
        for i in 0..16 {
            let block = first.wrapping_add(i as u64);
            c0[i] = block as u32;
            c1[i] = (block >> 32) as u32;
        }
        let [mut k0, mut k1] = self.key;
        for _ in 0..ROUNDS {
            for i in 0..16 {
                [c0[i], c1[i], c2[i], c3[i]] = round([c0[i], c1[i], c2[i], c3[i]], [k0, k1]);
            }
            k0 = k0.wrapping_add(WEYL[0]);
            k1 = k1.wrapping_add(WEYL[1]);
        }
        let mut words = [0; BATCH];
        for i in 0..16 {
            words[4 * i] = c0[i];
            words[4 * i + 1] = c1[i];
            words[4 * i + 2] = c2[i];
            words[4 * i + 3] = c3[i];
        }
        words
    }

    /// Word `index`: word `index % 4` of block `index / 4`.
    #[inline]
    pub fn u32(&self, index: u64) -> u32 {
        self.block(index / 4)[(index % 4) as usize]
    }

    /// Uniform in `[0, 1)`: the high 24 bits of word `index`, as a multiple of 2⁻²⁴.
    #[inline]
    pub fn uniform(&self, index: u64) -> f32 {
        unit(self.u32(index))
    }

    /// Standard normal, by Box and Muller in f64: indices `2j` and `2j + 1` are the cosine and the sine part of words
    /// `2j` and `2j + 1`.
    pub fn normal(&self, index: u64) -> f32 {
        let words = self.block(index / 4);
        let pair = if index & 2 == 0 {
            [words[0], words[1]]
        } else {
            [words[2], words[3]]
        };
        normal_pair(pair)[(index & 1) as usize]
    }

    /// `out[i] = normal(first + i)`, at half the cost or less.
    pub fn fill_normal(&self, first: u64, out: &mut [f32]) {
        let mut i = 0;
        while i < out.len() {
            let index = first + i as u64;
            let w = self.block(index / 4);
            let [n0, n1] = normal_pair([w[0], w[1]]);
            let [n2, n3] = normal_pair([w[2], w[3]]);
            let four = [n0, n1, n2, n3];
            let lane = (index % 4) as usize;
            let count = (4 - lane).min(out.len() - i);
            out[i..i + count].copy_from_slice(&four[lane..lane + count]);
            i += count;
        }
    }

    /// Uniform in `0..n` (0 when `n` is 0) by the high half of a product; the bias is below `n / 2³²`.
    #[inline]
    pub fn below(&self, index: u64, n: u32) -> u32 {
        ((u64::from(self.u32(index)) * u64::from(n)) >> 32) as u32
    }
}

/// A word as a number in `[0, 1)`.
#[inline(always)]
fn unit(word: u32) -> f32 {
    (word >> 8) as f32 * (1.0 / 16_777_216.0)
}

/// Two independent standard normals from two words.
fn normal_pair([a, b]: [u32; 2]) -> [f32; 2] {
    const SCALE: f64 = 1.0 / 4_294_967_296.0;
    // In (0, 1], so that the logarithm is finite.
    let radius = crate::math::sqrt_f64(-2.0 * libm::log((f64::from(a) + 1.0) * SCALE));
    let (sin, cos) = libm::sincos(f64::from(b) * SCALE * core::f64::consts::TAU);
    [(radius * cos) as f32, (radius * sin) as f32]
}

const ROUNDS: usize = 10;
/// What the key grows by after each round.
const WEYL: [u32; 2] = [0x9e37_79b9, 0xbb67_ae85];

/// Ten rounds of Philox4x32.
#[inline(always)]
fn philox(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..ROUNDS {
        counter = round(counter, key);
        key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
    }
    counter
}

/// One round of Philox4x32.
#[inline(always)]
fn round([c0, c1, c2, c3]: [u32; 4], [k0, k1]: [u32; 2]) -> [u32; 4] {
    let p0 = u64::from(c0) * 0xd251_1f53;
    let p1 = u64::from(c2) * 0xcd9e_8d57;
    [
        (p1 >> 32) as u32 ^ c1 ^ k0,
        p1 as u32,
        (p0 >> 32) as u32 ^ c3 ^ k1,
        p0 as u32,
    ]
}
