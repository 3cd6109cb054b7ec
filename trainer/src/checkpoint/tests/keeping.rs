//! Which checkpoints stay, which go, and what a save that was interrupted leaves.

use super::*;

/// A checkpoint may be a link to another disk. It is read through the link; when it is old, the link goes and not what it leads to.
#[cfg(unix)]
#[test]
fn linked_checkpoints_are_read_and_never_deleted_through_the_link() {
    let (dir, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (specs, tensors, mut optimizer) = model();
    let kept = save(elsewhere.path(), &state(5), &specs, &tensors, &mut optimizer, 9).unwrap();
    std::os::unix::fs::symlink(&kept, dir.path().join("step-5")).unwrap();
    assert_eq!(latest(dir.path()).unwrap().unwrap().state.step, 5);
    save(dir.path(), &state(6), &specs, &tensors, &mut optimizer, 1).unwrap();
    assert!(fs::symlink_metadata(dir.path().join("step-5")).is_err());
    read_state(&kept).unwrap();
}

/// A damaged checkpoint of a later step was passed over on resuming: it is no reason to remove the one that was written since.
#[test]
fn what_was_passed_over_does_not_count_among_the_newest() {
    let dir = tempfile::tempdir().unwrap();
    let (specs, tensors, mut optimizer) = model();
    for step in [5, 30] {
        save(dir.path(), &state(step), &specs, &tensors, &mut optimizer, 9).unwrap();
    }
    fs::remove_file(dir.path().join("step-30/state.json")).unwrap();
    save(dir.path(), &state(10), &specs, &tensors, &mut optimizer, 1).unwrap();
    assert_eq!(latest(dir.path()).unwrap().unwrap().state.step, 10);
    assert!(!dir.path().join("step-5").exists());
    // And it is replaced when the run gets there.
    save(dir.path(), &state(30), &specs, &tensors, &mut optimizer, 1).unwrap();
    let found = latest(dir.path()).unwrap().unwrap();
    assert_eq!((found.state.step, found.skipped.len()), (30, 0));
}

#[test]
fn the_best_is_kept_beside_the_newest() {
    let dir = tempfile::tempdir().unwrap();
    let (specs, tensors, mut optimizer) = model();
    for (step, val_loss) in [
        (1, None),
        (2, Some(3.0)),
        (3, Some(2.0)),
        (4, Some(2.5)),
        (5, None),
        (6, Some(2.1)),
    ] {
        let state = State {
            val_loss,
            ..state(step)
        };
        let keep = keeping(2, true);
        save_keeping(dir.path(), &state, (&specs, &tensors, &mut optimizer), keep).unwrap();
    }
    let steps: Vec<u64> = list(dir.path()).unwrap().into_iter().map(|(step, _)| step).collect();
    assert_eq!(steps, [6, 5, 3]);
}

/// What an interrupted save leaves is no checkpoint, and goes.
#[test]
fn remains_are_removed() {
    let dir = tempfile::tempdir().unwrap();
    let (specs, tensors, mut optimizer) = model();
    save(dir.path(), &state(5), &specs, &tensors, &mut optimizer, 9).unwrap();
    let others = [".other", ".step-notes", "notes.old", "notes.tmp", "step-notes"];
    for name in [".step-6.tmp", ".step-4.old"].iter().chain(&others) {
        fs::create_dir(dir.path().join(name)).unwrap();
    }
    assert_eq!(latest(dir.path()).unwrap().unwrap().state.step, 5);
    clean(&Disk, dir.path()).unwrap();
    let mut names: Vec<String> = entries(dir.path())
        .unwrap()
        .iter()
        .map(|path| path.file_name().unwrap().to_string_lossy().into_owned())
        .collect();
    names.sort();
    let kept = [
        ".other",
        ".step-notes",
        "notes.old",
        "notes.tmp",
        "step-5",
        "step-notes",
    ];
    assert_eq!(names, kept);
}

/// A save that ended between its renaming and the removal of what it replaced is brought to its end.
#[test]
fn what_an_interrupted_save_did_not_remove_goes_when_the_run_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let (specs, tensors, mut optimizer) = model();
    for step in [5, 10, 15] {
        save(dir.path(), &state(step), &specs, &tensors, &mut optimizer, 9).unwrap();
    }
    fs::create_dir(dir.path().join(".step-4.old")).unwrap();
    tidy(&Disk, dir.path(), 15, keeping(2, false)).unwrap();
    let mut left: Vec<PathBuf> = entries(dir.path()).unwrap();
    left.sort();
    assert_eq!(left, ["step-10", "step-15"].map(|name| dir.path().join(name)));
}

/// A run that is stopped twice at one step finds its checkpoint there. One of that step that says something else is another run's, and is replaced.
#[test]
fn a_checkpoint_that_is_there_is_not_written_again() {
    let dir = tempfile::tempdir().unwrap();
    let (specs, tensors, mut optimizer) = model();
    let mut saved = |state: &State| save(dir.path(), state, &specs, &tensors, &mut optimizer, 1).unwrap();
    let mark = saved(&state(5)).join("mark");
    fs::write(&mark, "").unwrap();
    saved(&state(5));
    assert!(mark.exists());
    let other = State {
        total_steps: 200,
        ..state(5)
    };
    saved(&other);
    assert!(!mark.exists());
    assert_eq!(latest(dir.path()).unwrap().unwrap().state, other);
}

/// An interruption's checkpoint is the newest, and then one that need not be kept; it pushes out none of the run's own.
#[test]
fn interruptions_push_nothing_out() {
    let dir = tempfile::tempdir().unwrap();
    let (specs, tensors, mut optimizer) = model();
    let mut steps = Vec::new();
    for step in [10, 20, 23, 26, 30, 31] {
        let schedule = SaveSchedule {
            every: 10,
            last_step: 99,
        };
        let keep = Keep {
            last: 2,
            best: false,
            schedule,
        };
        save_keeping(dir.path(), &state(step), (&specs, &tensors, &mut optimizer), keep).unwrap();
        steps.push(
            list(dir.path())
                .unwrap()
                .into_iter()
                .map(|(step, _)| step)
                .collect::<Vec<_>>(),
        );
    }
    let expected: [&[u64]; 6] = [&[10], &[20, 10], &[23, 20, 10], &[26, 20, 10], &[30, 20], &[31, 30, 20]];
    assert_eq!(steps, expected);
    discard_after(&Disk, dir.path(), 20).unwrap();
    assert_eq!(latest(dir.path()).unwrap().unwrap().state.step, 20);
}
