//! Decoder language models in Hugging Face's formats.
//!
//! [`config`], [`mod@parameters`] and [`decoder`] are one configurable decoder for GPT-NeoX, Llama, Mistral and Qwen;
//! [`reward`] puts a reward head on it; [`mod@generate`] samples from it; [`hf`] reads and writes folders, [`hub`] finds
//! them by name in the local cache, [`mod@convert`] writes them anew ([`tensors`], [`pickle`] and [`shards`] are their weights,
//! [`card`] their description), [`peft`] adapters, and [`trained`] says what of a model is trained; [`tokenizer`] turns text
//! into ids and [`text_stream`] ids into text as they come, [`chat`] chats into text.

pub mod batch;
mod block;
mod bpe;
pub mod card;
pub mod chat;
mod clip;
pub mod config;
mod config_json;
pub mod convert;
pub mod decoder;
pub mod generate;
pub mod generation_config;
pub mod hf;
pub mod hub;
mod json;
mod llama;
mod neox;
#[cfg(test)]
mod other_devices;
pub mod parameters;
pub mod peft;
pub mod pickle;
pub mod reward;
mod safe;
mod scheduler;
pub mod shards;
pub mod tensors;
pub mod text_stream;
mod token_names;
pub mod tokenizer;
mod tokenizer_config;
mod tokenizer_json;
mod tokenizer_train;
pub mod trained;

pub use batch::{CacheRows, KvCache, TokenBatch};
pub use config::{DecoderConfig, Family};
pub use decoder::Decoder;
pub use generate::{Completion, Event, Generation, generate, generate_observed, prompt_fault};
pub use generation_config::GenerationDefaults;
pub use reward::{RewardConfig, RewardModel};
pub use tokenizer::Tokenizer;
pub use trained::Trained;
