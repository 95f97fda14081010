//! Train policies with REBEL and its relatives.
//!
//! The reader finds here, from the floor up: [`nn`] (parameters, layers, optimizer, sampler),
//! [`models`] (decoders in Hugging Face's formats), [`world`] (bandit and text behind one border),
//! [`algorithm`] (one file each), [`run`] (configs, stages, checkpoints), [`bench`] (how fast all that is here). The losses
//! themselves are [`rebel_theory::objective`]'s; none is written here.

pub mod algorithm;
pub mod bench;
pub mod data;
pub mod error;
pub mod files;
pub mod models;
pub mod nn;
pub mod reward;
pub mod rewards;
pub mod run;
pub mod scoring;
pub mod tiny;
pub mod vectors;
pub mod world;

pub use error::{Error, Result};
