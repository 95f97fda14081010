//! What can go wrong in the facade's own functions.

use rebel_theory::error::InputError;

/// Why one of the facade's functions gave up; `{}` is one line for the reader.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no claim of that id.
    #[error("{id}: no claim has this id (there are: {known})")]
    UnknownClaim {
        /// The id that was asked for.
        id: String,
        /// The ids that exist.
        known: String,
    },
    /// The mathematics refused an argument.
    #[error(transparent)]
    Theory(#[from] InputError),
}
