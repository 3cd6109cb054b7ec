//! One block of positions: scores, weights, weighted values.

use super::super::scale;
use super::super::softmax::{exp_shifted, largest};
use super::{BLOCK, KvHead, KvRef, PANEL, PANEL_VECTORS, Queries};
use crate::simd::{Element, LANES, Simd};

/// Queries side by side.
const ROWS: usize = 4;
/// Vectors side by side.
const VECTORS: usize = 4;
/// Most vectors side by side for one query, which would else wait for the latency of its chains.
const LONE_VECTORS: usize = 8;
/// Up to so many queries of a key head the cache is read at the memory's speed.
const FEW_ROWS: usize = 2 * ROWS;

/// The scores, then the weights of up to four queries.
type Scores = [[f32; BLOCK]; ROWS];

/// What is read of a block of the cache, and the scales of int8 rows.
struct Block<'a, T> {
    keys: &'a [[T; LANES]],
    values: &'a [[T; LANES]],
    scales: Option<[&'a [f32]; 2]>,
}

impl<'a, T> Block<'a, T> {
    /// From the beginning of block `block` on.
    #[inline(always)]
    fn new([keys, values]: [&'a [T]; 2], scales: Option<[&'a [f32]; 2]>, queries: &Queries, block: usize) -> Self {
        let (first, width) = (block * BLOCK, queries.head_dim.next_multiple_of(LANES));
        Self {
            keys: keys[first * queries.head_dim..].as_chunks().0,
            values: values[first * width..].as_chunks().0,
            scales: match scales {
                Some([keys, values]) => Some([&keys[first..], &values[first..]]),
                None => None,
            },
        }
    }
}

/// See [`super::attend_block`].
#[inline(always)]
pub(super) fn block<S: Simd>(s: S, kv: KvRef<'_>, queries: Queries, q: &[f32], block: usize, part: &mut [f32]) {
    queries.check(q.len());
    queries.check_cache(&kv);
    assert!(block < queries.blocks(), "no query sees the block");
    assert_eq!(part.len(), queries.part_len(), "length of `part`");
    match kv {
        KvHead::F32 { keys, values } => rows(s, [keys, values], None, &queries, q, block, part),
        KvHead::F16 { keys, values } => rows(s, [keys, values], None, &queries, q, block, part),
        KvHead::Int8 {
            keys,
            values,
            key_scales,
            value_scales,
        } => {
            let scales = Some([key_scales, value_scales]);
            rows(s, [keys, values], scales, &queries, q, block, part);
        }
    }
}

/// Every query that sees the block, four at a time.
#[inline(always)]
fn rows<S: Simd, T: Element>(
    s: S,
    planes: [&[T]; 2],
    scales: Option<[&[f32]; 2]>,
    queries: &Queries,
    q: &[f32],
    block: usize,
    part: &mut [f32],
) {
    let kv = Block::new(planes, scales, queries, block);
    let rows = queries.rows();
    let mut scores: Scores = [[0.0; BLOCK]; ROWS];
    let mut row = queries.first_row(block).min(rows);
    while row + ROWS <= rows {
        some::<S, T, ROWS>(s, &kv, queries, q, block, row, &mut scores, part);
        row += ROWS;
    }
    while row < rows {
        some::<S, T, 1>(s, &kv, queries, q, block, row, &mut scores, part);
        row += 1;
    }
}

/// `R` queries from `row` on.
#[inline(always)]
fn some<S: Simd, T: Element, const R: usize>(
    s: S,
    kv: &Block<'_, T>,
    queries: &Queries,
    q: &[f32],
    block: usize,
    row: usize,
    scores: &mut Scores,
    part: &mut [f32],
) {
    let (n, width) = (queries.head_dim, queries.head_dim.next_multiple_of(LANES));
    let visible: [usize; R] = core::array::from_fn(|r| queries.visible(row + r, block));
    let q: [&[f32]; R] = core::array::from_fn(|r| &q[queries.at(row + r)..][..n]);
    // A few queries use a line of the cache once: what comes next, as far as a query sees it, is then on its way from memory while this is worked on.
    let few = queries.rows() <= FEW_ROWS;
    // The last query sees the most.
    let seen = visible[R - 1];
    let more = if few {
        queries.visible(queries.rows() - 1, block + 1)
    } else {
        0
    };
    let wide = S::REGISTERS >= 32 || R == 1;

    let mut first = 0;
    while first < seen {
        let panel = &kv.keys[first / LANES * n..][..n * PANEL_VECTORS];
        let vectors = (seen - first).div_ceil(LANES).min(PANEL_VECTORS);
        let next = first + PANEL;
        let ahead = few && if next < BLOCK { next < seen } else { more > 0 };
        let ahead = Ahead {
            by: panel.len(),
            rows: if ahead { n } else { 0 },
        };
        macro_rules! scores {
            ($vectors:expr, $at:expr) => {{
                let sums = product::<S, T, R, { $vectors }>(s, q, panel, PANEL_VECTORS, $at, ahead);
                put_scores(s, kv, n, sums, first + $at * LANES, scores);
            }};
        }
        // Columns that nobody sees are not read: beside others they would cost no time, but lines of memory.
        match vectors {
            4 if wide => scores!(4, 0),
            3 if R == 1 => scores!(3, 0),
            2 if R == 1 => scores!(2, 0),
            _ => {
                for at in 0..vectors {
                    scores!(1, at);
                }
            }
        }
        first = next;
    }

    let rows = queries.rows();
    let (o, maxima) = part.split_at_mut(rows * width);
    let (maxima, sums) = maxima.split_at_mut(rows);
    for r in 0..R {
        let whole = visible[r].next_multiple_of(LANES);
        let scores = &mut scores[r][..whole];
        for score in &mut scores[visible[r]..] {
            *score = f32::NEG_INFINITY;
        }
        let most = largest(s, scores);
        maxima[row + r] = most;
        sums[row + r] = exp_shifted(s, scores, 1.0, most);
        if let Some([_, scales]) = kv.scales {
            let (scales, _) = scales[..whole].as_chunks::<LANES>();
            for (w, scales) in scores.as_chunks_mut::<LANES>().0.iter_mut().zip(scales) {
                s.store(s.mul(s.load(w), s.load(scales)), w);
            }
        }
    }

    let weights: [&[f32]; R] = core::array::from_fn(|r| &scores[r][..visible[r]]);
    let vectors = width / LANES;
    let ahead = Ahead {
        by: BLOCK * vectors,
        rows: more,
    };
    let mut at = 0;
    macro_rules! values {
        ($vectors:expr) => {{
            let sums = product::<S, T, R, { $vectors }>(s, weights, kv.values, vectors, at, ahead);
            put_values(s, sums, &mut o[row * width + at * LANES..], width);
            at += $vectors;
        }};
    }
    while at < vectors {
        match vectors - at {
            left if R == 1 && S::REGISTERS >= 32 && left >= LONE_VECTORS => values!(LONE_VECTORS),
            6.. if R == 1 && S::REGISTERS >= 32 => values!(6),
            4.. if wide => values!(VECTORS),
            2.. if R == 1 => values!(2),
            _ => values!(1),
        }
    }
}

/// What lies further on in the cache and is needed next.
#[derive(Clone, Copy)]
struct Ahead {
    /// So many vectors further.
    by: usize,
    /// In so many rows.
    rows: usize,
}

/// `Σ_k a[r][k] · b[k·row + at + c]` for each row `r` and vector `c`, a chain in the order of `k` that ends with the row. Rows do not get
/// shorter. Asks for what lies `ahead`.
#[inline(always)]
fn product<S: Simd, T: Element, const R: usize, const C: usize>(
    s: S,
    a: [&[f32]; R],
    b: &[[T; LANES]],
    row: usize,
    at: usize,
    ahead: Ahead,
) -> [[S::F; C]; R] {
    let (common, all) = (a[0].len(), a[R - 1].len());
    // Cut to one length, so that the compiler sees every index inside.
    let whole: [&[f32]; R] = core::array::from_fn(|r| &a[r][..common]);
    let mut acc = [[s.splat(0.0); C]; R];
    if S::REGISTERS < ROWS {
        // Registers for one vector of sums: a chain after the other.
        for r in 0..R {
            for c in 0..C {
                acc[r][c] = s.chain_scaled(a[r], &b[at + c..], row, acc[r][c]);
            }
        }
        return acc;
    }
    for k in 0..common {
        let line = &b[k * row + at..][..C];
        if k < ahead.rows {
            for byte in (0..size_of::<[[T; LANES]; C]>()).step_by(64) {
                s.prefetch(line.as_ptr().wrapping_add(ahead.by).wrapping_byte_add(byte));
            }
        }
        let mut v = [s.splat(0.0); C];
        for c in 0..C {
            v[c] = T::load(s, &line[c]);
        }
        for r in 0..R {
            let x = s.splat(whole[r][k]);
            for c in 0..C {
                acc[r][c] = s.fma(x, v[c], acc[r][c]);
            }
        }
    }
    for k in common..all {
        let line = &b[k * row + at..][..C];
        for r in 0..R {
            if let Some(x) = a[r].get(k) {
                for c in 0..C {
                    acc[r][c] = s.fma(s.splat(*x), T::load(s, &line[c]), acc[r][c]);
                }
            }
        }
    }
    acc
}

/// Scores from position `first` of the block on.
#[inline(always)]
fn put_scores<S: Simd, T, const R: usize, const C: usize>(
    s: S,
    kv: &Block<'_, T>,
    head_dim: usize,
    sums: [[S::F; C]; R],
    first: usize,
    scores: &mut Scores,
) {
    let factor = s.splat(scale(head_dim));
    let at = first / LANES;
    for c in 0..C {
        let mut factor = factor;
        if let Some([scales, _]) = kv.scales {
            factor = s.mul(factor, s.load(&scales.as_chunks().0[at + c]));
        }
        for r in 0..R {
            s.store(s.mul(sums[r][c], factor), &mut scores[r].as_chunks_mut().0[at + c]);
        }
    }
}

/// Rows of `o` that are `width` apart.
#[inline(always)]
fn put_values<S: Simd, const R: usize, const C: usize>(s: S, sums: [[S::F; C]; R], o: &mut [f32], width: usize) {
    for r in 0..R {
        let (row, _) = o[r * width..][..C * LANES].as_chunks_mut();
        for c in 0..C {
            s.store(sums[r][c], &mut row[c]);
        }
    }
}
