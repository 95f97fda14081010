//! Which instructions the kernels use.

use std::str::FromStr;
use std::sync::OnceLock;

/// An instruction set the kernels are compiled for. All give the same bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isa {
    /// AVX-512 (F, BW, DQ, VL).
    Avx512,
    /// AVX2 with fused multiply-add.
    Avx2,
    /// What every machine has; slow where it has no fused multiply-add.
    Portable,
}

static FORCED: OnceLock<Isa> = OnceLock::new();

impl Isa {
    /// Those this machine has, the best first.
    pub fn available() -> Vec<Self> {
        let mut all = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
            let rest = is_x86_feature_detected!("avx512bw") && is_x86_feature_detected!("avx512dq");
            if avx2 && rest && is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vl") {
                all.push(Self::Avx512);
            }
            if avx2 {
                all.push(Self::Avx2);
            }
        }
        all.push(Self::Portable);
        all
    }

    /// The one this process computes with: the best there is, unless [`Isa::force`] named another.
    pub fn current() -> Self {
        *FORCED.get_or_init(|| Self::available()[0])
    }

    /// Makes every model built from now on in this process compute with this one.
    ///
    /// # Errors
    /// When the machine lacks it, or a model was built with another already.
    pub fn force(self) -> Result<(), String> {
        if !Self::available().contains(&self) {
            return Err(format!("{}: this machine does not have it", self.name()));
        }
        match *FORCED.get_or_init(|| self) {
            taken if taken == self => Ok(()),
            taken => Err(format!("{}: {} is in use already", self.name(), taken.name())),
        }
    }

    /// As people write it: `avx512`, `avx2`, `portable`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Avx512 => "avx512",
            Self::Avx2 => "avx2",
            Self::Portable => "portable",
        }
    }
}

impl FromStr for Isa {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        [Self::Avx512, Self::Avx2, Self::Portable]
            .into_iter()
            .find(|isa| isa.name() == name)
            .ok_or_else(|| format!("{name:?} (expected avx512, avx2 or portable)"))
    }
}
