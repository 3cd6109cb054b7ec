//! What commands will use on this machine when they are not told, and why.

use onebit_kernels_cpu::Isa;
use serde::Serialize;

use super::gpu::{GpuReport, Gpus};

/// One thing that is chosen.
#[derive(Serialize)]
pub(super) struct Choice {
    /// `device`, `path` or `threads`.
    what: &'static str,
    chosen: String,
    why: String,
}

impl Choice {
    /// For people.
    pub fn line(&self) -> String {
        format!("{} {}: {}", self.what, self.chosen, self.why)
    }
}

/// The device of `--device auto`: the first GPU, if it can be used.
pub(super) fn device(gpus: &Gpus) -> Choice {
    let (chosen, why) = match gpus.all.first().map(GpuReport::usable) {
        Some(Ok(name)) => (
            name,
            "the first GPU; --device cpu or another cuda:N chooses otherwise".to_string(),
        ),
        Some(Err(why)) => ("cpu", format!("cuda:0 cannot be used: {why}")),
        None => ("cpu", gpus.note.clone().unwrap_or_else(|| "there is no GPU".into())),
    };
    Choice {
        what: "device",
        chosen: chosen.to_string(),
        why,
    }
}

/// The CPU path: the best, unless `ONEBIT_ISA` forces one.
pub(super) fn path(isa: Isa) -> Choice {
    let names: Vec<&str> = Isa::available().map(Isa::name).collect();
    let forced = std::env::var_os("ONEBIT_ISA").is_some_and(|name| !name.is_empty());
    let why = match (forced, names.as_slice()) {
        (true, _) => format!("ONEBIT_ISA forces it; the best here is {}", Isa::best().name()),
        (false, [_]) => "the only one of this CPU".to_string(),
        (false, names) => format!("the best of {}", names.join(", ")),
    };
    Choice {
        what: "path",
        chosen: isa.name().to_string(),
        why,
    }
}

/// Threads of the CPU.
pub(super) fn threads(threads: usize, given: bool) -> Choice {
    let why = if given {
        "--threads says so"
    } else {
        "one for each physical core"
    };
    Choice {
        what: "threads",
        chosen: threads.to_string(),
        why: why.to_string(),
    }
}
