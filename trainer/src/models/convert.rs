//! A model's folder written anew: other files, another type of weights, the config in the spelling that transformers 4
//! and 5 both read. Tensors pass through one at a time.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::DType;
use serde_json::{Map, Value};

use super::card::Card;
use super::config::DecoderConfig;
use super::config_json;
use super::hf;
use super::json::read_object;
use super::parameters;
use super::reward;
use super::shards::{self, Precision, Written};
use super::tensors::{Info, Source, Weights, regular_file};
use crate::{Error, Result, files};

/// Files that go along unchanged where the source has them: the tokenizer's, and what is said about the model.
const CARRIED: [&str; 12] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    Card::FILE,
    "LICENSE",
    "LICENSE.txt",
];

/// What is wanted of a conversion.
#[derive(Debug, Clone, Copy)]
pub struct Conversion {
    /// Type of every parameter; without it each keeps its own.
    pub precision: Option<Precision>,
    /// Most bytes of tensors in a file.
    pub shard: u64,
    /// Whether a model that is at the destination goes.
    pub overwrite: bool,
}

/// Copies the tokenizer and the other files that are not the model's own arithmetic from one folder to another, byte for
/// byte.
///
/// # Errors
/// Files that cannot be read or written, and what is no regular file.
pub fn carry(from: &Path, to: &Path) -> Result<()> {
    let mut names: Vec<PathBuf> = CARRIED.map(PathBuf::from).to_vec();
    // A model with code of its own (ArmoRM) is loaded by it elsewhere; here it is never run.
    let entries = std::fs::read_dir(from).map_err(|e| Error::file(from, e))?;
    let own = entries.filter_map(|entry| Some(PathBuf::from(entry.ok()?.file_name())));
    names.extend(own.filter(|name| name.extension().is_some_and(|e| e == "py")));
    for name in names {
        let path = from.join(&name);
        if path.exists() {
            regular_file(&path)?;
            std::fs::copy(&path, to.join(&name)).map_err(|e| Error::file(&path, e))?;
        }
    }
    Ok(())
}

/// Writes the model in `source` to the folder `destination` as `how` says. `source` is only read; `destination` appears
/// when all of it is on the disk.
///
/// # Errors
/// One line naming file and field: a model that [`hf::load`] would refuse, a number that the new type cannot
/// hold, a destination that is there already or lies in the source.
pub fn convert(source: &Path, destination: &Path, how: &Conversion) -> Result<Written> {
    check_places(source, destination, how.overwrite)?;
    let model = Model::read(source)?;
    let weights = hf::open_weights(source)?;
    let found = model.matched(&weights)?;
    let mut stored = found.values().map(|(_, info)| info.dtype);
    let first = stored.next();
    let common = first.filter(|first| stored.all(|dtype| dtype == *first));
    let wanted = how.precision.map(Precision::dtype);
    let config = model.config(wanted.or(common))?;
    let generation = source.join("generation_config.json");
    if generation.exists() {
        read_object(&generation)?;
    }
    files::write_folder(destination, |at| {
        carry(source, at)?;
        if generation.exists() {
            std::fs::copy(&generation, at.join("generation_config.json")).map_err(|e| Error::file(&generation, e))?;
        } else if !model.is_reward {
            files::write_json(&at.join("generation_config.json"), &config_json::generation_json(&config))?;
        }
        if !at.join(Card::FILE).exists() {
            model.card(destination).write(at)?;
        }
        files::write_json(&at.join("config.json"), &config)?;
        let sources = found
            .iter()
            .map(|(name, (file, info))| Source::file(&weights[*file], name, info, wanted.unwrap_or(info.dtype)));
        shards::write(at, sources.collect(), how.shard)
    })
}

/// What a source is, and what its weights must hold.
struct Model {
    json: Map<String, Value>,
    decoder: DecoderConfig,
    /// Name of the object in `config.json` with the decoder's config, where that is not the whole.
    nested: Option<&'static str>,
    parameters: BTreeMap<String, Vec<usize>>,
    /// Tensors that may lie beside the parameters and are left behind.
    beside: Vec<String>,
    is_reward: bool,
}

impl Model {
    fn read(folder: &Path) -> Result<Self> {
        let json = read_object(&folder.join("config.json"))?;
        Ok(match reward::folder::layout(folder)? {
            Some((config, beside)) => Self {
                json,
                nested: matches!(config.kind, reward::Kind::Scalar { .. }).then_some(reward::folder::BASE),
                parameters: config.parameters(),
                decoder: config.decoder,
                beside,
                is_reward: true,
            },
            None => {
                let decoder = hf::config(folder)?;
                let names = decoder.family.names();
                Self {
                    json,
                    nested: None,
                    parameters: parameters::parameters(&decoder, names.trunk, true),
                    beside: if decoder.tied_head { vec![names.head.into()] } else { Vec::new() },
                    decoder,
                    is_reward: false,
                }
            }
        })
    }

    /// Where each parameter is.
    fn matched(&self, weights: &[Weights]) -> Result<BTreeMap<String, (usize, Info)>> {
        let ignored = |name: &str| parameters::is_legacy_buffer(name) || self.beside.iter().any(|other| other == name);
        hf::matched(weights, &self.parameters, ignored, "config.json")
    }

    /// The source's config with every setting that transformers 4 looks for, and the type of the weights if it is known.
    fn config(&self, dtype: Option<DType>) -> Result<Value> {
        let mut json = self.json.clone();
        let complete = |map: &mut Map<String, Value>| {
            map.remove("rope_parameters");
            if let Value::Object(known) = config_json::to_json(&self.decoder) {
                // The class of a reward model is not the decoder's.
                for (name, value) in known.into_iter().filter(|(name, _)| !self.is_reward || name != "architectures") {
                    map.entry(name).or_insert(value);
                }
            }
            map.sort_keys();
        };
        match self.nested.and_then(|name| json.get_mut(name)) {
            Some(Value::Object(inner)) => complete(inner),
            _ => complete(&mut json),
        }
        let newer = json.remove("dtype");
        if let Some(newer) = newer {
            json.insert("torch_dtype".into(), newer);
        }
        if let Some(dtype) = dtype {
            json.insert("torch_dtype".into(), shards::dtype_name(dtype)?.into());
        }
        json.sort_keys();
        Ok(Value::Object(json))
    }

    /// A card for a folder that has none.
    fn card(&self, destination: &Path) -> Card {
        let numbers: usize = self.parameters.values().map(|shape| shape.iter().product::<usize>()).sum();
        let (pipeline, what) = match self.is_reward {
            true => ("text-classification", "reward model"),
            false => ("text-generation", "language model"),
        };
        let kind = self.decoder.family.model_type();
        Card {
            title: destination.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            base_model: None,
            pipeline,
            library: "transformers",
            tags: vec![kind.into()],
            datasets: Vec::new(),
            summary: format!("A {what} ({kind}), its files converted; the weights are those of the source."),
            facts: vec![
                ("parameters".into(), numbers.to_string()),
                ("converted by".into(), format!("rebel convert {}", env!("CARGO_PKG_VERSION"))),
            ],
        }
    }
}

/// Refuses a destination that is there already, unless it is a model's folder or empty and may go, and one that is the
/// source, lies in it or holds it.
pub(super) fn check_places(source: &Path, destination: &Path, overwrite: bool) -> Result<()> {
    let bad = |what: &str| Err(Error::file(destination, what));
    let Some(name) = destination.file_name() else { return bad("not the name of a folder") };
    let above = destination.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let source = source.canonicalize().map_err(|e| Error::file(source, e))?;
    // What is not there yet has no links to follow; the nearest folder above it that is there decides.
    let existing = above.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("."));
    let rest = above.strip_prefix(existing).unwrap_or(Path::new(""));
    let place = existing.canonicalize().map_err(|e| Error::file(existing, e))?.join(rest).join(name);
    let place = place.canonicalize().unwrap_or(place);
    if place.starts_with(&source) || source.starts_with(&place) {
        return bad("lies in the source, or the source in it (expected a folder of its own)");
    }
    if destination.symlink_metadata().is_err() {
        return Ok(());
    }
    if !overwrite {
        return bad("exists already (expected a new folder, or --overwrite)");
    }
    if destination.is_symlink() || !destination.is_dir() {
        return bad("not a folder (expected one to replace)");
    }
    let mut entries = std::fs::read_dir(destination).map_err(|e| Error::file(destination, e))?;
    if entries.next().is_some() && !destination.join("config.json").is_file() {
        return bad("neither empty nor a model's folder: it is not replaced");
    }
    Ok(())
}
