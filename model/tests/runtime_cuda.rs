//! The GPU runtime against the CPU's: the same bits.

mod common;

use common::{bits, config, random_ids, random_model};
use onebit_kernels_cpu::Isa;
use onebit_kernels_cuda::Gpu;
use onebit_model::config::{FeedForward, ModelConfig};
use onebit_model::runtime::cuda::{CudaModel, CudaSession};
use onebit_model::runtime::{FloatStorage, KvType, Serial, Session, SessionOptions};

#[test]
fn logits_have_the_bits_of_the_cpu() {
    let gpu = match Gpu::open(0) {
        Ok(gpu) => gpu,
        Err(error) => return println!("SKIPPED (no GPU): {error}"),
    };
    let base = ModelConfig {
        max_position_embeddings: 40,
        head_dim: 16,
        ..config()
    };
    let plain = ModelConfig {
        feed_forward: FeedForward::Relu2,
        qk_norm: true,
        ..base.clone()
    };
    let silu = ModelConfig {
        feed_forward: FeedForward::SwiGlu,
        residual_scaling: true,
        ..base.clone()
    };
    let kinds = [
        (FloatStorage::F32, KvType::F32),
        (FloatStorage::F16, KvType::F16),
        (FloatStorage::Bf16, KvType::Int8),
    ];
    for (config, (storage, kv)) in [base, plain, silu].iter().zip(kinds) {
        let model = random_model(config, 5, storage);
        let on_gpu = CudaModel::new(&gpu, &model).unwrap();
        let options = SessionOptions {
            kv,
            logit_rows: 4,
            ..SessionOptions::new(40)
        };
        let mut cpu = Session::new(&model, Serial, Isa::best(), options).unwrap();
        let mut cuda = CudaSession::new(&on_gpu, 40, kv).unwrap();

        let ids = random_ids(config.vocab_size, 21, 3);
        let want = bits(cpu.prefill(&ids).unwrap());
        assert_eq!(bits(cuda.prefill(&ids).unwrap()), want, "{kv:?} prefill");
        for id in random_ids(config.vocab_size, 3, 4) {
            let want = bits(cpu.decode(id).unwrap());
            assert_eq!(bits(cuda.decode(id).unwrap()), want, "{kv:?} decode");
        }
        // Some again, with all their logits.
        (cpu.truncate(19), cuda.truncate(19));
        let mut rows = Vec::new();
        cpu.prefill_all(&ids[..5], |_, logits| rows.push(bits(logits))).unwrap();
        cuda.prefill_all(&ids[..5], |i, logits| assert_eq!(bits(logits), rows[i], "{kv:?} {i}"))
            .unwrap();
        // As many as fit, without the host.
        let (mut id, mut want) = (ids[7], Vec::new());
        for _ in 24..40 {
            let logits = cpu.decode(id).unwrap();
            id = (1..logits.len()).fold(0, |best, i| if logits[i] > logits[best] { i } else { best }) as u32;
            want.push(id);
        }
        assert_eq!(cuda.greedy(ids[7], 16).unwrap(), want, "{kv:?} greedy");
        assert!(cuda.decode(0).is_err() && cuda.position() == 40);
        cuda.reset();
        assert!(cuda.prefill(&[]).is_err());
        assert!(cuda.prefill(&[config.vocab_size as u32]).is_err());
        assert!(CudaSession::new(&on_gpu, 41, kv).is_err());
    }
}
