//! The promises of ARCHITECTURE.md §2.2 across CPUs: every instruction set and both layouts of ternary weights give the same bits, and so do x86
//! and ARM. Needs no default feature, so that little has to be built for another architecture.

mod common;

use common::{all_logits, every_option, options, random_ids, random_model};
use onebit_kernels_cpu::Isa;
use onebit_kernels_cpu::ternary::Layout;
use onebit_model::runtime::{FloatStorage, Serial};

const LEN: usize = 21;

#[test]
fn every_instruction_set_gives_the_same_bits() {
    for (name, config) in every_option() {
        let ids = random_ids(config.vocab_size, LEN, 3);
        for (_, storage) in FloatStorage::ALL {
            let model = random_model(&config, 4, storage);
            let scalar = all_logits(&model, Serial, Isa::SCALAR, options(8, 2), &ids);
            for layout in Layout::ALL {
                let model = model.clone().with_layout(layout);
                for (isa, chunk) in Isa::available().flat_map(|isa| [(isa, 8), (isa, LEN)]) {
                    let same = all_logits(&model, Serial, isa, options(chunk, 2), &ids) == scalar;
                    let (isa, layout) = (isa.name(), layout.name());
                    assert!(
                        same,
                        "{name}, {storage:?}, {layout}, chunks of {chunk}: {isa} differs from scalar"
                    );
                }
            }
        }
    }
    let paths: Vec<_> = Isa::available().map(Isa::name).collect();
    println!("paths compared: {}", paths.join(", "));
}

/// FNV-1a over the bits of the logits at every position.
fn fingerprint(logits: &[Vec<u32>]) -> u64 {
    let bytes = logits.iter().flatten().flat_map(|bits| bits.to_le_bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    })
}

/// The logits of one model of every kind, the same on x86 and on ARM: only what changes the numerics of ARCHITECTURE.md §2.2 may change these.
const FINGERPRINTS: [(&str, u64); 11] = [
    ("default", 0xdd32_6b6e_a0e8_678c),
    ("qk-norm", 0x7986_0e8c_9340_b6fd),
    ("residual scaling, no sub-norms", 0x4e62_e982_2461_2ca0),
    ("swiglu, untied", 0x0657_78f5_50c3_944d),
    ("plain relu2", 0xddb7_29b5_f7e0_0990),
    ("one key head", 0x1abd_978c_9c7c_1725),
    ("explicit head_dim", 0x9561_b540_7a09_fe42),
    ("odd sizes", 0x2d84_c77d_16dc_1c46),
    ("mixed modes", 0x792c_b6b5_94ec_e79f),
    ("all f16", 0x225f_2123_dbc1_288f),
    ("wider than a block", 0xcc1f_3a9c_04bb_cf24),
];

/// The same with an int4 head, which is the embedding in the first and one of its own in the second.
const INT4_FINGERPRINTS: [(&str, u64); 3] = [
    ("default", 0x1776_4900_4581_8af2),
    ("swiglu, untied", 0x25ba_06fb_5365_ed27),
    ("odd sizes", 0x61a6_758c_e378_8c59),
];

#[test]
fn every_kind_of_cpu_gives_the_same_bits() {
    let int4: Vec<_> = every_option()
        .into_iter()
        .filter(|(name, _)| INT4_FINGERPRINTS.iter().any(|(known, _)| known == name))
        .map(|(name, config)| {
            let model = random_model(&config, 16, FloatStorage::Int4);
            let ids = random_ids(config.vocab_size, LEN, 17);
            (
                name,
                fingerprint(&all_logits(&model, Serial, Isa::best(), options(8, 2), &ids)),
            )
        })
        .collect();
    assert_eq!(int4, INT4_FINGERPRINTS, "{int4:#x?}");
    let found: Vec<_> = every_option()
        .into_iter()
        .map(|(name, config)| {
            let model = random_model(&config, 16, FloatStorage::Stored);
            let ids = random_ids(config.vocab_size, LEN, 17);
            (
                name,
                fingerprint(&all_logits(&model, Serial, Isa::best(), options(8, 2), &ids)),
            )
        })
        .collect();
    assert_eq!(found, FINGERPRINTS, "{found:#x?}");
}
