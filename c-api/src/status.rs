//! Codes and messages.

use core::ffi::{CStr, c_char};
use core::fmt::{self, Write};

use onebit_model::decode::DecodeError;
use onebit_model::runtime::RuntimeError;

/// What a function returns.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It is done.
    Ok = 0,
    /// The answer has ended: there is no further token.
    Ended = 1,
    /// A pointer is null, or does not lie as its type must.
    Pointer = 2,
    /// A number is outside its range.
    Option = 3,
    /// The bytes are no model that can be run here.
    Model = 4,
    /// The text is not UTF-8.
    Text = 5,
    /// A token id is outside the vocabulary, or there is none.
    Token = 6,
    /// The caller's room is too small; what is needed was told.
    Room = 7,
    /// There is too little memory.
    Memory = 8,
    /// The logits are no numbers: damaged weights.
    Logits = 9,
    /// An error of the library, after which the generator can be freed and nothing else.
    Internal = 10,
}

impl Status {
    /// All of them, by their codes.
    pub const ALL: [Status; 11] = [
        Self::Ok,
        Self::Ended,
        Self::Pointer,
        Self::Option,
        Self::Model,
        Self::Text,
        Self::Token,
        Self::Room,
        Self::Memory,
        Self::Logits,
        Self::Internal,
    ];

    const fn message(self) -> &'static CStr {
        match self {
            Self::Ok => c"done",
            Self::Ended => c"the answer has ended",
            Self::Pointer => c"a pointer is null or misaligned",
            Self::Option => c"an option is outside its range",
            Self::Model => c"the bytes are no model that can be run here",
            Self::Text => c"the text is not UTF-8",
            Self::Token => c"a token is outside the vocabulary, or no token was given",
            Self::Room => c"the room for the result is too small",
            Self::Memory => c"there is too little memory",
            Self::Logits => c"the model computes no numbers",
            Self::Internal => c"an error of the library",
        }
    }
}

/// A short text for a code; never null, and for an unknown code too.
#[unsafe(no_mangle)]
pub extern "C" fn onebit_status_text(status: i32) -> *const c_char {
    let known = Status::ALL.into_iter().find(|known| *known as i32 == status);
    known.map_or(c"an unknown status", Status::message).as_ptr()
}

/// Bytes of a message, its end included.
pub const MESSAGE_SIZE: usize = 256;

/// What went wrong, in a place of the caller's.
#[repr(C)]
pub struct Failure {
    /// The code that the function returned as well.
    pub status: i32,
    /// What was expected, what was found and what to do, cut to its room; ends in a zero.
    pub message: [c_char; MESSAGE_SIZE],
}

/// A code with its message.
pub(crate) struct Problem<'a> {
    pub status: Status,
    pub message: &'a dyn fmt::Display,
}

impl Problem<'_> {
    /// Writes it where the caller wants it.
    pub fn tell(&self, failure: Option<&mut Failure>) -> Status {
        if let Some(failure) = failure {
            failure.status = self.status as i32;
            let mut text = Text {
                room: &mut failure.message,
                used: 0,
            };
            // What does not fit is left out.
            let _ = write!(text, "{}", self.message);
            text.end();
        }
        self.status
    }
}

/// Writes whole characters as far as there is room for them and a zero.
struct Text<'a> {
    room: &'a mut [c_char; MESSAGE_SIZE],
    used: usize,
}

impl Text<'_> {
    fn end(&mut self) {
        if let Some(end) = self.room.get_mut(self.used) {
            *end = 0;
        }
    }
}

impl Write for Text<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            let end = self.used + c.len_utf8();
            let room = self.room.get_mut(self.used..end).filter(|_| end < MESSAGE_SIZE);
            let bytes = &mut [0; 4];
            let bytes = c.encode_utf8(bytes).bytes();
            room.ok_or(fmt::Error)?
                .iter_mut()
                .zip(bytes)
                .for_each(|(to, byte)| *to = byte as c_char);
            self.used = end;
        }
        Ok(())
    }
}

/// The code of an error.
pub(crate) fn status_of(error: &DecodeError) -> Status {
    match error {
        DecodeError::Image(_) | DecodeError::NoTokenizer => Status::Model,
        DecodeError::Runtime(RuntimeError::OutOfMemory { .. }) => Status::Memory,
        DecodeError::Runtime(RuntimeError::Option { .. }) => Status::Option,
        DecodeError::Runtime(RuntimeError::UnknownToken { .. } | RuntimeError::EmptyInput) => Status::Token,
        DecodeError::Sampling(onebit_model::sampling::SamplingError::OutOfRange { .. }) => Status::Option,
        DecodeError::Sampling(_) => Status::Logits,
        DecodeError::Tokenizer(_) => Status::Token,
        _ => Status::Model,
    }
}
