//! Writing the container: what stands before the data, made whole before the first byte is written.

use super::types::TensorType;
use super::value::ValueType;
use super::{ALIGNMENT_KEY, DEFAULT_ALIGNMENT, MAGIC, VERSION};

/// Metadata in the order in which it is to stand.
#[derive(Debug, Default)]
pub(super) struct Metadata {
    bytes: Vec<u8>,
    keys: u64,
}

impl Metadata {
    fn key(&mut self, key: &str, kind: ValueType) {
        debug_assert_ne!(key, ALIGNMENT_KEY, "the default is kept");
        self.keys += 1;
        text(&mut self.bytes, key);
        self.bytes.extend((kind as u32).to_le_bytes());
    }

    fn array(&mut self, key: &str, element: ValueType, count: usize) {
        self.key(key, ValueType::Array);
        self.bytes.extend((element as u32).to_le_bytes());
        self.bytes.extend((count as u64).to_le_bytes());
    }

    pub fn u32(&mut self, key: &str, value: u32) {
        self.key(key, ValueType::U32);
        self.bytes.extend(value.to_le_bytes());
    }

    pub fn f32(&mut self, key: &str, value: f32) {
        self.key(key, ValueType::F32);
        self.bytes.extend(value.to_le_bytes());
    }

    pub fn bool(&mut self, key: &str, value: bool) {
        self.key(key, ValueType::Bool);
        self.bytes.push(value.into());
    }

    pub fn text(&mut self, key: &str, value: &str) {
        self.key(key, ValueType::Text);
        text(&mut self.bytes, value);
    }

    pub fn texts(&mut self, key: &str, values: &[String]) {
        self.array(key, ValueType::Text, values.len());
        values.iter().for_each(|value| text(&mut self.bytes, value));
    }

    pub fn i32s(&mut self, key: &str, values: &[i32]) {
        self.array(key, ValueType::I32, values.len());
        self.bytes.extend(values.iter().flat_map(|v| v.to_le_bytes()));
    }

    pub fn u32s(&mut self, key: &str, values: &[u32]) {
        self.array(key, ValueType::U32, values.len());
        self.bytes.extend(values.iter().flat_map(|v| v.to_le_bytes()));
    }

    /// Returns the file's position of the first value, at which values that are known later may be put.
    pub fn f32s(&mut self, key: &str, values: &[f32]) -> u64 {
        self.array(key, ValueType::F32, values.len());
        let at = HEADER + self.bytes.len() as u64;
        self.bytes.extend(values.iter().flat_map(|v| v.to_le_bytes()));
        at
    }
}

/// Bytes before the metadata: magic, version, two counts.
const HEADER: u64 = 24;

fn text(bytes: &mut Vec<u8>, value: &str) {
    bytes.extend((value.len() as u64).to_le_bytes());
    bytes.extend(value.as_bytes());
}

/// A tensor to be written.
#[derive(Clone, Debug)]
pub(super) struct Planned {
    pub name: String,
    pub kind: TensorType,
    /// Innermost first.
    pub dims: Vec<usize>,
    pub bytes: usize,
}

impl Planned {
    /// Zeros after the tensor.
    pub const fn padding(&self) -> usize {
        self.bytes.next_multiple_of(DEFAULT_ALIGNMENT) - self.bytes
    }
}

/// Everything before the data.
pub(super) fn head(metadata: &Metadata, tensors: &[Planned]) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    out.extend(VERSION.to_le_bytes());
    out.extend((tensors.len() as u64).to_le_bytes());
    out.extend(metadata.keys.to_le_bytes());
    out.extend(&metadata.bytes);
    let mut offset = 0;
    for tensor in tensors {
        text(&mut out, &tensor.name);
        out.extend((tensor.dims.len() as u32).to_le_bytes());
        out.extend(tensor.dims.iter().flat_map(|&n| (n as u64).to_le_bytes()));
        out.extend(tensor.kind.id().to_le_bytes());
        out.extend((offset as u64).to_le_bytes());
        offset += tensor.bytes + tensor.padding();
    }
    out.resize(out.len().next_multiple_of(DEFAULT_ALIGNMENT), 0);
    out
}
