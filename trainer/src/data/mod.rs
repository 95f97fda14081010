//! Data files: the TL;DR prompt and its truncation ([`format`]), the token columns of the published sets
//! ([`columns`]), reading rows with every dropped one counted ([`jsonl`]), and writing that leaves nothing half-written
//! ([`atomic`]).

pub mod atomic;
pub mod columns;
pub mod format;
pub mod jsonl;
