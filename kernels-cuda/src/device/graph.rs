//! Recordings of launches that run again as one.

use std::sync::Arc;

use cudarc::driver::{result, sys};

use super::memory::Allocation;
use super::{CudaError, Gpu, Result};

/// What was launched in [`Gpu::record`], with the memory that it refers to.
pub struct Graph {
    gpu: Gpu,
    executable: sys::CUgraphExec,
    /// Kept, because the recording has their addresses.
    _memory: Vec<Arc<Allocation>>,
}

// SAFETY: a handle that any thread may use, one at a time.
unsafe impl Send for Graph {}

impl Gpu {
    /// Records what `launches` launches instead of running it. Allocating, uploading, downloading and waiting are not possible in there.
    ///
    /// # Errors
    /// Those of `launches`, or what cannot be recorded.
    pub fn record(&self, launches: impl FnOnce() -> Result<()>) -> Result<Graph> {
        self.bind()?;
        let kept = || self.0.recording.lock().unwrap_or_else(|e| e.into_inner());
        // SAFETY: the stream lives as long as `self`; relaxed, because loading a module of a kernel that is used for the first time is not recorded.
        unsafe {
            result::stream::begin_capture(
                self.0.stream,
                sys::CUstreamCaptureMode_enum::CU_STREAM_CAPTURE_MODE_RELAXED,
            )?;
        }
        *kept() = Some(Vec::new());
        let outcome = launches();
        let memory = kept().take().unwrap_or_default();
        // SAFETY: recording was begun above, and must end whatever happened.
        let graph = unsafe { result::stream::end_capture(self.0.stream) };
        outcome?;
        let graph = graph?;
        // SAFETY: the graph was given just now; the executable form does not refer to it.
        let executable = unsafe {
            let executable = result::graph::instantiate(graph, sys::CUgraphInstantiate_flags(0));
            result::graph::destroy(graph)?;
            executable?
        };
        Ok(Graph {
            gpu: self.clone(),
            executable,
            _memory: memory,
        })
    }
}

impl Graph {
    /// Runs the recording once, after what was launched before.
    ///
    /// # Errors
    /// The driver's.
    pub fn launch(&self) -> Result<()> {
        self.gpu.bind()?;
        // SAFETY: both handles live as long as `self`.
        unsafe { result::graph::launch(self.executable, self.gpu.0.stream) }.map_err(CudaError::from)
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        let _ = self.gpu.synchronize();
        // SAFETY: destroyed once, when it no longer runs.
        let _ = unsafe { result::graph::exec_destroy(self.executable) };
    }
}
