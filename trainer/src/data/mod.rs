//! Data files: the TL;DR prompt and its truncation ([`mod@format`]), the token columns of the published sets
//! ([`columns`]), reading rows with every dropped one counted ([`jsonl`]), and prompts with answers in whichever columns
//! they come ([`exchange`]).

pub mod columns;
pub mod exchange;
pub mod format;
pub mod jsonl;
