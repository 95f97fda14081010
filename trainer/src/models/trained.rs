//! What of a language model is trained: all of it, its last blocks, or an adapter beside it.

use super::config::DecoderConfig;
use super::parameters;
use super::peft::{self, LoraConfig};
use crate::nn::{Store, Streams};
use crate::{Error, Result};

/// The trained part of a model.
#[allow(clippy::large_enum_variant)] // a run has one
#[derive(Debug, Clone, PartialEq)]
pub enum Trained {
    /// Every parameter.
    Full,
    /// So many of the last blocks, the final norm, and the output head unless it is the embedding.
    LastBlocks(usize),
    /// A low-rank adapter of these settings.
    Adapter(LoraConfig),
}

impl Trained {
    /// Makes `store`, a model of `config`, ready: everything else is frozen, and a fresh adapter is put beside it. What the
    /// model computes does not change.
    ///
    /// # Errors
    /// When the model has fewer blocks; as [`peft::begin`].
    pub fn prepare(&self, config: &DecoderConfig, store: &mut Store, streams: &Streams) -> Result<()> {
        match self {
            Self::Full => store.freeze(|_| false),
            Self::LastBlocks(blocks) => {
                let Some(first) = config.layers.checked_sub(*blocks) else {
                    return Err(Error::invalid(format!("{blocks} last blocks of a model of {}", config.layers)));
                };
                let names = config.family.names();
                let mut begins: Vec<String> =
                    (first..config.layers).map(|layer| format!("{}.", parameters::block(names.trunk, layer))).collect();
                begins.push(format!("{}.{}.", names.trunk, names.final_norm));
                begins.push(names.head.into());
                store.freeze(|name| !begins.iter().any(|begin| name.starts_with(begin)));
            }
            Self::Adapter(lora) => peft::begin(lora, config, store, streams)?,
        }
        Ok(())
    }
}
