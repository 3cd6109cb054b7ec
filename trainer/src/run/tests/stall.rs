//! What a save costs the training that goes on meanwhile.

use std::time::Instant;

use super::*;

/// Run by `cargo test --release -p onebit-trainer --lib -- --ignored --nocapture bench_save`. With `ONEBIT_BENCH_DEVICE=cuda` on the first GPU.
#[test]
#[ignore = "a bench"]
fn bench_save_stall() {
    let gpu = std::env::var("ONEBIT_BENCH_DEVICE").is_ok_and(|device| device == "cuda");
    let gpu = gpu.then(|| Gpu::open(0).expect("a GPU"));
    let preset = presets::by_name("wikitext2-production").unwrap();
    // The state of that model. On the CPU steps of fewer tokens, which hide less of a save. A save has to be written before the next begins, or that one waits for it: a GPU needs
    // many steps meanwhile.
    let (batch_size, seq_len, save_every) = match &gpu {
        Some(_) => (preset.training.batch_size, preset.training.seq_len, 1000),
        None => (1, 64, 10),
    };
    let dir = tempfile::tempdir().unwrap();
    let options = TrainOptions {
        batch_size,
        seq_len,
        accumulation_steps: 1,
        max_steps: 4 * save_every + 1,
        quant_warmup_steps: 0,
        quant_anneal_steps: 0,
        save_every,
        eval_every: 0,
        log_every: 10 * save_every,
        keep: 1,
        ..TrainOptions::default()
    };
    let inputs = RunInputs {
        network: Network::new(preset.config, Device::cpu().unwrap(), 1).unwrap(),
        teachers: Vec::new(),
        train: tokens(dir.path(), "train.tokens", 2 * batch_size * seq_len + 100).into(),
        validation: None,
        tokenizer: Vec::new(),
        generation: GenerationConfig::default(),
        options,
        output_dir: dir.path().join("run"),
        gpu,
        world: World::single(),
    };
    let mut trainer = Trainer::new(inputs, false, &mut |_| ()).unwrap();
    let (mut last, mut times) = (Instant::now(), Vec::new());
    trainer
        .run(&AtomicBool::new(false), &mut |event| {
            if let Event::Step(m) = event {
                times.push((m.step, last.elapsed().as_secs_f64()));
                last = Instant::now();
            }
        })
        .unwrap();
    let of = |behind: bool| {
        let steps = times
            .iter()
            .filter(|(step, _)| *step > 3 && (*step % save_every == 1) == behind);
        let mut seconds: Vec<f64> = steps.map(|(_, seconds)| *seconds).collect();
        seconds.sort_by(f64::total_cmp);
        (seconds[seconds.len() / 2], seconds[seconds.len() - 1])
    };
    // The step behind a save bears what the save holds up, and, on the CPU, the copy of what the writer still reads.
    let ((plain, _), (after, worst)) = (of(false), of(true));
    println!(
        "a step {:.1} ms, the one behind a save {:.1} ms (at most {:.1}): {:.1} ms more",
        1e3 * plain,
        1e3 * after,
        1e3 * worst,
        1e3 * (after - plain)
    );
}
