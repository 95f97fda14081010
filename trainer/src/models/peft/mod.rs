//! Adapters in PEFT's folders: `adapter_config.json` and `adapter_model.safetensors` beside a model they are no part of.
//!
//! [`open`] reads a model with or without an adapter, [`load`] puts an adapter beside a model that is there, [`begin`] a
//! fresh one; [`save`] writes a folder that peft loads unchanged; [`merge`] makes an ordinary model of both.

mod config;
mod modules;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};

use super::card::Card;
use super::config::DecoderConfig;
use super::convert::{self, Conversion};
use super::shards::{Format, Precision};
use super::tensors::{self, Weights};
use super::{hf, hub};
use crate::nn::lora::{self, DOWN, SAVED, UP};
use crate::nn::{Store, Streams};
use crate::{Error, Result, files};
pub use config::LoraConfig;
pub use modules::{Modules, Plan, Planned, default_targets};

/// The settings' file.
pub const CONFIG: &str = "adapter_config.json";
const WEIGHTS: &str = "adapter_model.safetensors";
/// What peft puts before a module's name.
const PREFIX: &str = "base_model.model.";

/// Whether `folder` holds an adapter.
pub fn is_adapter(folder: &Path) -> bool {
    folder.join(CONFIG).is_file()
}

/// Reads a model's folder or an adapter's: its config, a store, and the adapter's settings if there is one. The base of an
/// adapter is `base`, or else the folder that its settings name, sought from the adapter's own and then as [`hub::folder`]
/// does.
///
/// # Errors
/// As [`hf::load`] and [`load`]; when no base can be found.
pub fn open(
    folder: &Path,
    base: Option<&Path>,
    dtype: DType,
    device: &Device,
) -> Result<(DecoderConfig, Store, Option<LoraConfig>)> {
    if !is_adapter(folder) {
        let (config, store) = hf::load(folder, dtype, device)?;
        return Ok((config, store, None));
    }
    let base = match base {
        Some(base) => base.to_path_buf(),
        None => base_of(folder)?,
    };
    let (config, mut store) = hf::load(&base, dtype, device)?;
    let lora = load(folder, &config, &mut store)?;
    Ok((config, store, Some(lora)))
}

/// The folder of the model that the adapter in `folder` is for.
fn base_of(folder: &Path) -> Result<PathBuf> {
    let file = folder.join(CONFIG);
    let fault = |what: String| Error::field(&file, "base_model_name_or_path", what);
    let name =
        LoraConfig::read(&file)?.base.ok_or_else(|| fault("missing (expected the base model's folder)".into()))?;
    let beside = folder.join(&name);
    match beside.join("config.json").is_file() {
        true => Ok(beside),
        false => hub::folder(&name).map_err(|error| fault(error.to_string().replace(char::is_control, " "))),
    }
}

/// Where tokenizer and chat template of the model or adapter in `folder` are: there, or else with an adapter's base.
///
/// # Errors
/// When an adapter has no tokenizer and its base cannot be found.
pub fn text_folder(folder: &Path) -> Result<PathBuf> {
    match is_adapter(folder) && !folder.join("tokenizer.json").is_file() {
        true => base_of(folder),
        false => Ok(folder.into()),
    }
}

/// Puts the adapter in `folder` beside the model in `store`, which is frozen; what the adapter brought is trainable.
///
/// # Errors
/// In one line naming file and field: settings that are not plain LoRA or fit no module of the model, a tensor that is
/// unknown, missing, of another shape or not a float. `store` is unchanged then.
pub fn load(folder: &Path, config: &DecoderConfig, store: &mut Store) -> Result<LoraConfig> {
    let file = folder.join(CONFIG);
    let lora = LoraConfig::read(&file)?;
    let plan = lora.plan(config).map_err(|(field, what)| Error::field(&file, field, what))?;
    let mut read = read_tensors(folder, &plan)?;
    store.freeze(|_| true);
    let mut take = |name: &str| read.remove(name).expect("every expected tensor was read");
    for (module, planned) in &plan.adapted {
        let (down, up) = (take(&format!("{module}.{DOWN}")), take(&format!("{module}.{UP}")));
        store.adapt(module, &down, &up, planned.scaling)?;
    }
    for name in plan.saved.keys() {
        store.replace(name, &take(&lora::saved(name)))?;
    }
    store.set_some(&read)?; // what is left are weights of the base that the adapter brought along
    Ok(lora)
}

/// The parameters of the adapter in `folder`, which is one of `lora` for a model of `config`, under the store's names.
///
/// # Errors
/// As [`load`].
pub fn tensors_of(folder: &Path, lora: &LoraConfig, config: &DecoderConfig) -> Result<BTreeMap<String, Tensor>> {
    let file = folder.join(CONFIG);
    let plan = lora.plan(config).map_err(|(field, what)| Error::field(&file, field, what))?;
    read_tensors(folder, &plan)
}

/// Every tensor of `plan`, under the store's names, and weights of adapted modules where they are there: peft writes the
/// output head's beside its adapter, and takes it from there.
fn read_tensors(folder: &Path, plan: &Plan) -> Result<BTreeMap<String, Tensor>> {
    let places = [WEIGHTS, "adapter_model.bin"].map(|name| folder.join(name));
    let Some(weights) = places.iter().find(|place| place.is_file()) else {
        return Err(Error::file(&places[0], "missing (nor is there adapter_model.bin)"));
    };
    let weights = Weights::open(weights)?;
    let there = weights.infos();
    let mut expected = BTreeMap::new();
    let mut ours = BTreeMap::new(); // the store's name of a file's
    let mut expect = |name: String, shape: Vec<usize>| {
        let in_file = in_file(&name);
        expected.insert(in_file.clone(), shape);
        ours.insert(in_file, name);
    };
    for (module, Planned { rank, shape: [outputs, inputs], .. }) in &plan.adapted {
        expect(format!("{module}.{DOWN}"), vec![*rank, *inputs]);
        expect(format!("{module}.{UP}"), vec![*outputs, *rank]);
    }
    for (name, shape) in &plan.saved {
        expect(lora::saved(name), shape.clone());
    }
    for (module, Planned { shape, .. }) in &plan.adapted {
        let beside = format!("{PREFIX}{module}.base_layer.weight");
        if there.contains_key(&beside) {
            expected.insert(beside.clone(), shape.to_vec());
            ours.insert(beside, format!("{module}.weight"));
        }
    }
    let mut read = BTreeMap::new();
    let said_by = format!("{CONFIG} and the base model");
    hf::read_tensors(
        &[weights],
        &expected,
        |_| false,
        &said_by,
        |name, tensor| {
            read.insert(ours[&name].clone(), tensor);
            Ok(())
        },
    )?;
    Ok(read)
}

/// What peft calls the parameter `name` of a store: without a mark on copies.
fn in_file(name: &str) -> String {
    format!("{PREFIX}{}", name.replace(&format!(".{SAVED}."), "."))
}

/// Whether a fresh adapter of these settings can be put beside a model of `config`, and trained: what it will consist of.
///
/// # Errors
/// As (setting, what): it fits no module of the model, a rank is out of proportion, or there is dropout, which training does
/// not have.
pub fn check(lora: &LoraConfig, config: &DecoderConfig) -> std::result::Result<Plan, (String, String)> {
    let plan = lora.plan(config)?;
    for (module, Planned { rank, shape, .. }) in &plan.adapted {
        let widest = shape[0].max(shape[1]);
        if *rank == 0 || *rank > widest {
            return Err(("r".into(), format!("{rank} is no rank for {module} (expected 1 to {widest})")));
        }
    }
    match lora.dropout {
        0.0 => Ok(plan),
        share => Err(("lora_dropout".into(), format!("{share} is not supported in training (expected 0)"))),
    }
}

/// Puts a fresh adapter beside the model in `store`, which is frozen: it corrects nothing yet.
///
/// # Errors
/// As [`check`], in one line.
pub fn begin(lora: &LoraConfig, config: &DecoderConfig, store: &mut Store, streams: &Streams) -> Result<()> {
    let plan = check(lora, config).map_err(|(field, what)| Error::invalid(format!("{field}: {what}")))?;
    store.freeze(|_| true);
    let (dtype, device) = (store.dtype(), store.device().clone());
    for (module, Planned { rank, scaling, shape }) in &plan.adapted {
        let (down, up) = lora::initial(streams, module, *rank, *shape, dtype, &device)?;
        store.adapt(module, &down, &up, *scaling)?;
    }
    for (name, shape) in &plan.saved {
        let values = store.get(name, shape)?;
        store.replace(name, &values)?;
    }
    Ok(())
}

/// Writes what was put beside the model in `store` as a PEFT folder. `lora.base` says where the model is.
///
/// # Errors
/// When a file cannot be written.
pub fn save(folder: &Path, lora: &LoraConfig, store: &Store) -> Result<()> {
    std::fs::create_dir_all(folder).map_err(|e| Error::file(folder, e))?;
    let mut weights = BTreeMap::new();
    let mut targets = BTreeSet::new();
    for (name, tensor) in store.to_tensors().into_iter().filter(|(name, _)| lora::is_beside(name)) {
        weights.insert(in_file(&name), tensor.to_dtype(DType::F32)?.to_device(&Device::Cpu)?);
        let module = name.strip_suffix(DOWN).and_then(|module| module.strip_suffix('.'));
        targets.extend(module.and_then(|module| module.rsplit('.').next()).map(str::to_string));
    }
    files::write_json(&folder.join(CONFIG), &lora.to_json(&targets.into_iter().collect::<Vec<_>>()))?;
    tensors::save(&folder.join(WEIGHTS), &weights)
}

/// Writes the model that the adapter in `folder` and its base are together to `destination`, an ordinary model's folder with
/// the tokenizer of the adapter's folder or else of the base's. The sum is made in f32; without a precision that is what is
/// written.
///
/// # Errors
/// As [`open`]; when a file cannot be written, or `destination` is there already or lies in the adapter's folder.
pub fn merge(folder: &Path, base: Option<&Path>, destination: &Path, how: &Conversion) -> Result<()> {
    convert::check_places(folder, destination, how.overwrite)?;
    let base = match base {
        Some(base) => base.to_path_buf(),
        None => base_of(folder)?,
    };
    let (config, store, _) = open(folder, Some(&base), DType::F32, &Device::Cpu)?;
    let format = Format { precision: how.precision.unwrap_or(Precision::F32), shard: how.shard };
    let kind = config.family.model_type();
    let card = Card {
        title: destination.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        pipeline: "text-generation",
        library: "transformers",
        tags: vec![kind.into(), "lora".into()],
        summary: format!("A language model ({kind}) with a low-rank adapter worked into its weights."),
        ..Card::default()
    };
    files::write_folder(destination, |at| {
        convert::carry(&base, at)?;
        convert::carry(folder, at)?;
        card.write(at)?;
        hf::save_as(at, &config, &store.merged()?, format)
    })
}
