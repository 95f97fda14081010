//! Low-rank adapters (Hu et al., arXiv 2106.09685): beside a frozen map `W` two thin factors, `W + s B A`, of which only the
//! factors are trained.
//!
//! An adapter lives in the [`Store`](super::Store) of its model: `MODULE.lora_A.weight`, `MODULE.lora_B.weight` and a
//! scaling. The layers take it from there, so every model can have adapters and none knows of them; without them the same
//! weights are the model that training began with.

use candle_core::{DType, Device, Tensor};

use super::init::uniform;
use super::ops::low_rank::low_rank;
use super::streams::Streams;
use crate::Result;

/// Name of A's weight inside a module, `[rank, inputs]`.
pub const DOWN: &str = "lora_A.weight";
/// Name of B's weight inside a module, `[outputs, rank]`.
pub const UP: &str = "lora_B.weight";
/// What stands between a module and its parameter where the parameter is a trained copy, used instead of the frozen one.
pub const SAVED: &str = "modules_to_save";

/// Whether a parameter belongs to what was put beside a model, rather than to the model.
pub fn is_beside(name: &str) -> bool {
    let ends_with = |part: &str| name.strip_suffix(part).is_some_and(|module| module.ends_with('.'));
    ends_with(DOWN) || ends_with(UP) || name.split('.').any(|part| part == SAVED)
}

/// The name of the copy that is used instead of the parameter `name` where there is one.
pub fn saved(name: &str) -> String {
    match name.rsplit_once('.') {
        Some((module, part)) => format!("{module}.{SAVED}.{part}"),
        None => format!("{SAVED}.{name}"),
    }
}

/// The correction `s B A` of one linear map.
#[derive(Debug, Clone)]
pub struct Adapter {
    pub(super) down: Tensor,
    pub(super) up: Tensor,
    pub(super) scaling: f64,
}

impl Adapter {
    /// `x W^T + b + s (x A^T) B^T`. `x`: `[.., inputs]`; gives `[.., outputs]`.
    pub fn forward(&self, x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
        low_rank(x, weight, bias, &self.down, &self.up, self.scaling)
    }

    /// `W + s B A`, `[outputs, inputs]`: the product summed in f64 and rounded once.
    pub fn merged(&self, weight: &Tensor) -> Result<Tensor> {
        let wide = |t: &Tensor| t.detach().to_dtype(DType::F64);
        let correction = (wide(&self.up)?.matmul(&wide(&self.down)?)? * self.scaling)?;
        Ok((wide(weight)? + correction)?.to_dtype(weight.dtype())?)
    }

    /// `W + s B A` with gradients of the factors, for a weight that is used as a whole.
    pub fn effective(&self, weight: &Tensor) -> Result<Tensor> {
        super::ops::sum::sum2(weight, &(self.up.matmul(&self.down)? * self.scaling)?)
    }

    /// The same adapter without gradients, on the same storage.
    pub fn detached(&self) -> Self {
        Self { down: self.down.detach(), up: self.up.detach(), scaling: self.scaling }
    }
}

/// Fresh factors of a map `inputs -> outputs`: A uniform on `+- 1 / sqrt(inputs)` (Kaiming's with a = sqrt 5, as peft draws
/// it) from the stream of its name, B zero, so that the adapted model begins as the model without adapters.
pub fn initial(
    streams: &Streams,
    module: &str,
    rank: usize,
    [outputs, inputs]: [usize; 2],
    dtype: DType,
    device: &Device,
) -> Result<(Tensor, Tensor)> {
    let bound = (inputs as f64).powf(-0.5);
    let down = uniform(streams, &format!("{module}.{DOWN}"), &[rank, inputs], bound, dtype, device)?;
    Ok((down, Tensor::zeros((outputs, rank), dtype, device)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fresh_adapter_is_within_its_bound_and_corrects_nothing() {
        let draw = || initial(&Streams::new(3), "layers.0.dense", 8, [5, 400], DType::F32, &Device::Cpu).unwrap();
        let (down, up) = draw();
        let values = down.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let largest = values.iter().fold(0.0f32, |m, x| m.max(x.abs()));
        assert!(largest <= 0.05 && largest > 0.049, "{largest}");
        // a third of the bound squared, to five standard deviations of 3200 draws
        let variance = values.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>() / values.len() as f64;
        assert!((variance * 1200.0 - 1.0).abs() < 0.08, "{variance}");
        assert_eq!(values, draw().0.flatten_all().unwrap().to_vec1::<f32>().unwrap());
        let weight = Tensor::ones((5, 400), DType::F32, &Device::Cpu).unwrap();
        let merged = Adapter { down, up, scaling: 2.0 }.merged(&weight).unwrap();
        assert_eq!(merged.to_vec2::<f32>().unwrap(), weight.to_vec2::<f32>().unwrap());
    }

    #[test]
    fn names_of_adapters_and_copies_are_told_from_those_of_models() {
        assert!(is_beside("model.layers.0.self_attn.q_proj.lora_A.weight"));
        assert!(is_beside(&saved("lm_head.weight")));
        assert_eq!(saved("model.norm.weight"), "model.norm.modules_to_save.weight");
        assert!(!is_beside("gpt_neox.layers.0.attention.query_key_value.weight"));
    }
}
