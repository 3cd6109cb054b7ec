//! Event files: records of TFRecord, each an `Event` of TensorFlow's `event.proto` (the fields that are used here).
//!
//! ```text
//! u64 length | u32 masked CRC-32C of the length | the event | u32 masked CRC-32C of the event      little-endian
//! ```

use std::io::{self, Write};

use prost::Message;

/// One record.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Event {
    /// Seconds since 1970.
    #[prost(double, tag = "1")]
    pub wall_time: f64,
    #[prost(int64, tag = "2")]
    pub step: i64,
    #[prost(oneof = "What", tags = "3, 5, 7")]
    pub what: Option<What>,
}

/// What it says.
#[derive(Clone, PartialEq, prost::Oneof)]
pub(super) enum What {
    /// The first record of a file.
    #[prost(string, tag = "3")]
    FileVersion(String),
    #[prost(message, tag = "5")]
    Summary(Summary),
    #[prost(message, tag = "7")]
    SessionLog(SessionLog),
}

/// Scalars of a step.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Summary {
    #[prost(message, repeated, tag = "1")]
    pub value: Vec<Scalar>,
}

/// A scalar.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Scalar {
    #[prost(string, tag = "1")]
    pub tag: String,
    /// One of several kinds of value there, and written even where it is 0.
    #[prost(float, optional, tag = "2")]
    pub simple_value: Option<f32>,
}

impl Scalar {
    pub(super) fn new(tag: &str, value: f64) -> Self {
        Self {
            tag: tag.into(),
            simple_value: Some(value as f32),
        }
    }
}

/// What became of the writer.
#[derive(Clone, PartialEq, Message)]
pub(super) struct SessionLog {
    #[prost(int32, tag = "1")]
    pub status: i32,
}

/// It began again: what was told of this step and of those behind it does not count.
const START: i32 = 1;

impl SessionLog {
    pub(super) fn start() -> Self {
        Self { status: START }
    }

    pub(super) fn is_start(&self) -> bool {
        self.status == START
    }
}

/// TFRecord's checksum: rotated and shifted, so that the checksum of data with checksums in it says something.
fn masked_crc(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// Appends a record.
pub(super) fn write(out: &mut impl Write, event: &Event) -> io::Result<()> {
    let body = event.encode_to_vec();
    let length = (body.len() as u64).to_le_bytes();
    out.write_all(&length)?;
    out.write_all(&masked_crc(&length).to_le_bytes())?;
    out.write_all(&body)?;
    out.write_all(&masked_crc(&body).to_le_bytes())
}

/// The records of a file, up to the first that is torn or damaged.
pub(super) fn read(mut bytes: &[u8]) -> Vec<Event> {
    let mut events = Vec::new();
    while let Some((event, rest)) = first(bytes) {
        events.push(event);
        bytes = rest;
    }
    events
}

/// The first record, and what comes behind it.
fn first(bytes: &[u8]) -> Option<(Event, &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<8>()?;
    let (crc, rest) = rest.split_first_chunk::<4>()?;
    if masked_crc(length) != u32::from_le_bytes(*crc) {
        return None;
    }
    let (body, rest) = rest.split_at_checked(usize::try_from(u64::from_le_bytes(*length)).ok()?)?;
    let (crc, rest) = rest.split_first_chunk::<4>()?;
    if masked_crc(body) != u32::from_le_bytes(*crc) {
        return None;
    }
    Some((Event::decode(body).ok()?, rest))
}
