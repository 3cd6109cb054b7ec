//! Damages the model in flash byte by byte, in a copy: what comes of it must be an error value or a model that answers, never a fault.
//!
//! The copy lies in memory that a microcontroller does not have and QEMU's boards do (`__bench_memory`).
#![no_std]
#![no_main]

extern crate alloc;

use alloc::string::{String, ToString};
use alloc::sync::Arc;

use onebit_firmware::{MODEL, memory};
use onebit_kernels_cpu::Isa;
use onebit_model::image::{Image, ImageError};
use onebit_model::runtime::{KvType, RuntimeError, Serial, Session, SessionOptions, SharedBytes};
use semihosting::println;

onebit_firmware::entry!(main);

/// Between two bytes that are changed: a prime, so that every kind of place in the header has its turn.
const STRIDE: usize = 7;
/// Bytes past the header that are changed too.
const BEYOND: usize = 512;
/// Context of the answer that a model which is still one gives.
const CONTEXT: usize = 4;

/// What a damaged model comes to.
enum Outcome {
    /// It was refused.
    Refused(String),
    /// It gave logits.
    Answered,
}

fn main() -> bool {
    let Some(header) = MODEL.first_chunk().map(|n| u64::from_le_bytes(*n)) else {
        println!("the model has no header");
        return false;
    };
    let header = 8 + header as usize;
    let (mut refused, mut answered) = (0, 0);
    let mut count = |outcome, what: &str, at: usize| match outcome {
        Outcome::Refused(error) => {
            if refused % 100 == 0 {
                println!("{what} {at}: {error}");
            }
            refused += 1;
        }
        Outcome::Answered => answered += 1,
    };

    for len in (0..header + BEYOND).step_by(61).chain([MODEL.len() - 1]) {
        let outcome = outcome(SharedBytes::from_static(&MODEL[..len]));
        if matches!(outcome, Outcome::Answered) {
            println!("a model that was cut at {len} of {} bytes was taken", MODEL.len());
            return false;
        }
        count(outcome, "cut at", len);
    }

    let mut copy = Arc::new(memory::bench_copy(MODEL));
    for at in (0..header + BEYOND).step_by(STRIDE) {
        for flip in [0x01, 0x80, 0xff] {
            // Nobody else holds the copy: the models before it are gone.
            let Some(bytes) = Arc::get_mut(&mut copy) else {
                println!("a model outlived its use");
                return false;
            };
            bytes.0[at] ^= flip;
            count(outcome(SharedBytes::new(copy.clone())), "changed at", at);
            if let Some(bytes) = Arc::get_mut(&mut copy) {
                bytes.0[at] ^= flip;
            }
        }
    }
    println!("{refused} damaged models refused, {answered} answered, no fault");
    // A header whose every change were refused, or none, would be a test that tests nothing.
    refused > 0 && answered > 0
}

fn outcome(bytes: SharedBytes) -> Outcome {
    match answer(bytes) {
        Ok(()) => Outcome::Answered,
        Err(error) => Outcome::Refused(error),
    }
}

fn answer(bytes: SharedBytes) -> Result<(), String> {
    let text = |error: ImageError| error.to_string();
    let model = Image::new(bytes).map_err(text)?.model().map_err(text)?;
    let text = |error: RuntimeError| error.to_string();
    let options = SessionOptions {
        chunk: 1,
        kv: KvType::Int8,
        ..SessionOptions::new(CONTEXT.min(model.config().max_position_embeddings))
    };
    let mut session = Session::new(&model, Serial, Isa::best(), options).map_err(text)?;
    session.decode(0).map_err(text)?;
    Ok(())
}
