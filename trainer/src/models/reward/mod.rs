//! Reward models: a decoder and a head that turns its last state into a number.
//!
//! One type for every layout that the paper's runs load. [`RewardConfig`] says which head there is and what its parameters
//! are called, [`RewardModel`] computes, [`mixture`] is ArmoRM's head of many objectives, [`folder`] reads and writes Hugging
//! Face folders, [`reader`] turns prompts and answers into the tokens that a model was trained to read.

pub mod folder;
pub mod mixture;
pub mod reader;

use std::collections::BTreeMap;

use candle_core::{D, Device, Tensor};

use super::batch::TokenBatch;
use super::config::DecoderConfig;
use super::decoder::Decoder;
use super::parameters;
use crate::nn::{Linear, Store, Streams, normal};
use crate::{Error, Result};
use mixture::{Mixed, Mixture, MixtureConfig};

/// The trunk's name where TRL and Starling wrap a language model.
const WRAPPED: &str = "transformer";
/// Starling's other name for the same trunk.
const WRAPPED_AGAIN: &str = "model.model";

/// Which head a reward model has, by the layout of its files.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// The paper's TL;DR code: `lm_backbone.*`, `scalar_head.{weight,bias}`, and a `bias` of the config that is taken off
    /// every score, so that human references score 0 on average.
    Scalar {
        /// What is taken off.
        shift: f64,
    },
    /// transformers' sequence classification with one label (FsfairX): `score.weight`.
    Classifier,
    /// Starling: `v_head.weight` on a trunk that its files hold under two names.
    Value {
        /// The name it is read under: `transformer`, or `model.model` where only that is there.
        trunk: &'static str,
    },
    /// Eurus: `regression_head.weight`.
    Regression,
    /// ArmoRM: many objectives, weighed by the prompt.
    Mixture(MixtureConfig),
}

/// What a reward model is made of.
#[derive(Debug, Clone, PartialEq)]
pub struct RewardConfig {
    /// The trunk.
    pub decoder: DecoderConfig,
    /// The head.
    pub kind: Kind,
    /// The token that fills rows up, which transformers' classifiers must know; not the scalar layout's.
    pub pad: Option<u32>,
}

impl RewardConfig {
    /// Prefix of the trunk's parameters.
    pub fn trunk(&self) -> &'static str {
        match self.kind {
            Kind::Scalar { .. } => "lm_backbone",
            Kind::Value { trunk } => trunk,
            Kind::Classifier | Kind::Regression | Kind::Mixture(_) => self.decoder.family.names().trunk,
        }
    }

    /// Name of the layer that reads the last state, without `.weight`.
    pub fn head(&self) -> &'static str {
        match self.kind {
            Kind::Scalar { .. } => "scalar_head",
            Kind::Classifier => "score",
            Kind::Value { .. } => "v_head",
            Kind::Regression => "regression_head",
            Kind::Mixture(_) => mixture::OBJECTIVES,
        }
    }

    fn has_bias(&self) -> bool {
        matches!(self.kind, Kind::Scalar { .. })
    }

    /// Name and shape of every parameter.
    pub fn parameters(&self) -> BTreeMap<String, Vec<usize>> {
        let mut all = parameters::parameters(&self.decoder, self.trunk(), false);
        all.extend(self.head_parameters());
        all
    }

    fn head_parameters(&self) -> BTreeMap<String, Vec<usize>> {
        let (head, width) = (self.head(), self.decoder.width);
        match &self.kind {
            Kind::Mixture(mixture) => mixture.parameters(width),
            _ => {
                let bias = self.has_bias().then(|| (format!("{head}.bias"), vec![1]));
                bias.into_iter().chain([(format!("{head}.weight"), vec![1, width])]).collect()
            }
        }
    }
}

/// Trunk and head.
#[derive(Debug, Clone)]
pub struct RewardModel {
    config: RewardConfig,
    decoder: Decoder,
    head: Head,
}

#[derive(Debug, Clone)]
enum Head {
    Number(Linear),
    Mixture(Mixture),
}

/// What a reward model says of a batch.
#[derive(Debug, Clone)]
pub struct Assessment {
    /// A reward for each row. `[batch]`
    pub rewards: Tensor,
    /// The states it was read from, after the final norm. `[batch, width]`
    pub states: Tensor,
    /// What the reward is made of, where there are objectives.
    pub mixed: Option<Mixed>,
}

impl RewardModel {
    /// Takes the parameters that `config` names from `store`. Fails naming the first that is absent or of another shape.
    pub fn new(config: &RewardConfig, store: &Store) -> Result<Self> {
        let width = config.decoder.width;
        let head = match &config.kind {
            Kind::Mixture(mixture) => Head::Mixture(Mixture::new(mixture, width, store)?),
            _ => Head::Number(Linear::new(store, config.head(), width, 1, config.has_bias())?),
        };
        let decoder = Decoder::new(&config.decoder, store, config.trunk())?;
        Ok(Self { config: config.clone(), decoder, head })
    }

    /// A store for a new reward model: the trunk copied from a language model's parameters, the head drawn with standard
    /// deviation `1 / sqrt(inputs + 1)` and biases 0, as the paper's code does; objectives are not mixed at first.
    pub fn initial(config: &RewardConfig, language_model: &Store, streams: &Streams) -> Result<Store> {
        let (dtype, device) = (language_model.dtype(), language_model.device());
        let mut store = Store::new(dtype, device);
        for (name, tensor) in language_model.to_tensors() {
            if let Some(rest) = name.strip_prefix(config.decoder.family.names().trunk) {
                store.insert(format!("{}{rest}", config.trunk()), &tensor)?;
            }
        }
        for (name, shape) in config.head_parameters() {
            let tensor = match shape.as_slice() {
                _ if name == mixture::TRANSFORM => Tensor::eye(shape[0], dtype, device)?,
                _ if name == mixture::SCALE => Tensor::ones(shape, dtype, device)?,
                [_, inputs] => normal(streams, &name, &shape, (*inputs as f64 + 1.0).powf(-0.5), dtype, device)?,
                _ => Tensor::zeros(shape, dtype, &Device::Cpu)?,
            };
            store.insert(name, &tensor)?;
        }
        Ok(store)
    }

    /// What it is made of.
    pub fn config(&self) -> &RewardConfig {
        &self.config
    }

    /// The trunk.
    pub fn decoder(&self) -> &Decoder {
        &self.decoder
    }

    /// The same model with another shift (normalising a reward model after training). Fails for a head without one.
    pub fn with_shift(mut self, shift: f64) -> Result<Self> {
        match &mut self.config.kind {
            Kind::Scalar { shift: old } => *old = shift,
            _ => return Err(Error::invalid(format!("{}: scores of this head have no shift", self.config.head()))),
        }
        Ok(self)
    }

    /// The same model without gradients, on the same storage.
    pub fn detached(&self) -> Self {
        let head = match &self.head {
            Head::Number(linear) => Head::Number(linear.detached()),
            Head::Mixture(mixture) => Head::Mixture(mixture.detached()),
        };
        Self { config: self.config.clone(), decoder: self.decoder.detached(), head }
    }

    /// The number a head gives for each of some states `[.., width]`: `[..]`, in f32 at least. Fails for a mixture, whose
    /// reward is not of one state.
    pub fn values(&self, hidden: &Tensor) -> Result<Tensor> {
        let Head::Number(head) = &self.head else {
            let what = "a reward of objectives is read at two tokens, not at one";
            return Err(Error::invalid(format!("{}: {what}", self.config.head())));
        };
        let values = head.forward_wide(hidden)?.squeeze(D::Minus1)?;
        match self.config.kind {
            Kind::Scalar { shift } => Ok((values - shift)?),
            _ => Ok(values),
        }
    }

    /// A reward for each row, read at its last real token. `[batch]`
    pub fn rewards(&self, tokens: &TokenBatch) -> Result<Tensor> {
        Ok(self.assess(tokens)?.rewards)
    }

    /// What the model says of each row, read at its last real token. Fails on a row without one, and where there are
    /// objectives on a row without the tokens between prompt and answer.
    pub fn assess(&self, tokens: &TokenBatch) -> Result<Assessment> {
        self.read(tokens, &last_columns(tokens)?, |at| self.decoder.states_at(tokens, at))
    }

    /// What the model says of `hidden` `[batch, time, width]`, the states of `tokens`, read at column `at[row]`.
    pub fn assess_at(&self, hidden: &Tensor, tokens: &TokenBatch, at: &[usize]) -> Result<Assessment> {
        let rows = hidden.flatten_to(1)?; // [batch time, width]
        self.read(tokens, at, |at| {
            let at: Vec<u32> = at.iter().map(|&i| i as u32).collect();
            Ok(rows.index_select(&Tensor::new(at, rows.device())?, 0)?)
        })
    }

    /// What the model says of `tokens` read at column `at[row]`; `states`: those of tokens at flat indices.
    fn read(
        &self,
        tokens: &TokenBatch,
        at: &[usize],
        states: impl Fn(&[usize]) -> Result<Tensor>,
    ) -> Result<Assessment> {
        let (batch, time) = tokens.dims();
        let flat =
            |columns: &[usize]| columns.iter().enumerate().map(|(row, c)| row * time + c).collect::<Vec<usize>>();
        match &self.head {
            Head::Number(_) => {
                let states = states(&flat(at))?;
                Ok(Assessment { rewards: self.values(&states)?, states, mixed: None })
            }
            Head::Mixture(mixture) => {
                let gate_columns = mixture.gate_columns(tokens)?;
                let both = states(&[flat(at), flat(&gate_columns)].concat())?;
                let (states, of_gate) = (both.narrow(0, 0, batch)?, both.narrow(0, batch, batch)?);
                let mixed = mixture.forward(&states, of_gate, gate_columns)?;
                Ok(Assessment { rewards: mixed.reward()?, states, mixed: Some(mixed) })
            }
        }
    }
}

/// The last real column of every row. Fails on a row without one.
fn last_columns(tokens: &TokenBatch) -> Result<Vec<usize>> {
    let (_, time) = tokens.dims();
    let last = |(row, mask): (usize, &[bool])| {
        mask.iter().rposition(|&real| real).ok_or_else(|| Error::invalid(format!("row {row} has no token to read")))
    };
    tokens.mask().chunks_exact(time).enumerate().map(last).collect()
}
