//! A template's text before the parser sees it: bounds on what the parser would do, and the tag `generation`.

use minijinja::machinery::{Token, WhitespaceConfig, tokenize};
use minijinja::syntax::SyntaxConfig;

use super::fault::{Fault, Result, shortened};

/// Longest template, in bytes. The longest that are published have some 30 000; positions are counted in 16 bits.
const LONGEST: usize = 65_000;
/// Tokens of one tag. The parser makes a level of its tree of one, and goes down the tree when it is freed.
const TAG_TOKENS: usize = 1000;
/// `elif`s of a template: each is a level of the tree.
const ELIFS: usize = 250;

/// White space as `transformers` has it.
pub(super) const WHITESPACE: WhitespaceConfig = WhitespaceConfig {
    keep_trailing_newline: false,
    lstrip_blocks: true,
    trim_blocks: true,
};

/// The text with `{% generation %}` and `{% endgeneration %}` turned into a condition that holds: they mark what a model is trained on and
/// print nothing.
pub(super) fn prepare(text: &str) -> Result<String> {
    if text.len() > LONGEST {
        return Err(Fault::Limit(format!(
            "it has {} bytes; at most {LONGEST} are read",
            text.len()
        )));
    }
    let mut prepared = String::with_capacity(text.len() + 64);
    let mut copied = 0;
    let (mut in_tag, mut elifs, mut begins_block) = (0, 0, false);
    for token in tokenize(text, false, SyntaxConfig, WHITESPACE) {
        let (token, span) = token.map_err(|e| syntax(&e))?;
        match token {
            Token::VariableStart | Token::BlockStart => in_tag = 0,
            _ => in_tag += 1,
        }
        if in_tag > TAG_TOKENS {
            return Err(Fault::Limit(format!(
                "the tag that ends on line {} has more than {TAG_TOKENS} tokens",
                span.end_line
            )));
        }
        if begins_block {
            let condition = match token {
                Token::Ident("generation") => Some("if true"),
                Token::Ident("endgeneration") => Some("endif"),
                Token::Ident("elif") => {
                    elifs += 1;
                    None
                }
                _ => None,
            };
            if let Some(condition) = condition {
                let place = span.start_offset as usize..span.end_offset as usize;
                let before = text.get(copied..place.start);
                prepared.push_str(before.ok_or_else(|| Fault::wrong("a tag lies where none can"))?);
                prepared.push_str(condition);
                copied = place.end;
            }
        }
        if elifs > ELIFS {
            return Err(Fault::Limit(format!("it has more than {ELIFS} branches `elif`")));
        }
        begins_block = matches!(token, Token::BlockStart);
    }
    prepared.push_str(text.get(copied..).unwrap_or_default());
    Ok(prepared)
}

/// A syntax error in the parser's words.
pub(super) fn syntax(error: &minijinja::Error) -> Fault {
    let what = error.detail().map_or_else(|| error.kind().to_string(), str::to_string);
    let what = shortened(&what).replace('\n', " ");
    let line = error.line().map_or_else(String::new, |line| format!(" (line {line})"));
    Fault::Wrong(what + &line)
}
