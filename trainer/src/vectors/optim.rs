//! The optimizer's cases: AdamW step by step on given gradients, and learning-rate schedules by their names.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use candle_core::{DType, Device};
use serde_json::{Map, Value, json};

use super::write;
use crate::models::tensors::Weights;
use crate::nn::{AdamW, AdamWSettings, Gradients, Schedule, Store, clip};
use crate::{Error, Result, files};

/// The settings, in the case's folder.
pub(super) const FILE: &str = "optim.json";
/// Most steps believed of a schedule or an optimizer.
const STEPS: u64 = 1 << 20;

/// Runs the case in the folder `case` on `device`: parameters after each step, and each schedule's multipliers.
pub(super) fn run(case: &Path, out: &Path, device: &Device) -> Result<()> {
    let file = case.join(FILE);
    let json = files::read_json(&file)?;
    let object =
        |name: &str| json[name].as_object().ok_or_else(|| Error::field(&file, name, "missing (expected an object)"));
    let weights = Weights::open(&case.join("adamw.safetensors"))?;
    let mut moved = BTreeMap::new();
    for (name, settings) in object("adamw")? {
        let settings = Settings::read(settings)
            .map_err(|(field, what)| Error::field(&file, format!("adamw.{name}.{field}"), what))?;
        adamw(name, &settings, &weights, device, &mut moved)?;
    }
    let mut multipliers = Map::new();
    for name in object("lr_multiplier_by_step")?.keys() {
        let what = "no schedule (expected KIND_wWARMUP_tTOTAL, or repo_linear_tTOTAL)";
        let values =
            schedule(name).ok_or_else(|| Error::field(&file, format!("lr_multiplier_by_step.{name}"), what))?;
        multipliers.insert(name.clone(), json!(values));
    }
    write(out, &moved, &json!({"lr_multiplier_by_step": multipliers}))
}

/// How one case steps.
struct Settings {
    adamw: AdamWSettings,
    lr: f64,
    clip: Option<f64>,
    steps: u64,
}

impl Settings {
    fn read(json: &Value) -> std::result::Result<Self, (&'static str, &'static str)> {
        let number = |value: &Value, field| value.as_f64().ok_or((field, "missing (expected a number)"));
        Ok(Self {
            adamw: AdamWSettings {
                beta1: number(&json["betas"][0], "betas")?,
                beta2: number(&json["betas"][1], "betas")?,
                eps: number(&json["eps"], "eps")?,
                weight_decay: number(&json["weight_decay"], "weight_decay")?,
            },
            lr: number(&json["lr"], "lr")?,
            clip: if json["clip"].is_null() { None } else { Some(number(&json["clip"], "clip")?) },
            steps: json["steps"]
                .as_u64()
                .filter(|&n| n <= STEPS)
                .ok_or(("steps", "missing (expected a number of steps)"))?,
        })
    }
}

/// Parameters `CASE.NAME0` moved by the gradients `CASE.grad_NAMEk`: `CASE.NAMEk` after step k, in f32.
fn adamw(
    case: &str,
    settings: &Settings,
    weights: &Weights,
    device: &Device,
    moved: &mut BTreeMap<String, candle_core::Tensor>,
) -> Result<()> {
    let all = weights.infos();
    let prefix = format!("{case}.");
    let parameter = |key: &String| key.strip_prefix(&prefix)?.strip_suffix('0').map(str::to_string);
    let is_start = |name: &String| !name.starts_with("grad_") && !name.ends_with(|c: char| c.is_ascii_digit());
    let names: BTreeSet<String> = all.keys().filter_map(parameter).filter(is_start).collect();
    let start = names.iter().map(|name| Ok((name.clone(), weights.read(&format!("{prefix}{name}0"))?)));
    let store = Store::load(start.collect::<Result<Vec<_>>>()?, DType::F32, device)?;
    let mut optimizer = AdamW::new(settings.adamw);
    for k in 1..=settings.steps {
        let gradient = |name: &String| -> Result<_> {
            let gradient = weights.read(&format!("{prefix}grad_{name}{k}"))?;
            Ok((name.clone(), gradient.to_dtype(DType::F32)?.to_device(device)?))
        };
        let mut gradients = names.iter().map(gradient).collect::<Result<Gradients>>()?;
        if let Some(bound) = settings.clip {
            clip(&mut gradients, bound)?;
        }
        optimizer.step(&store, &gradients, settings.lr)?;
        for (name, tensor) in store.to_tensors() {
            moved.insert(format!("{prefix}{name}{k}"), tensor.copy()?);
        }
    }
    Ok(())
}

/// The multipliers of the schedule `name`, at steps 0 to its last; the paper's own linear one stops before that.
fn schedule(name: &str) -> Option<Vec<f64>> {
    let (rest, total) = name.rsplit_once("_t")?;
    let total: u64 = total.parse().ok().filter(|&n| n <= STEPS)?;
    let (schedule, end) = match rest {
        "repo_linear" => (Schedule::named("linear", 0, total)?, total),
        _ => {
            let (kind, warmup) = rest.rsplit_once("_w")?;
            (Schedule::named(kind, warmup.parse().ok()?, total)?, total + 1)
        }
    };
    Some((0..end).map(|step| schedule.multiplier(step)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::tensors;

    #[test]
    fn the_committed_case_holds() {
        let case = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/vectors/hf/optim");
        let out = tempfile::tempdir().unwrap();
        run(&case, out.path(), &Device::Cpu).unwrap();
        let (got, expected) =
            (files::read_json(&out.path().join("got.json")).unwrap(), files::read_json(&case.join(FILE)).unwrap());
        for (name, values) in expected["lr_multiplier_by_step"].as_object().unwrap() {
            let got = got["lr_multiplier_by_step"][name].as_array().unwrap();
            assert_eq!(got.len(), values.as_array().unwrap().len(), "{name}");
            for (a, b) in got.iter().zip(values.as_array().unwrap()) {
                assert!((a.as_f64().unwrap() - b.as_f64().unwrap()).abs() < 1e-12, "{name}: {a}, expected {b}");
            }
        }
        let got = tensors::load(&out.path().join("got.safetensors")).unwrap();
        let expected = tensors::load(&case.join("adamw.safetensors")).unwrap();
        let mut compared = 0;
        for (name, expected) in expected.iter().filter(|(name, _)| !name.contains("grad_") && !name.ends_with('0')) {
            let off = (&got[name] - expected).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
            assert!(off < 1e-6, "{name}: {off}");
            compared += 1;
        }
        assert_eq!(compared, got.len());
        assert!(compared >= 24, "{compared}");
    }

    #[test]
    fn names_that_are_no_schedules_are_refused() {
        for name in
            ["linear", "linear_t10", "linear_w_t10", "linear_w1_t", "polynomial_w0_t3", "linear_w1_t99999999999"]
        {
            assert_eq!(schedule(name), None, "{name}");
        }
        assert_eq!(schedule("repo_linear_t2").unwrap(), [1.0, 0.5]);
        assert_eq!(schedule("constant_w3_t1").unwrap(), [1.0, 1.0]);
    }
}
