//! Every loss, once. See [`Arith`].

/// Why a batch operation could not be done.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ArithError {
    /// Shapes that do not fit the operation.
    #[error("{0}")]
    Shape(String),
}
