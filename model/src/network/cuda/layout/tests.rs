use super::*;
use crate::config::presets;

fn layout(config: &ModelConfig) -> Layout {
    Layout::new(config, &config.tensors()).unwrap()
}

#[test]
fn every_preset_has_a_layout_without_overlap() {
    for preset in presets::all() {
        let (config, specs) = (&preset.config, preset.config.tensors());
        let layout = layout(config);
        let mut ranges: Vec<_> = (0..specs.len()).map(|index| layout.range(index)).collect();
        for (spec, range) in specs.iter().zip(&ranges) {
            let is_matrix = matches!(spec.kind, TensorKind::Linear(_));
            assert_eq!((range.len(), range.start >= layout.matrices), (spec.len(), is_matrix));
        }
        ranges.sort_by_key(|range| range.start);
        assert!(
            ranges.windows(2).all(|pair| pair[0].end <= pair[1].start),
            "{}",
            preset.name
        );
        assert!(layout.len >= ranges[ranges.len() - 1].end);
        assert_eq!(layout.matrices + layout.codes, layout.len);
        for block in &layout.blocks {
            for group in Group::ALL {
                let group = block.group(group);
                assert_eq!(group.segments.iter().map(|s| s.rows.len()).sum::<usize>(), group.rows);
            }
            // Matrices lie in the arena of parameters as in that of codes.
            for matrix in &block.matrices {
                assert_eq!(layout.offsets[matrix.index], layout.matrices + matrix.codes);
            }
        }
        // Every element is in one bucket, and a block's are behind those of the blocks after it.
        let mut buckets = layout.buckets();
        let blocks: Vec<_> = buckets.iter().filter(|b| b.start >= layout.matrices).collect();
        assert!(blocks.windows(2).all(|pair| pair[0].start == pair[1].end));
        assert_eq!(blocks.len(), config.num_hidden_layers);
        buckets.sort_by_key(|bucket| bucket.start);
        assert_eq!((buckets[0].start, buckets[buckets.len() - 1].end), (0, layout.len));
        assert!(buckets.windows(2).all(|pair| pair[0].end == pair[1].start));
        assert_eq!(
            layout.codes,
            layout
                .blocks
                .iter()
                .flat_map(|b| &b.matrices)
                .map(|m| m.rows * m.cols)
                .sum::<usize>()
        );
    }
}

#[test]
fn a_group_of_mixed_modes_has_segments() {
    let mut config = presets::by_name("25m").unwrap().config;
    config.layer_modes[0].k = LinearMode::F16;
    config.layer_modes[0].v = LinearMode::Int8;
    let layout = layout(&config);
    let segments = &layout.blocks[0].group(Group::Qkv).segments;
    let found: Vec<_> = segments.iter().map(|s| (s.rows.clone(), s.form)).collect();
    let forms = [Form::Integers, Form::Full, Form::Integers];
    assert_eq!(
        found,
        [(0..512, forms[0]), (512..1024, forms[1]), (1024..1536, forms[2])]
    );
    assert_eq!(layout.blocks[1].group(Group::Qkv).segments.len(), 1);
}

/// Tables that are not quantised cost nothing; int4 has a scale for each 32 columns.
#[test]
fn scales_are_as_many_as_modes_ask_for() {
    let of = |change: &dyn Fn(&mut ModelConfig)| {
        let mut config = presets::by_name("25m").unwrap().config;
        change(&mut config);
        layout(&config)
    };
    let plain = of(&|_| ());
    let config = presets::by_name("25m").unwrap().config;
    let rows = |layout: &Layout| -> usize { layout.blocks.iter().flat_map(|b| &b.matrices).map(|m| m.rows).sum() };
    assert_eq!(plain.scales, rows(&plain));
    let int4 = of(&|c| c.layer_modes[0].down = LinearMode::Int4);
    let groups = config.hidden_size * config.intermediate_size.div_ceil(32);
    assert_eq!(int4.scales, plain.scales - config.hidden_size + groups);
    let tied = of(&|c| {
        c.tie_word_embeddings = true;
        (c.embedding_mode, c.head_mode) = (LinearMode::Int4, LinearMode::Int4);
    });
    let groups = config.vocab_size * config.hidden_size.div_ceil(32);
    assert_eq!(tied.scales, plain.scales + groups);
    assert_eq!(tied.table_scales, [plain.scales; 2]);
    let two = of(&|c| {
        c.tie_word_embeddings = false;
        (c.embedding_mode, c.head_mode) = (LinearMode::Ternary, LinearMode::Int4);
    });
    assert_eq!(two.scales, plain.scales + groups + config.vocab_size);
    assert_eq!(two.table_scales, [plain.scales, plain.scales + groups]);
}

#[test]
fn decay_is_by_parameter() {
    let config = presets::by_name("25m").unwrap().config;
    let specs = config.tensors();
    let layout = layout(&config);
    let table = layout.decayed(&specs, |kind| matches!(kind, TensorKind::Linear(_)));
    let decayed: usize = table.iter().map(|&d| usize::from(d)).sum();
    assert_eq!(decayed * ALIGNMENT, layout.codes);
}

#[test]
fn widths_without_a_kernel_are_refused() {
    let mut config = presets::by_name("25m").unwrap().config;
    config.intermediate_size = 1401;
    let refused = Layout::new(&config, &config.tensors()).unwrap_err();
    assert!(refused.to_string().contains("intermediate_size"), "{refused}");
}
