//! What is left out, and what is remembered.

use onebit_engine::rng::Key;

use super::*;

fn options(duplicates: Duplicates, window: u64) -> FilterOptions {
    FilterOptions {
        duplicates,
        window,
        ..Default::default()
    }
}

/// A text of `n` words, of which the numbers in `changed` are others than usual.
fn text(seed: u64, n: u64, changed: impl Fn(u64) -> bool) -> String {
    let key = Key::new(seed, 1, 0);
    (0..n)
        .map(|i| {
            format!(
                "w{}",
                if changed(i) {
                    1 << 30 | i as u32
                } else {
                    key.below(i, 5000)
                }
            )
        })
        .collect::<Vec<_>>()
        .join(" ")
}

#[test]
fn only_allowed_licenses_stay() {
    let some = FilterOptions {
        licenses: ["mit", "apache-2.0"].map(String::from).into(),
        ..Default::default()
    };
    let stays =
        |options: &FilterOptions, licenses: &[&str]| options.allows(licenses.iter().map(|name| name.as_bytes()));
    assert!(stays(&some, &["MIT"]));
    assert!(stays(&some, &["Apache-2.0", "MIT"]));
    assert!(!stays(&some, &["MIT", "GPL-3.0"]));
    assert!(!stays(&some, &[]));
    let any = FilterOptions::default();
    assert!(stays(&any, &[]) && stays(&any, &["GPL-3.0"]));
}

#[test]
fn the_same_words_are_a_copy_unless_it_is_the_document_itself() {
    let options = options(Duplicates::Exact, 100);
    let mut memory = Memory::new(&options);
    let mut stays = |row, text: &str| memory.stays(origin(3, row), options.marks(text));
    assert!(stays(1, "fn main() {}"));
    assert!(!stays(2, "fn  main()\n{}\n"));
    assert!(stays(3, "fn main() { }"));
    assert!(stays(1, "fn main() {}"), "the same shard again");
    assert_eq!(memory.count(), 2);
}

#[test]
fn near_copies_are_those_with_most_shingles_in_common() {
    let options = options(Duplicates::Near, 1000);
    let (mut close, mut far) = (0, 0);
    for seed in 0..100 {
        let mut memory = Memory::new(&options);
        assert!(memory.stays(origin(0, 0), options.marks(&text(seed, 400, |_| false))));
        // One word in 100 changes five shingles: J is about 0.9. One in 12: 0.4.
        close += u32::from(!memory.stays(origin(0, 1), options.marks(&text(seed, 400, |i| i % 100 == 50))));
        far += u32::from(!memory.stays(origin(0, 2), options.marks(&text(seed, 400, |i| i % 12 == 6))));
        assert!(memory.stays(origin(0, 3), options.marks(&text(seed + 1000, 400, |_| false))));
    }
    assert!(close >= 97, "{close} of 100 near copies were found");
    assert!(far <= 10, "{far} of 100 documents that differ were taken for copies");
}

#[test]
fn what_lies_behind_the_window_is_forgotten() {
    let options = options(Duplicates::Exact, 3);
    let mut memory = Memory::new(&options);
    let mut stays = |row, text: &str| {
        let stays = memory.stays(origin(0, row), options.marks(text));
        memory.forget(memory.count());
        assert!(memory.kept.len() <= 3 && memory.by_mark.len() <= 3);
        stays
    };
    for (row, word) in ["a", "b", "c"].iter().enumerate() {
        assert!(stays(row as u64, word));
    }
    assert!(!stays(10, "a"));
    assert!(stays(11, "d"));
    assert!(stays(12, "a"), "three were kept since");
    assert!(!stays(13, "c"));
}

/// A memory that goes on from any point decides as the one that was there all along, whatever else that one still holds.
#[test]
fn a_restored_memory_decides_alike() {
    for duplicates in [Duplicates::Exact, Duplicates::Near] {
        let options = options(duplicates, 20);
        let key = Key::new(5, 5, 5);
        let documents: Vec<(u64, String)> = (0..400u64)
            .map(|i| {
                (
                    key.below(2 * i, 60).into(),
                    text(key.below(2 * i + 1, 50).into(), 8, |_| false),
                )
            })
            .collect();
        let mut all = Memory::new(&options);
        let (mut decisions, mut states) = (Vec::new(), Vec::new());
        for (row, text) in &documents {
            states.push((all.count(), all.bytes(all.count())));
            decisions.push(all.stays(origin(0, *row), options.marks(text)));
        }
        assert!(decisions.iter().any(|stays| !stays) && decisions.iter().any(|stays| *stays));
        for at in [0, 1, 30, 111, 250, 399] {
            let (count, bytes) = &states[at];
            // Nothing was forgotten, so that every state can still be had.
            assert_eq!(all.bytes(*count), *bytes);
            let mut resumed = Memory::new(&options);
            resumed.restore(*count, bytes).unwrap();
            let rest = documents[at..].iter().zip(&decisions[at..]);
            for ((row, text), expected) in rest {
                assert_eq!(resumed.stays(origin(0, *row), options.marks(text)), *expected);
                resumed.forget(resumed.count());
            }
            assert_eq!(resumed.bytes(resumed.count()), all.bytes(all.count()));
        }
        let (count, bytes) = &states[250];
        let error = Memory::new(&options)
            .restore(*count, &bytes[1..])
            .unwrap_err()
            .to_string();
        assert!(error.contains("stream.bin"), "{error}");
    }
}
