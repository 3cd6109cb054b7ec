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
            for layout in Layout::TERNARY {
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
const FINGERPRINTS: [(&str, u64); 15] = [
    ("default", 0x9da1_5d68_9200_49cd),
    ("qk-norm", 0x7ddd_207e_a806_bebb),
    ("residual scaling, no sub-norms", 0x4ceb_63f0_f866_ecdc),
    ("swiglu, untied", 0x322c_14bf_3f1b_cee5),
    ("plain relu2", 0xebe0_8311_9b87_f59f),
    ("one key head", 0x0acc_f859_3211_7642),
    ("explicit head_dim", 0xeab5_bfb2_06f7_dfb3),
    ("odd sizes", 0xac50_ee02_d216_9b41),
    ("mixed modes", 0xfe52_5b0b_43ca_25fa),
    ("all f16", 0xd06c_3329_7497_560a),
    ("wider than a block", 0xe8ff_3e58_e131_b056),
    ("int4 everywhere, a ternary head", 0xecd9_8a7c_cf6b_0ea3),
    ("binary tables that are one", 0xc041_f4a9_6d9f_6248),
    ("a ternary embedding, an int8 head", 0x776c_30c0_05e0_480f),
    ("capped logits", 0xdbda_0d38_3d3b_24ab),
];

/// The same with an int4 head, which is the embedding in the first and one of its own in the second.
const INT4_FINGERPRINTS: [(&str, u64); 3] = [
    ("default", 0x9fb6_e017_cfc2_4891),
    ("swiglu, untied", 0x6116_d6ff_a607_4921),
    ("odd sizes", 0xc880_38b4_2532_2f77),
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
