//! Many arrays as a few long ones: what is sent costs by the message and by the byte.

use crate::Result;

/// Floats of a bucket: 4 MiB.
const BUCKET: usize = 1 << 20;

/// Does `act` to all values of `parts`, in their order, a bucket at a time. The buckets are the same wherever the lengths of the parts are.
///
/// # Errors
/// The first of `act`.
pub(crate) fn in_buckets(parts: &mut [&mut [f32]], act: impl FnMut(&mut [f32]) -> Result<()>) -> Result<()> {
    in_buckets_of(BUCKET, parts, act)
}

fn in_buckets_of(size: usize, parts: &mut [&mut [f32]], mut act: impl FnMut(&mut [f32]) -> Result<()>) -> Result<()> {
    let total: usize = parts.iter().map(|part| part.len()).sum();
    let mut bucket = Vec::with_capacity(size.min(total));
    // Part and beginning of the next value to be put into a bucket, and of the first that is in it.
    let (mut next, mut first) = ((0, 0), (0, 0));
    while next.0 < parts.len() {
        let rest = &parts[next.0][next.1..];
        let taken = rest.len().min(size - bucket.len());
        bucket.extend_from_slice(&rest[..taken]);
        next.1 += taken;
        if next.1 == parts[next.0].len() {
            next = (next.0 + 1, 0);
        }
        let is_last = next.0 == parts.len();
        if bucket.len() < size && !is_last || bucket.is_empty() {
            continue;
        }
        act(&mut bucket)?;
        let mut done = &bucket[..];
        while !done.is_empty() {
            let into = &mut parts[first.0][first.1..];
            let n = into.len().min(done.len());
            into[..n].copy_from_slice(&done[..n]);
            done = &done[n..];
            first.1 += n;
            if first.1 == parts[first.0].len() {
                first = (first.0 + 1, 0);
            }
        }
        bucket.clear();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_in_one_bucket_and_comes_back_to_its_place() {
        for lengths in [
            &[][..],
            &[0],
            &[3],
            &[0, 0, 7, 0],
            &[5, 1, 9, 0, 4],
            &[8, 8],
            &[4, 4, 4],
            &[1, 30],
        ] {
            for size in [1, 3, 4, 8, 100] {
                let mut count = 0.0;
                let arrays = lengths.iter().map(|&n| {
                    (0..n)
                        .map(|_| {
                            count += 1.0;
                            count
                        })
                        .collect::<Vec<f32>>()
                });
                let mut arrays: Vec<_> = arrays.collect();
                let before = arrays.clone();
                let mut seen = Vec::new();
                let mut parts: Vec<_> = arrays.iter_mut().map(|a| &mut a[..]).collect();
                in_buckets_of(size, &mut parts, |bucket| {
                    assert!(!bucket.is_empty() && bucket.len() <= size);
                    seen.extend_from_slice(bucket);
                    bucket.iter_mut().for_each(|v| *v *= 10.0);
                    Ok(())
                })
                .unwrap();
                assert_eq!(seen, before.concat(), "{lengths:?} {size}");
                let tenfold: Vec<Vec<f32>> = before.iter().map(|a| a.iter().map(|v| v * 10.0).collect()).collect();
                assert_eq!(arrays, tenfold, "{lengths:?} {size}");
            }
        }
    }
}
