//! The functions.
//!
//! Each checks its pointers as far as that is possible (null, alignment, lengths), makes slices of them, and passes these on to safe code.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ffi::c_char;
use core::slice;

use onebit_model::decode::{DecodeError, Ended, TextGenerator};
use onebit_model::image::Image;
use onebit_model::runtime::SharedBytes;

use crate::options::{Options, Sampling};
use crate::status::{Failure, Problem, Status, status_of};

/// The version of the interface: it changes when a struct or the meaning of a function does.
pub const ABI_VERSION: u32 = 1;

/// A model and the answer that it is giving.
pub struct Generator {
    inner: TextGenerator,
    /// The bytes of one token.
    bytes: Vec<u8>,
    /// A panic came out of it.
    broken: bool,
}

fn wrong(status: Status, message: &'static &'static str) -> Problem<'static> {
    Problem { status, message }
}

/// Does `work`, and tells what goes wrong.
fn told(failure: *mut Failure, work: impl FnOnce(&mut dyn FnMut(Problem<'_>) -> Status) -> Status) -> Status {
    let failure = if failure.is_aligned() {
        failure
    } else {
        core::ptr::null_mut()
    };
    // SAFETY: aligned, and either null or, by the contract of every function, a `Failure` that nobody else uses meanwhile. All its bit patterns are values.
    let mut failure = unsafe { failure.as_mut() };
    let mut tell = |problem: Problem<'_>| problem.tell(failure.as_deref_mut());
    guarded(|| work(&mut tell))
        .unwrap_or_else(|| tell(wrong(Status::Internal, &"a panic: please report it, with the model")))
}

/// What `work` gives, or nothing if it panics.
#[cfg(feature = "std")]
fn guarded<T>(work: impl FnOnce() -> T) -> Option<T> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).ok()
}

/// What `work` gives: a panic does not come back, the program ends.
#[cfg(not(feature = "std"))]
fn guarded<T>(work: impl FnOnce() -> T) -> Option<T> {
    Some(work())
}

/// The status of a result, once it was told.
fn settled(result: Result<Status, CallError>, tell: &mut dyn FnMut(Problem<'_>) -> Status) -> Status {
    match result {
        Ok(status) => status,
        Err(CallError::Decode(error)) => tell(Problem {
            status: status_of(&error),
            message: &error,
        }),
        Err(CallError::Wrong(problem)) => tell(problem),
    }
}

/// `size` values at `start`; an empty slice may begin anywhere.
///
/// # Safety
/// If `start` is not null, `size` values can be read there as long as `'a` lasts, and nobody changes them meanwhile.
unsafe fn input<'a, T>(start: *const T, size: usize) -> Result<&'a [T], Problem<'static>> {
    if size == 0 {
        return Ok(&[]);
    }
    if start.is_null() || !start.is_aligned() || size > isize::MAX as usize / size_of::<T>().max(1) {
        return Err(wrong(
            Status::Pointer,
            &"expected a pointer to the values that the size tells of, found null, a misaligned one or an impossible size",
        ));
    }
    // SAFETY: not null, aligned, not longer than memory can be, and readable by this function's contract.
    Ok(unsafe { slice::from_raw_parts(start, size) })
}

/// A place that is written.
///
/// # Safety
/// If `place` is not null, it is a valid `T` that nobody else uses as long as `'a` lasts.
unsafe fn output<'a, T>(place: *mut T) -> Result<&'a mut T, Problem<'static>> {
    let found = if place.is_aligned() {
        place
    } else {
        core::ptr::null_mut()
    };
    // SAFETY: null or aligned, and valid by this function's contract.
    unsafe { found.as_mut() }.ok_or(wrong(
        Status::Pointer,
        &"expected a pointer to write to, found null or a misaligned one",
    ))
}

/// Calls `work` with the generator, which is broken afterwards if it panics.
///
/// # Safety
/// As [`output`].
unsafe fn with<'a>(
    generator: *mut Generator,
    failure: *mut Failure,
    work: impl FnOnce(&'a mut TextGenerator, &'a mut Vec<u8>) -> Result<Status, CallError>,
) -> Status {
    told(failure, |tell| {
        // SAFETY: as this function's contract.
        let generator = match unsafe { output(generator) } {
            Ok(generator) => generator,
            Err(problem) => return tell(problem),
        };
        if generator.broken {
            return tell(wrong(Status::Internal, &"the generator had a panic before; free it"));
        }
        generator.broken = true;
        let Generator { inner, bytes, broken } = generator;
        let result = work(inner, bytes);
        *broken = false;
        settled(result, tell)
    })
}

/// Why a call failed.
enum CallError {
    Decode(DecodeError),
    Wrong(Problem<'static>),
}

impl From<DecodeError> for CallError {
    fn from(error: DecodeError) -> Self {
        Self::Decode(error)
    }
}

impl From<Problem<'static>> for CallError {
    fn from(problem: Problem<'static>) -> Self {
        Self::Wrong(problem)
    }
}

/// The image of a model that lies in memory.
///
/// # Safety
/// As [`input`], until nothing of the image is used any more.
unsafe fn image(bytes: *const u8, size: usize) -> Result<Image, CallError> {
    if !bytes.addr().is_multiple_of(4) {
        return Err(wrong(
            Status::Pointer,
            &"expected the model at a multiple of 4 bytes, better of 64, found another address",
        )
        .into());
    }
    // SAFETY: as this function's contract; whoever holds the image ends before the bytes do, so the lifetime is never longer than they are there.
    let bytes: &'static [u8] = unsafe { input(bytes, size) }?;
    Ok(Image::new(SharedBytes::from_static(bytes)).map_err(DecodeError::from)?)
}

/// [`ABI_VERSION`].
#[unsafe(no_mangle)]
pub extern "C" fn onebit_abi_version() -> u32 {
    ABI_VERSION
}

/// The options that a model recommends; reads its header.
///
/// # Safety
/// See the header: `bytes` has `size` bytes; `options` can be written; `failure` is null or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn onebit_options_of(
    bytes: *const u8,
    size: usize,
    options: *mut Options,
    failure: *mut Failure,
) -> Status {
    told(failure, |tell| {
        let read = || -> Result<Status, CallError> {
            // SAFETY: the caller's promise.
            let place = unsafe { output(options) }?;
            // SAFETY: the caller's promise; the image does not outlive the call.
            *place = Options::of(&unsafe { image(bytes, size) }?);
            Ok(Status::Ok)
        };
        settled(read(), tell)
    })
}

/// Opens a model where it lies; `options` may be null for those that it recommends. `*generator` is null after an error.
///
/// # Safety
/// See the header: `bytes` has `size` bytes that stay there, unchanged, until [`onebit_free`]; `options` is null or can be read; `generator` can be written; `failure` is null
/// or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn onebit_open(
    bytes: *const u8,
    size: usize,
    options: *const Options,
    generator: *mut *mut Generator,
    failure: *mut Failure,
) -> Status {
    told(failure, |tell| {
        // SAFETY: the caller's promise.
        let place = match unsafe { output(generator) } {
            Ok(place) => place,
            Err(problem) => return tell(problem),
        };
        *place = core::ptr::null_mut();
        let open = || -> Result<TextGenerator, CallError> {
            // SAFETY: the caller's promise; the generator is freed before the bytes are.
            let image = unsafe { image(bytes, size) }?;
            let count = usize::from(!options.is_null());
            // SAFETY: the caller's promise.
            let given = unsafe { input(options, count) }?;
            let options = given.first().copied().unwrap_or_else(|| Options::of(&image));
            Ok(TextGenerator::new(&image, options.of_model(&image)?)?)
        };
        let opened = open().map(|inner| {
            *place = Box::into_raw(Box::new(Generator {
                inner,
                bytes: Vec::new(),
                broken: false,
            }));
            Status::Ok
        });
        settled(opened, tell)
    })
}

/// Frees a generator; null is nothing.
///
/// # Safety
/// `generator` is null or came from [`onebit_open`] and was not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn onebit_free(generator: *mut Generator) {
    if !generator.is_null() {
        // SAFETY: it came from `Box::into_raw` and is freed once, by the caller's promise.
        let generator = unsafe { Box::from_raw(generator) };
        let _ = guarded(|| drop(generator));
    }
}

/// Chooses tokens otherwise from now on; the random stream starts again.
///
/// # Safety
/// See the header: `generator` came from [`onebit_open`], `sampling` can be read, `failure` is null or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn onebit_set_sampling(
    generator: *mut Generator,
    sampling: *const Sampling,
    failure: *mut Failure,
) -> Status {
    let work = |generator: &mut TextGenerator, _: &mut Vec<u8>| {
        // SAFETY: the caller's promise.
        let given = unsafe { input(sampling, 1) }?;
        given
            .iter()
            .try_for_each(|given| generator.set_sampling(given.params()))?;
        Ok(Status::Ok)
    };
    // SAFETY: the caller's promise.
    unsafe { with(generator, failure, work) }
}

/// The ids of a prompt. `*count` is how many there are; where they are more than `capacity`, none is written.
///
/// # Safety
/// See the header: `text` has `size` bytes, `ids` room for `capacity` ids; `generator`, `count` and `failure` as elsewhere.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn onebit_encode(
    generator: *mut Generator,
    text: *const c_char,
    size: usize,
    ids: *mut u32,
    capacity: usize,
    count: *mut usize,
    failure: *mut Failure,
) -> Status {
    let work = |generator: &mut TextGenerator, _: &mut Vec<u8>| {
        // SAFETY: the caller's promise.
        let text = unsafe { text_of(text, size) }?;
        // SAFETY: the caller's promise.
        unsafe { give(&generator.prompt_ids(text), ids, capacity, count) }
    };
    // SAFETY: the caller's promise.
    unsafe { with(generator, failure, work) }
}

/// Begins an answer of at most `max_tokens` tokens to a text.
///
/// # Safety
/// See the header: `text` has `size` bytes; `generator` and `failure` as elsewhere.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn onebit_begin_text(
    generator: *mut Generator,
    text: *const c_char,
    size: usize,
    max_tokens: usize,
    failure: *mut Failure,
) -> Status {
    let work = |generator: &mut TextGenerator, _: &mut Vec<u8>| {
        // SAFETY: the caller's promise.
        generator.begin(unsafe { text_of(text, size) }?, max_tokens)?;
        Ok(Status::Ok)
    };
    // SAFETY: the caller's promise.
    unsafe { with(generator, failure, work) }
}

/// Begins an answer of at most `max_tokens` tokens to these tokens.
///
/// # Safety
/// See the header: `ids` has `count` ids; `generator` and `failure` as elsewhere.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn onebit_begin_ids(
    generator: *mut Generator,
    ids: *const u32,
    count: usize,
    max_tokens: usize,
    failure: *mut Failure,
) -> Status {
    let work = |generator: &mut TextGenerator, _: &mut Vec<u8>| {
        // SAFETY: the caller's promise.
        generator.begin_ids(unsafe { input(ids, count) }?, max_tokens)?;
        Ok(Status::Ok)
    };
    // SAFETY: the caller's promise.
    unsafe { with(generator, failure, work) }
}

/// The next token of the answer, or [`Status::Ended`].
///
/// # Safety
/// See the header: `id` can be written; `generator` and `failure` as elsewhere.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn onebit_next(generator: *mut Generator, id: *mut u32, failure: *mut Failure) -> Status {
    let work = |generator: &mut TextGenerator, _: &mut Vec<u8>| {
        // SAFETY: the caller's promise.
        let place = unsafe { output(id) }?;
        Ok(match generator.next_token()? {
            Some(token) => {
                *place = token;
                Status::Ok
            }
            None => Status::Ended,
        })
    };
    // SAFETY: the caller's promise.
    unsafe { with(generator, failure, work) }
}

/// Why the answer ended: 0 while it goes on, 1 for its length, 2 for an end token, 3 for the end of the context; 0 for null too.
///
/// # Safety
/// `generator` is null or came from [`onebit_open`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn onebit_ended(generator: *const Generator) -> i32 {
    // SAFETY: null or a generator, by the caller's promise.
    let ended = unsafe { generator.as_ref() }.and_then(|generator| generator.inner.ended());
    match ended {
        None => 0,
        Some(Ended::Length) => 1,
        Some(Ended::EndToken) => 2,
        Some(Ended::Context) => 3,
    }
}

/// The bytes of a token; none for a control token. `*count` is how many there are; where they are more than `capacity`, none is written.
///
/// # Safety
/// See the header: `bytes` has room for `capacity` bytes; `generator`, `count` and `failure` as elsewhere.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn onebit_token_bytes(
    generator: *mut Generator,
    id: u32,
    bytes: *mut u8,
    capacity: usize,
    count: *mut usize,
    failure: *mut Failure,
) -> Status {
    let work = |generator: &mut TextGenerator, room: &mut Vec<u8>| {
        room.clear();
        let tokenizer = generator.tokenizer();
        if !tokenizer.is_special(id) {
            tokenizer.push_bytes(id, room).map_err(DecodeError::from)?;
        }
        // SAFETY: the caller's promise.
        unsafe { give(room, bytes, capacity, count) }
    };
    // SAFETY: the caller's promise.
    unsafe { with(generator, failure, work) }
}

/// Ids that the tokenizer has are below this; 0 for null.
///
/// # Safety
/// `generator` is null or came from [`onebit_open`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn onebit_vocab_size(generator: *const Generator) -> usize {
    // SAFETY: null or a generator, by the caller's promise.
    unsafe { generator.as_ref() }.map_or(0, |generator| generator.inner.tokenizer().vocab_size())
}

/// # Safety
/// As [`input`].
unsafe fn text_of<'a>(text: *const c_char, size: usize) -> Result<&'a str, CallError> {
    // SAFETY: as this function's contract; a `c_char` is a byte.
    let bytes = unsafe { input(text.cast::<u8>(), size) }?;
    let utf8 = core::str::from_utf8(bytes);
    utf8.map_err(|_| wrong(Status::Text, &"expected a text in UTF-8; convert it first").into())
}

/// Writes `values` where the caller has room for them, and how many there are.
///
/// # Safety
/// `place` has room for `capacity` values, `count` can be written.
unsafe fn give<T: Copy>(values: &[T], place: *mut T, capacity: usize, count: *mut usize) -> Result<Status, CallError> {
    // SAFETY: as this function's contract.
    *unsafe { output(count) }? = values.len();
    if values.len() > capacity {
        return Err(wrong(
            Status::Room,
            &"there is room for too few values; count tells how many there are",
        )
        .into());
    }
    if values.is_empty() {
        return Ok(Status::Ok);
    }
    // SAFETY: as this function's contract.
    unsafe { output(place) }?;
    // SAFETY: not null, aligned, and with room for as many; a fresh vector of ours does not overlap with it.
    unsafe { core::ptr::copy_nonoverlapping(values.as_ptr(), place, values.len()) };
    Ok(Status::Ok)
}
