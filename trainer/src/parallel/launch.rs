//! Where a process stands among the ranks of its run, by the variables that launchers set.
//!
//! | launcher | rank, local rank, size | where rank 0 listens |
//! |---|---|---|
//! | `torchrun`, `onebit train --gpus` | `RANK`, `LOCAL_RANK`, `WORLD_SIZE` | `MASTER_ADDR`, `MASTER_PORT` |
//! | OpenMPI (`mpirun`) | `OMPI_COMM_WORLD_RANK`, `_LOCAL_RANK`, `_SIZE` | `MASTER_ADDR` or, where all ranks are on one machine, 127.0.0.1; `MASTER_PORT` or 29500 |
//! | SLURM (`srun`) | `SLURM_PROCID`, `SLURM_LOCALID`, `SLURM_STEP_NUM_TASKS` or `SLURM_NTASKS` | `MASTER_ADDR` or the first host of `SLURM_STEP_NODELIST` or `SLURM_JOB_NODELIST`; `MASTER_PORT` or 20000 and the last four digits of `SLURM_JOB_ID` |
//!
//! The first launcher in this table of which there is a variable is the one. `torchrun` listens on `MASTER_PORT` itself where it sets
//! `TORCHELASTIC_USE_AGENT_STORE=True`; ranks then meet at the next port. SLURM sets its variables in a shell of `salloc`, too: one task is no world.

use super::ParallelError;

/// A place in a world.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Which rank, from 0.
    pub rank: usize,
    /// Which rank of its machine, from 0.
    pub local_rank: usize,
    /// Ranks.
    pub size: usize,
    /// Who said so.
    pub launcher: Launcher,
    /// The host on which rank 0 listens, if it is known.
    pub host: Option<String>,
    /// Its port.
    pub port: u16,
}

/// What started the ranks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Launcher {
    /// `torchrun`, or this program.
    Torchrun,
    /// `mpirun` of OpenMPI.
    OpenMpi,
    /// `srun`.
    Slurm,
}

/// No world has more ranks.
pub const MOST_RANKS: usize = 1 << 16;
/// What `torchrun` uses where nothing else is said.
const USUAL_PORT: u16 = 29500;

fn wrong(variable: &'static str, why: impl Into<String>) -> ParallelError {
    ParallelError::Launch {
        variable,
        why: why.into(),
    }
}

/// The place that the variables that `lookup` knows give this process, if they are any launcher's.
///
/// # Errors
/// [`ParallelError::Launch`] for a set of variables of which some are missing or make no sense.
pub fn place(lookup: impl Fn(&str) -> Option<String>) -> Result<Option<Place>, ParallelError> {
    let set = Variables {
        lookup: &|name| lookup(name).filter(|value| !value.is_empty()),
    };
    if set.has(&["RANK", "LOCAL_RANK", "WORLD_SIZE"]) {
        return set.torchrun().map(Some);
    }
    if set.has(&[
        "OMPI_COMM_WORLD_RANK",
        "OMPI_COMM_WORLD_LOCAL_RANK",
        "OMPI_COMM_WORLD_SIZE",
    ]) {
        return set.open_mpi().map(Some);
    }
    set.slurm()
}

struct Variables<'a> {
    lookup: &'a dyn Fn(&str) -> Option<String>,
}

impl Variables<'_> {
    fn get(&self, name: &str) -> Option<String> {
        (self.lookup)(name)
    }

    fn has(&self, any: &[&str]) -> bool {
        any.iter().any(|name| self.get(name).is_some())
    }

    fn torchrun(&self) -> Result<Place, ParallelError> {
        let numbers = self.numbers("torchrun", ["RANK", "LOCAL_RANK", "WORLD_SIZE"])?;
        let needed = |name: &'static str| {
            let missing = || wrong(name, "is not set, and RANK is; start all ranks by torchrun, or set it");
            self.get(name).ok_or_else(missing)
        };
        let host = needed("MASTER_ADDR")?;
        needed("MASTER_PORT")?;
        let port = self.port()?.unwrap_or(USUAL_PORT);
        let taken = self.get("TORCHELASTIC_USE_AGENT_STORE").is_some_and(|v| v == "True");
        let port = match (taken, port) {
            (true, u16::MAX) => port - 1,
            (true, _) => port + 1,
            (false, _) => port,
        };
        Ok(numbers.at(Launcher::Torchrun, Some(host), port))
    }

    fn open_mpi(&self) -> Result<Place, ParallelError> {
        let names = [
            "OMPI_COMM_WORLD_RANK",
            "OMPI_COMM_WORLD_LOCAL_RANK",
            "OMPI_COMM_WORLD_SIZE",
        ];
        let numbers = self.numbers("mpirun", names)?;
        let here = self.get("OMPI_COMM_WORLD_LOCAL_SIZE") == Some(numbers.size.to_string());
        let host = self.get("MASTER_ADDR").or(here.then(|| "127.0.0.1".into()));
        Ok(numbers.at(Launcher::OpenMpi, host, self.port()?.unwrap_or(USUAL_PORT)))
    }

    fn slurm(&self) -> Result<Option<Place>, ParallelError> {
        // A shell of `salloc`, or none at all.
        if self.get("SLURM_PROCID").is_none() {
            return Ok(None);
        }
        let tasks = match self.get("SLURM_STEP_NUM_TASKS") {
            Some(_) => "SLURM_STEP_NUM_TASKS",
            None => "SLURM_NTASKS",
        };
        if self.get(tasks).is_none_or(|n| n == "1") {
            return Ok(None);
        }
        let numbers = self.numbers("srun", ["SLURM_PROCID", "SLURM_LOCALID", tasks])?;
        let host = match self.get("MASTER_ADDR") {
            Some(host) => host,
            None => {
                let names = ["SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST"];
                let list = names.iter().find_map(|name| self.get(name));
                let missing = "is not set, and SLURM_PROCID is; set it, or MASTER_ADDR to the host of rank 0";
                let list = list.ok_or_else(|| wrong("SLURM_JOB_NODELIST", missing))?;
                first_host(&list).ok_or_else(|| {
                    let why = format!("no first host in {list:?}; set MASTER_ADDR to the host of rank 0");
                    wrong("SLURM_JOB_NODELIST", why)
                })?
            }
        };
        let port = match self.port()? {
            Some(port) => port,
            // Jobs that share a machine differ in it.
            None => {
                let job = self.get("SLURM_JOB_ID").and_then(|id| id.parse::<u64>().ok());
                20_000 + (job.unwrap_or(0) % 10_000) as u16
            }
        };
        Ok(Some(numbers.at(Launcher::Slurm, Some(host), port)))
    }

    /// Rank, local rank and size.
    fn numbers(&self, launcher: &str, names: [&'static str; 3]) -> Result<Numbers, ParallelError> {
        let number = |name: &'static str| {
            let missing = || {
                let is_set = names.iter().find(|other| self.get(other).is_some()).unwrap_or(&"");
                wrong(
                    name,
                    format!("is not set, and {is_set} is; start all ranks by {launcher}, or set it"),
                )
            };
            let text = self.get(name).ok_or_else(missing)?;
            let parsed = text.trim().parse::<usize>();
            parsed.map_err(|_| wrong(name, format!("expected a number from 0, found {text:?}")))
        };
        let (rank, local_rank, size) = (number(names[0])?, number(names[1])?, number(names[2])?);
        if !(1..=MOST_RANKS).contains(&size) {
            return Err(wrong(
                names[2],
                format!("expected 1 to {MOST_RANKS} ranks, found {size}"),
            ));
        }
        if rank >= size {
            return Err(wrong(
                names[0],
                format!("expected a rank below {}={size}, found {rank}", names[2]),
            ));
        }
        if local_rank >= size {
            return Err(wrong(
                names[1],
                format!("expected a rank below {}={size}, found {local_rank}", names[2]),
            ));
        }
        Ok(Numbers { rank, local_rank, size })
    }

    fn port(&self) -> Result<Option<u16>, ParallelError> {
        let Some(text) = self.get("MASTER_PORT") else {
            return Ok(None);
        };
        match text.trim().parse::<u16>() {
            Ok(port) if port > 0 => Ok(Some(port)),
            _ => Err(wrong(
                "MASTER_PORT",
                format!("expected a port from 1 to 65535, found {text:?}"),
            )),
        }
    }
}

struct Numbers {
    rank: usize,
    local_rank: usize,
    size: usize,
}

impl Numbers {
    fn at(self, launcher: Launcher, host: Option<String>, port: u16) -> Place {
        Place {
            rank: self.rank,
            local_rank: self.local_rank,
            size: self.size,
            launcher,
            host,
            port,
        }
    }
}

/// The first host of a list as SLURM writes it, such as `rack[1-2]node[03-07,9],login1`.
fn first_host(list: &str) -> Option<String> {
    let (mut host, mut rest) = (String::new(), list.trim());
    while let Some(at) = rest.find(['[', ',']) {
        host.push_str(&rest[..at]);
        if rest[at..].starts_with(',') {
            return Some(host).filter(|host| !host.is_empty());
        }
        let (inside, behind) = rest[at + 1..].split_once(']')?;
        let number = inside.split(['-', ',']).next()?;
        if number.is_empty() || !number.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        host.push_str(number);
        rest = behind;
    }
    host.push_str(rest);
    Some(host).filter(|host| !host.is_empty() && !host.contains(']'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placed(variables: &[(&str, &str)]) -> Result<Option<Place>, ParallelError> {
        let of = |name: &str| variables.iter().find(|(n, _)| *n == name);
        place(|name| of(name).map(|(_, value)| value.to_string()))
    }

    const TORCHRUN: [(&str, &str); 5] = [
        ("RANK", "5"),
        ("LOCAL_RANK", "1"),
        ("WORLD_SIZE", "8"),
        ("MASTER_ADDR", "head"),
        ("MASTER_PORT", "2345"),
    ];
    const OPEN_MPI: [(&str, &str); 3] = [
        ("OMPI_COMM_WORLD_RANK", "1"),
        ("OMPI_COMM_WORLD_LOCAL_RANK", "0"),
        ("OMPI_COMM_WORLD_SIZE", "2"),
    ];
    const SLURM: [(&str, &str); 5] = [
        ("SLURM_PROCID", "3"),
        ("SLURM_LOCALID", "1"),
        ("SLURM_NTASKS", "4"),
        ("SLURM_JOB_NODELIST", "node[03-07,9]"),
        ("SLURM_JOB_ID", "1234567"),
    ];

    fn with(
        base: &[(&'static str, &'static str)],
        more: &[(&'static str, &'static str)],
    ) -> Vec<(&'static str, &'static str)> {
        // The first of a name counts.
        [more, base].concat()
    }

    #[test]
    fn every_launcher_gives_a_place() {
        let expected = Place {
            rank: 5,
            local_rank: 1,
            size: 8,
            launcher: Launcher::Torchrun,
            host: Some("head".into()),
            port: 2345,
        };
        assert_eq!(placed(&TORCHRUN).unwrap(), Some(expected.clone()));
        let agent = [("TORCHELASTIC_USE_AGENT_STORE", "True")];
        assert_eq!(placed(&with(&TORCHRUN, &agent)).unwrap().unwrap().port, 2346);
        let expected = Place {
            rank: 1,
            local_rank: 0,
            size: 2,
            launcher: Launcher::OpenMpi,
            host: None,
            port: 29500,
        };
        assert_eq!(placed(&OPEN_MPI).unwrap(), Some(expected.clone()));
        let here = with(&OPEN_MPI, &[("OMPI_COMM_WORLD_LOCAL_SIZE", "2")]);
        assert_eq!(placed(&here).unwrap().unwrap().host.unwrap(), "127.0.0.1");
        // `mpirun` within an allocation of SLURM, and a world of one.
        assert_eq!(placed(&with(&OPEN_MPI, &SLURM)).unwrap(), Some(expected));
        let one = with(&TORCHRUN, &[("RANK", "0"), ("LOCAL_RANK", "0"), ("WORLD_SIZE", "1")]);
        assert_eq!(placed(&one).unwrap().unwrap().size, 1);
        let expected = Place {
            rank: 3,
            local_rank: 1,
            size: 4,
            launcher: Launcher::Slurm,
            host: Some("node03".into()),
            port: 24567,
        };
        assert_eq!(placed(&SLURM).unwrap(), Some(expected));
        let given = placed(&with(&SLURM, &[("MASTER_ADDR", "10.0.0.1"), ("MASTER_PORT", "99")]));
        let given = given.unwrap().unwrap();
        assert_eq!((given.host.as_deref(), given.port), (Some("10.0.0.1"), 99));
    }

    #[test]
    fn no_launcher_and_one_task_are_no_world() {
        for nothing in [
            &[][..],
            &[("MASTER_ADDR", "x"), ("MASTER_PORT", "1")],
            &[
                ("SLURM_JOB_ID", "7"),
                ("SLURM_NTASKS", "4"),
                ("SLURM_JOB_NODELIST", "n1"),
            ],
            &[("SLURM_PROCID", "0"), ("SLURM_LOCALID", "0"), ("SLURM_NTASKS", "1")],
            &[("SLURM_PROCID", "0"), ("SLURM_LOCALID", "0")],
            &[
                ("SLURM_PROCID", "0"),
                ("SLURM_STEP_NUM_TASKS", "1"),
                ("SLURM_NTASKS", "8"),
            ],
            &[("RANK", "")],
        ] {
            assert_eq!(placed(nothing).unwrap(), None, "{nothing:?}");
        }
    }

    #[test]
    fn half_a_set_names_what_is_missing() {
        for whole in [&TORCHRUN[..], &OPEN_MPI, &SLURM[..4]] {
            for left_out in 0..whole.len() {
                let name = whole[left_out].0;
                let rest: Vec<_> = whole.iter().filter(|(n, _)| *n != name).copied().collect();
                // Without the first, or the number of tasks, of SLURM there is no world.
                if ["SLURM_PROCID", "SLURM_NTASKS"].contains(&name) {
                    assert_eq!(placed(&rest).unwrap(), None, "{name}");
                    continue;
                }
                let error = placed(&rest).unwrap_err().to_string();
                assert!(error.starts_with(&format!("{name}: is not set, and ")), "{error}");
            }
        }
    }

    #[test]
    fn impossible_numbers_are_refused() {
        for (name, value, part) in [
            ("RANK", "8", "below WORLD_SIZE=8"),
            ("RANK", "-1", "expected a number"),
            ("LOCAL_RANK", "8", "below WORLD_SIZE=8"),
            ("WORLD_SIZE", "0", "expected 1 to 65536"),
            ("WORLD_SIZE", "70000", "expected 1 to 65536"),
            ("WORLD_SIZE", "two", "found \"two\""),
            ("MASTER_PORT", "0", "from 1 to 65535"),
            ("MASTER_PORT", "65536", "from 1 to 65535"),
        ] {
            let error = placed(&with(&TORCHRUN, &[(name, value)])).unwrap_err().to_string();
            assert!(
                error.starts_with(&format!("{name}: ")) && error.contains(part),
                "{error}"
            );
        }
    }

    #[test]
    fn first_hosts_of_lists() {
        for (list, first) in [
            ("node1", "node1"),
            ("node1,node2", "node1"),
            ("node[03-07,9]", "node03"),
            ("node[9]", "node9"),
            ("node[1,4],login", "node1"),
            ("rack[1-2]n[08-10]-ib,x", "rack1n08-ib"),
            ("a,b[1-2]", "a"),
        ] {
            assert_eq!(first_host(list).as_deref(), Some(first), "{list}");
        }
        for list in ["", ",a", "node[", "node[]", "node[a-b]", "node]", "node[1-2"] {
            assert_eq!(first_host(list), None, "{list}");
        }
    }
}
