//! Train policies with REBEL and its relatives.
//!
//! The reader finds here, from the floor up: [`nn`] (parameters, layers, optimizer, sampler),
//! [`models`] (decoders in Hugging Face's formats), [`world`] (bandit and text behind one border),
//! [`algorithm`] (one file each), [`run`] (configs, stages, checkpoints). The losses themselves are
//! [`rebel_theory::objective`]'s; none is written here.

pub mod error;
pub mod models;
pub mod nn;
pub mod vectors;

pub use error::{Error, Result};
