//! Interrupted and resumed is uninterrupted, whatever happened to the file.

use std::fs;
use std::path::Path;

use super::*;
use crate::storage::Disk;
use crate::storage::faulty::{Fault, Faulty};

const INPUTS: &str = "9f2c";

fn formula() -> Formula {
    Formula::interacting(31, 16)
}

fn limits() -> Limits {
    Limits {
        max_evaluations: Some(120),
        ..Limits::default()
    }
}

fn options() -> Options {
    Options {
        at_once: 1,
        seed: 4,
        ..Options::default()
    }
}

fn open(path: &Path) -> Result<Journal, JournalError> {
    Journal::open(&Disk, path, INPUTS, &formula().sites)
}

/// A search with the journal at `path`, stopped after `calls` evaluations; also the calls that it made.
fn searched(path: &Path, goal: Goal, calls: u64, options: &Options) -> (Report, u64) {
    let (formula, mut journal) = (formula(), open(path).unwrap());
    let interrupted = || formula.calls() >= calls;
    let world = World {
        interrupted: &interrupted,
        journal: Some(&mut journal),
    };
    let report = run(&formula, goal, &limits(), options, world);
    (report, formula.calls())
}

#[test]
fn interrupted_and_resumed_is_uninterrupted_byte_for_byte() {
    let directory = tempfile::tempdir().unwrap();
    for goal in [Goal::LeastLoss, Goal::Front] {
        let whole = directory.path().join(format!("{goal:?}"));
        let (expected, calls) = searched(&whole, goal, u64::MAX, &options());
        assert_eq!((expected.evaluations, calls), (120, 120));
        assert_eq!(expected, run(&formula(), goal, &limits(), &options(), quiet()));
        for pieces in [vec![0, 1, 2, 3], vec![17], vec![60, 59], vec![119], vec![1; 119]] {
            let path = directory.path().join("pieces");
            for &piece in &pieces {
                let (report, calls) = searched(&path, goal, piece, &options());
                assert_eq!((report.end, calls), (End::Interrupted, piece));
            }
            let (report, calls) = searched(&path, goal, u64::MAX, &options());
            assert_eq!(report, expected);
            assert_eq!(calls, 120 - pieces.iter().sum::<u64>());
            assert_eq!(fs::read(&path).unwrap(), fs::read(&whole).unwrap());
            // A third time nothing is computed, and the same comes out.
            assert_eq!(searched(&path, goal, u64::MAX, &options()), (expected.clone(), 0));
            fs::remove_file(&path).unwrap();
        }
    }
}

#[test]
fn a_search_that_ran_side_by_side_is_resumed_by_one_that_does_not() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal");
    let expected = run(&formula(), Goal::Front, &limits(), &options(), quiet());
    let wide = Options {
        at_once: 8,
        ..options()
    };
    searched(&path, Goal::Front, 50, &wide);
    let had = open(&path).unwrap().len() as u64;
    assert!((50..58).contains(&had), "{had}");
    let (report, calls) = searched(&path, Goal::Front, u64::MAX, &options());
    assert_eq!(report, expected);
    assert!(calls <= 120 - had + 8);
}

#[test]
fn a_file_that_ends_anywhere_is_resumed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal");
    let (expected, _) = searched(&path, Goal::LeastLoss, u64::MAX, &options());
    let content = fs::read(&path).unwrap();
    let lines: Vec<usize> = (0..content.len()).filter(|&i| content[i] == b'\n').collect();
    // Within the header, the first line and the last two.
    let cuts = (0..=lines[1] + 1).chain(lines[lines.len() - 3]..content.len());
    for cut in cuts {
        fs::write(&path, &content[..cut]).unwrap();
        let whole = lines.iter().filter(|&&end| end < cut).count();
        assert_eq!(open(&path).unwrap().len(), whole.saturating_sub(1), "{cut}");
    }
    for cut in [0, 7, lines[0] + 1, lines[3] + 9, content.len() - 1] {
        fs::write(&path, &content[..cut]).unwrap();
        assert_eq!(searched(&path, Goal::LeastLoss, u64::MAX, &options()).0, expected);
        assert_eq!(fs::read(&path).unwrap(), content);
    }
}

#[test]
fn a_disk_that_fails_anywhere_costs_no_more_than_the_evaluations_of_the_time() {
    let expected = run(&formula(), Goal::LeastLoss, &limits(), &options(), quiet());
    let options = Options {
        at_once: 8,
        ..options()
    };
    let attempted = |path: &Path, fault| {
        let (formula, storage) = (formula(), Faulty::new(fault));
        let attempt = Journal::open(&storage, path, INPUTS, &formula.sites)
            .map_err(SearchError::from)
            .and_then(|mut journal| {
                let world = World {
                    interrupted: &|| false,
                    journal: Some(&mut journal),
                };
                attempt(&formula, Goal::LeastLoss, &limits(), &options, world)
            });
        (attempt, storage.count())
    };
    let directory = tempfile::tempdir().unwrap();
    let (whole, operations) = attempted(&directory.path().join("whole"), None);
    assert!(whole.unwrap() == expected && operations > 10);
    for at in 0..operations {
        for fault in Fault::ALL {
            let path = directory.path().join(format!("{at} {fault:?}"));
            let (failed, _) = attempted(&path, Some((at, fault)));
            match failed {
                Err(SearchError::Journal(JournalError::Io { .. })) => {}
                // A disk that is full when all is written.
                Ok(report) => assert!(report == expected && fault == Fault::Full && at + 1 == operations),
                Err(other) => panic!("{other}"),
            }
            assert_eq!(attempted(&path, None).0.unwrap(), expected, "{at} {fault:?}");
        }
    }
}

#[test]
fn files_that_are_not_of_this_search_are_refused_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal");
    searched(&path, Goal::LeastLoss, 5, &options());
    let content = fs::read_to_string(&path).unwrap();
    let refused = |content: &str, inputs: &str| {
        fs::write(&path, content).unwrap();
        let error = Journal::open(&Disk, &path, inputs, &formula().sites).unwrap_err();
        assert_eq!(fs::read_to_string(&path).unwrap(), content);
        error
    };
    match refused(&content, "other") {
        JournalError::Hash { expected, found, .. } => {
            assert_eq!((expected.as_str(), found.as_str()), ("other", INPUTS))
        }
        other => panic!("{other}"),
    }
    for foreign in [
        "notes",
        "notes\n",
        "{}\n",
        "{\"onebit_search\":1}\n",
        "\n",
        "{\"onebit_search\":1,\"inputs\":\"8",
    ] {
        assert!(
            matches!(refused(foreign, INPUTS), JournalError::Foreign { .. }),
            "{foreign}"
        );
    }
    let newer = content.replace("\"onebit_search\":1", "\"onebit_search\":2");
    assert!(matches!(refused(&newer, INPUTS), JournalError::Line { line: 1, .. }));
    let lines: Vec<&str> = content.lines().collect();
    let zeros = format!("{{\"map\":\"{}\",\"tokens\":64,\"loss\":1.0}}", "0".repeat(16));
    let nines = zeros.replace("0000", "9999");
    for bad in [
        "",
        "{}",
        "x",
        "{\"map\":\"01\",\"tokens\":64,\"loss\":1.0}",
        "{\"map\":\"é\",\"tokens\":64,\"loss\":1.0}",
        &nines,
    ] {
        let content = [lines[0], lines[1], bad, lines[2], ""].join("\n");
        assert!(
            matches!(refused(&content, INPUTS), JournalError::Line { line: 3, .. }),
            "{bad}"
        );
    }
    let unknown = zeros.replace("\"tokens\"", "\"note\":1,\"tokens\"");
    assert!(matches!(
        refused(&[lines[0], &unknown, ""].join("\n"), INPUTS),
        JournalError::Line { line: 2, .. }
    ));
    fs::write(&path, [lines[0], &zeros, ""].join("\n")).unwrap();
    assert_eq!(open(&path).unwrap().len(), 1);
}

#[test]
fn losses_are_read_back_bit_by_bit() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal");
    let map = formula().sites.lowest();
    let mut losses = vec![
        0.0,
        -0.0,
        f64::MIN_POSITIVE,
        5e-324,
        f64::MAX,
        1.0 / 3.0,
        0.1 + 0.2,
        f64::INFINITY,
    ];
    losses
        .extend((0..200).map(|i| f64::from_bits(0x3ff0_0000_0000_0000 + Key::new(i, 1, 0).u32(0) as u64 * 0x10_0001)));
    let mut journal = open(&path).unwrap();
    assert!(journal.is_empty());
    for (tokens, &loss) in losses.iter().enumerate() {
        journal.append(&[(map.clone(), loss)], tokens).unwrap();
    }
    let journal = open(&path).unwrap();
    assert_eq!(journal.len(), losses.len());
    for (tokens, loss) in losses.iter().enumerate() {
        assert_eq!(journal.loss(&map, tokens).map(f64::to_bits), Some(loss.to_bits()));
    }
}
