//! Decoder language models in Hugging Face's formats.
//!
//! [`config`] and [`decoder`] are one configurable decoder; [`neox`] says what GPT-NeoX calls its parts; [`scalar`] puts a
//! reward or value head on it; [`mod@generate`] samples from it; [`hf`] reads and writes folders ([`tensors`] and [`pickle`]
//! read weights); [`tokenizer`] turns text into ids.

pub mod batch;
mod bpe;
pub mod config;
pub mod decoder;
pub mod generate;
pub mod hf;
mod json;
pub mod neox;
pub mod pickle;
pub mod scalar;
pub mod tensors;
pub mod tokenizer;

pub use batch::{KvCache, TokenBatch};
pub use config::DecoderConfig;
pub use decoder::Decoder;
pub use generate::{Completion, Generation, generate};
pub use scalar::ScalarModel;
pub use tokenizer::Tokenizer;
