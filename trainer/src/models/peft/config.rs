//! `adapter_config.json`, as peft 0.13 to 0.21 write it.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::super::json::{Fields, one_line, read_object, shown};
use super::modules::Modules;
use crate::{Error, Result};

/// Settings of a low-rank adapter under peft's meanings.
#[derive(Debug, Clone, PartialEq)]
pub struct LoraConfig {
    /// `r`: the rank of the corrections.
    pub rank: usize,
    /// `lora_alpha`: the scaling is alpha / rank.
    pub alpha: f64,
    /// `use_rslora`: the scaling is alpha / sqrt(rank).
    pub rank_stabilised: bool,
    /// `lora_dropout`: share of inputs left out in training; nothing changes in inference.
    pub dropout: f64,
    /// `target_modules`.
    pub targets: Modules,
    /// `exclude_modules`.
    pub exclude: Option<Modules>,
    /// `layers_to_transform`: numbers of the layers with adapters; none: all.
    pub layers: Option<Vec<usize>>,
    /// `layers_pattern`: what the list of layers may be called.
    pub layers_pattern: Vec<String>,
    /// `rank_pattern`: other ranks for modules that match, the first pattern first.
    pub rank_pattern: Vec<(String, f64)>,
    /// `alpha_pattern`: the same of alphas.
    pub alpha_pattern: Vec<(String, f64)>,
    /// `modules_to_save`: modules trained and saved whole.
    pub modules_to_save: Vec<String>,
    /// `base_model_name_or_path`.
    pub base: Option<String>,
}

/// Settings that say how an adapter came to be, or that it is read or run in another way, without a change of what it is.
const INDIFFERENT: [&str; 14] = [
    "auto_mapping",
    "corda_config",
    "eva_config",
    "inference_mode",
    "lora_ga_config",
    "megatron_core",
    "peft_type",
    "peft_version",
    "qalora_group_size",
    "revision",
    "runtime_config",
    "task_type",
    "init_lora_weights",
    "bias",
];

/// Settings that are read.
const READ: [&str; 12] = [
    "alpha_pattern",
    "base_model_name_or_path",
    "exclude_modules",
    "layers_pattern",
    "layers_to_transform",
    "lora_alpha",
    "lora_dropout",
    "modules_to_save",
    "r",
    "rank_pattern",
    "target_modules",
    "use_rslora",
];

impl LoraConfig {
    /// Peft's defaults with this rank and alpha: the family's own targets, no dropout.
    pub fn new(rank: usize, alpha: f64) -> Self {
        Self {
            rank,
            alpha,
            rank_stabilised: false,
            dropout: 0.0,
            targets: Modules::Default,
            exclude: None,
            layers: None,
            layers_pattern: vec![],
            rank_pattern: vec![],
            alpha_pattern: vec![],
            modules_to_save: vec![],
            base: None,
        }
    }

    /// Reads the file.
    ///
    /// # Errors
    /// Naming file and field: a value of the wrong type or out of range, and every setting that is not plain LoRA.
    pub fn read(file: &Path) -> Result<Self> {
        let map = read_object(file)?;
        let fields = Fields { file, within: "", map: &map };
        refuse_others(&fields)?;
        let texts = |name: &str| -> Result<Vec<String>> {
            Ok(fields.texts(name)?.unwrap_or_default().into_iter().map(str::to_string).collect())
        };
        let number = |name: &str, default: f64| -> Result<f64> { Ok(fields.number(name)?.unwrap_or(default)) };
        let dropout = number("lora_dropout", 0.0)?;
        if !(0.0..1.0).contains(&dropout) {
            return Err(fields.fault("lora_dropout", format!("{dropout} (expected a share from 0 to below 1)")));
        }
        let layers = layers(&fields)?;
        let targets = modules(&fields, "target_modules")?.unwrap_or(Modules::Default);
        if layers.is_some() && matches!(targets, Modules::Pattern(_)) {
            let what = "cannot be used with a pattern of target_modules (expected a list of names there)";
            return Err(fields.fault("layers_to_transform", what));
        }
        let ranks = patterns(&fields, "rank_pattern")?;
        if let Some((key, rank)) = ranks.iter().find(|(_, rank)| *rank < 1.0 || rank.fract() != 0.0) {
            let what = format!("{rank} is not a rank (expected a whole number of at least 1)");
            return Err(fields.fault(&format!("rank_pattern.{}", one_line(key)), what));
        }
        Ok(Self {
            rank: fields.needed_width("r")?,
            alpha: number("lora_alpha", 8.0)?,
            rank_stabilised: fields.flag("use_rslora")?.unwrap_or(false),
            dropout,
            targets,
            exclude: modules(&fields, "exclude_modules")?,
            layers,
            layers_pattern: match fields.get("layers_pattern") {
                Some(Value::String(one)) if !one.is_empty() => vec![one.clone()],
                Some(Value::String(_)) => vec![],
                _ => texts("layers_pattern")?,
            },
            rank_pattern: ranks,
            alpha_pattern: patterns(&fields, "alpha_pattern")?,
            modules_to_save: texts("modules_to_save")?,
            base: fields.text("base_model_name_or_path")?.map(str::to_string),
        })
    }

    /// The file's content, with the keys of peft 0.13, which later ones read too. `targets`: the names that stand for
    /// [`Modules::Default`] and [`Modules::AllLinear`], as peft writes them.
    pub(super) fn to_json(&self, targets: &[String]) -> Value {
        let whole = |x: f64| if x.fract() == 0.0 && x.abs() < 1e15 { json!(x as i64) } else { json!(x) };
        let patterns = |all: &[(String, f64)]| -> Map<String, Value> {
            all.iter().map(|(key, value)| (key.clone(), whole(*value))).collect()
        };
        let modules = |modules: &Modules| match modules {
            Modules::Default | Modules::AllLinear => json!(targets),
            Modules::Named(names) => json!(names),
            Modules::Pattern(pattern) => json!(pattern),
        };
        let listed = |names: &[String]| if names.is_empty() { Value::Null } else { json!(names) };
        let mut json = json!({
            "alpha_pattern": patterns(&self.alpha_pattern),
            "auto_mapping": null,
            "base_model_name_or_path": self.base,
            "bias": "none",
            "fan_in_fan_out": false,
            "inference_mode": true,
            "init_lora_weights": true,
            "layer_replication": null,
            "layers_pattern": listed(&self.layers_pattern),
            "layers_to_transform": self.layers,
            "loftq_config": {},
            "lora_alpha": whole(self.alpha),
            "lora_dropout": self.dropout,
            "megatron_config": null,
            "megatron_core": "megatron.core",
            "modules_to_save": listed(&self.modules_to_save),
            "peft_type": "LORA",
            "r": self.rank,
            "rank_pattern": patterns(&self.rank_pattern),
            "revision": null,
            "target_modules": modules(&self.targets),
            "task_type": "CAUSAL_LM",
            "use_dora": false,
            "use_rslora": self.rank_stabilised,
        });
        if let Some(exclude) = &self.exclude {
            json["exclude_modules"] = modules(exclude); // a later peft's: written where it says something
        }
        json
    }
}

/// Names every setting that would change the arithmetic in a way that is not plain LoRA.
fn refuse_others(fields: &Fields) -> Result<()> {
    let only = |name: &str, allowed: &[&str]| -> Result<()> {
        match fields.text(name)? {
            Some(value) if !allowed.contains(&value) => {
                let what = format!("{} is not supported (expected {})", one_line(value), allowed.join(" or "));
                Err(fields.fault(name, what))
            }
            _ => Ok(()),
        }
    };
    if fields.text("peft_type")?.is_none() {
        return Err(fields.fault("peft_type", "missing (expected LORA)"));
    }
    only("peft_type", &["LORA"])?;
    only("task_type", &["CAUSAL_LM"])?;
    only("bias", &["none"])?;
    // Other ways to begin change the base model, which is then not the one that is named.
    if !matches!(fields.get("init_lora_weights"), None | Some(Value::Bool(_))) {
        only("init_lora_weights", &["gaussian", "orthogonal", "eva"])?;
    }
    for (name, value) in fields.map {
        let off = match value {
            Value::Null | Value::Bool(false) => true,
            Value::Array(list) => list.is_empty(),
            Value::Object(map) => map.is_empty(),
            _ => false,
        };
        if !off && !READ.contains(&name.as_str()) && !INDIFFERENT.contains(&name.as_str()) {
            let what = format!("{} is not supported (expected plain LoRA)", shown(value));
            return Err(fields.fault(&one_line(name), what));
        }
    }
    Ok(())
}

/// A list of names, a pattern, or `all-linear`.
fn modules(fields: &Fields, name: &str) -> Result<Option<Modules>> {
    Ok(match fields.get(name) {
        None => None,
        Some(Value::String(text)) if text.eq_ignore_ascii_case("all-linear") && name == "target_modules" => {
            Some(Modules::AllLinear)
        }
        Some(Value::String(text)) => Some(Modules::Pattern(text.clone())),
        Some(Value::Array(_)) => {
            let names = fields.texts(name)?.unwrap_or_default();
            Some(Modules::Named(names.into_iter().map(str::to_string).collect()))
        }
        Some(value) => {
            return Err(fields.fault(name, format!("{} (expected a list of names or a pattern)", shown(value))));
        }
    })
}

fn layers(fields: &Fields) -> Result<Option<Vec<usize>>> {
    let read = |value: &Value| value.as_u64().and_then(|n| usize::try_from(n).ok());
    let name = "layers_to_transform";
    let wrong = |value: &Value| fields.fault(name, format!("{} (expected a layer or a list of them)", shown(value)));
    match fields.get(name) {
        None => Ok(None),
        Some(value @ Value::Array(list)) => {
            Ok(Some(list.iter().map(read).collect::<Option<Vec<_>>>().ok_or_else(|| wrong(value))?))
        }
        Some(value) => Ok(Some(vec![read(value).ok_or_else(|| wrong(value))?])),
    }
}

fn patterns(fields: &Fields, name: &str) -> Result<Vec<(String, f64)>> {
    let Some(object) = fields.object(name, "")? else { return Ok(vec![]) };
    let read = |(key, value): (&String, &Value)| -> Result<(String, f64)> {
        let number = value.as_f64().ok_or_else(|| -> Error {
            fields.fault(&format!("{name}.{}", one_line(key)), format!("{} (expected a number)", shown(value)))
        })?;
        Ok((key.clone(), number))
    };
    object.map.iter().map(read).collect()
}
