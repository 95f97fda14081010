//! Every loss of the project, once.
//!
//! An objective is a pure function over [`Arith`], a small trait of batch arithmetic. Three types implement it, so the
//! same lines are
//!
//! * a number, over [`ndarray::ArrayD<f64>`] (module `array`);
//! * a number and the cotangents of its inputs, over [`tape::Var`]: what the trainer uses;
//! * a differentiable tensor under candle's autograd (feature `candle`).
//!
//! Objectives return **sums over groups** (a pair, the k samples of a prompt, a preference). The caller divides by the
//! number of groups in the whole batch, so that cutting a batch into pieces changes nothing.
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
pub mod tape;

pub use losses::{bradley_terry, cross_entropy, dpo, rebel, rloo};

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
    /// `self^2`, elementwise.
    fn square(&self) -> Result<Self, Self::Error>;
    /// `ln sigmoid(self) = -ln(1 + e^{-self})`, without overflow; its slope at 0 is 1/2.
    fn log_sigmoid(&self) -> Result<Self, Self::Error>;
    /// Column `index` of the last axis: `[.., n] -> [..]`.
    fn column(&self, index: usize) -> Result<Self, Self::Error>;
    /// Sum along the last axis, repeated so that the shape stays: `[.., n] -> [.., n]`.
    fn row_total(&self) -> Result<Self, Self::Error>;
    /// Sum of all elements: `[..] -> []`.
    fn total(&self) -> Result<Self, Self::Error>;

    /// First minus second of each pair: `[pairs, 2] -> [pairs]`.
    fn difference_of_pair(&self) -> Result<Self, Self::Error> {
        match self.dims().last() {
            Some(2) => self.column(0)?.minus(&self.column(1)?),
            _ => Err(ArithError::Shape(format!("shape {:?} holds no pairs (expected [pairs, 2])", self.dims())).into()),
        }
    }
}

/// The step size `eta` of the paper: a finite number above 0. Units: nats per unit of reward.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Eta(f64);

impl Eta {
    /// Checks `eta`.
    pub fn new(eta: f64) -> Result<Self, ArithError> {
        positive("eta", eta).map(Self)
    }

    /// The number.
    pub fn get(self) -> f64 {
        self.0
    }
}

/// The inverse temperature `beta` of DPO: a finite number above 0, per nat.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Beta(f64);

impl Beta {
    /// Checks `beta`.
    pub fn new(beta: f64) -> Result<Self, ArithError> {
        positive("beta", beta).map(Self)
    }

    /// The number.
    pub fn get(self) -> f64 {
        self.0
    }
}

fn positive(name: &'static str, value: f64) -> Result<f64, ArithError> {
    if value > 0.0 && value.is_finite() {
        Ok(value)
    } else {
        Err(ArithError::Parameter { name, value, expected: "a finite number above 0" })
    }
}
