//! A decoder-only transformer: GPT-NeoX, Llama and their relatives.
//!
//! [`shape`] says what a model is made of, [`weights`] how its parameters become the panels that products read, [`batch`]
//! which rows there are and who sees whom. A pass is [`forward`], then [`head`], then [`backward`] with [`gradients`];
//! [`decode`] continues sequences, a token a row. Between the phases threads meet; within one, tasks need nothing of
//! each other.
//!
//! Rows are real tokens: there is no padding. Responses to the same prompt may stand behind one reading of it.

pub mod backward;
pub mod batch;
pub mod decode;
pub mod forward;
pub mod gradients;
pub mod head;
pub mod layer;
pub mod shape;
pub mod weights;

pub use backward::Gradients;
pub use batch::Batch;
pub use decode::Cache;
pub use forward::Pass;
pub use shape::{Adapter, Block, Linear, Model, Norm, Shape};
pub use weights::Weights;

use std::sync::Arc;

use crate::buffer::Spare;
use crate::isa::Isa;
use crate::kernels::Kernels;
use crate::pool::Pool;

/// What computes: instructions, threads, and memory that was used before.
#[derive(Debug, Clone)]
pub struct Machine {
    pub(crate) kernels: Kernels,
    pub(crate) pool: Arc<Pool>,
    pub(crate) spare: Arc<Spare>,
}

impl Machine {
    /// These instructions on this pool.
    ///
    /// # Panics
    /// When the machine lacks the instructions.
    pub fn new(isa: Isa, pool: Arc<Pool>) -> Self {
        Self { kernels: Kernels::new(isa), pool, spare: Arc::default() }
    }

    /// The process's instructions and threads.
    pub fn current() -> Self {
        Self::new(Isa::current(), Pool::global().clone())
    }

    /// The pool.
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// The kernels.
    pub fn kernels(&self) -> &Kernels {
        &self.kernels
    }
}
