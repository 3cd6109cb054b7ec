//! `onebit chat`: a conversation.

use std::io::{BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};

use argh::FromArgs;
use onebit_model::chat::{ChatTemplate, Message, Role};
use onebit_model::generation::{Finish, Generator, GeneratorOptions, Request};
use onebit_model::sampling::{Sampler, StopStrings};
use serde::Serialize;

use crate::generation::{self, Given, note_dropped};
use crate::model::ModelDirectory;
use crate::{CliError, Result, args, device, interrupt, output};

/// Longest window that a chat opens; its cache takes memory in proportion.
const MAX_CONTEXT: usize = 16_384;
/// Tokens of an answer when neither the command line nor the model says how many.
const MAX_TOKENS: usize = 512;

/// Talks with a model, keeping the history.
#[derive(FromArgs, argh::ArgsInfo, Debug)]
#[argh(
    subcommand,
    name = "chat",
    example = "{command_name} --model model --system 'Answer in one sentence.'",
    note = "The template comes from the model (chat_template.jinja, chat_template.json or tokenizer_config.json); a model without one gets plain lines `User: ` and `Assistant: `. `/reset` forgets the conversation, `/save FILE` writes it as JSON, `/quit` or the end of the input ends. Ctrl-C stops an answer. When the context is full the oldest turns are left out."
)]
pub struct Chat {
    #[cfg_attr(
        feature = "bundled",
        doc = "the model: a directory, a .1bit or a .gguf file, or the name of a bundled one: wikitext2-25m"
    )]
    #[cfg_attr(
        all(feature = "tokenizers", not(feature = "bundled")),
        doc = "the model: a directory, a .1bit or a .gguf file"
    )]
    #[cfg_attr(not(feature = "tokenizers"), doc = "the model: a .1bit file")]
    #[argh(option)]
    model: Option<PathBuf>,
    /// the same as --model
    #[argh(option)]
    model_dir: Option<PathBuf>,
    /// instructions before the conversation (default: none)
    #[argh(option)]
    system: Option<String>,
    /// tokens of an answer at most (default: 512)
    #[argh(option)]
    max_tokens: Option<usize>,
    /// divides the logits; 0 takes the likeliest token (default: 0.8)
    #[argh(option)]
    temperature: Option<f32>,
    /// choose among so many of the likeliest tokens; 0 for all (default: 50)
    #[argh(option)]
    top_k: Option<usize>,
    /// choose among the likeliest tokens that have this probability together (default: 0.9)
    #[argh(option)]
    top_p: Option<f32>,
    /// choose among tokens at least this fraction as likely as the likeliest (default: 0)
    #[argh(option)]
    min_p: Option<f32>,
    /// divides the logits of tokens that were seen; 1 for none (default: 1.1)
    #[argh(option)]
    repetition_penalty: Option<f32>,
    /// end an answer before this text; may be given several times
    #[argh(option)]
    stop: Vec<String>,
    /// seed of the random numbers (default: 0)
    #[argh(option)]
    seed: Option<u64>,
    /// compute every logit, also those that a sketch of the head shows cannot be drawn, as a GPU does; changes the speed and nothing else
    #[argh(switch)]
    exact_head: bool,
    /// type of embedding and head: f32, f16, bf16, int8 (a byte a value, a step a row; a little less exact) or int4 (half a byte, a step for 32 columns; less exact) (default: as stored)
    #[argh(option)]
    head: Option<String>,
    /// how keys and values are kept: f32, f16 or int8; smaller types make long contexts cheaper and a little less exact (default: f32)
    #[argh(option)]
    kv_type: Option<String>,
    /// auto (a GPU that is found and can run the model, else the CPU), cpu, cuda or cuda:N; the text is the same (default: auto)
    #[argh(option)]
    device: Option<String>,
    /// threads of the CPU (default: physical cores)
    #[argh(option)]
    threads: Option<usize>,
    /// print each answer as a JSON object instead of streaming
    #[argh(switch)]
    json: bool,
}

/// One answer under `--json`.
#[derive(Serialize)]
struct Answer<'a> {
    text: &'a str,
    ids: &'a [u32],
    finish: Finish,
    dropped_tokens: usize,
    shifted_tokens: usize,
    tok_s: f64,
    ttft_ms: f64,
}

/// What a line of the input asks for.
enum Asked<'a> {
    Nothing,
    Reset,
    Save(&'a str),
    Quit,
    Say(&'a str),
}

fn read_line(line: &str) -> Result<Asked<'_>, String> {
    let line = line.trim();
    let Some(command) = line.strip_prefix('/') else {
        return Ok(if line.is_empty() {
            Asked::Nothing
        } else {
            Asked::Say(line)
        });
    };
    let (name, rest) = command.split_once(char::is_whitespace).unwrap_or((command, ""));
    match (name, rest.trim()) {
        ("reset", "") => Ok(Asked::Reset),
        ("quit" | "exit", "") => Ok(Asked::Quit),
        ("save", "") => Err("/save needs the name of a file".into()),
        ("save", file) => Ok(Asked::Save(file)),
        _ => Err(format!(
            "unknown command /{command}; there are /reset, /save FILE and /quit"
        )),
    }
}

struct Conversation {
    generator: Generator,
    template: ChatTemplate,
    sampler: Sampler,
    stops: StopStrings,
    begin: Option<u32>,
    max_tokens: usize,
    context: usize,
    json: bool,
    messages: Vec<Message>,
}

impl Chat {
    pub(super) fn run(self) -> Result<()> {
        let path = args::required(
            args::either(self.model, "--model", self.model_dir, "--model-dir")?,
            "--model",
        )?;
        let kv = args::kv_type(self.kv_type.as_deref())?;
        let head = args::head_type(self.head.as_deref())?;
        let directory = ModelDirectory::open(&path)?;
        let given = Given {
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            repetition_penalty: self.repetition_penalty,
            seed: self.seed,
        };
        let params = given.resolve(&directory.generation)?;
        let template = directory.chat_template()?;
        let stops = template.stop_strings().iter().map(|s| s.to_string()).chain(self.stop);
        let stops = generation::stops(stops)?;
        let system: Vec<Message> = self
            .system
            .map(|text| Message::new(Role::System, text))
            .into_iter()
            .collect();
        let mut place = device::place(self.device.as_deref(), self.threads)?;
        let tokenizer = directory.tokenizer()?;
        let model = directory.load(head)?;
        let config = model.config().clone();
        let context = config.max_position_embeddings.min(MAX_CONTEXT);
        let sampler = Sampler::new(params, config.vocab_size)?;
        let options = GeneratorOptions {
            isa: place.isa,
            threads: place.threads,
            context,
            lookahead: None,
            exact_head: self.exact_head,
            kv,
        };
        let mut conversation = Conversation {
            begin: directory.begin_token(&config, &tokenizer),
            generator: generation::generator(&mut place, &directory, model, tokenizer, &sampler, options)?,
            template,
            sampler,
            stops,
            max_tokens: self
                .max_tokens
                .or(directory.generation.max_new_tokens)
                .unwrap_or(MAX_TOKENS),
            context,
            json: self.json,
            messages: system.clone(),
        };
        let terminal = std::io::stdin().is_terminal();
        let mut input = std::io::stdin().lock();
        let mut line = String::new();
        loop {
            if terminal {
                let _ = write!(std::io::stderr(), "> ");
            }
            line.clear();
            let read = input.read_line(&mut line);
            if read.map_err(|e| CliError::Failed(format!("cannot read the input: {e}; it must be UTF-8 text")))? == 0 {
                return Ok(());
            }
            match read_line(&line) {
                Ok(Asked::Nothing) => {}
                Ok(Asked::Quit) => return Ok(()),
                Ok(Asked::Reset) => {
                    conversation.messages = system.clone();
                    output::note("the conversation is forgotten");
                }
                // A conversation is worth more than a file name: a refusal does not end it.
                Ok(Asked::Save(file)) => match save(Path::new(file), &conversation.messages) {
                    Ok(()) => output::note(&format!("saved to {file}")),
                    Err(error) => output::note(&format!("error: {error}")),
                },
                Ok(Asked::Say(text)) => conversation.answer(text)?,
                Err(problem) => output::note(&problem),
            }
        }
    }
}

impl Conversation {
    fn answer(&mut self, text: &str) -> Result<()> {
        self.messages.push(Message::new(Role::User, text));
        let ids = match self.prompt() {
            Ok(ids) => ids,
            Err(error) => {
                self.messages.pop();
                return Err(error);
            }
        };
        self.stops.reset();
        let json = self.json;
        // The default template ends in "Assistant:", after which a model begins with a space that is not for the reader.
        let mut begun = false;
        let stop = interrupt::poll();
        let request = Request {
            prompt: &ids,
            max_tokens: self.max_tokens,
            logprobs: None,
        };
        let made =
            self.generator
                .generate::<CliError>(request, &mut self.sampler, &mut self.stops, stop, &mut |piece| {
                    let piece = if begun { piece } else { piece.trim_start() };
                    begun |= !piece.is_empty();
                    if json { Ok(()) } else { output::text(piece) }
                })?;
        interrupt::forget();
        let text = made.text.trim();
        if json {
            let answer = Answer {
                text,
                ids: &made.ids,
                finish: made.finish,
                dropped_tokens: made.dropped,
                shifted_tokens: made.shifted,
                tok_s: made.tokens_per_second(),
                ttft_ms: made.first_ms(),
            };
            output::json(&answer)?;
        } else {
            output::line("")?;
        }
        note_dropped(&made, self.context);
        let text = text.to_string();
        self.messages.push(Message::new(Role::Assistant, text));
        Ok(())
    }

    /// The ids of the conversation. While it leaves less than a quarter of the context for an answer, the oldest exchange after the
    /// instructions is not read; the history keeps it.
    fn prompt(&self) -> Result<Vec<u32>> {
        let room = self.max_tokens.min(self.context / 4);
        let first = usize::from(self.messages.first().is_some_and(|m| m.role == Role::System));
        let mut messages = self.messages.clone();
        loop {
            let text = self.template.render(&messages, true)?;
            let mut ids = self.generator.tokenizer().encode(&text)?;
            if let Some(begin) = self.begin
                && ids.first() != Some(&begin)
                && (self.template.is_default() || self.template.bos_token().is_empty())
            {
                ids.insert(0, begin);
            }
            if ids.len() + room <= self.context || messages.len() < first + 3 {
                if messages.len() < self.messages.len() {
                    output::note("note: the context is full; the oldest exchanges are not read any more");
                }
                return Ok(ids);
            }
            messages.drain(first..first + 2);
        }
    }
}

fn save(path: &Path, messages: &[Message]) -> Result<()> {
    args::new_file(path, "/save", false)?;
    let text = serde_json::to_string_pretty(messages)
        .map_err(|e| CliError::Failed(format!("cannot write the conversation: {e}; report this")))?;
    std::fs::write(path, text + "\n").map_err(|e| CliError::io(path, "write", &e, "choose another place"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_speech_or_commands() {
        assert!(matches!(read_line("  \n"), Ok(Asked::Nothing)));
        assert!(matches!(read_line("hello\n"), Ok(Asked::Say("hello"))));
        assert!(matches!(read_line("/save a b.json\n"), Ok(Asked::Save("a b.json"))));
        assert!(matches!(read_line("/quit\r\n"), Ok(Asked::Quit)));
        assert!(matches!(read_line("/reset"), Ok(Asked::Reset)));
        assert!(read_line("/save").is_err());
        assert!(read_line("/resett").is_err_and(|message| message.contains("/resett")));
    }
}
