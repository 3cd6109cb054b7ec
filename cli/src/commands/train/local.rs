//! `onebit train --gpus N`: N ranks of this machine, each this program with a GPU of its own.

use std::net::TcpListener;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::ranks::SECRET;
use crate::{CliError, FAILED, Result, gpu, interrupt};

/// Set for ranks that this program starts, whose end it is if it ends.
pub(super) const PARENT: &str = "ONEBIT_STARTED_BY";

/// Between two looks at the ranks.
const PAUSE: Duration = Duration::from_millis(50);

/// How long ranks have to end once one has failed: by themselves, then after a signal.
struct Patience {
    by_themselves: Duration,
    after_a_signal: Duration,
}

const PATIENCE: Patience = Patience {
    by_themselves: Duration::from_secs(35),
    after_a_signal: Duration::from_secs(10),
};

/// Refuses more ranks than there are GPUs.
pub(super) fn check(ranks: usize, device: Option<&str>) -> Result<()> {
    if let Some(device) = device.filter(|name| !matches!(*name, "auto" | "cuda")) {
        return Err(CliError::Usage(format!(
            "--gpus takes the first GPUs, and --device {device} says otherwise; leave one of them out"
        )));
    }
    match gpu::count() {
        found if ranks > found => Err(CliError::Failed(format!(
            "--gpus: {ranks} ranks need {ranks} GPUs, and this machine has {found}; ask for no more than there are"
        ))),
        _ => Ok(()),
    }
}

/// Starts the command that this process was called with as `ranks` ranks, and ends when they have.
pub(super) fn run(ranks: usize) -> Result<()> {
    let failed = |what: &str, e: &dyn std::fmt::Display| CliError::Failed(format!("--gpus: {what}: {e}"));
    let program = std::env::current_exe().map_err(|e| failed("this program is not found", &e))?;
    let arguments = without_gpus(std::env::args().skip(1));
    // Free now; whoever takes it meanwhile is named by rank 0.
    let port = TcpListener::bind(("127.0.0.1", 0)).and_then(|listener| listener.local_addr());
    let port = port.map_err(|e| failed("no port is free", &e))?.port();
    let secret = onebit_trainer::parallel::rendezvous::random_secret().map_err(|e| failed("no secret", &e))?;
    let mut started = Started(Vec::with_capacity(ranks));
    for rank in 0..ranks {
        let child = Command::new(&program)
            .args(&arguments)
            .env("RANK", rank.to_string())
            .env("LOCAL_RANK", rank.to_string())
            .env("WORLD_SIZE", ranks.to_string())
            .env("MASTER_ADDR", "127.0.0.1")
            .env("MASTER_PORT", port.to_string())
            .env(SECRET, &secret)
            .env(PARENT, std::process::id().to_string())
            .env_remove("TORCHELASTIC_USE_AGENT_STORE")
            .stdin(Stdio::null())
            .spawn();
        started
            .0
            .push(child.map_err(|e| failed("a rank could not be started", &e))?);
    }
    supervise(&mut started.0, interrupt::poll(), &PATIENCE)
}

/// Ranks that were started, none of which outlives this process where it ends in order.
struct Started(Vec<Child>);

impl Drop for Started {
    fn drop(&mut self) {
        for child in &mut self.0 {
            // Those that have ended are not there any more.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// In a rank that was started so: the end of the one that started it is a request to stop.
pub(super) fn stop_with_parent() {
    if std::env::var_os(PARENT).is_some() {
        // Where it cannot be had, ranks go on.
        #[cfg(target_os = "linux")]
        let _ = rustix::process::set_parent_process_death_signal(Some(Signal::TERM));
    }
}

/// The arguments but for `--gpus` and its number.
fn without_gpus(arguments: impl Iterator<Item = String>) -> Vec<String> {
    let mut kept = Vec::new();
    let mut arguments = arguments.peekable();
    while let Some(argument) = arguments.next() {
        if argument == "--gpus" {
            arguments.next();
        } else if !argument.starts_with("--gpus=") {
            kept.push(argument);
        }
    }
    kept
}

/// Waits for all `ranks`. Hands requests to stop on; ends all once one has failed. The first that failed says how the command ends.
fn supervise(ranks: &mut [Child], stop: &AtomicBool, patience: &Patience) -> Result<()> {
    let mut ends: Vec<Option<ExitStatus>> = vec![None; ranks.len()];
    let mut first: Option<(usize, ExitStatus, Instant)> = None;
    let (mut told, mut urged) = (false, false);
    while ends.iter().any(Option::is_none) {
        for (rank, (child, end)) in ranks.iter_mut().zip(&mut ends).enumerate() {
            if end.is_some() {
                continue;
            }
            *end = child
                .try_wait()
                .map_err(|e| CliError::Failed(format!("rank {rank} cannot be waited for: {e}")))?;
            if let Some(status) = end.filter(|status| !status.success()) {
                first.get_or_insert((rank, status, Instant::now()));
            }
        }
        let mut at_work = ranks
            .iter_mut()
            .zip(&ends)
            .filter(|(_, end)| end.is_none())
            .map(|(c, _)| c);
        if stop.load(Ordering::Relaxed) && !told {
            told = true;
            at_work.by_ref().for_each(|child| signal(child, Signal::INT));
        } else if let Some((.., since)) = first {
            if since.elapsed() > patience.by_themselves + patience.after_a_signal {
                at_work.by_ref().for_each(|child| drop(child.kill()));
            } else if since.elapsed() > patience.by_themselves && !urged {
                urged = true;
                at_work.by_ref().for_each(|child| signal(child, Signal::TERM));
            }
        }
        std::thread::sleep(PAUSE);
    }
    match first {
        None => Ok(()),
        Some((rank, status, _)) => Err(match status.code() {
            // It has said why.
            Some(code) => CliError::Ended(u8::try_from(code).unwrap_or(FAILED)),
            None => CliError::Failed(format!(
                "rank {rank} was ended from outside ({status}); look for what ended it (out of memory?), then go on with --resume"
            )),
        }),
    }
}

fn signal(child: &Child, signal: Signal) {
    if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        // One that has just ended does not hear it.
        let _ = kill_process(pid, signal);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranks(scripts: &[&str]) -> Started {
        let start = |script: &&str| {
            Command::new("sh")
                .args(["-c", script])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap()
        };
        Started(scripts.iter().map(start).collect())
    }

    const SHORT: Patience = Patience {
        by_themselves: Duration::from_millis(300),
        after_a_signal: Duration::from_millis(300),
    };

    fn ended(scripts: &[&str]) -> Result<()> {
        supervise(&mut ranks(scripts).0, &AtomicBool::new(false), &SHORT)
    }

    #[test]
    fn the_first_that_failed_says_how_the_command_ends() {
        ended(&["exit 0", "exit 0"]).unwrap();
        assert!(matches!(
            ended(&["sleep 0.2; exit 1", "exit 7", "exit 0"]),
            Err(CliError::Ended(7))
        ));
        assert!(matches!(ended(&["exit 130", "exit 130"]), Err(CliError::Ended(130))));
        // Ranks that hang: one ends by a signal, one only by force.
        let began = Instant::now();
        assert!(matches!(
            ended(&["exec sleep 600", "trap '' TERM; while :; do sleep 1; done", "exit 3"]),
            Err(CliError::Ended(3))
        ));
        assert!(began.elapsed() < Duration::from_secs(300));
        match ended(&["kill -9 $$", "exec sleep 600"]) {
            Err(CliError::Failed(why)) => assert!(why.contains("rank 0") && why.contains("--resume"), "{why}"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_request_to_stop_is_handed_on() {
        // Each says that it is ready by the trap that it sets before it waits.
        let dir = tempfile::tempdir().unwrap();
        let script = |rank: u32| {
            let ready = dir.path().join(rank.to_string());
            format!(
                "trap 'exit 130' INT; touch {}; while :; do sleep 0.05; done",
                ready.display()
            )
        };
        let (one, two) = (script(0), script(1));
        let mut started = ranks(&[&one, &two]);
        while !(dir.path().join("0").exists() && dir.path().join("1").exists()) {
            std::thread::sleep(PAUSE);
        }
        let stop = AtomicBool::new(true);
        assert!(matches!(
            supervise(&mut started.0, &stop, &SHORT),
            Err(CliError::Ended(130))
        ));
    }

    #[test]
    fn ranks_are_called_without_the_option_that_started_them() {
        let given = ["train", "--gpus", "2", "--lr", "1", "--gpus=4", "--data", "x"].map(String::from);
        assert_eq!(without_gpus(given.into_iter()), ["train", "--lr", "1", "--data", "x"]);
    }

    #[test]
    fn more_ranks_than_gpus_are_refused() {
        let said = check(1 + gpu::count(), None).unwrap_err().to_string();
        assert!(said.contains("this machine has"), "{said}");
        let said = check(2, Some("cpu")).unwrap_err().to_string();
        assert!(said.contains("--device cpu"), "{said}");
    }
}
