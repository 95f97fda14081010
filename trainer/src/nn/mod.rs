//! The neural-network floor: what candle does not offer to someone who trains.
//!
//! From the bottom up: [`threads`] (how many), [`instructions`] (which), [`device`] (where), [`streams`] (reproducible randomness), [`store`] (named parameters and
//! their gradients), [`init`], [`schedule`], [`mod@clip`] and [`adamw`] (how parameters move), [`ops`] (own differentiable
//! operations), [`rope`] (rotary angles), [`lora`] (adapters), [`recompute`] (gradient checkpointing), [`layers`] made of them,
//! [`temperature`] and [`sampling`] (which distribution), [`sample`] (exact draws from it).

pub mod adamw;
pub mod clip;
pub mod device;
pub mod init;
pub mod instructions;
pub mod layers;
pub mod lora;
pub mod ops;
mod real;
pub mod recompute;
pub mod rope;
pub mod sample;
pub mod sampling;
pub mod schedule;
pub mod store;
pub mod streams;
pub mod temperature;
pub mod threads;

pub use candle_core::DType;

pub use adamw::{AdamW, AdamWSettings};
pub use clip::{clip, clip_factor, global_norm};
pub use device::{DeviceName, Place};
pub use init::normal;
pub use layers::{Embedding, LayerNorm, Linear, RmsNorm};
pub use lora::Adapter;
pub use recompute::Recomputed;
pub use rope::{Rope, RopeScaling};
pub use sample::{Choice, choose};
pub use sampling::{Sampling, Scoring};
pub use schedule::{Decay, Schedule};
pub use store::{Gradients, Store};
pub use streams::{Purpose, Streams};
pub use temperature::Temperature;
