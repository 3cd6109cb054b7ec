//! Marks in the stream: whether it has come that far, and how long it took.

use cudarc::driver::{result, sys};

use super::{CudaError, Gpu, Result};

/// A mark in the stream of a GPU.
#[derive(Debug)]
pub struct Event {
    gpu: Gpu,
    event: sys::CUevent,
}

// SAFETY: a handle that any thread may use.
unsafe impl Send for Event {}

impl Gpu {
    /// A mark behind everything that was launched so far.
    ///
    /// # Errors
    /// The driver's.
    pub fn mark(&self) -> Result<Event> {
        self.bind()?;
        let event = result::event::create(sys::CUevent_flags_enum::CU_EVENT_DEFAULT)?;
        // SAFETY: both handles are live.
        unsafe { result::event::record(event, self.0.stream)? };
        Ok(Event {
            gpu: self.clone(),
            event,
        })
    }
}

impl Event {
    /// Waits until the stream has come here.
    ///
    /// # Errors
    /// What a kernel ran into.
    pub fn wait(&self) -> Result<()> {
        self.gpu.bind()?;
        // SAFETY: the event is live.
        unsafe { result::event::synchronize(self.event) }.map_err(CudaError::from)
    }

    /// Seconds between an earlier mark and this one; waits for both.
    ///
    /// # Errors
    /// What a kernel ran into.
    pub fn seconds_since(&self, earlier: &Event) -> Result<f64> {
        self.wait()?;
        // SAFETY: both events are live, and recorded.
        Ok(f64::from(unsafe { result::event::elapsed(earlier.event, self.event)? }) / 1e3)
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: destroyed once.
        let _ = self.gpu.bind().map(|()| unsafe { result::event::destroy(self.event) });
    }
}
