//! When to try again: pauses that double, with jitter, or what the server asks for.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use onebit_engine::rng::Key;

use super::error::Trouble;
use super::{HubError, HubOptions, Told};

/// RNG purpose of the jitter ("hubj").
const PURPOSE: u32 = u32::from_be_bytes(*b"hubj");
/// How often a pause looks whether it should end.
pub(super) const LOOK: Duration = Duration::from_millis(50);

/// The failures of one piece of work.
pub(super) struct Retry<'a> {
    options: &'a HubOptions,
    address: String,
    /// In a row.
    failures: u32,
    /// All pauses so far, of which each has its jitter.
    pauses: u64,
}

impl<'a> Retry<'a> {
    pub fn new(options: &'a HubOptions, address: String) -> Self {
        Self {
            options,
            address,
            failures: 0,
            pauses: 0,
        }
    }

    /// Something was achieved: the count of failures begins anew.
    pub fn progress(&mut self) {
        self.failures = 0;
    }

    /// Waits, so that another attempt may be made; or says why there is to be none.
    pub fn again(&mut self, trouble: Trouble, stop: &AtomicBool) -> Result<(), HubError> {
        let (what, after) = match trouble {
            Trouble::Final(error) => return Err(error),
            Trouble::Passing { what, after } => (what, after),
        };
        if self.failures >= self.options.retries {
            return Err(HubError::Unreachable {
                address: self.address.clone(),
                what,
                attempts: self.failures + 1,
            });
        }
        let pause = self.pause(after);
        // The first may well be a chance, of which nobody needs to know.
        if let Some(Told(tell)) = self.options.told.as_ref().filter(|_| self.failures > 0) {
            let (address, seconds) = (&self.address, pause.as_secs_f32().ceil());
            tell(&format!("{address}: {what}; trying again in {seconds} s"));
        }
        self.failures += 1;
        self.pauses += 1;
        let begun = Instant::now();
        while begun.elapsed() < pause {
            if stop.load(Ordering::Relaxed) {
                return Err(HubError::Stopped);
            }
            std::thread::sleep(LOOK.min(pause.saturating_sub(begun.elapsed())));
        }
        Ok(())
    }

    /// The next pause.
    fn pause(&self, after: Option<Duration>) -> Duration {
        let longest = self.options.longest_pause;
        let doubled = self
            .options
            .backoff
            .saturating_mul(1u32.checked_shl(self.failures).unwrap_or(u32::MAX));
        let draw = Key::new(self.options.jitter_seed, PURPOSE, 0).uniform(self.pauses);
        let jittered = doubled.min(longest).mul_f32(0.5 + 0.5 * draw.clamp(0.0, 1.0));
        // Never earlier than asked.
        jittered.max(after.unwrap_or_default()).min(longest)
    }
}

/// The pause that `Retry-After` asks for, in seconds; a date, which the Hub does not send, counts as none.
pub(super) fn retry_after(value: &str) -> Option<Duration> {
    value.trim().parse().ok().map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    fn options() -> HubOptions {
        HubOptions {
            backoff: Duration::from_secs(1),
            longest_pause: Duration::from_secs(60),
            jitter_seed: 7,
            ..HubOptions::default()
        }
    }

    #[test]
    fn pauses_double_up_to_the_longest() {
        let options = options();
        let mut retry = Retry::new(&options, String::new());
        let mut all = Vec::new();
        for failures in 0..40 {
            (retry.failures, retry.pauses) = (failures, u64::from(failures));
            let full = Duration::from_secs(1u64.checked_shl(failures.min(20)).unwrap()).min(options.longest_pause);
            let pause = retry.pause(None);
            assert!(pause >= full / 2 && pause <= full, "{failures}: {pause:?} of {full:?}");
            assert_eq!(pause, retry.pause(None), "the same each time");
            all.push(pause);
        }
        // Jitter: pauses of the same length are not the same.
        assert!(all[10..].windows(2).any(|pair| pair[0] != pair[1]));
        retry.failures = 0;
        assert_eq!(retry.pause(Some(Duration::from_secs(9))), Duration::from_secs(9));
        assert_eq!(retry.pause(Some(Duration::from_secs(9000))), options.longest_pause);
        assert_eq!(retry_after(" 3 "), Some(Duration::from_secs(3)));
        assert_eq!(retry_after("Wed, 21 Oct 2026 07:28:00 GMT"), None);
    }

    #[test]
    fn it_gives_up_and_begins_anew() {
        let quick = HubOptions {
            backoff: Duration::ZERO,
            retries: 2,
            ..options()
        };
        let go = AtomicBool::new(false);
        let heard = Arc::new(Mutex::new(Vec::new()));
        let hears = heard.clone();
        let quick = HubOptions {
            told: Some(Told(Arc::new(move |line| hears.lock().unwrap().push(line.to_string())))),
            ..quick
        };
        let mut retry = Retry::new(&quick, "http://h/".into());
        for _ in 0..5 {
            retry.again(Trouble::passing("x"), &go).unwrap();
            retry.again(Trouble::passing("x"), &go).unwrap();
            retry.progress();
        }
        retry.again(Trouble::passing("x"), &go).unwrap();
        retry.again(Trouble::passing("x"), &go).unwrap();
        let error = retry
            .again(Trouble::passing("the reason"), &go)
            .unwrap_err()
            .to_string();
        assert!(error.contains("http://h/: the reason, 3 times in a row"), "{error}");
        assert_eq!(*heard.lock().unwrap(), ["http://h/: x; trying again in 0 s"; 6]);
        let mut retry = Retry::new(&quick, String::new());
        assert!(matches!(
            retry.again(HubError::Stopped.into(), &go),
            Err(HubError::Stopped)
        ));
        let patient = options();
        let stopped = Retry::new(&patient, String::new()).again(Trouble::passing("x"), &AtomicBool::new(true));
        assert!(matches!(stopped, Err(HubError::Stopped)));
    }
}
