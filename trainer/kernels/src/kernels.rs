//! All kernels compiled for each instruction set, and the choice between them at run time.
//!
//! A kernel is a whole nest of loops, so calling it through a pointer costs nothing.

use crate::attention::{self, Attend, AttendBack, AttendOne};
use crate::gemm::{self, Outer, Product};
use crate::isa::Isa;
use crate::norm::{self, Normalise, NormaliseBack, NormaliseGains};
use crate::rows::{self, Activate, ActivateBack, PackBlock, Rotate, SumRows, Transpose};
use crate::simd;
use crate::softmax::{self, Softmax, SoftmaxBack};

macro_rules! kernels {
    ($($(#[$doc:meta])* fn $name:ident = $module:ident ( $($arg:ident: $ty:ty),* );)*) => {
        /// Every kernel for one instruction set. All want places that are there and that nobody else writes.
        #[derive(Debug, Clone, Copy)]
        pub struct Kernels {
            $($(#[$doc])* pub $name: unsafe fn($($arg: $ty),*),)*
        }

        #[cfg(target_arch = "x86_64")]
        mod avx512 {
            use super::*;
            $(
                #[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")]
                pub unsafe fn $name($($arg: $ty),*) {
                    $module::$name::<simd::Avx512>($($arg),*)
                }
            )*
        }

        #[cfg(target_arch = "x86_64")]
        mod avx2 {
            use super::*;
            $(
                #[target_feature(enable = "avx2,fma")]
                pub unsafe fn $name($($arg: $ty),*) {
                    $module::$name::<simd::Avx2>($($arg),*)
                }
            )*
        }

        mod portable {
            use super::*;
            $(
                pub unsafe fn $name($($arg: $ty),*) {
                    $module::$name::<simd::Portable>($($arg),*)
                }
            )*
        }

        impl Kernels {
            /// The kernels of an instruction set that this machine has.
            ///
            /// # Panics
            /// When it does not.
            pub fn new(isa: Isa) -> Self {
                assert!(Isa::available().contains(&isa), "{}: this machine does not have it", isa.name());
                match isa {
                    #[cfg(target_arch = "x86_64")]
                    Isa::Avx512 => Self { $($name: avx512::$name,)* },
                    #[cfg(target_arch = "x86_64")]
                    Isa::Avx2 => Self { $($name: avx2::$name,)* },
                    _ => Self { $($name: portable::$name,)* },
                }
            }
        }
    };
}

kernels! {
    /// [`Product`].
    fn product = gemm(p: &Product);
    /// [`Outer`].
    fn outer = gemm(p: &Outer);
    /// [`Attend`].
    fn attend = attention(p: &Attend);
    /// [`AttendOne`]: several, of `depth` panels each.
    fn attend_ones = attention(of: &[AttendOne], depth: usize, window: usize, scale: f32);
    /// [`AttendBack`].
    fn attend_back = attention(p: &AttendBack);
    /// [`Normalise`].
    fn normalise = norm(p: &Normalise);
    /// [`Normalise`] with mean and scale known.
    fn renormalise = norm(p: &Normalise);
    /// [`NormaliseBack`].
    fn normalise_back = norm(p: &NormaliseBack);
    /// [`NormaliseGains`].
    fn normalise_gains = norm(p: &NormaliseGains);
    /// [`Activate`].
    fn activate = rows(p: &Activate);
    /// [`ActivateBack`].
    fn activate_back = rows(p: &ActivateBack);
    /// [`Rotate`].
    fn rotate = rows(p: &Rotate);
    /// [`SumRows`].
    fn sum_rows = rows(p: &SumRows);
    /// [`Transpose`].
    fn transpose = rows(p: &Transpose);
    /// [`PackBlock`].
    fn pack_block = rows(p: &PackBlock);
    /// [`Softmax`].
    fn softmax = softmax(p: &Softmax);
    /// [`SoftmaxBack`].
    fn softmax_back = softmax(p: &SoftmaxBack);
}
