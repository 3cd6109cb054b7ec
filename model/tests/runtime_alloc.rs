//! A session takes its memory when it opens and none afterwards.

mod common;
#[path = "common/counting.rs"]
mod counting;

use common::{every_option, random_ids, random_model};
use counting::asked;
use onebit_kernels_cpu::Isa;
use onebit_kernels_cpu::int4_gemv::{self, InputBlock};
use onebit_model::runtime::{FloatStorage, KvType, Serial, Session, SessionOptions};

#[test]
fn no_allocation_after_the_session_opens() {
    let kinds = KvType::ALL.map(|kv| (kv, FloatStorage::Stored));
    for ((kv, storage), (name, config)) in kinds
        .into_iter()
        .chain([(KvType::F32, FloatStorage::Int4)])
        .flat_map(|kind| every_option().into_iter().map(move |option| (kind, option)))
    {
        let model = random_model(&config, 1, storage);
        let ids = random_ids(config.vocab_size, 40, 2);
        let options = SessionOptions {
            context: 48,
            chunk: 16,
            logit_rows: 4,
            kv,
        };
        let needed = options.memory_bytes(&config, &Serial).unwrap();
        let (session, _, taken) = asked(|| Session::new(&model, Serial, Isa::best(), options));
        let mut session = session.unwrap();
        // The input of an int4 head is not announced: it depends on the weights.
        let rounded = if model.head().values.type_name() == "int4" {
            options.logit_rows * int4_gemv::blocks(config.hidden_size) * size_of::<InputBlock>()
        } else {
            0
        };
        let needed = needed + rounded;
        // What the sum leaves out is the lists of buffers: a few words for each key head and layer.
        let lists = 128 * config.num_hidden_layers * config.num_key_value_heads + 256;
        assert!(
            (needed..needed + lists).contains(&taken),
            "{name}: {taken} taken, {needed} announced"
        );

        let ((), allocations, _) = asked(|| {
            session.prefill(&ids).unwrap();
            for &id in &ids[..8] {
                session.decode(id).unwrap();
            }
            session.decode(0).unwrap_err();
            session.truncate(3);
            session.prefill_all(&ids, |_, _| ()).unwrap();
        });
        assert_eq!(allocations, 0, "{name}");
    }
}
