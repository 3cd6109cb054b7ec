//! Each class of damaged or hostile file, and the error that is its own.

/// `assert_matches!`, with the error shown.
macro_rules! refused {
    ($error:expr, $pattern:pat $(if $guard:expr)?) => {{
        let error = $error;
        assert!(matches!(&error, $pattern $(if $guard)?), "{error:?}: {error}");
    }};
}

mod container;
mod model;
#[path = "../../../../../tests/common/seed.rs"]
mod seed;
mod weights;

use super::*;
use crate::files::gguf::{Gguf, GgufError, TensorType};

/// A GGUF file put together by hand.
#[derive(Clone, Default)]
struct Hand {
    keys: Vec<Vec<u8>>,
    tensors: Vec<Vec<u8>>,
    data: Vec<u8>,
}

fn text(value: &[u8]) -> Vec<u8> {
    [&(value.len() as u64).to_le_bytes()[..], value].concat()
}

impl Hand {
    fn key(mut self, name: &str, kind: u32, value: &[u8]) -> Self {
        self.keys
            .push([&text(name.as_bytes())[..], &kind.to_le_bytes(), value].concat());
        self
    }

    fn tensor(mut self, name: &str, dims: &[u64], kind: u32, offset: u64) -> Self {
        let mut info = text(name.as_bytes());
        info.extend((dims.len() as u32).to_le_bytes());
        info.extend(dims.iter().flat_map(|n| n.to_le_bytes()));
        info.extend(kind.to_le_bytes());
        info.extend(offset.to_le_bytes());
        self.tensors.push(info);
        self
    }

    fn data(mut self, bytes: usize) -> Self {
        self.data = vec![0; bytes];
        self
    }

    fn bytes(&self) -> Vec<u8> {
        let mut out = b"GGUF".to_vec();
        out.extend(3u32.to_le_bytes());
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((self.keys.len() as u64).to_le_bytes());
        out.extend(self.keys.concat());
        out.extend(self.tensors.concat());
        out.resize(out.len().next_multiple_of(32), 0);
        out.extend(&self.data);
        seed::damaged(&["gguf_container", "gguf"], &out);
        out
    }

    fn refused(&self) -> GgufError {
        Gguf::from_bytes(self.bytes()).unwrap_err()
    }
}

/// Numbers of a tensor type and of a value type.
const F32: u32 = 0;
const ARRAY: u32 = 9;

impl Hand {
    /// The same file put together by hand, the tensor `other` of another type and all zeros.
    fn of(file: &Gguf, other: Option<(&str, TensorType)>) -> Self {
        use crate::files::gguf::Value;
        let mut hand = Self::default();
        for (key, value) in file.metadata() {
            hand = match value {
                Value::Unsigned(n) => hand.key(key, 4, &(*n as u32).to_le_bytes()),
                Value::F32(x) => hand.key(key, 6, &x.to_le_bytes()),
                Value::Bool(x) => hand.key(key, 7, &[u8::from(*x)]),
                Value::Text(x) => hand.key(key, 8, &text(x.as_bytes())),
                other => panic!("{other:?}"),
            };
        }
        for info in file.tensors() {
            let mut dims = vec![info.cols as u64];
            if info.dims > 1 {
                dims.push(info.rows as u64);
            }
            let other = other.filter(|(name, _)| *name == info.name).map(|(_, kind)| kind);
            let offset = hand.data.len();
            hand = hand.tensor(&info.name, &dims, other.unwrap_or(info.kind).id(), offset as u64);
            match other {
                None => hand.data.extend(file.data(info)),
                Some(kind) => hand.data.resize(offset + kind.bytes(info.len()).unwrap(), 0),
            }
            hand.data.resize(hand.data.len().next_multiple_of(32), 0);
        }
        hand
    }
}

fn good() -> GgufModel {
    read(&written(&made(bitnet()), &GgufOptions::default()).unwrap())
}
