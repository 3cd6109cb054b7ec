//! Tells stories.
#![no_std]
#![no_main]

extern crate alloc;
use alloc::vec::Vec;
use onebit_firmware::board::{self, Stopwatch};
use onebit_firmware::{MODEL, memory};
use onebit_kernels_cpu::Isa;
use onebit_model::image::Image;
use onebit_model::runtime::{KvType, Serial, Session, SessionOptions, SharedBytes};
use onebit_model::sampling::{Sampler, SamplingParams};
use semihosting::println;

onebit_firmware::entry!(main);

fn main() -> bool {
    println!("board {}, path {}", board::NAME, Isa::best().name());
    if !onebit_firmware::kernels::agree() {
        return false;
    }
    let watch = Stopwatch::start();
    let image = match Image::new(SharedBytes::from_static(MODEL)) {
        Ok(i) => i,
        Err(e) => {
            println!("error: {e}");
            return false;
        }
    };
    let model = match image.model() {
        Ok(i) => i,
        Err(e) => {
            println!("error: {e}");
            return false;
        }
    };
    drop(image);
    println!("opened in {} instructions", watch.instructions());
    let u = memory::Usage::so_far();
    println!("ram: statics {} heap {} stack {}", u.statics, u.heap, u.stack);
    for isa in Isa::available() {
        let options = SessionOptions {
            chunk: 1,
            kv: KvType::Int8,
            ..SessionOptions::new(64)
        };
        let mut session = match Session::new(&model, Serial, isa, options) {
            Ok(i) => i,
            Err(e) => {
                println!("error: {e}");
                return false;
            }
        };
        let mut sampler = Sampler::new(SamplingParams::greedy(), model.config().vocab_size).unwrap();
        let mut id = 0;
        let mut ids = Vec::new();
        for i in 0..60 {
            let watch = Stopwatch::start();
            let logits = session.decode(id).unwrap();
            let mut logits = logits.to_vec();
            let n = watch.instructions();
            id = sampler.sample(&mut logits, &[]).unwrap();
            if i == 0 || i % 30 == 29 {
                println!("token {i}: {n} instructions, with sampling {}", watch.instructions());
            }
            ids.push(id);
        }
        println!("{} {ids:?}", isa.name());
    }
    let u = memory::Usage::so_far();
    println!("ram: statics {} heap {} stack {}", u.statics, u.heap, u.stack);
    true
}
