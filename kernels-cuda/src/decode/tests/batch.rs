//! Many sequences side by side.

use super::attention::rotation;
use crate::decode::batch::Layout;
use crate::decode::batch_attention::attend_batch;
use crate::decode::*;
use crate::device::Gpu;
use crate::ternary_gemv::tests::{Random, bits, small};

#[test]
fn tiles_have_every_row_of_a_span_once_and_the_longest_begin() {
    for group in [1, 3, 4, 5, 32] {
        let ids = [7; 90];
        let lengths = [1, 2, 33, 1, 90, 8];
        let turns: Vec<BatchTurn<'_>> = (lengths.iter().enumerate())
            .map(|(i, &length)| BatchTurn {
                sequence: 2 * i,
                first: 10 * i,
                ids: &ids[..length],
                logits: i != 2,
            })
            .collect();
        let (layout, words) = Layout::of(&turns, group);
        assert_eq!(
            (layout.tokens, layout.spans, layout.rows, layout.seen),
            (135, 133, 5, 31)
        );
        assert_eq!(words.len(), 3 * 135 + 3 * layout.tiles + 5);
        let places: Vec<[u32; 2]> = words[135..405].chunks(2).map(|place| [place[0], place[1]]).collect();
        let mut rows = vec![0; 133 * group];
        let mut before = u32::MAX;
        for tile in words[405..405 + 3 * layout.tiles]
            .chunks(3)
            .map(|words| [0, 1, 2].map(|i| words[i] as usize))
        {
            let [first, tokens, row] = tile;
            let end = (row + 32).min(tokens * group);
            rows[first * group + row..first * group + end]
                .iter_mut()
                .for_each(|row| *row += 1);
            // All tokens of a span are of one sequence, at positions in a row.
            let [sequence, position] = places[first];
            assert!((0..tokens).all(|i| places[first + i] == [sequence, position + i as u32]));
            let last = position + ((end - 1) / group) as u32;
            assert!(last <= before);
            before = last;
        }
        assert!(rows.iter().all(|row| *row == 1), "{group}");
        // The last token of each turn that wants logits.
        let wanted = words[words.len() - 5..].iter().map(|&row| places[row as usize]);
        let ends = [0, 1, 3, 4, 5].map(|i| [2 * i, 10 * i + lengths[i as usize] as u32 - 1]);
        assert!(wanted.eq(ends));
    }
}

#[test]
fn attention_of_many_sequences_has_the_bits_of_each_alone() {
    let Some(gpu) = Gpu::for_test("attention of many sequences") else {
        return;
    };
    let mut random = Random::seeded("attention of many sequences");
    // Heads, key heads, head_dim, sequences, context, rounds.
    let mut shapes = vec![(4, 1, 16, 3, 150, 8), (3, 3, 20, 4, 60, 6), (10, 2, 32, 2, 270, 6)];
    if !small(&gpu) {
        shapes.extend([
            (20, 5, 128, 40, 1100, 12),
            (12, 12, 64, 70, 700, 12),
            (64, 2, 128, 9, 400, 12),
        ]);
    }
    for (heads, kv, dim, sequences, context, rounds) in shapes {
        for kind in [KvKind::F32, KvKind::F16, KvKind::Int8] {
            let norms = [random.floats(dim), random.floats(dim)].map(|w| gpu.upload(&w).unwrap());
            let norms = random.next().is_multiple_of(2).then_some(norms.each_ref());
            let many = KvCache::many(&gpu, kind, 2, kv, dim, context, sequences).unwrap();
            let ones: Vec<KvCache> = (0..sequences)
                .map(|_| KvCache::new(&gpu, kind, 2, kv, dim, context).unwrap())
                .collect();
            assert_eq!((many.sequences(), ones[0].sequences()), (sequences, 1));
            let (table, _) = rotation(&gpu, dim, many.context());
            let attention = Attention::new(&gpu, heads, 1e-5, sequences, table, &many).unwrap();
            let (width, out_width) = ((heads + 2 * kv) * dim, heads * dim);
            let mut held = vec![0; sequences];
            for round in 0..rounds {
                let ids = vec![0; context];
                let mut turns = Vec::new();
                for sequence in 0..sequences {
                    // Half of the sequences are far on from the first round on.
                    let count = match round == 0 && sequence % 2 == 0 {
                        true => context - 20,
                        false => [1, 1, 0, 2 + random.next() as usize % 9][(random.next() % 4) as usize],
                    };
                    let count = count.min(context - held[sequence]);
                    if count > 0 {
                        turns.push(BatchTurn {
                            sequence,
                            first: held[sequence],
                            ids: &ids[..count],
                            logits: false,
                        });
                    }
                }
                if turns.is_empty() {
                    continue;
                }
                let (layout, words) = Layout::of(&turns, heads / kv);
                let (_, places, _) = layout.split(&gpu.upload(&words).unwrap());
                let qkv = random.floats(layout.tokens * width);
                let (x, out) = (
                    gpu.upload(&qkv).unwrap(),
                    gpu.poisoned::<f32>(layout.tokens * out_width).unwrap(),
                );
                attend_batch(&gpu, &attention, &many, 1, &x, norms, &places, &out).unwrap();
                let found = gpu.download(&out).unwrap();
                // In the order of the pass: spans, then single tokens.
                let (spans, singles): (Vec<&BatchTurn<'_>>, Vec<&BatchTurn<'_>>) =
                    turns.iter().partition(|turn| turn.ids.len() > 1);
                let mut at = 0;
                for turn in spans.into_iter().chain(singles) {
                    let tokens = turn.ids.len();
                    let place = gpu.upload(&[turn.first as u32]).unwrap();
                    let x = gpu.upload(&qkv[at * width..(at + tokens) * width]).unwrap();
                    let out = gpu.poisoned::<f32>(tokens * out_width).unwrap();
                    let cache = &ones[turn.sequence];
                    match tokens {
                        1 => attend(&gpu, &attention, cache, 1, &x, norms, &place, &out).unwrap(),
                        _ => attend_many(&gpu, &attention, cache, 1, &x, norms, &place, &out).unwrap(),
                    }
                    let want = bits(&gpu.download(&out).unwrap());
                    let found = bits(&found[at * out_width..(at + tokens) * out_width]);
                    let what = format!(
                        "{heads}/{kv} x {dim} {kind:?}, sequence {}, {tokens} from {}",
                        turn.sequence, turn.first
                    );
                    assert!(found == want, "{what}");
                    at += tokens;
                    held[turn.sequence] += tokens;
                }
            }
            assert!(held.iter().any(|held| *held > context / 2), "{held:?}");
            let ones: Vec<_> = ones.iter().flat_map(KvCache::heads).collect();
            let same = |many: &KvCache| {
                many.heads()
                    .zip(&ones)
                    .all(|(a, b)| (a.iter().zip(b)).all(|(a, b)| gpu.download(a).unwrap() == gpu.download(b).unwrap()))
            };
            assert!(same(&many), "{kind:?} cache");
            // A sequence over another: as many panels as were asked for, and no more.
            many.copy(&gpu, 0, 1, 64).unwrap();
            let heads: Vec<_> = many.heads().collect();
            let of = 2 * kv;
            for ((from, to), before) in heads[..of].iter().zip(&heads[of..2 * of]).zip(&ones[of..2 * of]) {
                for (part, bytes) in [64 * dim * kind.bytes(), 64 * dim * kind.bytes(), 256, 256]
                    .into_iter()
                    .enumerate()
                {
                    let [from, to, before] = [from, to, before].map(|head| gpu.download(&head[part]).unwrap());
                    let bytes = bytes.min(from.len());
                    assert_eq!(to[..bytes], from[..bytes]);
                    assert_eq!(to[bytes..], before[bytes..]);
                }
            }
        }
    }
}
