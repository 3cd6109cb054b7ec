//! Which checkpoints a run makes, and which it keeps.

/// What of a run's checkpoints is kept: beside these the newest of all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    /// The newest so many of those that the run makes by itself. An interruption pushes none of them out, so that a run that goes back to one finds it.
    pub last: usize,
    /// And of those that know their validation loss the one with the lowest.
    pub best: bool,
    /// When the run makes one by itself.
    pub schedule: SaveSchedule,
}

/// When a run makes a checkpoint by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SaveSchedule {
    /// Every so many steps, if not 0.
    pub every: u64,
    /// And at this step, the last.
    pub last_step: u64,
}

impl SaveSchedule {
    /// Whether it makes one after `step` steps.
    pub fn has(&self, step: u64) -> bool {
        step == self.last_step || self.every > 0 && step.is_multiple_of(self.every)
    }
}
