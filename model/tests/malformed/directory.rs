//! What the file system can do: links, pipes, files that are replaced while they are mapped.

use std::fs;
use std::path::Path;

use onebit_model::files::{
    CONFIG_FILE, FileError, HfDirectory, MappedFile, ModelSource, OneFile, OneFileOptions, Parts, WEIGHTS_FILE,
    Weights, open_source, save_one_file,
};
use onebit_model::runtime::FloatStorage;

use crate::small;

/// The caches of model hubs keep each file once and link to it, so links are followed: those of a model directory are the user's own.
#[cfg(unix)]
#[test]
fn links_are_followed_and_broken_ones_refused() {
    use std::os::unix::fs::symlink;
    let (blobs, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    small::save_floats(blobs.path());
    for file in [CONFIG_FILE, WEIGHTS_FILE] {
        symlink(blobs.path().join(file), dir.path().join(file)).unwrap();
    }
    let (here, there) = (
        HfDirectory::open(dir.path()).unwrap(),
        HfDirectory::open(blobs.path()).unwrap(),
    );
    for spec in here.config().tensors() {
        assert_eq!(here.tensor(&spec.name).unwrap(), there.tensor(&spec.name).unwrap());
    }
    // Saving replaces the link and leaves what it leads to.
    let before = fs::read(blobs.path().join(WEIGHTS_FILE)).unwrap();
    small::save_trits(dir.path());
    assert_eq!(fs::read(blobs.path().join(WEIGHTS_FILE)).unwrap(), before);
    assert!(
        !fs::symlink_metadata(dir.path().join(WEIGHTS_FILE))
            .unwrap()
            .is_symlink()
    );

    for target in ["nowhere", WEIGHTS_FILE] {
        fs::remove_file(dir.path().join(WEIGHTS_FILE)).unwrap();
        symlink(dir.path().join(target), dir.path().join(WEIGHTS_FILE)).unwrap();
        let error = HfDirectory::open(dir.path()).unwrap_err();
        assert!(matches!(error, FileError::Io { .. }), "{error}");
    }
}

/// Opening a pipe would wait for somebody to write into it.
#[cfg(unix)]
#[test]
fn pipes_and_devices_are_refused_at_once() {
    let dir = tempfile::tempdir().unwrap();
    small::save_floats(dir.path());
    for file in [WEIGHTS_FILE, CONFIG_FILE] {
        let path = dir.path().join(file);
        fs::remove_file(&path).unwrap();
        let made = std::process::Command::new("mkfifo").arg(&path).status();
        assert!(
            made.is_ok_and(|status| status.success()),
            "mkfifo is a part of every Unix"
        );
        let error = HfDirectory::open(dir.path()).unwrap_err();
        assert!(error.to_string().contains("not a regular file"), "{error}");
    }
    // Nor is the kind of a model asked of one.
    for path in [&dir.path().join(WEIGHTS_FILE), Path::new("/dev/zero")] {
        assert!(MappedFile::open(path).is_err());
        let error = open_source(path).map(drop).unwrap_err().to_string();
        assert!(error.contains("not a regular file"), "{error}");
    }
}

/// A file is replaced by renaming: whoever has the old one mapped goes on with the old bytes.
#[test]
fn a_file_replaced_while_it_is_mapped_stays_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    small::save_floats(dir.path());
    let path = dir.path().join(WEIGHTS_FILE);
    let before = fs::read(&path).unwrap();
    let (map, weights) = (MappedFile::open(&path).unwrap(), Weights::open_file(&path).unwrap());
    let name = "model.embed_tokens.weight";
    let embedding = weights.get(name).unwrap().bytes.to_vec();
    small::save_trits(dir.path());
    assert_ne!(fs::read(&path).unwrap(), before);
    // Pages that were given back are read from the old file, too.
    map.give_pages_back();
    assert_eq!(map.bytes(), before);
    assert_eq!(weights.get(name).unwrap().bytes, embedding);
}

/// The regression of the format's own reference: weights that lie in a file are saved to that very file.
#[test]
fn a_model_can_be_saved_over_the_file_that_it_is_mapped_from() {
    let dir = tempfile::tempdir().unwrap();
    small::save_floats(dir.path());
    let source = HfDirectory::open(dir.path()).unwrap();
    let options = OneFileOptions {
        storage: FloatStorage::F16,
        ..OneFileOptions::default()
    };
    let path = dir.path().join("model.1bit");
    save_one_file(&path, &source, &options, &Parts::default(), &|_, _| ()).unwrap();
    let first = fs::read(&path).unwrap();

    let file = OneFile::open(&path).unwrap();
    let mapped = file.model().unwrap();
    assert!(mapped.embedding().values.is_shared());
    let parts = Parts {
        tokenizer: Some(b"{}"),
        ..Parts::default()
    };
    save_one_file(&path, &file, &options, &parts, &|_, _| ()).unwrap();
    assert_ne!(fs::read(&path).unwrap(), first);
    save_one_file(&path, &file, &options, &Parts::default(), &|_, _| ()).unwrap();
    assert_eq!(fs::read(&path).unwrap(), first);
    // The mapped model lies in the first file, which has no name any more.
    assert_eq!(mapped.blocks(), OneFile::open(&path).unwrap().model().unwrap().blocks());
    OneFile::open(&path).unwrap().verify().unwrap();
}
