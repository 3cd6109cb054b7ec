//! Tells the stories of `golden.txt`, compares every id with it on every path of the processor, and prints what they took.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::vec::Vec;

use onebit_firmware::board::{self, Stopwatch};
use onebit_firmware::memory::Usage;
use onebit_firmware::{GOLDEN, MODEL, kernels, memory};
use onebit_kernels_cpu::Isa;
use onebit_model::decode::golden::{self, Case, GoldenError};
use onebit_model::decode::{TextGenerator, TextOptions};
use onebit_model::image::Image;
use onebit_model::runtime::{KvType, SharedBytes};
use semihosting::{print, println};

onebit_firmware::entry!(main);

fn main() -> bool {
    println!("{}, paths: {}", board::NAME, Paths);
    println!("kernels against their formulas:");
    if !kernels::agree() {
        return false;
    }
    let watch = Stopwatch::start();
    let image = match Image::new(SharedBytes::from_static(MODEL)) {
        Ok(image) => image,
        Err(error) => {
            println!("the model: {error}");
            return false;
        }
    };
    println!("header read in {} instructions", watch.instructions());

    let (mut good, mut compared) = (true, 0);
    for case in golden::cases(GOLDEN) {
        let case = match case {
            Ok(case) => case,
            Err(error) => {
                println!("golden.txt: {error}");
                return false;
            }
        };
        // No more positions than the case can reach: a token of the prompt has at least a byte.
        let reach = 1 + case.prompt.len() + case.max_tokens;
        let case = Case {
            context: case.context.min(reach),
            ..case
        };
        let options = TextOptions {
            context: case.context,
            kv: case.kv,
            sampling: case.sampling,
            ..TextOptions::of(&image)
        };
        let needed = match TextGenerator::memory_bytes(&image, &options) {
            Ok(bytes) => bytes,
            Err(error) => {
                println!("case {}: {error}", case.name);
                good = false;
                continue;
            }
        };
        // The board is sized for caches of int8.
        if needed > memory::heap_free() && case.kv != KvType::Int8 {
            println!(
                "LEFT OUT: case {} needs {needed} bytes, keys and values in {}",
                case.name,
                case.kv.name()
            );
            continue;
        }
        for isa in Isa::available() {
            match tell(&image, &case, isa) {
                Ok(same) => {
                    good &= same;
                    compared += 1;
                }
                Err(error) => {
                    println!("case {}: {error}", case.name);
                    good = false;
                }
            }
        }
    }
    let Usage { statics, heap, stack } = Usage::so_far();
    println!(
        "RAM: {} bytes of {}: statics {statics}, heap {heap}, stack {stack}",
        statics + heap + stack,
        memory::ram()
    );
    println!("flash: {} bytes, {} of them the model", memory::flash(), MODEL.len());
    match (good, compared) {
        (_, 0) => println!("golden.txt has no case for this board"),
        (true, _) => println!("{compared} stories, every id as it should be"),
        (false, _) => println!("DIFFERENT from golden.txt"),
    }
    good && compared > 0
}

/// Generates a case, prints it, and says whether it has the ids that it should have.
fn tell(image: &Image, case: &Case, isa: Isa) -> Result<bool, GoldenError> {
    let mut generator = case.begin(image, isa)?;
    let (mut ids, mut instructions) = (Vec::with_capacity(case.max_tokens), Vec::with_capacity(case.max_tokens));
    loop {
        let watch = Stopwatch::start();
        let Some(id) = generator.next_token()? else {
            break;
        };
        instructions.push(watch.instructions());
        ids.push(id);
    }
    let same = case
        .ids
        .split_ascii_whitespace()
        .map(str::parse)
        .eq(ids.iter().map(|&id| Ok(id)));

    println!(
        "case {}, path {}, keys and values in {}:",
        case.name,
        isa.name(),
        case.kv.name()
    );
    print!("  {}", case.prompt);
    for &id in &ids {
        print!("{}", generator.text_of(id)?);
    }
    println!("{}", generator.last_text());
    println!("  ids {ids:?}");
    // The first one reads the prompt too.
    if let [_, first, .., last] = *instructions {
        let all: u64 = instructions[1..].iter().sum();
        let mean = all / (instructions.len() as u64 - 1);
        println!("  instructions a token: {mean}, from {first} to {last}");
    }
    if !same {
        println!("  DIFFERENT: should be {}", case.ids);
    }
    Ok(same)
}

/// The names of the paths.
struct Paths;

impl core::fmt::Display for Paths {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        Isa::available().try_for_each(|isa| write!(f, "{} ", isa.name()))
    }
}
