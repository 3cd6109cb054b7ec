//! Training by several processes: where this one stands among them, how it meets the others, and how it ends with them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use onebit_trainer::TrainError;
use onebit_trainer::parallel::launch::{self, Launcher, Place};
use onebit_trainer::parallel::rendezvous::{self, Secret, Settings};
use onebit_trainer::parallel::{ParallelError, World};

use super::{Train, local};
use crate::{CliError, FAILED, INTERRUPTED, Result, args, gpu, output};

/// The secret that ranks share, where no file has it.
pub(super) const SECRET: &str = "ONEBIT_SECRET";
/// How long ranks wait for one another, unless it is said.
const TIMEOUT: u64 = 600;
/// How long the run has to end by itself once a rank is lost; it may hang in a sum that never comes.
const GRACE: Duration = Duration::from_secs(15);

/// This process as one of the ranks of its run.
#[derive(Clone, Debug)]
pub(in crate::commands) struct Ranks {
    pub world: World,
    /// The device that it takes, if the world decides.
    pub device: Option<String>,
}

impl Ranks {
    /// One process, on whatever device it is told.
    pub fn single() -> Self {
        Ranks {
            world: World::single(),
            device: None,
        }
    }
}

/// What a command line and a launcher make of this process.
pub(super) enum Part {
    /// It trains alone.
    Single,
    /// It starts so many ranks on the GPUs of this machine.
    Starts(usize),
    /// It is one of several.
    Rank(Place),
}

/// This command's ranks on GPUs, for what is no run: it starts `gpus` of itself, or takes the place that it was started for. None once those that it started have ended.
pub(in crate::commands) fn ranks_on_gpus(gpus: Option<usize>, device: Option<&str>) -> Result<Option<Ranks>> {
    let place = launch::place(|name| std::env::var(name).ok()).map_err(TrainError::from)?;
    match (gpus, place) {
        (Some(0), _) => Err(CliError::Usage("--gpus: expected at least 1, found 0".into())),
        (_, Some(place)) if place.size > 1 => {
            local::stop_with_parent();
            output::speak_as(place.rank);
            let secret = std::env::var(SECRET).ok().as_deref().and_then(Secret::new);
            let link = rendezvous::join(
                &place,
                &Settings {
                    secret,
                    ..Settings::default()
                },
            )?;
            Ok(Some(Ranks {
                world: World::new((place.rank, place.local_rank, place.size), link, None),
                device: Some(format!("cuda:{}", place.local_rank)),
            }))
        }
        (Some(n), _) if n > 1 => {
            local::check(n, device)?;
            local::run(n).map(|()| None)
        }
        _ => Ok(Some(Ranks::single())),
    }
}

impl Train {
    /// What this process is to do.
    pub(super) fn part(&self) -> Result<Part> {
        let place = launch::place(|name| std::env::var(name).ok()).map_err(TrainError::from)?;
        let part = match (self.gpus, place) {
            (Some(0), _) => return Err(CliError::Usage("--gpus: expected at least 1, found 0".into())),
            (Some(_), Some(place)) if place.size > 1 => {
                return Err(CliError::Usage(format!(
                    "--gpus starts ranks, and {} has started this one; leave it out",
                    launcher(place.launcher)
                )));
            }
            (Some(n), _) if n > 1 => Part::Starts(n),
            (_, Some(place)) if place.size > 1 => Part::Rank(place),
            _ => Part::Single,
        };
        match (&part, self.shard.as_deref()) {
            (Part::Single, Some(shard)) if shard != "none" => Err(CliError::Usage(
                "--shard divides among ranks, and there is one; give --gpus, or leave it out".into(),
            )),
            _ => Ok(part),
        }
    }

    /// Meets the other ranks.
    pub(super) fn meet(&self, place: &Place) -> Result<Ranks> {
        let ordinal = self.gpu_of(place)?;
        let (rank, size) = (place.rank, place.size);
        output::speak_as(rank);
        let (link, collective, device) = match ordinal {
            Some(ordinal) => {
                let link = rendezvous::join(place, &self.settings()?)?;
                (link, None, format!("cuda:{ordinal}"))
            }
            None => {
                let (link, collective) = cpu_ranks(place)?;
                (link, Some(collective), "cpu".to_string())
            }
        };
        output::note(&format!("ranks: {size}"));
        Ok(Ranks {
            world: World::new((rank, place.local_rank, size), link, collective),
            device: Some(device),
        })
    }

    /// The GPU that a rank takes: that of its number on its machine. None: the CPU.
    fn gpu_of(&self, place: &Place) -> Result<Option<usize>> {
        let name = self.device.as_deref().unwrap_or("auto");
        let count = gpu::count();
        match name {
            "cpu" => return Ok(None),
            "auto" if count == 0 => return Ok(None),
            "auto" | "cuda" => {}
            other => {
                return Err(CliError::Usage(format!(
                    "--device: each rank takes the GPU of its number on its machine, and {other:?} says otherwise; give cuda, cpu or nothing"
                )));
            }
        }
        // Where a launcher shows each rank one GPU, it is the first.
        let alone = std::env::var("CUDA_VISIBLE_DEVICES").is_ok_and(|list| !list.is_empty() && !list.contains(','));
        match place.local_rank {
            _ if count == 1 && alone => Ok(Some(0)),
            local if local < count => Ok(Some(local)),
            local => Err(CliError::Failed(format!(
                "rank {} is number {local} on its machine, which has {count} GPUs; start as many ranks a machine as it has GPUs",
                place.rank
            ))),
        }
    }

    fn settings(&self) -> Result<Settings> {
        let timeout = match self.rendezvous_timeout {
            Some(0) => {
                return Err(CliError::Usage(
                    "--rendezvous-timeout: expected at least 1, found 0".into(),
                ));
            }
            given => Duration::from_secs(given.unwrap_or(TIMEOUT)),
        };
        let secret = match &self.secret_file {
            Some(path) => {
                args::existing_file(path, "--secret-file")?;
                let text = std::fs::read_to_string(path)
                    .map_err(|e| CliError::io(path, "read", &e, "give a file of text that may be read"))?;
                let empty = || {
                    CliError::Failed(format!(
                        "--secret-file: {} is empty; put a random text there",
                        path.display()
                    ))
                };
                Some(Secret::new(&text).ok_or_else(empty)?)
            }
            None => std::env::var(SECRET).ok().as_deref().and_then(Secret::new),
        };
        Ok(Settings {
            secret,
            timeout,
            version: crate::version::VERSION.into(),
            ..Settings::default()
        })
    }

    /// Runs `work` as one of `ranks`, and ends as the others do: all in good order, or all because one failed.
    pub(super) fn together<T>(&self, ranks: &Ranks, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let link = ranks.world.link();
        let directory = self.output_dir.clone();
        link.on_loss(Box::new(move |error| end_soon(error.clone(), directory)));
        match work() {
            // Interrupted is what all are, after the same step. It is said before all leave: a launcher ends the others as soon as one has ended with a status.
            Err(CliError::Interrupted(why)) => {
                output::note(&args::one_line(&why));
                link.finish()?;
                Err(CliError::Ended(INTERRUPTED))
            }
            Err(CliError::Train(TrainError::Parallel(error))) => {
                link.fail(&error.to_string());
                Err(lost(&error, self.output_dir.as_deref()))
            }
            Err(error) => {
                link.fail(&args::one_line(&error.to_string()));
                Err(error)
            }
            Ok(done) => {
                link.finish()?;
                Ok(done)
            }
        }
    }
}

/// How ranks on CPUs talk and sum.
#[cfg(feature = "mpi")]
fn cpu_ranks(place: &Place) -> Result<Sums> {
    let mpi = Arc::new(onebit_trainer::parallel::mpi::Mpi::start()?);
    if (mpi.rank(), mpi.size()) != (place.rank, place.size) {
        return Err(CliError::Failed(format!(
            "MPI says that this is rank {} of {}, and {} that it is rank {} of {}; start ranks on CPUs by mpirun, or by srun --mpi=pmix",
            mpi.rank(),
            mpi.size(),
            launcher(place.launcher),
            place.rank,
            place.size
        )));
    }
    Ok((mpi.clone(), mpi))
}

#[cfg(not(feature = "mpi"))]
fn cpu_ranks(place: &Place) -> Result<Sums> {
    Err(CliError::Failed(format!(
        "this is rank {} of {} on a CPU, and this build has no MPI; build it with `cargo build -p onebit-cli --features mpi`, or give --device cuda",
        place.rank, place.size
    )))
}

type Sums = (
    Arc<dyn onebit_trainer::parallel::Link>,
    Arc<dyn onebit_trainer::parallel::Collective>,
);

fn launcher(launcher: Launcher) -> &'static str {
    match launcher {
        Launcher::Torchrun => "a launcher (RANK and WORLD_SIZE are set)",
        Launcher::OpenMpi => "mpirun",
        Launcher::Slurm => "srun",
    }
}

/// The error of a run that ended because another rank did.
fn lost(error: &ParallelError, directory: Option<&Path>) -> CliError {
    let is_loss = matches!(
        error,
        ParallelError::Lost { .. } | ParallelError::Failed { .. } | ParallelError::Silent { .. }
    );
    let newest = directory.and_then(newest_checkpoint).map(|(_, path)| path);
    CliError::Failed(match newest {
        Some(path) if is_loss => format!(
            "{error}; the newest checkpoint is {}; start again with --resume",
            path.display()
        ),
        _ => error.to_string(),
    })
}

/// Ends the process if it does not end by itself.
fn end_soon(error: ParallelError, directory: Option<PathBuf>) {
    let wait = move || {
        std::thread::sleep(GRACE);
        let error = lost(&error, directory.as_deref());
        output::alarm(&format!("error: {}", args::one_line(&error.to_string())));
        std::process::exit(i32::from(FAILED));
    };
    if std::thread::Builder::new().name("end".into()).spawn(wait).is_err() {
        std::process::exit(i32::from(FAILED));
    }
}

/// The step of a checkpoint, by its name.
pub(crate) fn checkpoint_step(path: &Path) -> Option<u64> {
    path.file_name()?.to_str()?.strip_prefix("step-")?.parse().ok()
}

/// The newest checkpoint of a run and its step: one that is there by its name is whole.
pub(crate) fn newest_checkpoint(directory: &Path) -> Option<(u64, PathBuf)> {
    let entries = std::fs::read_dir(directory.join("checkpoints")).ok()?;
    let found = entries.filter_map(|entry| {
        let path = entry.ok()?.path();
        Some((checkpoint_step(&path)?, path))
    });
    found.max()
}
