//! Every loss of the project, once.
//!
//! An objective is a pure function over [`Arith`], a small trait of batch arithmetic. Three types implement it, so the
//! same lines are
//!
//! * a number, over [`ndarray::ArrayD<f64>`] (module `array`);
//! * a number and the cotangents of its inputs, over [`tape::Var`]: what the trainer uses;
//! * a differentiable tensor under candle's autograd (feature `candle`).
//!
//! Objectives return **sums over groups** (a pair, the k samples of a prompt, a preference, a token). The caller divides
//! by the number of groups in the whole batch, so that cutting a batch into pieces changes nothing.
//!
//! | family | objectives | regress or raise |
//! |---|---|---|
//! | regression | [`rebel`], [`rebel_preference`], [`apa`], [`sppo`] | a log-ratio to a reward |
//! | preference | [`dpo`], [`ipo`], [`iterative_dpo`] | the margin of the preferred response |
//! | policy gradient | [`reinforce`], [`rloo`], [`ppo_clip`], [`ppo_clip_without_min`], [`ppo_value`], [`ppo_value_clipped`] | log-probability, weighted by advantage |
//! | supervised | [`cross_entropy`], [`bradley_terry`] | likelihood of given data |
//!
//! Where an objective has a kink, all three implementors give the same slope: a value exactly on a clip counts as inside
//! it, two tied arguments of a minimum share the slope, and the sign of 0 is 0.
//!
//! ```
//! use ndarray::arr2;
//! use rebel_theory::objective::{Eta, rebel};
//!
//! let old = arr2(&[[-1.0, -2.0]]).into_dyn(); // ln pi_t(y), ln pi_t(y')
//! let new = arr2(&[[-0.5, -2.0]]).into_dyn(); // the log-ratio has moved by 0.5
//! let reward = arr2(&[[2.0, 1.0]]).into_dyn(); // it should have moved by eta * 1
//! let loss = rebel(&new, &old, &reward, Eta::new(1.0).unwrap()).unwrap();
//! assert_eq!(loss.sum(), 0.25); // (0.5 - 1)^2
//! ```

mod array;
#[cfg(feature = "candle")]
mod candle;
mod losses;
mod parameters;
pub mod tape;

pub(crate) use losses::{NAMES, by_name};
pub use losses::{
    apa, bradley_terry, cross_entropy, dpo, ipo, iterative_dpo, ppo_clip, ppo_clip_without_min, ppo_value,
    ppo_value_clipped, rebel, rebel_preference, reinforce, rloo, sppo,
};
pub use parameters::{Beta, Clip, Eta, Lambda, Tau};

/// Why a batch operation, or a parameter of an objective, could not be used.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ArithError {
    /// Shapes that do not fit the operation.
    #[error("{0}")]
    Shape(String),
    /// A parameter outside its range.
    #[error("{name}: {value} is not usable (expected {expected})")]
    Parameter {
        /// Its name.
        name: &'static str,
        /// The value given.
        value: f64,
        /// What was expected, in words.
        expected: &'static str,
    },
}

/// Batch arithmetic in which objectives are written: elementwise operations on equal shapes, and sums along the last axis.
///
/// Nothing broadcasts: a shape that does not fit is an error, not a guess.
pub trait Arith: Sized {
    /// What the implementor's operations fail with.
    type Error: From<ArithError> + std::error::Error;

    /// Shape, outermost axis first.
    fn dims(&self) -> Vec<usize>;
    /// `self + other`.
    fn plus(&self, other: &Self) -> Result<Self, Self::Error>;
    /// `self - other`.
    fn minus(&self, other: &Self) -> Result<Self, Self::Error>;
    /// `self * other`, elementwise.
    fn times(&self, other: &Self) -> Result<Self, Self::Error>;
    /// `factor * self`.
    fn scale(&self, factor: f64) -> Result<Self, Self::Error>;
    /// `self + constant`.
    fn shift(&self, constant: f64) -> Result<Self, Self::Error>;
    /// `self^2`, elementwise.
    fn square(&self) -> Result<Self, Self::Error>;
    /// `e^self`, elementwise.
    fn exp(&self) -> Result<Self, Self::Error>;
    /// -1, 0 or 1: the sign of each element, 0 of 0. It passes no slope on.
    fn sign(&self) -> Result<Self, Self::Error>;
    /// Each element, or the bound beyond which it lies; `low <= high`. The slope is 1 from `low` to `high`, both included,
    /// and 0 outside: so a minimum with the unclipped value is right wherever it is smooth.
    fn clamp(&self, low: f64, high: f64) -> Result<Self, Self::Error>;
    /// The smaller of two, elementwise; of equal ones each has half the slope.
    fn minimum(&self, other: &Self) -> Result<Self, Self::Error>;
    /// `ln sigmoid(self) = -ln(1 + e^{-self})`, without overflow; its slope at 0 is 1/2.
    fn log_sigmoid(&self) -> Result<Self, Self::Error>;
    /// Column `index` of the last axis: `[.., n] -> [..]`.
    fn column(&self, index: usize) -> Result<Self, Self::Error>;
    /// Sum along the last axis, repeated so that the shape stays: `[.., n] -> [.., n]`.
    fn row_total(&self) -> Result<Self, Self::Error>;
    /// Sum of all elements: `[..] -> []`.
    fn total(&self) -> Result<Self, Self::Error>;

    /// The larger of two, elementwise; of equal ones each has half the slope.
    fn maximum(&self, other: &Self) -> Result<Self, Self::Error> {
        self.scale(-1.0)?.minimum(&other.scale(-1.0)?)?.scale(-1.0)
    }

    /// First minus second of each pair: `[pairs, 2] -> [pairs]`.
    fn difference_of_pair(&self) -> Result<Self, Self::Error> {
        match self.dims().last() {
            Some(2) => self.column(0)?.minus(&self.column(1)?),
            _ => Err(ArithError::Shape(format!("shape {:?} holds no pairs (expected [pairs, 2])", self.dims())).into()),
        }
    }
}
