//! Why a template stopped.

/// What went wrong while a template was checked or ran.
#[derive(Debug)]
pub(in crate::chat) enum Fault {
    /// A bound was reached.
    Limit(String),
    /// The template is wrong, uses what there is not, or refused the conversation.
    Wrong(String),
}

impl Fault {
    /// A fault of the template.
    pub fn wrong(message: impl Into<String>) -> Self {
        Self::Wrong(message.into())
    }
}

/// The result of anything that a template can do.
pub(in crate::chat) type Result<T> = std::result::Result<T, Fault>;

/// At most 300 characters of a text, for a message: what a template says may be long.
pub(in crate::chat) fn shortened(text: &str) -> String {
    const LONGEST: usize = 300;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_string(),
    }
}
