//! Every format against what the `gguf` package of PyPI (0.17) makes of the same values, told by a hash, and against itself.

use half::f16;

use super::{i2_s, q4_0, q6_k, q8_0, tq1_0, tq2_0};

/// FNV-1a of 64 bits.
fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |h, &b| {
        (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3)
    })
}

fn hash_f32(values: &[f32]) -> u64 {
    hash(&values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>())
}

/// Values that go through the range evenly and in no order.
fn values() -> Vec<f32> {
    (0..1024)
        .map(|i| ((i * 7919 + 13) % 2003 - 1001) as f32 / 317.0)
        .collect()
}

/// Four blocks of 256, the second of zeros.
fn trits() -> Vec<i8> {
    let trit = |i: i32| {
        if (256..512).contains(&i) {
            0
        } else {
            (i * 7919 % 11 % 3 - 1) as i8
        }
    };
    (0..1024).map(trit).collect()
}

#[test]
fn q8_0_is_that_of_ggml() {
    let (mut blocks, mut back) = (Vec::new(), Vec::new());
    q8_0::encode(&values(), &mut blocks);
    assert_eq!((blocks.len(), hash(&blocks)), (1088, 0xef10_5274_0432_0c76));
    q8_0::decode(&blocks, &mut back);
    assert_eq!(hash_f32(&back), 0x7cd8_2570_a92e_7e51);
}

#[test]
fn q4_0_is_that_of_ggml() {
    let (mut blocks, mut back) = (Vec::new(), Vec::new());
    q4_0::encode(&values(), &mut blocks);
    assert_eq!((blocks.len(), hash(&blocks)), (576, 0x8ae9_d01c_50ec_7b8d));
    q4_0::decode(&blocks, &mut back);
    assert_eq!(hash_f32(&back), 0xab3d_79e5_96f8_9ad7);
}

#[test]
fn q6_k_is_read_as_ggml_reads_it() {
    let mut blocks: Vec<u8> = (0..840u32).map(|i| (i * 31 + i * i % 251) as u8).collect();
    for (k, block) in blocks.chunks_exact_mut(q6_k::BYTES).enumerate() {
        block[208..].copy_from_slice(&f16::from_f64(0.01 * (k + 1) as f64).to_le_bytes());
    }
    let mut back = Vec::new();
    q6_k::decode(&blocks, &mut back);
    assert_eq!(hash_f32(&back), 0x9fa4_a304_eb65_a08e, "{:?}", &back[..4]);
}

#[test]
fn what_q6_k_writes_is_close() {
    let (mut blocks, mut back) = (Vec::new(), Vec::new());
    let values = values();
    q6_k::encode(&values, &mut blocks);
    assert_eq!(blocks.len(), 840);
    q6_k::decode(&blocks, &mut back);
    for (group, (v, back)) in values.chunks(16).zip(back.chunks(16)).enumerate() {
        // Half of a step of 1/32 of the largest value, and what rounding the group's scale adds.
        let most = v.iter().fold(0.0f32, |most, v| most.max(v.abs()));
        for (v, back) in v.iter().zip(back) {
            assert!(
                (v - back).abs() <= most / 32.0 * 1.1,
                "group {group}: {v} became {back}"
            );
        }
    }
    let mut zeros = Vec::new();
    q6_k::encode(&[0.0; 256], &mut zeros);
    back.clear();
    q6_k::decode(&zeros, &mut back);
    assert_eq!(back, [0.0; 256]);
}

#[test]
fn ternary_blocks_are_those_of_ggml() {
    for (name, expected) in [("tq1_0", 0xa11f_c6fc_4891_2412), ("tq2_0", 0xdddc_9824_11a4_2e06)] {
        let (mut blocks, mut back, mut scales) = (Vec::new(), vec![9i8; 1024], Vec::new());
        for (b, trits) in trits().chunks(256).enumerate() {
            // ggml takes the largest magnitude of a block, which is 0 where there are only zeros.
            let scale = f16::from_f32(if b == 1 { 0.0 } else { 0.0625 });
            match name {
                "tq1_0" => tq1_0::encode(trits, scale, &mut blocks),
                _ => tq2_0::encode(trits, scale, &mut blocks),
            }
        }
        assert_eq!(hash(&blocks), expected, "{name}");
        let add = |d| scales.push(d);
        match name {
            "tq1_0" => tq1_0::decode(&blocks, &mut back, add),
            _ => tq2_0::decode(&blocks, &mut back, add),
        }
        .unwrap();
        assert_eq!(back, trits(), "{name}");
        assert_eq!(scales, [0.0625, 0.0, 0.0625, 0.0625], "{name}");
    }
}

#[test]
fn i2_s_has_the_first_weight_in_the_high_bits() {
    let mut trits = [0i8; 256];
    (trits[0], trits[33], trits[64], trits[127], trits[128]) = (1, -1, 1, -1, -1);
    let mut tensor = Vec::new();
    i2_s::encode(&trits, 0.375, &mut tensor);
    assert_eq!(tensor.len(), 96);
    // Zeros are the code 1: 0b01_01_01_01.
    assert_eq!(tensor[0], 0b10_01_10_01, "weights 0 and 64");
    assert_eq!(tensor[1], 0b01_00_01_01, "weight 33");
    assert_eq!(tensor[31], 0b01_01_01_00, "weight 127");
    assert_eq!(tensor[32], 0b00_01_01_01, "weight 128");
    assert_eq!(tensor[64..68], 0.375f32.to_le_bytes());
    assert_eq!(tensor[68..], [0; 28]);
    let mut back = [9i8; 256];
    assert_eq!(i2_s::decode(&tensor, &mut back), Ok(0.375));
    assert_eq!(back, trits);
}

#[test]
fn codes_that_stand_for_nothing_are_found() {
    let (mut tq1, mut tq2, mut i2, mut out) = (Vec::new(), Vec::new(), Vec::new(), vec![0i8; 1024]);
    tq1_0::encode(&trits(), f16::ONE, &mut tq1);
    tq2_0::encode(&trits(), f16::ONE, &mut tq2);
    i2_s::encode(&trits(), 1.0, &mut i2);

    // Byte 5 of the second half of the third block, bits 2 and 3.
    tq2[2 * tq2_0::BYTES + 32 + 5] |= 0b1100;
    assert_eq!(tq2_0::decode(&tq2, &mut out, |_| {}), Err(2 * 256 + 128 + 32 + 5));
    i2[3 * 32 + 7] |= 0b11;
    assert_eq!(i2_s::decode(&i2, &mut out), Err(3 * 128 + 96 + 7));
    // 1 is no ⌈n · 256 / 243⌉... every byte of which there are 13 more than numbers.
    let unused: Vec<u8> = (0..=255u8)
        .filter(|&byte| {
            let mut block = tq1[..54].to_vec();
            block[0] = byte;
            tq1_0::decode(&block, &mut out[..256], |_| {}).is_err()
        })
        .collect();
    assert_eq!(unused.len(), 13, "{unused:?}");
    tq1[54 + 40] = unused[0];
    assert_eq!(tq1_0::decode(&tq1, &mut out, |_| {}), Err(256 + 160 + 8));
    // The last four bytes have four digits.
    tq1[54 + 40] = tq1[54 + 41];
    tq1[50] = tq1[0].max(2) | 1;
    let fifth = (0..=255u8).find(|&byte| {
        tq1[50] = byte;
        !unused.contains(&byte) && tq1_0::decode(&tq1, &mut out, |_| {}) == Err(240 + 2)
    });
    assert!(fifth.is_some());
}
