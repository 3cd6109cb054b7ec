//! Runs that learn what others find likely.

use super::*;

#[test]
fn a_run_is_resumed_with_its_teachers() {
    let dir = tempfile::tempdir().unwrap();
    let options = TrainOptions {
        teacher_weight: 0.5,
        max_steps: 12,
        quant_warmup_steps: 4,
        quant_anneal_steps: 4,
        ..options()
    };
    let taught = |name: &str| RunInputs {
        teachers: teachers(),
        ..inputs(dir.path(), name, options.clone())
    };
    let to = |inputs: RunInputs, stop_at: u64, resume: bool| {
        let mut trainer = Trainer::new(inputs, resume, &mut |_| ())?;
        let stop = AtomicBool::new(false);
        trainer.run(&stop, &mut |event| {
            if let Event::Step(m) = event
                && m.step == stop_at
            {
                stop.store(true, std::sync::atomic::Ordering::Relaxed);
            }
        })
    };
    to(taught("whole"), 0, false).unwrap();
    to(taught("parted"), 7, false).unwrap();
    // Not with others, and not with none.
    let mut other = taught("parted");
    other.teachers.swap(0, 1);
    assert!(
        to(other, 0, true)
            .unwrap_err()
            .to_string()
            .contains("other training options")
    );
    let none = RunInputs {
        teachers: Vec::new(),
        ..taught("parted")
    };
    assert!(to(none, 0, true).unwrap_err().to_string().contains("teacher"));
    to(taught("parted"), 0, true).unwrap();
    let bytes = |name: &str| std::fs::read(dir.path().join(name).join("model.safetensors")).unwrap();
    assert_eq!(bytes("whole"), bytes("parted"));
    // Teachers make a difference, and must fit.
    let alone = TrainOptions {
        teacher_weight: 0.0,
        ..options.clone()
    };
    to(inputs(dir.path(), "alone", alone), 0, false).unwrap();
    assert_ne!(bytes("whole"), bytes("alone"));
    let mut wide = config();
    wide.vocab_size += 1;
    let strange = RunInputs {
        teachers: vec![Network::new(wide, Device::cpu().unwrap(), 1).unwrap()],
        ..taught("strange")
    };
    assert!(to(strange, 0, false).unwrap_err().to_string().contains("tokenizer"));
}
