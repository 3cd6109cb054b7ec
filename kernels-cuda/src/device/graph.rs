//! Recordings of launches that run again as one.

use std::sync::{Arc, MutexGuard};

use cudarc::driver::{result, sys};

use super::memory::Allocation;
use super::{CudaError, Gpu, Kernel, Result};

/// What was launched in [`Gpu::record`], with the memory that it refers to.
pub struct Graph {
    gpu: Gpu,
    executable: sys::CUgraphExec,
    /// Kept, because the recording has their addresses.
    _memory: Vec<Arc<Allocation>>,
}

/// What a recording in progress has seen.
#[derive(Debug, Default)]
pub(super) enum Recording {
    /// There is none.
    #[default]
    Off,
    /// The kernels that it will launch. They are compiled before the recording proper, because one after the other takes as long as all at once.
    Kernels(Vec<Kernel>),
    /// The memory that it refers to.
    Launches(Vec<Arc<Allocation>>),
}

// SAFETY: a handle that any thread may use, one at a time.
unsafe impl Send for Graph {}

impl Gpu {
    /// Records what `launches` launches instead of running it. It is called twice, the first time to see which kernels there are. Allocating, uploading,
    /// downloading and waiting are not possible in there.
    ///
    /// # Errors
    /// Those of `launches`, or what cannot be recorded.
    pub fn record(&self, mut launches: impl FnMut() -> Result<()>) -> Result<Graph> {
        self.compile_for(&mut launches)?;
        let (graph, seen) = self.capture(Recording::Launches(Vec::new()), &mut launches)?;
        let Recording::Launches(memory) = seen else {
            return Err(CudaError::Recording("one recording began within another".into()));
        };
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

    /// Compiles the kernels that `launches` would launch, all at once, and launches nothing: as [`record`](Self::record) does before it records.
    ///
    /// # Errors
    /// As [`record`](Self::record).
    pub fn compile_for(&self, mut launches: impl FnMut() -> Result<()>) -> Result<()> {
        let (graph, seen) = self.capture(Recording::Kernels(Vec::new()), &mut launches)?;
        // SAFETY: given just now, and used by nothing: the copies between the launches are in it.
        unsafe { result::graph::destroy(graph)? };
        match seen {
            Recording::Kernels(kernels) => self.prepare(&kernels),
            _ => Err(CudaError::Recording("one recording began within another".into())),
        }
    }

    /// What `launches` launches, as a graph, and what was seen meanwhile.
    fn capture(&self, seen: Recording, launches: &mut impl FnMut() -> Result<()>) -> Result<(sys::CUgraph, Recording)> {
        self.bind()?;
        // SAFETY: the stream lives as long as `self`; relaxed, because loading a module is not recorded.
        unsafe {
            result::stream::begin_capture(
                self.0.stream,
                sys::CUstreamCaptureMode_enum::CU_STREAM_CAPTURE_MODE_RELAXED,
            )?;
        }
        *self.recording() = seen;
        let outcome = launches();
        let seen = std::mem::take(&mut *self.recording());
        // SAFETY: recording was begun above, and must end whatever happened.
        let graph = unsafe { result::stream::end_capture(self.0.stream) };
        outcome?;
        Ok((graph?, seen))
    }

    fn recording(&self) -> MutexGuard<'_, Recording> {
        self.0.recording.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Remembers that a recording in progress refers to `memory`.
    pub(crate) fn keep(&self, memory: &Arc<Allocation>) {
        if let Recording::Launches(kept) = &mut *self.recording()
            && !kept.iter().rev().take(64).any(|k| Arc::ptr_eq(k, memory))
        {
            kept.push(memory.clone());
        }
    }

    /// Whether a recording looks for kernels alone, and records nothing.
    pub(crate) fn notes_kernels(&self) -> bool {
        matches!(&*self.recording(), Recording::Kernels(_))
    }

    /// Whether a launch of `kernel` is only noted.
    pub(super) fn note(&self, kernel: Kernel) -> bool {
        match &mut *self.recording() {
            Recording::Kernels(kernels) => {
                kernels.push(kernel);
                true
            }
            _ => false,
        }
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
