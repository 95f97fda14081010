//! Named parameters in sorted order, and the gradients that belong to them.
//!
//! candle's `VarMap` walks a hash map, so norms and checkpoints made from it differ from run to run; a [`Store`] walks its
//! names. Layers take tensors out of it once: a trainable parameter as the variable itself, a frozen one detached, so
//! that candle neither computes nor keeps a gradient for it.

use std::collections::BTreeMap;

use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Tensor, Var};

use crate::{Error, Result};

/// Gradients by parameter name, in sorted order; each has its parameter's shape, and its dtype or f32 where that is narrower.
pub type Gradients = BTreeMap<String, Tensor>;

#[derive(Debug, Clone)]
struct Parameter {
    var: Var,
    trainable: bool,
}

/// Parameters of one model (a policy, a critic, a reward model), all of one float dtype on one device.
///
/// Names are those of the files (`gpt_neox.embed_in.weight`). Freezing is decided before layers are built:
/// [`Store::get`] hands out what the parameter is at that moment.
#[derive(Debug, Clone)]
pub struct Store {
    parameters: BTreeMap<String, Parameter>,
    gradients: Gradients,
    dtype: DType,
    device: Device,
}

impl Store {
    /// An empty store. `dtype` is the type of every parameter: f32 for language models, f64 for exact worlds.
    pub fn new(dtype: DType, device: &Device) -> Self {
        Self { parameters: BTreeMap::new(), gradients: BTreeMap::new(), dtype, device: device.clone() }
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
        self.parameters.insert(name, Parameter { var, trainable: true });
        Ok(())
    }

    /// The parameter `name` for use in a layer: the variable itself when trainable, detached when frozen.
    /// Fails, naming it, when it is absent or its shape is not `shape`.
    pub fn get(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        let parameter =
            self.parameters.get(name).ok_or_else(|| Error::invalid(format!("{name}: no such parameter")))?;
        if parameter.var.dims() != shape {
            let found = parameter.var.dims();
            return Err(Error::invalid(format!("{name}: shape {found:?} (expected {shape:?})")));
        }
        Ok(match parameter.trainable {
            true => parameter.var.as_tensor().clone(),
            false => parameter.var.as_detached_tensor(),
        })
    }

    /// Freezes the parameters whose name satisfies `predicate` and makes all others trainable.
    pub fn freeze(&mut self, predicate: impl Fn(&str) -> bool) {
        for (name, parameter) in &mut self.parameters {
            parameter.trainable = !predicate(name);
        }
        let parameters = &self.parameters;
        self.gradients.retain(|name, _| parameters[name].trainable);
    }

    /// A store of the same names that shares this one's storage and is frozen whole: what a sampler or a reference
    /// reads. It always sees the current values; [`Store::copy`] makes one that does not.
    pub fn detached(&self) -> Self {
        let parameters = self
            .parameters
            .iter()
            .map(|(name, p)| (name.clone(), Parameter { var: p.var.clone(), trainable: false }))
            .collect();
        Self { parameters, gradients: BTreeMap::new(), dtype: self.dtype, device: self.device.clone() }
    }

    /// A store with copied values and the same trainable names: a reference policy that stays where it is.
    pub fn copy(&self) -> Result<Self> {
        let mut copy = Self::new(self.dtype, &self.device);
        for (name, parameter) in &self.parameters {
            copy.insert(name.clone(), parameter.var.as_tensor())?;
        }
        copy.freeze(|name| !self.parameters[name].trainable);
        Ok(copy)
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
        if let Some(name) = tensors.keys().find(|name| !self.parameters.contains_key(*name)) {
            return Err(Error::invalid(format!("{name}: unknown parameter")));
        }
        let mut values = Vec::with_capacity(self.parameters.len());
        for (name, parameter) in &self.parameters {
            let tensor = tensors.get(name).ok_or_else(|| Error::invalid(format!("{name}: missing parameter")))?;
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
        Ok(())
    }

    /// Adds the gradients of one backward pass: the first one seen is taken, later ones are added, in sorted order of
    /// names. Only trainable parameters are looked at; everything else in `grads` is left to be dropped.
    pub fn accumulate(&mut self, grads: &GradStore) -> Result<()> {
        for (name, parameter) in self.parameters.iter().filter(|(_, p)| p.trainable) {
            let Some(new) = grads.get(parameter.var.as_tensor()) else { continue };
            // An attached gradient would keep the activations alive; sums of micro-batches want f32.
            let new = &super::ops::widened(&new.detach())?;
            let sum = match self.gradients.get(name) {
                Some(sum) => sum.add(new)?.detach(),
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
                store.accumulate(&loss.backward().unwrap()).unwrap();
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
    fn a_detached_twin_sees_an_update_and_a_copy_does_not() {
        let store = store(DType::F32);
        let (twin, copy) = (store.detached().get("a", &[2]).unwrap(), store.copy().unwrap().get("a", &[2]).unwrap());
        let mut values = store.to_tensors();
        values.insert("a".into(), Tensor::new(&[5.0f32, 6.0], &Device::Cpu).unwrap());
        store.set(&values).unwrap();
        assert_eq!(twin.to_vec1::<f32>().unwrap(), [5.0, 6.0]);
        assert_eq!(copy.to_vec1::<f32>().unwrap(), [1.0, -1.0]);
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
