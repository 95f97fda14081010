//! Which instructions the project's kernels use. The choice changes how long a computation takes, and no bit of its result.

use rebel_kernels::Isa;

use crate::{Error, Result};

/// Names of the instruction sets that this machine has, the best first.
pub fn available() -> Vec<&'static str> {
    Isa::available().into_iter().map(Isa::name).collect()
}

/// The one that decoders of this process compute with.
pub fn current() -> &'static str {
    Isa::current().name()
}

/// Makes every decoder of this process compute with `name`. To be called before there is one.
///
/// # Errors
/// A name that is none of [`available`]; another set is in use already.
pub fn force(name: &str) -> Result<()> {
    let wrong = |what| Error::Usage(format!("--instructions: {what} (expected {})", available().join(" or ")));
    let isa = name.parse::<Isa>().ok().filter(|isa| Isa::available().contains(isa));
    isa.ok_or_else(|| wrong(name.to_string()))?.force().map_err(wrong)
}
