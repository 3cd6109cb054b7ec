//! What a generator on a board takes of its memory: measured, as foretold, and nothing while tokens are drawn.
#![allow(missing_docs)]

#[path = "common/counting.rs"]
mod counting;

use std::path::Path;
use std::sync::Arc;
use std::{fs, mem};

use counting::{asked, peak_of};
use onebit_kernels_cpu::Isa;
use onebit_model::decode::{TextGenerator, TextOptions};
use onebit_model::image::Image;
use onebit_model::runtime::{KvType, SharedBytes};

fn image() -> Image {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/stories-mcu/stories-mcu.1bit");
    Image::new(SharedBytes::new(Arc::new(fs::read(path).unwrap()))).unwrap()
}

#[test]
fn what_a_generator_takes_is_foretold_and_no_token_takes_more() {
    let image = image();
    let bytes = SharedBytes::new(Arc::new(image.bytes().to_vec()));
    let (_, header) = peak_of(|| Image::new(bytes).unwrap());
    println!("header: {header} bytes at most while it is read");
    assert!(header < 64 << 10, "{header}");
    for kv in [KvType::F32, KvType::F16, KvType::Int8] {
        for (context, top_k, repetition_penalty) in [(160, 50, 1.0), (48, 0, 1.1)] {
            let mut options = TextOptions {
                context,
                kv,
                isa: Isa::SCALAR,
                ..TextOptions::of(&image)
            };
            (options.sampling.top_k, options.sampling.repetition_penalty) = (top_k, repetition_penalty);
            let foretold = TextGenerator::memory_bytes(&image, &options).unwrap();
            let (mut generator, opening) = peak_of(|| TextGenerator::new(&image, options).unwrap());
            generator.begin("Anna was a", context).unwrap();
            let first = generator.next_token().unwrap();
            // The cache grows into its room, which was reserved.
            let (count, allocations, _) = asked(|| {
                let mut count = 0;
                while let Some(id) = generator.next_token().unwrap() {
                    count += usize::from(generator.text_of(id).is_ok());
                }
                count
            });
            assert!(first.is_some() && count > 3, "{count} tokens");
            assert_eq!(allocations, 0, "allocations of {count} tokens, {kv:?}");
            mem::drop(generator);
            let (_, all) = peak_of(|| {
                let mut generator = TextGenerator::new(&image, options).unwrap();
                generator.begin("Anna was a", context).unwrap();
                while generator.next_token().unwrap().is_some() {}
            });
            println!(
                "{kv:?}, context {context}: {foretold} bytes foretold, {opening} at most while it opens, {all} at most in all"
            );
            assert!(all <= foretold, "{all} of {foretold}");
            assert!(foretold - all < 24 << 10, "{all} of {foretold}: too much is foretold");
        }
    }
}
