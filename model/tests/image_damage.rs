//! The microcontrollers' model with every byte of its header changed and cut off, opened from memory as firmware does: an error value, or a model that
//! answers. `examples/firmware/src/bin/damage.rs` does the same on the boards, where a panic would be the end.

use std::sync::Arc;

use onebit_kernels_cpu::Isa;
use onebit_model::image::Image;
use onebit_model::runtime::{KvType, Serial, Session, SessionOptions, SharedBytes};

/// Bytes past the header that are changed too: γ of every linear is among them.
const BEYOND: usize = 512;

/// A file in memory, placed as a board's flash would have it.
struct Memory {
    words: Vec<u64>,
    len: usize,
}

impl Memory {
    fn new(bytes: &[u8]) -> Self {
        let mut words = vec![0; bytes.len().div_ceil(8)];
        bytemuck::cast_slice_mut(&mut words)[..bytes.len()].copy_from_slice(bytes);
        Self {
            words,
            len: bytes.len(),
        }
    }

    fn byte(&mut self, at: usize) -> &mut u8 {
        &mut bytemuck::cast_slice_mut(&mut self.words)[at]
    }
}

impl AsRef<[u8]> for Memory {
    fn as_ref(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.words)[..self.len]
    }
}

fn model() -> (Vec<u8>, usize) {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/stories-mcu/stories-mcu.1bit");
    let bytes = std::fs::read(path).expect("the bundled model");
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    (bytes, header)
}

/// Opens the model and lets it answer; the message of what it was refused for.
fn answer(bytes: SharedBytes) -> Result<(), String> {
    let model = Image::new(bytes)
        .and_then(|image| image.model())
        .map_err(|error| error.to_string())?;
    let context = model.config().max_position_embeddings.min(4);
    let options = SessionOptions {
        chunk: 1,
        kv: KvType::Int8,
        ..SessionOptions::new(context)
    };
    let mut session = Session::new(&model, Serial, Isa::best(), options).map_err(|error| error.to_string())?;
    session.decode(0).map(drop).map_err(|error| error.to_string())
}

#[test]
fn a_header_changed_at_any_byte_is_refused_or_answers() {
    let (bytes, header) = model();
    answer(SharedBytes::new(Arc::new(Memory::new(&bytes)))).expect("the undamaged model answers");
    let mut memory = Arc::new(Memory::new(&bytes));
    let (mut refused, mut answered) = (0, 0);
    for at in 0..header + BEYOND {
        for flip in [0x01, 0x10, 0x80, 0xff] {
            *Arc::get_mut(&mut memory)
                .expect("models do not outlive their use")
                .byte(at) ^= flip;
            match answer(SharedBytes::new(memory.clone())) {
                Ok(()) => answered += 1,
                Err(message) => {
                    assert!(!message.is_empty(), "byte {at} ^ {flip:#x}: an error without words");
                    refused += 1;
                }
            }
            *Arc::get_mut(&mut memory).unwrap().byte(at) ^= flip;
        }
    }
    // Most of a header is names and sizes; spelling of numbers, the checksum and γ may change without harm to the form.
    assert!(
        refused > answered && answered > 0,
        "{refused} refused, {answered} answered"
    );
    assert_eq!((*memory).as_ref(), bytes, "every change was taken back");
}

#[test]
fn a_model_cut_anywhere_in_its_header_or_its_tensors_is_refused() {
    let (bytes, header) = model();
    for len in (0..header + BEYOND).chain((header..bytes.len()).step_by(997)) {
        let cut = Memory::new(&bytes[..len]);
        answer(SharedBytes::new(Arc::new(cut))).expect_err("a model that was cut");
    }
}
