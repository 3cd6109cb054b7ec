//! The functions of NCCL that are used, looked up in the library that this machine has.

use std::env;
use std::error::Error;
use std::ffi::{CStr, OsString, c_char, c_int, c_void};
use std::sync::OnceLock;

use cudarc::nccl::sys::{cudaStream_t, ncclComm_t, ncclDataType_t, ncclRedOp_t, ncclResult_t, ncclUniqueId};

use crate::device::{CudaError, Result};

/// Names under which systems and Python's packages have it.
const NAMES: [&str; 2] = ["libnccl.so.2", "libnccl.so"];
/// The oldest that is known to work in recordings.
const OLDEST: c_int = 2_18_00;

type AllReduce = unsafe extern "C" fn(
    *const c_void,
    *mut c_void,
    usize,
    ncclDataType_t,
    ncclRedOp_t,
    ncclComm_t,
    cudaStream_t,
) -> ncclResult_t;

/// See NCCL's manual, which documents each.
#[derive(Debug)]
pub(super) struct Library {
    version: c_int,
    get_error_string: unsafe extern "C" fn(ncclResult_t) -> *const c_char,
    get_last_error: unsafe extern "C" fn(ncclComm_t) -> *const c_char,
    pub get_unique_id: unsafe extern "C" fn(*mut ncclUniqueId) -> ncclResult_t,
    pub comm_init_rank: unsafe extern "C" fn(*mut ncclComm_t, c_int, ncclUniqueId, c_int) -> ncclResult_t,
    pub comm_destroy: unsafe extern "C" fn(ncclComm_t) -> ncclResult_t,
    pub all_reduce: AllReduce,
    pub reduce_scatter: AllReduce,
    pub all_gather: unsafe extern "C" fn(
        *const c_void,
        *mut c_void,
        usize,
        ncclDataType_t,
        ncclComm_t,
        cudaStream_t,
    ) -> ncclResult_t,
}

/// The library, opened once and never closed.
pub(super) fn library() -> Result<&'static Library> {
    static LIBRARY: OnceLock<std::result::Result<Library, String>> = OnceLock::new();
    let opened = LIBRARY.get_or_init(open);
    opened.as_ref().map_err(|why| CudaError::NoNccl { why: why.clone() })
}

fn open() -> std::result::Result<Library, String> {
    let names: Vec<OsString> = match env::var_os("ONEBIT_NCCL") {
        Some(name) => vec![name],
        None => NAMES.map(OsString::from).into(),
    };
    let mut why = String::new();
    for name in &names {
        // SAFETY: NCCL's initialisers have no precondition.
        match unsafe { libloading::Library::new(name) } {
            // Functions outlive whoever has them, so the library is never closed.
            Ok(library) => return functions(Box::leak(Box::new(library))),
            Err(error) if why.is_empty() => why = with_reasons(&error),
            Err(_) => {}
        }
    }
    Err(why)
}

/// What an error says, and what those behind it do.
fn with_reasons(error: &libloading::Error) -> String {
    let mut text = error.to_string();
    let mut reason = error.source();
    while let Some(error) = reason {
        text += &format!(": {error}");
        reason = error.source();
    }
    text
}

fn functions(library: &'static libloading::Library) -> std::result::Result<Library, String> {
    /// # Safety
    /// `T` is the type of the function `name`.
    unsafe fn get<T: Copy>(library: &libloading::Library, name: &str) -> std::result::Result<T, String> {
        // SAFETY: the caller's promise.
        let found = unsafe { library.get::<T>(name.as_bytes()) };
        found.map(|symbol| *symbol).map_err(|error| error.to_string())
    }
    // SAFETY: the types are those of NCCL's header since 2.18, whose interface is kept stable within version 2.
    unsafe {
        let get_version: unsafe extern "C" fn(*mut c_int) -> ncclResult_t = get(library, "ncclGetVersion")?;
        let mut version = 0;
        if get_version(&mut version) != ncclResult_t::ncclSuccess || version < OLDEST {
            return Err(format!("NCCL {} is too old; 2.18 or newer is needed", text(version)));
        }
        Ok(Library {
            version,
            get_error_string: get(library, "ncclGetErrorString")?,
            get_last_error: get(library, "ncclGetLastError")?,
            get_unique_id: get(library, "ncclGetUniqueId")?,
            comm_init_rank: get(library, "ncclCommInitRank")?,
            comm_destroy: get(library, "ncclCommDestroy")?,
            all_reduce: get(library, "ncclAllReduce")?,
            reduce_scatter: get(library, "ncclReduceScatter")?,
            all_gather: get(library, "ncclAllGather")?,
        })
    }
}

/// A version as NCCL numbers it since 2.9.
fn text(version: c_int) -> String {
    format!("{}.{}.{}", version / 10_000, version / 100 % 100, version % 100)
}

impl Library {
    pub fn version_text(&self) -> String {
        text(self.version)
    }

    /// The answer of `function` as a result.
    pub fn check(&self, function: &'static str, answer: ncclResult_t) -> Result<()> {
        if answer == ncclResult_t::ncclSuccess {
            return Ok(());
        }
        // SAFETY: both give texts that are never freed; no communicator is named.
        let [what, more] = unsafe {
            [
                (self.get_error_string)(answer),
                (self.get_last_error)(std::ptr::null_mut()),
            ]
        }
        .map(|text| {
            if text.is_null() {
                return String::new();
            }
            // SAFETY: a text of NCCL's, which ends.
            unsafe { CStr::from_ptr(text) }.to_string_lossy().trim().to_string()
        });
        Err(CudaError::Nccl { function, what, more })
    }
}
