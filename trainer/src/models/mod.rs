//! Decoder language models in Hugging Face's formats.
//!
//! [`config`], [`mod@parameters`] and [`decoder`] are one configurable decoder for GPT-NeoX, Llama, Mistral and Qwen;
//! [`scalar`] puts a reward or value head on it; [`mod@generate`] samples from it; [`hf`] reads and writes folders
//! ([`tensors`] and [`pickle`] read weights); [`tokenizer`] turns text into ids, [`chat`] chats
//! into text.

pub mod batch;
mod block;
mod bpe;
pub mod chat;
mod clip;
pub mod config;
mod config_json;
pub mod decoder;
pub mod generate;
pub mod hf;
mod json;
mod llama;
mod neox;
pub mod parameters;
pub mod pickle;
pub mod scalar;
pub mod tensors;
mod token_names;
pub mod tokenizer;
mod tokenizer_json;
mod tokenizer_train;

pub use batch::{KvCache, TokenBatch};
pub use config::{DecoderConfig, Family};
pub use decoder::Decoder;
pub use generate::{Completion, Generation, generate};
pub use scalar::ScalarModel;
pub use tokenizer::Tokenizer;
