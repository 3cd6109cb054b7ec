//! The client against a Hub that fails in every way that is known, on loopback alone.

mod downloads;
mod listings;
mod python;
mod settings;

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use super::fake::{FakeHub, noise, sha256};
use super::{Hub, HubError, HubFile, HubOptions};
use crate::TrainError;

const DATASET: &str = "bigcode/the-stack";
const LARGE: &str = "data/c++/train-00000-of-00001.parquet";
const SMALL: &str = "README.md";

/// A Hub with a large and a small file.
fn hub(bytes: usize) -> FakeHub {
    let files = [(LARGE, noise(bytes, 1)), (SMALL, noise(1000, 2))];
    FakeHub::start(DATASET, files.map(|(path, bytes)| (path.to_string(), bytes)))
}

/// A client that does not wait long.
fn client(hub: &FakeHub, token: Option<&str>) -> Hub {
    Hub::new(HubOptions {
        endpoint: hub.endpoint(),
        token: token.map(str::to_string),
        retries: 3,
        backoff: Duration::from_millis(1),
        longest_pause: Duration::from_millis(20),
        read_timeout: Duration::from_secs(5),
        most_files: 30,
        ..HubOptions::default()
    })
    .unwrap()
}

/// The description of a file as it is.
fn described(hub: &FakeHub, path: &str) -> HubFile {
    let contents = hub.contents();
    let bytes = &contents.files[path];
    HubFile {
        dataset: DATASET.into(),
        revision: contents.commit.clone(),
        path: path.into(),
        bytes: bytes.len() as u64,
        sha256: path.ends_with(".parquet").then(|| sha256(bytes)),
    }
}

fn download(client: &Hub, file: &HubFile, to: &Path) -> Result<(), HubError> {
    let mut most = 0;
    let got = client.download(file, to, &mut |n| most = n.max(most), &AtomicBool::new(false));
    assert!(most <= file.bytes, "never more than the file has");
    got.map_err(own)
}

fn own(error: TrainError) -> HubError {
    match error {
        TrainError::Hub(error) => error,
        other => panic!("not the Hub's: {other}"),
    }
}

/// What lies beside `to` from an attempt.
fn part(to: &Path) -> Option<Vec<u8>> {
    std::fs::read(format!("{}.part", to.display())).ok()
}
