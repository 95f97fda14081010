//! AdamW (Loshchilov and Hutter, arXiv 1711.05101) as `torch.optim.AdamW` computes it, in one pass over memory.
//!
//! candle's own makes some fifteen temporaries a parameter and hides its moments; this one updates parameter and moments
//! in place and hands the moments to checkpoints.

use std::collections::BTreeMap;
use std::sync::Mutex;

use candle_core::{CpuStorage, DType, InplaceOp1, Layout, Storage, Tensor, Var, WithDType};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::ops::is_narrow;
use super::real::wide;
use super::store::{Gradients, Store};
use crate::{Error, Result};

/// Settings of [`AdamW`]; the learning rate is given anew at each step (schedules).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct AdamWSettings {
    /// Decay of the mean of gradients.
    pub beta1: f64,
    /// Decay of the mean of squared gradients.
    pub beta2: f64,
    /// Added to the root of the second moment, after bias correction.
    pub eps: f64,
    /// Decoupled weight decay, multiplied by the learning rate.
    pub weight_decay: f64,
}

impl Default for AdamWSettings {
    /// torch's defaults: betas (0.9, 0.999), eps 1e-8, weight decay 0.01.
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.01 }
    }
}

/// First and second moment of one parameter: in the parameter's dtype, or in f32 where that is narrower.
#[derive(Debug, Clone)]
enum Moments {
    F32(Vec<f32>, Vec<f32>),
    F64(Vec<f64>, Vec<f64>),
    Tensors(Wide),
}

/// What the composed update works on.
#[derive(Debug, Clone)]
struct Wide {
    m: Tensor,
    v: Tensor,
    /// The parameter before it was rounded to its narrow dtype: steps that are too small for that add up here.
    whole: Option<Tensor>,
}

#[derive(Debug, Clone)]
struct State {
    steps: u64,
    moments: Moments,
}

/// The optimizer: settings and, per parameter that ever had a gradient, its moments and number of steps.
#[derive(Debug, Clone)]
pub struct AdamW {
    settings: AdamWSettings,
    state: BTreeMap<String, State>,
}

/// The four numbers a step needs, bias corrections included.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Step {
    keep: f64,      // 1 - lr * weight_decay
    step_size: f64, // lr / (1 - beta1^t)
    root: f64,      // sqrt(1 - beta2^t)
    factor: f64,    // of the gradient
    settings: AdamWSettings,
}

impl Step {
    fn new(settings: AdamWSettings, lr: f64, factor: f64, t: u64) -> Self {
        let t = t as f64;
        Self {
            keep: 1.0 - lr * settings.weight_decay,
            step_size: lr / (1.0 - settings.beta1.powf(t)),
            root: (1.0 - settings.beta2.powf(t)).sqrt(),
            factor,
            settings,
        }
    }
}

impl AdamW {
    /// An optimizer without history.
    pub fn new(settings: AdamWSettings) -> Self {
        Self { settings, state: BTreeMap::new() }
    }

    /// Moves every parameter of `store` that has a gradient in `gradients`, in place:
    ///
    /// $$ p \leftarrow (1 - \alpha\lambda)\,p - \frac{\alpha}{1-\beta_1^t}\,
    ///    \frac{m}{\sqrt{v}/\sqrt{1-\beta_2^t} + \epsilon} $$
    ///
    /// `lr` is the learning rate of this step. No graph recorded before this call may be differentiated after it.
    pub fn step(&mut self, store: &Store, gradients: &Gradients, lr: f64) -> Result<()> {
        self.step_scaled(store, gradients, lr, 1.0)
    }

    /// [`AdamW::step`] with every gradient times `factor`: clipping without a pass of its own over them.
    pub fn step_scaled(&mut self, store: &Store, gradients: &Gradients, lr: f64, factor: f64) -> Result<()> {
        let trainable = store.trainable().filter_map(|(name, var)| Some((name, var, gradients.get(name)?)));
        for (name, var, gradient) in trainable {
            let dtypes = [var.dtype(), wide_dtype(var)];
            if gradient.dims() != var.dims() || !dtypes.contains(&gradient.dtype()) {
                return Err(Error::invalid(format!("{name}: the gradient's shape or dtype is not the parameter's")));
            }
            let state = match self.state.entry(name.to_string()) {
                std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
                std::collections::btree_map::Entry::Vacant(entry) => entry.insert(State::zeros(var)?),
            };
            state.steps += 1;
            let step = Step::new(self.settings, lr, factor, state.steps);
            let gradient = gradient.contiguous()?;
            match &mut state.moments {
                Moments::Tensors(wide) => composed(step, var, &gradient, wide)?,
                Moments::F32(m, v) => {
                    let (storage, layout) = gradient.storage_and_layout();
                    var.inplace_op1(&Fused::new(step, cpu_slice(&storage, layout)?, m, v))?;
                }
                Moments::F64(m, v) => {
                    let (storage, layout) = gradient.storage_and_layout();
                    var.inplace_op1(&Fused::new(step, cpu_slice(&storage, layout)?, m, v))?;
                }
            }
        }
        store.touch();
        Ok(())
    }

    /// Moments and step counts as tensors named `NAME.exp_avg`, `NAME.exp_avg_sq` and `NAME.step` (i64, one element), and
    /// `NAME.whole`, the unrounded parameter, where the parameter is narrower than f32.
    pub fn to_tensors(&self, store: &Store) -> Result<BTreeMap<String, Tensor>> {
        let mut tensors = BTreeMap::new();
        for (name, var) in store.trainable() {
            let Some(State { steps, moments }) = self.state.get(name) else { continue };
            let (shape, device) = (var.shape(), var.device());
            let (m, v) = match moments {
                Moments::F32(m, v) => (Tensor::from_slice(m, shape, device)?, Tensor::from_slice(v, shape, device)?),
                Moments::F64(m, v) => (Tensor::from_slice(m, shape, device)?, Tensor::from_slice(v, shape, device)?),
                Moments::Tensors(wide) => {
                    tensors.extend(wide.whole.iter().map(|whole| (format!("{name}.whole"), whole.clone())));
                    (wide.m.clone(), wide.v.clone())
                }
            };
            tensors.insert(format!("{name}.exp_avg"), m);
            tensors.insert(format!("{name}.exp_avg_sq"), v);
            tensors.insert(format!("{name}.step"), Tensor::from_slice(&[*steps as i64], 1, device)?);
        }
        Ok(tensors)
    }

    /// The optimizer whose [`AdamW::to_tensors`] were `tensors`. Fails on a name that is no trainable parameter of
    /// `store`, on an incomplete set and on a moment of another shape.
    pub fn load(settings: AdamWSettings, store: &Store, tensors: &BTreeMap<String, Tensor>) -> Result<Self> {
        let mut state = BTreeMap::new();
        let mut used = 0;
        for (name, var) in store.trainable() {
            let part = |suffix: &str| tensors.get(&format!("{name}.{suffix}"));
            let (m, v, steps) = match (part("exp_avg"), part("exp_avg_sq"), part("step")) {
                (Some(m), Some(v), Some(steps)) => (m, v, steps),
                (None, None, None) => continue,
                _ => return Err(Error::invalid(format!("{name}: its optimizer state is incomplete"))),
            };
            let whole = part("whole");
            let shaped = [Some(m), Some(v), whole].into_iter().flatten().all(|t| t.dims() == var.dims());
            if !shaped || steps.elem_count() != 1 {
                return Err(Error::invalid(format!("{name}: its optimizer state has another shape")));
            }
            used += 3 + usize::from(whole.is_some());
            let steps = steps.to_dtype(DType::I64)?.flatten_all()?.to_vec1::<i64>()?[0];
            let steps =
                u64::try_from(steps).map_err(|_| Error::invalid(format!("{name}.step: {steps} is negative")))?;
            let like = |t: &Tensor| t.to_dtype(wide_dtype(var));
            let (m, v) = (like(m)?, like(v)?);
            let moments = match State::zeros(var)?.moments {
                Moments::F32(..) => Moments::F32(m.flatten_all()?.to_vec1()?, v.flatten_all()?.to_vec1()?),
                Moments::F64(..) => Moments::F64(m.flatten_all()?.to_vec1()?, v.flatten_all()?.to_vec1()?),
                Moments::Tensors(zeros) => {
                    let there = |t: &Tensor| t.to_device(var.device());
                    // Saved in f32, the parameter itself is the whole of it.
                    let whole = whole.map(|t| there(&like(t)?)).transpose()?.filter(|_| zeros.whole.is_some());
                    Moments::Tensors(Wide { m: there(&m)?, v: there(&v)?, whole: whole.or(zeros.whole) })
                }
            };
            state.insert(name.to_string(), State { steps, moments });
        }
        if used != tensors.len() {
            return Err(Error::invalid("optimizer state: it holds tensors of parameters this model does not train"));
        }
        Ok(Self { settings, state })
    }
}

impl State {
    fn zeros(var: &Var) -> Result<Self> {
        let n = var.elem_count();
        let moments = match (var.device().is_cpu(), var.dtype()) {
            (true, DType::F32) => Moments::F32(vec![0.0; n], vec![0.0; n]),
            (true, DType::F64) => Moments::F64(vec![0.0; n], vec![0.0; n]),
            _ => {
                let wide = var.as_detached_tensor().to_dtype(wide_dtype(var))?;
                let whole = (wide.dtype() != var.dtype()).then(|| wide.clone());
                Moments::Tensors(Wide { m: wide.zeros_like()?, v: wide.zeros_like()?, whole })
            }
        };
        Ok(Self { steps: 0, moments })
    }
}

/// The dtype of a parameter's moments.
fn wide_dtype(var: &Var) -> DType {
    if is_narrow(var) { DType::F32 } else { var.dtype() }
}

/// The update in plain candle operations: what the fused pass means, and what other devices and narrow types run.
fn composed(step: Step, var: &Var, gradient: &Tensor, Wide { m, v, whole }: &mut Wide) -> Result<()> {
    let AdamWSettings { beta1, beta2, eps, .. } = step.settings;
    let gradient = (gradient.detach().to_dtype(m.dtype())? * step.factor)?;
    *m = (&*m + ((&gradient - &*m)? * (1.0 - beta1))?)?;
    *v = ((&*v * beta2)? + (gradient.sqr()? * (1.0 - beta2))?)?;
    let denominator = ((v.sqrt()? / step.root)? + eps)?;
    let moved = ((m.detach() / denominator)? * step.step_size)?;
    let before = whole.clone().unwrap_or_else(|| var.as_detached_tensor());
    let after = ((before * step.keep)? - moved)?;
    var.set(&after.to_dtype(var.dtype())?)?;
    *whole = whole.is_some().then_some(after);
    Ok(())
}

/// The elements of a contiguous tensor in host memory.
pub(super) fn cpu_slice<'a, T: WithDType>(storage: &'a Storage, layout: &Layout) -> Result<&'a [T]> {
    match (storage, layout.contiguous_offsets()) {
        (Storage::Cpu(storage), Some((start, end))) => Ok(&storage.as_slice::<T>()?[start..end]),
        _ => Err(Error::invalid("a gradient is not contiguous host memory")),
    }
}

/// Elements a thread takes at a time; any partition gives the same bits, this one fits the second-level cache.
const CHUNK: usize = 1 << 14;

struct Fused<'a, T> {
    step: Step,
    gradient: &'a [T],
    moments: Mutex<(&'a mut [T], &'a mut [T])>,
}

impl<'a, T> Fused<'a, T> {
    fn new(step: Step, gradient: &'a [T], m: &'a mut [T], v: &'a mut [T]) -> Self {
        Self { step, gradient, moments: Mutex::new((m, v)) }
    }
}

wide! {
    fn update<T>(step: Step, g: &[T], p: &mut [T], m: &mut [T], v: &mut [T]) {
        let AdamWSettings { beta1, beta2, eps, .. } = step.settings;
        let [keep, step_size, root] = [step.keep, step.step_size, step.root].map(T::of);
        let [new1, beta2, new2, eps, factor] = [1.0 - beta1, beta2, 1.0 - beta2, eps, step.factor].map(T::of);
        for (((p, &g), m), v) in p.iter_mut().zip(g).zip(m).zip(v) {
            let g = g * factor;
            *m += (g - *m) * new1;
            *v = *v * beta2 + g * g * new2;
            *p = *p * keep - step_size * (*m / (v.root() / root + eps));
        }
    }
}

macro_rules! fused_adamw {
    ($ty:ty, $variant:ident) => {
        impl InplaceOp1 for Fused<'_, $ty> {
            fn name(&self) -> &'static str {
                "adamw"
            }

            fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> candle_core::Result<()> {
                let Some((start, end)) = layout.contiguous_offsets() else {
                    candle_core::bail!("adamw: the parameter is not contiguous")
                };
                let CpuStorage::$variant(p) = storage else { candle_core::bail!("adamw: dtype") };
                let mut moments = self.moments.lock().expect("no thread panics while it holds the moments");
                let (m, v) = &mut *moments;
                let chunks = p[start..end].par_chunks_mut(CHUNK).zip(self.gradient.par_chunks(CHUNK));
                let chunks = chunks.zip(m.par_chunks_mut(CHUNK).zip(v.par_chunks_mut(CHUNK)));
                chunks.for_each(|((p, g), (m, v))| update(self.step, g, p, m, v));
                Ok(())
            }
        }
    };
}
fused_adamw!(f32, F32);
fused_adamw!(f64, F64);

#[cfg(test)]
mod tests {
    use std::path::Path;

    use candle_core::Device;

    use super::*;
    use crate::nn::clip;

    fn vectors() -> (serde_json::Value, std::collections::HashMap<String, Tensor>) {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/vectors/hf/optim");
        let settings = std::fs::read_to_string(folder.join("optim.json")).unwrap();
        let tensors = candle_core::safetensors::load(folder.join("adamw.safetensors"), &Device::Cpu).unwrap();
        (serde_json::from_str(&settings).unwrap(), tensors)
    }

    fn difference(a: &Tensor, b: &Tensor) -> f64 {
        let d = (a.to_dtype(DType::F64).unwrap() - b.to_dtype(DType::F64).unwrap()).unwrap();
        d.abs().unwrap().flatten_all().unwrap().max(0).unwrap().to_scalar().unwrap()
    }

    #[test]
    fn four_steps_of_torch_are_reproduced_in_f32_and_f64() {
        let (json, tensors) = vectors();
        for (case, s) in json["adamw"].as_object().unwrap() {
            let number = |key: &str| s[key].as_f64().unwrap();
            let beta = |i: usize| s["betas"][i].as_f64().unwrap();
            let settings = AdamWSettings {
                beta1: beta(0),
                beta2: beta(1),
                eps: number("eps"),
                weight_decay: number("weight_decay"),
            };
            for dtype in [DType::F32, DType::F64] {
                let start = ["p", "q"].map(|n| (n.to_string(), tensors[&format!("{case}.{n}0")].clone()));
                let store = Store::load(start, dtype, &Device::Cpu).unwrap();
                let mut optimizer = AdamW::new(settings);
                for k in 1..=s["steps"].as_u64().unwrap() {
                    let gradient =
                        |n: &str| (n.to_string(), tensors[&format!("{case}.grad_{n}{k}")].to_dtype(dtype).unwrap());
                    let mut gradients = Gradients::from([gradient("p"), gradient("q")]);
                    if let Some(bound) = s["clip"].as_f64() {
                        clip(&mut gradients, bound).unwrap();
                    }
                    // A reload between steps must change nothing.
                    let saved = optimizer.to_tensors(&store).unwrap();
                    optimizer = AdamW::load(settings, &store, &saved).unwrap();
                    optimizer.step(&store, &gradients, number("lr")).unwrap();
                    for n in ["p", "q"] {
                        let expected = &tensors[&format!("{case}.{n}{k}")];
                        let off = difference(&store.to_tensors()[n], expected);
                        assert!(off < 1e-6, "{case} {n}{k} {dtype:?}: {off}");
                    }
                }
            }
        }
    }

    #[test]
    fn fused_and_composed_steps_agree() {
        let values = Tensor::new(&[0.3f64, -1.5, 2.0], &Device::Cpu).unwrap();
        let gradient = Tensor::new(&[0.1f64, 4.0, -0.02], &Device::Cpu).unwrap();
        let store = Store::load([("p".to_string(), values.clone())], DType::F64, &Device::Cpu).unwrap();
        let mut optimizer = AdamW::new(AdamWSettings::default());
        let var = Var::from_tensor(&values.copy().unwrap()).unwrap();
        let zeros = var.zeros_like().unwrap();
        let mut wide = Wide { m: zeros.clone(), v: zeros, whole: None };
        for t in 1..=5 {
            optimizer.step(&store, &Gradients::from([("p".into(), gradient.clone())]), 0.05).unwrap();
            composed(Step::new(AdamWSettings::default(), 0.05, 1.0, t), &var, &gradient, &mut wide).unwrap();
        }
        assert!(difference(&store.to_tensors()["p"], &var) < 1e-14);
    }

    #[test]
    fn a_bf16_parameter_goes_where_the_f32_one_goes_though_each_step_is_below_its_rounding() {
        let values = Tensor::new(&[1.0f32, -2.0], &Device::Cpu).unwrap();
        let gradient = Gradients::from([("p".into(), Tensor::new(&[0.5f32, 3.0], &Device::Cpu).unwrap())]);
        let end = |dtype: DType| {
            let store = Store::load([("p".to_string(), values.clone())], dtype, &Device::Cpu).unwrap();
            let mut optimizer = AdamW::new(AdamWSettings::default());
            for _ in 0..100 {
                // A reload between steps loses nothing of what the parameter does not show yet.
                let saved = optimizer.to_tensors(&store).unwrap();
                optimizer = AdamW::load(AdamWSettings::default(), &store, &saved).unwrap();
                optimizer.step(&store, &gradient, 1e-3).unwrap(); // numbers near 1 are 2^-7 apart
            }
            store.to_tensors()["p"].clone()
        };
        assert!(difference(&end(DType::F32), &values) > 0.09);
        assert!(difference(&end(DType::BF16), &end(DType::F32)) <= f64::powi(2.0, -7)); // half of what separates numbers above 2
    }

    #[test]
    fn state_of_another_model_is_refused() {
        let (_, tensors) = vectors();
        let store = Store::load([("p".into(), tensors["default.p0"].clone())], DType::F32, &Device::Cpu).unwrap();
        let foreign = BTreeMap::from([("x.exp_avg".to_string(), tensors["default.p0"].clone())]);
        assert!(AdamW::load(AdamWSettings::default(), &store, &foreign).is_err());
    }
}
