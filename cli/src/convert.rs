//! A model, and what belongs to it, on the way from one kind of file to another.

use std::fs;
use std::path::Path;

use onebit_model::chat::ChatTemplate;
use onebit_model::config::ModelConfig;
use onebit_model::files::gguf::{GgufOptions, Graph, save_gguf};
use onebit_model::files::{
    DirectoryOptions, Extras, GenerationConfig, ModelSource, OneFile, OneFileOptions, Parts, Recast, replace_file,
    save_directory, save_one_file,
};
use onebit_model::tokenizer::Tokenizer;

use crate::model::{ModelDirectory, weight_bytes};
use crate::progress::Progress;
use crate::random::RandomModel;
use crate::{CliError, Result, output};

/// Files of a model directory that are taken over as they are.
const COMPANIONS: [&str; 5] = [
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
];

/// Where the tensors come from.
pub(crate) enum Origin {
    /// A model.
    Model(Box<ModelDirectory>),
    /// Random weights.
    Random(RandomModel),
}

/// What is to be written.
pub(crate) struct Subject {
    pub origin: Origin,
    pub tokenizer: Option<Tokenizer>,
    pub chat_template: Option<ChatTemplate>,
}

impl Subject {
    /// The model at `path`, of a file all bytes checked; with its own tokenizer, or that of another file.
    pub(crate) fn read(path: &Path, tokenizer: Option<&Path>) -> Result<Self> {
        let model = ModelDirectory::open(path)?;
        if let Some(file) = model.file() {
            file.verify()?;
        }
        let tokenizer = match tokenizer {
            Some(path) => Some(Tokenizer::from_file(path)?),
            None => model.has_tokenizer().then(|| model.tokenizer()).transpose()?,
        };
        Self {
            chat_template: Some(model.chat_template()?),
            tokenizer,
            origin: Origin::Model(Box::new(model)),
        }
        .checked()
    }

    /// Random weights, with a tokenizer if one is given.
    pub(crate) fn random(model: RandomModel, tokenizer: Option<&Path>) -> Result<Self> {
        Self {
            origin: Origin::Random(model),
            tokenizer: tokenizer.map(Tokenizer::from_file).transpose()?,
            chat_template: None,
        }
        .checked()
    }

    fn checked(self) -> Result<Self> {
        let rows = self.source().config().vocab_size;
        match &self.tokenizer {
            Some(tokenizer) if tokenizer.vocab_size() > rows => Err(CliError::Failed(format!(
                "--tokenizer: it has ids up to {}, and the model has {rows}; give the model's own tokenizer",
                tokenizer.vocab_size() - 1
            ))),
            _ => Ok(self),
        }
    }

    /// The tensors.
    pub(crate) fn source(&self) -> &dyn ModelSource {
        match &self.origin {
            Origin::Model(model) => model.source(),
            Origin::Random(model) => model,
        }
    }

    fn model(&self) -> Option<&ModelDirectory> {
        match &self.origin {
            Origin::Model(model) => Some(model),
            Origin::Random(_) => None,
        }
    }

    fn generation(&self) -> Option<&GenerationConfig> {
        let generation = &self.model()?.generation;
        Some(generation).filter(|generation| **generation != GenerationConfig::default())
    }

    /// What goes into a file beside the weights; `packed` is the packed tokenizer.
    pub(crate) fn parts<'a>(&'a self, packed: Option<&'a [u8]>) -> Parts<'a> {
        Parts {
            tokenizer: self.tokenizer.as_ref().map(Tokenizer::json),
            packed_tokenizer: packed,
            generation: self.generation(),
            chat_template: self.chat_template.as_ref().filter(|template| !template.is_default()),
        }
    }

    /// Writes one file, and a C header beside it on request; gives the file.
    pub(crate) fn write_one_file(
        &self,
        path: &Path,
        options: &OneFileOptions,
        header: Option<&Path>,
    ) -> Result<OneFile> {
        let packed = self.tokenizer.as_ref().and_then(Tokenizer::pack);
        let parts = self.parts(packed.as_deref());
        let source = self.source();
        {
            let progress = Progress::new("exporting", 1000);
            save_one_file(path, source, options, &parts, &thousandths(&progress))?;
        }
        finished(path, header)
    }

    /// Writes one file of the weights of `source`, such as [`source`](Self::source), under the modes of `modes`, as small as it can be, and a C header beside it on request; gives the
    /// file.
    pub(crate) fn write_map(
        &self,
        source: &dyn ModelSource,
        path: &Path,
        modes: &ModelConfig,
        header: Option<&Path>,
    ) -> Result<OneFile> {
        let packed = self.tokenizer.as_ref().and_then(Tokenizer::pack);
        let parts = self.parts(packed.as_deref());
        {
            let progress = Progress::new("exporting", 1000);
            let recast = Recast::new(source, |site| modes.mode_at(site))?;
            save_one_file(
                path,
                &recast,
                &OneFileOptions::SMALLEST,
                &parts,
                &thousandths(&progress),
            )?;
        }
        finished(path, header)
    }

    /// Writes a GGUF file, its notes told, and gives its graph.
    pub(crate) fn write_gguf(&self, path: &Path, options: &GgufOptions<'_>) -> Result<Graph> {
        let template = self.chat_template.as_ref().filter(|template| !template.is_default());
        let options = GgufOptions {
            generation: self.generation(),
            tokenizer: self.tokenizer.as_ref(),
            chat_template: template.map(ChatTemplate::text),
            ..*options
        };
        let source = self.source();
        let written = {
            let progress = Progress::new("exporting", 1000);
            save_gguf(path, source, &options, &thousandths(&progress))?
        };
        let tell = |note: &String| output::note(&format!("note: {note}"));
        written.notes.iter().for_each(tell);
        Ok(written.graph)
    }

    /// Writes a model directory, and gives the bytes of its weights.
    pub(crate) fn write_directory(&self, dir: &Path, options: &DirectoryOptions) -> Result<u64> {
        let source = self.source();
        let gaps = source.config().beyond_transformers();
        if !gaps.is_empty() {
            let gaps = gaps.join(", ");
            output::note(&format!(
                "note: transformers has no words for {gaps} and would take this for another model; `onebit` reads them under \"onebit\""
            ));
        }
        let extras = Extras {
            tokenizer: self.tokenizer.as_ref().map(Tokenizer::json),
            generation: self.generation(),
        };
        {
            let progress = Progress::new("writing", 1000);
            save_directory(dir, source, options, extras, &thousandths(&progress))?;
        }
        let taken = self.take_companions(dir)?;
        if let (false, Some(template)) = (taken, &self.chat_template) {
            template.save(dir)?;
        }
        Ok(weight_bytes(dir))
    }

    /// Copies what lies beside the model in its directory. Whether there was anything.
    fn take_companions(&self, dir: &Path) -> Result<bool> {
        let Some(folder) = self.model().and_then(ModelDirectory::folder) else {
            return Ok(false);
        };
        let mut any = false;
        for name in COMPANIONS {
            let (from, to) = (folder.join(name), dir.join(name));
            if !from.is_file() {
                continue;
            }
            // A file copied onto itself would be empty: that of a model file may be imported into the folder that it lies in.
            if !same(&from, &to) {
                fs::copy(&from, &to).map_err(|e| CliError::io(&from, "copy", &e, "check both paths"))?;
            }
            any = true;
        }
        Ok(any)
    }
}

/// The file that was written, its C header beside it on request.
fn finished(path: &Path, header: Option<&Path>) -> Result<OneFile> {
    let file = OneFile::open(path)?;
    if let Some(header) = header {
        let text = file.c_header()?;
        replace_file(header, |temporary| {
            fs::write(temporary, &text)
                .map_err(|e| CliError::io(header, "write", &e, "check the path and the free space"))
        })?;
    }
    Ok(file)
}

/// Tells a bar of a thousand parts about bytes, whose number is known only to the writer.
fn thousandths(progress: &Progress) -> impl Fn(u64, u64) {
    move |done, total| progress.set(1000 * done / total.max(1), String::new)
}

/// Whether two paths lead to the same place.
fn same(a: &Path, b: &Path) -> bool {
    matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}

/// Refuses to write into a directory that holds something, unless forced, and in any case into the model's own.
pub(crate) fn new_directory(dir: &Path, model: Option<&Path>, option: &str, force: bool) -> Result<()> {
    if model.is_some_and(|model| same(model, dir)) {
        return Err(CliError::Failed(format!(
            "{option}: {} is the model itself; give another directory",
            dir.display()
        )));
    }
    if dir.is_file() {
        return Err(CliError::Failed(format!(
            "{option}: {} is a file; give the path of a directory",
            dir.display()
        )));
    }
    let empty = fs::read_dir(dir).map_or(true, |mut entries| entries.next().is_none());
    if !empty && !force {
        return Err(CliError::Failed(format!(
            "{option}: {} exists already and is not empty; give another name or --force",
            dir.display()
        )));
    }
    crate::args::output_directory(dir, option)
}
