//! Hugging Face folders of reward models: which kind one holds, its config, its weights.
//!
//! The weights say which head there is; where `architectures` names a reward model, both must agree. A folder without a
//! head is a language model.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{DType, Device};
use serde_json::{Map, Value, json};

use super::mixture::{MixtureConfig, OBJECTIVES};
use super::{Kind, RewardConfig, WRAPPED, WRAPPED_AGAIN};
use crate::models::config::DecoderConfig;
use crate::models::json::{Fields, one_line, read_object};
use crate::models::shards::Format;
use crate::models::tensors::Weights;
use crate::models::{config_json, hf};
use crate::nn::Store;
use crate::{Error, Result, files};

/// The paper's TL;DR code nests the trunk's config here.
pub(in crate::models) const BASE: &str = "base_config";

/// What ArmoRM's files say where they are silent (its published code).
const GATE_LAYERS: usize = 3;
const GATE_WIDTH: usize = 1024;
const GATE_TEMPERATURE: f64 = 10.0;

/// `<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n` in Llama 3's tokenizer, as ArmoRM's code has it; whoever
/// has the folder's tokenizer knows better.
const PATTERN: [u32; 5] = [128_009, 128_006, 78_191, 128_007, 271];

/// A head: the tensor that only it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Head {
    Scalar,
    Classifier,
    Value,
    Regression,
    Mixture,
}

impl Head {
    const ALL: [Self; 5] = [Self::Scalar, Self::Classifier, Self::Value, Self::Regression, Self::Mixture];

    fn tensor(self) -> &'static str {
        match self {
            Self::Scalar => "scalar_head.weight",
            Self::Classifier => "score.weight",
            Self::Value => "v_head.weight",
            Self::Regression => "regression_head.weight",
            Self::Mixture => "regression_layer.weight",
        }
    }

    /// The head of an architecture of `config.json`, if it is a reward model's.
    fn of(architecture: &str) -> Option<Self> {
        match architecture {
            "ScalarModel" => Some(Self::Scalar),
            "EurusRewardModel" => Some(Self::Regression),
            "LlamaForRewardModelWithGating" => Some(Self::Mixture),
            name if name.ends_with("ForSequenceClassification") => Some(Self::Classifier),
            _ => None,
        }
    }
}

/// A folder's config and the names and shapes in its weights; no tensor is read.
struct Outline {
    file: std::path::PathBuf,
    json: Map<String, Value>,
    weights: Vec<Weights>,
    shapes: BTreeMap<String, Vec<usize>>,
}

impl Outline {
    fn read(folder: &Path) -> Result<Self> {
        let file = folder.join("config.json");
        let json = read_object(&file)?;
        let weights = hf::open_weights(folder)?;
        let shapes = weights.iter().flat_map(Weights::shapes).collect();
        Ok(Self { file, json, weights, shapes })
    }

    fn fields(&self) -> Fields<'_> {
        Fields { file: &self.file, within: "", map: &self.json }
    }

    /// The head that weights and config agree on; none for a language model.
    fn head(&self) -> Result<Option<Head>> {
        let fields = self.fields();
        let mut held = Head::ALL.into_iter().filter(|head| self.shapes.contains_key(head.tensor()));
        let head = held.next();
        if let (Some(one), Some(other), Some(file)) = (head, held.next(), self.weights.first()) {
            let what = format!("a second head beside {} (expected one)", one.tensor());
            return Err(Error::field(file.path(), other.tensor(), what));
        }
        let architectures = fields.texts("architectures")?.unwrap_or_default();
        let named = architectures.into_iter().find_map(|name| Some((name, Head::of(name)?)));
        match (named, head) {
            (Some((name, named)), Some(head)) if named != head => {
                let what = format!("{} has {}, but the weights hold {}", one_line(name), named.tensor(), head.tensor());
                Err(fields.fault("architectures", what))
            }
            (Some((_, named)), None) => Err(self.missing(named.tensor())),
            (None, None) if fields.has(BASE) => Err(self.missing(Head::Scalar.tensor())),
            (_, head) => Ok(head),
        }
    }

    /// The config, and the names that may lie beside the parameters: a second copy of the trunk, which must say the same,
    /// and a language model's head. None for a language model.
    fn layout(&self) -> Result<Option<(RewardConfig, Vec<String>)>> {
        let Some(head) = self.head()? else { return Ok(None) };
        let config = self.config(head)?;
        let copies = copies(&config);
        compare_copies(&self.weights, &copies)?;
        let lm_head = config.decoder.family.names().head;
        let beside = copies.into_keys().chain([lm_head.to_string(), format!("model.{lm_head}")]).collect();
        Ok(Some((config, beside)))
    }

    fn missing(&self, tensor: &str) -> Error {
        let file = self.weights.first().map_or(self.file.as_path(), Weights::path);
        Error::field(file, tensor, "missing tensor")
    }

    fn config(&self, head: Head) -> Result<RewardConfig> {
        let fields = self.fields();
        let decoder = match head {
            Head::Scalar => {
                let base = fields.object(BASE, "base_config.")?;
                config_json::from_json(base.ok_or_else(|| fields.fault(BASE, "missing"))?)?
            }
            _ => config_json::from_json(fields)?,
        };
        let kind = match head {
            Head::Scalar => Kind::Scalar { shift: fields.number("bias")?.unwrap_or(0.0) },
            Head::Classifier => {
                one_label(&fields)?;
                Kind::Classifier
            }
            Head::Value => Kind::Value { trunk: self.wrapped_trunk(&decoder) },
            Head::Regression => Kind::Regression,
            Head::Mixture => Kind::Mixture(self.mixture(&fields)?),
        };
        Ok(RewardConfig { decoder, kind, pad: fields.token("pad_token_id")? })
    }

    /// The name under which the trunk of a wrapped language model lies.
    fn wrapped_trunk(&self, decoder: &DecoderConfig) -> &'static str {
        let names = decoder.family.names();
        let held = |trunk: &&str| self.shapes.contains_key(&format!("{trunk}.{}.weight", names.embedding));
        [WRAPPED, WRAPPED_AGAIN, names.trunk].into_iter().find(held).unwrap_or(WRAPPED)
    }

    fn mixture(&self, fields: &Fields) -> Result<MixtureConfig> {
        let rows = self.shapes.get(Head::Mixture.tensor()).and_then(|shape| shape.first()).copied().unwrap_or(0);
        let count = fields.width("num_objectives")?.unwrap_or(rows);
        if count != rows || count == 0 {
            return Err(fields.fault("num_objectives", format!("{count} ({OBJECTIVES}.weight has {rows} rows)")));
        }
        let hidden_layers = fields.count("gating_n_hidden")?.unwrap_or(GATE_LAYERS);
        let is_layer = |name: &&String| name.starts_with("gating.layers.") && name.ends_with(".weight");
        let layers = self.shapes.keys().filter(is_layer).count();
        if layers != hidden_layers.saturating_add(1) {
            let what = format!("{hidden_layers} (the weights hold {layers} layers, the last of them not hidden)");
            return Err(fields.fault("gating_n_hidden", what));
        }
        let temperature = fields.number("gating_temperature")?.unwrap_or(GATE_TEMPERATURE);
        if !(temperature.is_finite() && temperature > 0.0) {
            return Err(fields.fault("gating_temperature", format!("{temperature} (expected a number above 0)")));
        }
        Ok(MixtureConfig {
            objectives: labels(fields, count)?,
            hidden_layers,
            hidden_width: fields.width("gating_hidden_dim")?.unwrap_or(GATE_WIDTH),
            temperature,
            pattern: PATTERN.to_vec(),
        })
    }
}

/// What `id2label` calls `count` outputs; their numbers where it is silent or has another count.
fn labels(fields: &Fields, count: usize) -> Result<Vec<String>> {
    let labels = fields.object("id2label", "id2label.")?.filter(|labels| labels.map.len() == count);
    let name = |i: usize| match labels {
        Some(labels) => {
            let name = labels.text(&i.to_string())?;
            Ok(name.ok_or_else(|| labels.fault(&i.to_string(), "missing (expected a label)"))?.into())
        }
        None => Ok(i.to_string()),
    };
    (0..count).map(name).collect()
}

/// Refuses a classifier of several labels: none of them is the reward.
fn one_label(fields: &Fields) -> Result<()> {
    let of = |name: &str, labels: usize| match labels {
        1 => Ok(()),
        _ => Err(fields.fault(name, format!("{labels} labels (expected 1: a reward)"))),
    };
    if let Some(labels) = fields.object("id2label", "id2label.")? {
        of("id2label", labels.map.len())?;
    }
    fields.count("num_labels")?.map_or(Ok(()), |labels| of("num_labels", labels))
}

/// Whether the folder holds a reward model rather than a language model.
///
/// # Errors
/// A config or weights that cannot be read, two heads, an architecture whose head is missing.
pub fn is_reward_model(folder: &Path) -> Result<bool> {
    Ok(Outline::read(folder)?.head()?.is_some())
}

/// Reads a reward model of any kind: its config and a store with every parameter, trainable, in `dtype`.
///
/// # Errors
/// One line naming file and field: a folder without a head, or what [`hf::load`] refuses.
pub fn load(folder: &Path, dtype: DType, device: &Device) -> Result<(RewardConfig, Store)> {
    let outline = Outline::read(folder)?;
    let heads = || Head::ALL.map(Head::tensor).join(", ");
    let (config, beside) = outline.layout()?.ok_or_else(|| {
        let what = format!("no head of a reward model (expected one of {})", heads());
        Error::file(outline.weights.first().map_or(folder, Weights::path), what)
    })?;
    let beside: Vec<&str> = beside.iter().map(String::as_str).collect();
    let store = hf::load_weights(folder, &config.parameters(), &beside, dtype, device)?;
    Ok((config, store))
}

/// The config of the reward model in a folder, and which tensors may lie beside its parameters; none for a language
/// model's folder.
///
/// # Errors
/// As [`load`], what the tensors' shapes say excepted.
pub(in crate::models) fn layout(folder: &Path) -> Result<Option<(RewardConfig, Vec<String>)>> {
    Outline::read(folder)?.layout()
}

/// Names under which the trunk may lie a second time, each with the name it is read by. Starling's files hold it as
/// `transformer.*` and as `model.model.*`.
fn copies(config: &RewardConfig) -> BTreeMap<String, String> {
    let trunk = config.trunk();
    let names: Vec<String> = match config.kind {
        Kind::Value { .. } => config.parameters().into_keys().collect(),
        _ => Vec::new(),
    };
    let others = [WRAPPED, WRAPPED_AGAIN].into_iter().filter(|other| *other != trunk);
    let copy_of = |other: &str, name: &String| Some((format!("{other}{}", name.strip_prefix(trunk)?), name.clone()));
    others.flat_map(|other| names.iter().filter_map(move |name| copy_of(other, name))).collect()
}

/// Refuses a second copy that says something else: which one the model was is not known.
fn compare_copies(files: &[Weights], copies: &BTreeMap<String, String>) -> Result<()> {
    let held: Vec<_> = files.iter().map(Weights::infos).collect();
    for (file, infos) in files.iter().zip(&held) {
        for (name, info) in infos {
            let Some(original) = copies.get(name) else { continue };
            // Where the original is missing, that is said later.
            let Some(at) = held.iter().position(|infos| infos.contains_key(original)) else { continue };
            if held[at][original] != *info || file.bytes(name)? != files[at].bytes(original)? {
                return Err(Error::field(file.path(), one_line(name), format!("differs from {original}")));
            }
        }
    }
    Ok(())
}

/// Writes a reward model's folder in the layout [`load`] reads. Each file is written aside, synced and renamed, the
/// weights last.
///
/// # Errors
/// When a file cannot be written, or `store` lacks a parameter.
pub fn save(folder: &Path, config: &RewardConfig, store: &Store) -> Result<()> {
    std::fs::create_dir_all(folder).map_err(|e| Error::file(folder, e))?;
    files::write_json(&folder.join("config.json"), &to_json(config))?;
    hf::save_weights(folder, &config.parameters(), store, Format::default())
}

fn to_json(config: &RewardConfig) -> Value {
    let decoder = config_json::to_json(&config.decoder);
    if let Kind::Scalar { shift } = config.kind {
        return json!({
            "architectures": ["ScalarModel"],
            (BASE): decoder,
            "bias": shift,
            "hidden_size": config.decoder.width,
            "torch_dtype": "float32",
        });
    }
    let mut map = decoder;
    let language_model = map["architectures"][0].as_str().unwrap_or_default().to_string();
    map["pad_token_id"] = json!(config.pad);
    let mut label = |names: &[String]| {
        let (ids, labels): (Map<_, _>, Map<_, _>) =
            names.iter().enumerate().map(|(i, n)| ((i.to_string(), json!(n)), (n.clone(), json!(i)))).unzip();
        map["id2label"] = Value::Object(ids);
        map["label2id"] = Value::Object(labels);
    };
    let architecture = match &config.kind {
        Kind::Scalar { .. } | Kind::Value { .. } => Value::Null, // Starling's class is in no library
        Kind::Classifier => {
            label(&["LABEL_0".into()]);
            json!([language_model.replace("ForCausalLM", "ForSequenceClassification")])
        }
        Kind::Regression => json!(["EurusRewardModel"]),
        Kind::Mixture(mixture) => {
            label(&mixture.objectives);
            map["num_objectives"] = json!(mixture.objectives.len());
            map["gating_n_hidden"] = json!(mixture.hidden_layers);
            map["gating_hidden_dim"] = json!(mixture.hidden_width);
            map["gating_temperature"] = json!(mixture.temperature);
            json!(["LlamaForRewardModelWithGating"])
        }
    };
    map["architectures"] = architecture;
    map
}
