//! Data files: the TL;DR prompt and its truncation ([`mod@format`]), the token columns of the published sets
//! ([`columns`]), and reading rows with every dropped one counted ([`jsonl`]).

pub mod columns;
pub mod format;
pub mod jsonl;
