//! Named parameters in sorted order, and the gradients that belong to them.
//!
//! candle's `VarMap` walks a hash map, so norms and checkpoints made from it differ from run to run; a [`Store`] walks its
//! names. Layers take tensors out of it once: a trainable parameter as the variable itself, a frozen one detached, so
//! that candle neither computes nor keeps a gradient for it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Tensor, Var};
use rebel_kernels::decoder::weights::Packed;

use super::lora::{self, Adapter, DOWN, UP};
use crate::{Error, Result};

/// Gradients by parameter name, in sorted order; each has its parameter's shape, and its dtype or f32 where that is narrower.
pub type Gradients = BTreeMap<String, Tensor>;

#[derive(Debug, Clone)]
struct Parameter {
    var: Var,
    trainable: bool,
    /// Whether it is trainable in the store that this one shares it with.
    moves: bool,
    /// Whether it is a copy of what that store holds.
    copied: bool,
}

/// A parameter for kernels that read it as numbers, not as a tensor.
#[derive(Debug, Clone)]
pub(crate) struct Handle {
    /// As [`Store::get`] gives it.
    pub tensor: Tensor,
    /// Whether steps of an optimizer change it.
    pub moves: bool,
    /// What it is called among the stores that share it; none for a copy.
    name: Option<String>,
}

/// How often the parameters of a store, and of those that share some, have changed; and what was made of those that do not.
#[derive(Debug, Default)]
pub(crate) struct Moved {
    steps: AtomicU64,
    sets: AtomicU64,
    shelf: Mutex<BTreeMap<String, Weak<Packed>>>,
}

impl Moved {
    /// Steps of optimizers, and other changes.
    pub fn counts(&self) -> [u64; 2] {
        [&self.steps, &self.sets].map(|count| count.load(Ordering::SeqCst))
    }

    /// The panels of a frozen parameter, if another model has made them; `trains`: they serve a backward pass.
    pub fn ready(&self, handle: &Handle, trains: bool) -> Option<Arc<Packed>> {
        let packed = self.shelf().get(handle.name.as_ref()?)?.upgrade()?;
        (packed.trains() || !trains).then_some(packed)
    }

    /// Remembers the panels of a frozen parameter for as long as anyone has them.
    pub fn keep(&self, handle: &Handle, packed: &Arc<Packed>) {
        if let Some(name) = &handle.name {
            self.shelf().insert(name.clone(), Arc::downgrade(packed));
        }
    }

    fn set(&self) {
        self.shelf().clear();
        self.sets.fetch_add(1, Ordering::SeqCst);
    }

    fn shelf(&self) -> MutexGuard<'_, BTreeMap<String, Weak<Packed>>> {
        self.shelf.lock().expect("no thread panics while it holds the shelf")
    }
}

impl Parameter {
    /// For use in a layer.
    fn tensor(&self) -> Tensor {
        match self.trainable {
            true => self.var.as_tensor().clone(),
            false => self.var.as_detached_tensor(),
        }
    }
}

/// Parameters of one model (a policy, a critic, a reward model), all of one float dtype on one device.
///
/// Names are those of the files (`gpt_neox.embed_in.weight`). Freezing is decided before layers are built:
/// [`Store::get`] hands out what the parameter is at that moment. What was put beside the model ([`Store::adapt`],
/// [`Store::replace`]) is used from then on; [`Store::base`] is the model without it.
#[derive(Debug, Clone)]
pub struct Store {
    parameters: BTreeMap<String, Parameter>,
    /// Scaling of the adapter of each adapted module.
    scalings: BTreeMap<String, f64>,
    gradients: Gradients,
    moved: Arc<Moved>,
    dtype: DType,
    device: Device,
}

impl Store {
    /// An empty store. `dtype` is the type of every parameter: f32 for language models, f64 for exact worlds.
    pub fn new(dtype: DType, device: &Device) -> Self {
        let (parameters, scalings, gradients, moved) = Default::default();
        Self { parameters, scalings, gradients, moved, dtype, device: device.clone() }
    }

    /// A store holding `tensors`, each converted to `dtype` and trainable.
    pub fn load(tensors: impl IntoIterator<Item = (String, Tensor)>, dtype: DType, device: &Device) -> Result<Self> {
        let mut store = Self::new(dtype, device);
        for (name, tensor) in tensors {
            store.insert(name, &tensor)?;
        }
        Ok(store)
    }

    /// Adds a trainable parameter with the values of `tensor` (converted and copied, never shared).
    /// Fails on a name that is taken.
    pub fn insert(&mut self, name: impl Into<String>, tensor: &Tensor) -> Result<()> {
        let name = name.into();
        if self.parameters.contains_key(&name) {
            return Err(Error::invalid(format!("{name}: a parameter of this name exists already")));
        }
        let values = tensor.detach().to_dtype(self.dtype)?.to_device(&self.device)?;
        // A variable is written in place, so it must own its storage.
        let var = Var::from_tensor(&values.copy()?)?;
        self.parameters.insert(name, Parameter { var, trainable: true, moves: true, copied: false });
        Ok(())
    }

    /// Puts a low-rank adapter `scaling * up down` beside the linear map `module`, trainable.
    /// `down`: `[rank, inputs]`; `up`: `[outputs, rank]`.
    ///
    /// # Errors
    /// When there is no such map, it has an adapter, or the factors do not fit it; nothing is changed then.
    pub fn adapt(&mut self, module: &str, down: &Tensor, up: &Tensor, scaling: f64) -> Result<()> {
        let weight = self.parameter(&format!("{module}.weight"))?.var.dims();
        let fits = matches!((weight, down.dims(), up.dims()), ([o, i], [r, inputs], [outputs, rank])
            if (inputs, outputs, rank) == (i, o, r) && *r > 0);
        if !fits {
            let what = format!("factors {:?} and {:?} do not fit a weight {weight:?}", up.dims(), down.dims());
            return Err(Error::invalid(format!("{module}: {what}")));
        }
        self.insert(format!("{module}.{DOWN}"), down)?;
        self.insert(format!("{module}.{UP}"), up)?;
        self.scalings.insert(module.into(), scaling);
        Ok(())
    }

    /// The adapter of the linear map `module`, if it has one; its factors are as [`Store::get`] gives them.
    pub fn adapter(&self, module: &str) -> Option<Adapter> {
        let scaling = *self.scalings.get(module)?;
        let factor = |part: &str| self.parameters.get(&format!("{module}.{part}")).map(Parameter::tensor);
        Some(Adapter { down: factor(DOWN)?, up: factor(UP)?, scaling })
    }

    /// Puts a trainable copy beside the parameter `name`, used instead of it, with the values of `tensor`.
    ///
    /// # Errors
    /// When there is no such parameter, it has a copy, or the shapes differ.
    pub fn replace(&mut self, name: &str, tensor: &Tensor) -> Result<()> {
        let expected = self.parameter(name)?.var.dims();
        if tensor.dims() != expected {
            return Err(Error::invalid(format!("{name}: shape {:?} (expected {expected:?})", tensor.dims())));
        }
        self.insert(lora::saved(name), tensor)
    }

    fn parameter(&self, name: &str) -> Result<&Parameter> {
        self.parameters.get(name).ok_or_else(|| Error::invalid(format!("{name}: no such parameter")))
    }

    /// The parameter that [`Store::get`] would give, as a handle. Fails as that does.
    pub(crate) fn handle(&self, name: &str, shape: &[usize]) -> Result<Handle> {
        let tensor = self.get(name, shape)?;
        let saved = lora::saved(name);
        let name = if self.parameters.contains_key(&saved) { saved } else { name.into() };
        let Parameter { moves, copied, .. } = self.parameters[&name];
        Ok(Handle { tensor, moves, name: (!moves && !copied).then_some(name) })
    }

    /// The factors (down, up) and the scaling of the adapter of the linear map `module`, if it has one.
    pub(crate) fn adapter_handles(&self, module: &str) -> Result<Option<(Handle, Handle, f64)>> {
        let Some(&scaling) = self.scalings.get(module) else { return Ok(None) };
        let factor = |part: &str| {
            let name = format!("{module}.{part}");
            self.handle(&name, self.parameter(&name)?.var.dims())
        };
        Ok(Some((factor(DOWN)?, factor(UP)?, scaling)))
    }

    /// How often parameters have changed.
    pub(crate) fn moved(&self) -> Arc<Moved> {
        self.moved.clone()
    }

    /// Says that trainable parameters were changed in place: whoever keeps something made of them makes it anew.
    /// [`Store::set`] and [`super::AdamW::step`] say so themselves.
    pub fn touch(&self) {
        self.moved.steps.fetch_add(1, Ordering::SeqCst);
    }

    /// The parameter `name` for use in a layer, or the copy that replaces it: the variable itself when trainable, detached
    /// when frozen. Fails, naming it, when it is absent or its shape is not `shape`.
    pub fn get(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        let parameter = match self.parameters.get(&lora::saved(name)) {
            Some(copy) => copy,
            None => self.parameter(name)?,
        };
        if parameter.var.dims() != shape {
            let found = parameter.var.dims();
            return Err(Error::invalid(format!("{name}: shape {found:?} (expected {shape:?})")));
        }
        Ok(parameter.tensor())
    }

    /// Freezes the parameters whose name satisfies `predicate` and makes all others trainable.
    pub fn freeze(&mut self, predicate: impl Fn(&str) -> bool) {
        for (name, parameter) in &mut self.parameters {
            parameter.trainable = !predicate(name);
            parameter.moves = parameter.trainable;
        }
        let parameters = &self.parameters;
        self.gradients.retain(|name, _| parameters[name].trainable);
    }

    /// A store of the same names that shares this one's storage and is frozen whole: what a sampler or a reference
    /// reads. It always sees the current values; [`Store::reference`] makes one that does not.
    pub fn detached(&self) -> Self {
        let mut detached = Self { gradients: BTreeMap::new(), ..self.clone() };
        detached.parameters.values_mut().for_each(|parameter| parameter.trainable = false);
        detached
    }

    /// The model without what was put beside it, on the same storage and frozen whole.
    pub fn base(&self) -> Self {
        let mut base = self.detached();
        base.parameters.retain(|name, _| !lora::is_beside(name));
        base.scalings.clear();
        base
    }

    /// The model as it is now, as a store that stays where it is, frozen whole: adapters are left out (fresh ones correct
    /// nothing), trainable parameters are copied, and frozen ones, which never move, are shared.
    pub fn reference(&self) -> Result<Self> {
        let mut reference = self.base();
        for (name, parameter) in &mut reference.parameters {
            if self.parameters[name].trainable {
                parameter.var = Var::from_tensor(&parameter.var.as_detached_tensor().copy()?)?;
                (parameter.moves, parameter.copied) = (false, true);
            }
        }
        Ok(reference)
    }

    /// The model with what was put beside it worked into its parameters: `W + s B A` (see [`Adapter::merged`]), and copies in
    /// the place of what they replace.
    pub fn merged(&self) -> Result<Self> {
        let mut merged = Self::new(self.dtype, &self.device);
        for name in self.names().filter(|name| !lora::is_beside(name)) {
            let shape = self.parameters[name].var.dims();
            let weight = self.get(name, shape)?;
            let adapter = name.strip_suffix(".weight").and_then(|module| self.adapter(module));
            merged.insert(name, &adapter.map_or(Ok(weight.clone()), |adapter| adapter.merged(&weight))?)?;
        }
        Ok(merged)
    }

    /// Trainable variables with their names, in sorted order.
    pub fn trainable(&self) -> impl Iterator<Item = (&str, &Var)> {
        self.parameters.iter().filter(|(_, p)| p.trainable).map(|(name, p)| (name.as_str(), &p.var))
    }

    /// All names, in sorted order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.parameters.keys().map(String::as_str)
    }

    /// Whether a parameter of this name exists.
    pub fn contains(&self, name: &str) -> bool {
        self.parameters.contains_key(name)
    }

    /// The dtype of every parameter.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Where the parameters live.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Every parameter as a tensor that shares its storage, for saving.
    pub fn to_tensors(&self) -> BTreeMap<String, Tensor> {
        self.parameters.iter().map(|(name, p)| (name.clone(), p.var.as_detached_tensor())).collect()
    }

    /// Overwrites the values of every parameter in place (layers built from this store see them).
    /// Fails, before anything is written, when a name is missing or unknown or a shape differs.
    pub fn set(&self, tensors: &BTreeMap<String, Tensor>) -> Result<()> {
        if let Some(name) = self.names().find(|name| !tensors.contains_key(*name)) {
            return Err(Error::invalid(format!("{name}: missing parameter")));
        }
        self.set_some(tensors)
    }

    /// Overwrites the values of the parameters that `tensors` names, in place.
    /// Fails, before anything is written, when a name is unknown or a shape differs.
    pub fn set_some(&self, tensors: &BTreeMap<String, Tensor>) -> Result<()> {
        let mut values = Vec::with_capacity(tensors.len());
        for (name, tensor) in tensors {
            let unknown = || Error::invalid(format!("{name}: unknown parameter"));
            let parameter = self.parameters.get(name).ok_or_else(unknown)?;
            if tensor.dims() != parameter.var.dims() {
                let (found, expected) = (tensor.dims(), parameter.var.dims());
                return Err(Error::invalid(format!("{name}: shape {found:?} (expected {expected:?})")));
            }
            let tensor = tensor.to_dtype(self.dtype)?.to_device(&self.device)?;
            // A copy, because candle refuses to set a variable to a view of itself.
            values.push((&parameter.var, tensor.copy()?));
        }
        for (var, tensor) in values {
            var.set(&tensor)?;
        }
        self.moved.set();
        Ok(())
    }

    /// Adds the gradients of one backward pass: the first one seen is taken, later ones are added, in sorted order of
    /// names. Only trainable parameters are looked at; everything else in `grads` is dropped.
    pub fn accumulate(&mut self, mut grads: GradStore) -> Result<()> {
        for (name, parameter) in self.parameters.iter().filter(|(_, p)| p.trainable) {
            let Some(new) = grads.remove(parameter.var.as_tensor()) else { continue };
            // An attached gradient would keep the activations alive; sums of micro-batches want f32.
            let new = super::ops::widened(&new.detach())?;
            let sum = match self.gradients.get(name) {
                Some(sum) => sum.add(&new)?.detach(),
                None => new.detach(),
            };
            self.gradients.insert(name.clone(), sum);
        }
        Ok(())
    }

    /// Trainable parameters without an accumulated gradient: a first step that leaves one has a cut graph.
    pub fn missing_gradients(&self) -> Vec<String> {
        self.trainable().filter(|(name, _)| !self.gradients.contains_key(*name)).map(|(name, _)| name.into()).collect()
    }

    /// The accumulated gradients; the store starts from none again.
    pub fn take_gradients(&mut self) -> Gradients {
        std::mem::take(&mut self.gradients)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(dtype: DType) -> Store {
        let mut store = Store::new(dtype, &Device::Cpu);
        store.insert("b", &Tensor::new(&[2.0f64, 3.0], &Device::Cpu).unwrap()).unwrap();
        store.insert("a", &Tensor::new(&[1.0f64, -1.0], &Device::Cpu).unwrap()).unwrap();
        store
    }

    #[test]
    fn gradients_of_two_passes_add_and_frozen_parameters_get_none() {
        for dtype in [DType::F32, DType::F64] {
            let mut store = store(dtype);
            store.freeze(|name| name == "a");
            let (a, b) = (store.get("a", &[2]).unwrap(), store.get("b", &[2]).unwrap());
            for _ in 0..2 {
                let loss = (&a * &b).unwrap().sum_all().unwrap();
                store.accumulate(loss.backward().unwrap()).unwrap();
            }
            assert!(store.missing_gradients().is_empty());
            let gradients = store.take_gradients();
            assert_eq!(gradients.keys().collect::<Vec<_>>(), ["b"]);
            let values = gradients["b"].to_dtype(DType::F64).unwrap().to_vec1::<f64>().unwrap();
            assert_eq!(values, [2.0, -2.0]);
            assert_eq!(store.missing_gradients(), ["b"]);
        }
    }

    #[test]
    fn a_detached_twin_sees_an_update_and_a_reference_does_not() {
        let store = store(DType::F32);
        let (twin, copy) = (store.detached(), store.reference().unwrap());
        let (twin, copy) = (twin.get("a", &[2]).unwrap(), copy.get("a", &[2]).unwrap());
        let mut values = store.to_tensors();
        values.insert("a".into(), Tensor::new(&[5.0f32, 6.0], &Device::Cpu).unwrap());
        store.set(&values).unwrap();
        assert_eq!(twin.to_vec1::<f32>().unwrap(), [5.0, 6.0]);
        assert_eq!(copy.to_vec1::<f32>().unwrap(), [1.0, -1.0]);
    }

    #[test]
    fn the_base_of_an_adapted_store_shares_its_storage_and_the_merged_one_computes_the_same() {
        let tensor = |name: &str, shape: &[usize]| {
            crate::nn::normal(&crate::nn::Streams::new(2), name, shape, 1.0, DType::F64, &Device::Cpu).unwrap()
        };
        let mut store = Store::load([("m.weight".into(), tensor("w", &[3, 4]))], DType::F64, &Device::Cpu).unwrap();
        store.freeze(|_| true);
        store.adapt("m", &tensor("a", &[2, 4]), &tensor("b", &[3, 2]), 0.5).unwrap();
        let names: Vec<&str> = store.trainable().map(|(name, _)| name).collect();
        assert_eq!(names, ["m.lora_A.weight", "m.lora_B.weight"]);
        let layer = |store: &Store| crate::nn::Linear::new(store, "m", 4, 3, false).unwrap();
        let x = tensor("x", &[5, 4]);
        let apply = |store: &Store| layer(store).forward(&x).unwrap();
        let (adapted, base) = (apply(&store), apply(&store.base()));
        let merged = apply(&store.merged().unwrap());
        let distance = |a: &Tensor, b: &Tensor| (a - b).unwrap().abs().unwrap().sum_all().unwrap().to_scalar::<f64>();
        assert!(distance(&adapted, &merged).unwrap() < 1e-12 && distance(&adapted, &base).unwrap() > 1.0);
        let effective = x.matmul(&layer(&store).weight().unwrap().t().unwrap()).unwrap();
        assert!(distance(&adapted, &effective).unwrap() < 1e-12);
        // moving the base's weight moves what is built on it
        let mut values = store.base().to_tensors();
        values.insert("m.weight".into(), tensor("other", &[3, 4]));
        store.base().set(&values).unwrap();
        assert!(distance(&apply(&store), &adapted).unwrap() > 1.0);
        let error = store.adapt("m", &tensor("a", &[2, 5]), &tensor("b", &[3, 2]), 1.0).unwrap_err().to_string();
        assert_eq!(error, "m: factors [3, 2] and [2, 5] do not fit a weight [3, 4]");
    }

    #[test]
    fn a_replaced_parameter_is_used_until_the_base_is_asked_for() {
        let mut store = store(DType::F32);
        store.freeze(|_| true);
        store.replace("a", &Tensor::new(&[8.0f32, 9.0], &Device::Cpu).unwrap()).unwrap();
        let value = |store: &Store| store.get("a", &[2]).unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(value(&store), [8.0, 9.0]);
        assert_eq!(value(&store.base()), [1.0, -1.0]);
        assert_eq!(value(&store.merged().unwrap()), [8.0, 9.0]);
        assert_eq!(store.trainable().count(), 1);
    }

    #[test]
    fn names_are_sorted_and_a_wrong_shape_is_named() {
        let store = store(DType::F32);
        assert_eq!(store.names().collect::<Vec<_>>(), ["a", "b"]);
        let error = store.get("a", &[3]).unwrap_err().to_string();
        assert_eq!(error, "a: shape [2] (expected [3])");
        assert!(store.get("c", &[1]).unwrap_err().to_string().starts_with("c: "));
        assert!(store.set(&BTreeMap::new()).unwrap_err().to_string().contains("missing"));
    }
}
