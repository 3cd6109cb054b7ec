use super::*;

#[test]
fn weight_decay_ends_where_it_is_told() {
    let at = |until, step| {
        let options = TrainOptions {
            weight_decay: 0.3,
            weight_decay_until: until,
            ..TrainOptions::default()
        };
        options.weight_decay_at(step, 10)
    };
    assert_eq!([0, 4, 5, 9].map(|step| at(0.5, step)), [0.3, 0.3, 0.0, 0.0]);
    assert_eq!([at(1.0, 9), at(0.0, 0)], [0.3, 0.0]);
}

#[test]
fn every_rate_of_dropout_has_its_option() {
    let options = TrainOptions {
        word_dropout: 0.1,
        input_dropout: Some(0.2),
        attention_dropout: 0.3,
        dropout: 0.4,
        output_dropout: 0.5,
        stochastic_depth: 0.6,
        ..TrainOptions::default()
    };
    let rates = DropoutRates {
        word: 0.1,
        input: 0.2,
        attention: 0.3,
        hidden: 0.4,
        output: 0.5,
        depth: 0.6,
    };
    assert_eq!(options.dropout_rates(), rates);
    let none = TrainOptions::default();
    assert!(!none.dropout_rates().any() && !none.same_run(&options));
    // The options of a run from before there was one are those without it.
    let mut older = serde_json::to_value(&none).unwrap();
    older.as_object_mut().unwrap().remove("attention_dropout").unwrap();
    assert_eq!(serde_json::from_value::<TrainOptions>(older).unwrap(), none);
}

#[test]
fn steps_come_from_whichever_limit_is_reached_first() {
    let options = TrainOptions {
        batch_size: 4,
        accumulation_steps: 2,
        max_steps: 10,
        ..Default::default()
    };
    assert_eq!(options.total_steps(100), 10);
    assert_eq!(
        TrainOptions {
            max_epochs: 1,
            ..options.clone()
        }
        .total_steps(33),
        5
    );
    assert_eq!(
        TrainOptions {
            max_epochs: 3,
            max_steps: 0,
            ..options.clone()
        }
        .total_steps(33),
        13
    );
    assert_eq!(options.tokens_per_step(), 8 * 128);
}

#[test]
fn senseless_options_are_refused_by_name() {
    let check = |change: fn(&mut TrainOptions), name: &str| {
        let mut options = TrainOptions::default();
        options.validate().unwrap();
        change(&mut options);
        let message = options.validate().unwrap_err().to_string();
        assert!(message.starts_with(&format!("--{name}: ")), "{message}");
    };
    check(|o| o.batch_size = 0, "batch-size");
    check(|o| o.lr = f32::NAN, "lr");
    check(|o| o.lr_min = 1.0, "lr-min");
    check(|o| o.dropout = 1.0, "dropout");
    check(|o| o.input_dropout = Some(-0.1), "input-dropout");
    check(|o| o.attention_dropout = 1.0, "attention-dropout");
    check(|o| o.attention_dropout = -0.1, "attention-dropout");
    check(|o| o.output_dropout = 1.0, "output-dropout");
    check(|o| o.word_dropout = f32::NAN, "word-dropout");
    check(|o| o.stochastic_depth = 1.5, "stochastic-depth");
    check(|o| o.z_loss = 0.5, "z-loss");
    check(|o| o.teacher_weight = 1.1, "teacher-weight");
    check(|o| o.weight_decay_until = 1.1, "weight-decay-until");
    check(|o| o.max_steps = 0, "max-steps");
    check(|o| o.grad_clip_max_norm = -1.0, "grad-clip-max-norm");
    check(|o| o.gradients = Precision::Auto, "gradients");
    let bf16 = |change: fn(&mut TrainOptions)| {
        let mut options = TrainOptions {
            gradients: Precision::Bf16,
            optimizer: OptimizerKind::AdamW8bit,
            ..Default::default()
        };
        options.validate().unwrap();
        options.validate_device(true).unwrap();
        assert!(options.validate_device(false).is_err());
        change(&mut options);
        options.validate().unwrap_err().to_string()
    };
    assert!(bf16(|o| o.accumulation_steps = 2).contains("--accumulation-steps 1"));
    assert!(bf16(|o| o.optimizer = OptimizerKind::Muon).contains("adamw8bit"));
}
