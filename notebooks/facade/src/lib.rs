//! What the notebooks import, all of it, in one dynamic library.
//!
//! A notebook begins with one `:dep` on this crate and `use rebel_notebook::*;`. It finds the workspace's crates here
//! ([`theory`], [`figures`] and, with the feature `train`, [`trainer`] and [`candle_core`]), and what a class needs
//! beside them: [`start`], which makes a panic one readable line, [`verify`], which runs a claim and shows it as a table,
//! and the exercises' checks.
//!
//! Everything with state must come through here: a cell is a library of its own, and what it linked by itself it would
//! have a copy of (candle's counter of tensor ids, for one, and with it wrong gradients).

mod claim;
mod error;
mod exercises;
mod panic;

pub use claim::{Verified, verify};
pub use error::Error;
pub use exercises::*;
pub use ndarray;
pub use panic::start;
pub use rebel_figures as figures;
pub use rebel_theory as theory;

#[cfg(feature = "train")]
pub use candle_core;
#[cfg(feature = "train")]
pub use rebel_trainer as trainer;
