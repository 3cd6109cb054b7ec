//! The two inner loops over bytes that a token spends its floating point in, on a Cortex-M with an FPU: whole loops in assembly.
//!
//! Sixteen chains are 16 of the 32 registers of single precision, so sums never leave them. The compiler cannot be told of these registers on
//! stable ([`fma`](super::scalar::fma)), and sums that pass through core registers or memory cost more than the products.
//!
//! ```text
//! s0–s15   the sums          s16–s23   what multiplies          s24–s27   four bytes as f32
//! ```
//! 4.1 instructions a multiply-add: two to extend and convert a byte and half of one to move it, the multiply-add, and shares of loads and loop.
//! The operations and their order are those of the portable loops, and so are the bits.

use core::arch::asm;

use super::LANES;

/// Four lanes: bytes at `[w, #at]`, sums in `s…`, factors in `x…`.
macro_rules! quad {
    ($at:literal, [$s0:literal, $s1:literal, $s2:literal, $s3:literal], [$x0:literal, $x1:literal, $x2:literal, $x3:literal]) => {
        concat!(
            "ldr {t0}, [{w}, #",
            $at,
            "]\n",
            "sxtb {t1}, {t0}\n",
            "sxtb {t2}, {t0}, ror #8\n",
            "vmov s24, s25, {t1}, {t2}\n",
            "sxtb {t1}, {t0}, ror #16\n",
            "asr {t2}, {t0}, #24\n",
            "vmov s26, s27, {t1}, {t2}\n",
            "vcvt.f32.s32 s24, s24\n",
            "vcvt.f32.s32 s25, s25\n",
            "vcvt.f32.s32 s26, s26\n",
            "vcvt.f32.s32 s27, s27\n",
            "vfma.f32 s",
            $s0,
            ", s24, s",
            $x0,
            "\n",
            "vfma.f32 s",
            $s1,
            ", s25, s",
            $x1,
            "\n",
            "vfma.f32 s",
            $s2,
            ", s26, s",
            $x2,
            "\n",
            "vfma.f32 s",
            $s3,
            ", s27, s",
            $x3,
            "\n",
        )
    };
}

/// The loop `$body`, once for each of `n`, over sums that begin and end in memory. `$step` is what `w` goes on by.
macro_rules! sums {
    ($acc:ident, $w:expr, $x:expr, $n:expr, $step:expr, [$($body:expr),*]) => {
        asm!(
            "vldmia {acc}, {{s0-s15}}",
            "2:",
            $($body,)*
            "add {w}, {w}, {step}",
            "subs {n}, {n}, #1",
            "bne 2b",
            "vstmia {acc}, {{s0-s15}}",
            acc = in(reg) $acc.as_mut_ptr(), w = inout(reg) $w => _, x = inout(reg) $x => _, n = inout(reg) $n => _, step = in(reg) $step,
            t0 = out(reg) _, t1 = out(reg) _, t2 = out(reg) _,
            out("s0") _, out("s1") _, out("s2") _, out("s3") _, out("s4") _, out("s5") _, out("s6") _, out("s7") _,
            out("s8") _, out("s9") _, out("s10") _, out("s11") _, out("s12") _, out("s13") _, out("s14") _, out("s15") _,
            out("s16") _, out("s17") _, out("s18") _, out("s19") _, out("s20") _, out("s21") _, out("s22") _, out("s23") _,
            out("s24") _, out("s25") _, out("s26") _, out("s27") _,
            options(nostack),
        )
    };
}

/// See [`Simd::chain`](super::Simd::chain). As many chunks as the shorter has.
pub(super) fn chain(w: &[[i8; LANES]], x: &[[f32; LANES]], mut acc: [f32; LANES]) -> [f32; LANES] {
    let n = w.len().min(x.len());
    if n == 0 {
        return acc;
    }
    // SAFETY: the target has these instructions. `n` chunks of either slice are read and the 16 sums are read and written, all of which are
    // there; words of bytes need no alignment on these processors.
    unsafe {
        sums!(
            acc,
            w.as_ptr(),
            x.as_ptr(),
            n,
            LANES,
            [
                "vldmia {x}!, {{s16-s23}}",
                quad!("0", ["0", "1", "2", "3"], ["16", "17", "18", "19"]),
                quad!("4", ["4", "5", "6", "7"], ["20", "21", "22", "23"]),
                "vldmia {x}!, {{s16-s23}}",
                quad!("8", ["8", "9", "10", "11"], ["16", "17", "18", "19"]),
                quad!("12", ["12", "13", "14", "15"], ["20", "21", "22", "23"])
            ]
        );
    }
    acc
}

/// See [`Simd::chain_scaled`](super::Simd::chain_scaled).
///
/// # Panics
/// If `b` ends before the last row's vector.
pub(super) fn chain_scaled(a: &[f32], b: &[[i8; LANES]], row: usize, mut acc: [f32; LANES]) -> [f32; LANES] {
    if a.is_empty() {
        return acc;
    }
    assert!((a.len() - 1).saturating_mul(row) < b.len(), "a vector for each factor");
    // SAFETY: the target has these instructions. The vectors at multiples of `row` below `a.len() * row` are read, which the assertion says are
    // there, and the 16 sums are read and written; words of bytes need no alignment on these processors.
    unsafe {
        sums!(
            acc,
            b.as_ptr(),
            a.as_ptr(),
            a.len(),
            row * LANES,
            [
                "vldmia {x}!, {{s16}}",
                quad!("0", ["0", "1", "2", "3"], ["16", "16", "16", "16"]),
                quad!("4", ["4", "5", "6", "7"], ["16", "16", "16", "16"]),
                quad!("8", ["8", "9", "10", "11"], ["16", "16", "16", "16"]),
                quad!("12", ["12", "13", "14", "15"], ["16", "16", "16", "16"])
            ]
        );
    }
    acc
}
