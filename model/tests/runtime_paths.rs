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
        for storage in [FloatStorage::F32, FloatStorage::F16, FloatStorage::Bf16] {
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
    ("default", 0x4691_77d4_9aa2_33a9),
    ("qk-norm", 0x1097_9d12_478b_e8fc),
    ("residual scaling, no sub-norms", 0xd414_2de3_246a_4bc7),
    ("swiglu, untied", 0x1b82_ddd7_242e_96be),
    ("plain relu2", 0xd07f_970c_608c_d43f),
    ("one key head", 0x73c1_a173_0033_0309),
    ("explicit head_dim", 0xc956_9d53_a7ae_be3d),
    ("odd sizes", 0x73cf_02e2_3d9b_88d2),
    ("mixed modes", 0xaba1_3b7d_fb68_c8b5),
    ("all f16", 0x0798_294f_ccaf_9bf4),
    ("wider than a block", 0x0846_9002_4d72_1479),
];

#[test]
fn every_kind_of_cpu_gives_the_same_bits() {
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
