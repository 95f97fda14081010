//! [`Arith`] over arrays of f64: the value of an objective, nothing else.

use super::{Arith, ArithError};
use ndarray::{ArrayD, Axis, Zip};

/// `ln sigmoid(x)` without overflow on either side.
pub(super) fn log_sigmoid(x: f64) -> f64 {
    x.min(0.0) - (-x.abs()).exp().ln_1p()
}

/// `sigmoid(x)` without overflow on either side.
pub(super) fn sigmoid(x: f64) -> f64 {
    if x >= 0.0 { 1.0 / (1.0 + (-x).exp()) } else { x.exp() / (1.0 + x.exp()) }
}

/// -1, 0 or 1; of 0 it is 0, unlike [`f64::signum`].
pub(super) fn sign(x: f64) -> f64 {
    if x > 0.0 {
        1.0
    } else if x < 0.0 {
        -1.0
    } else {
        x // 0, or not a number
    }
}

/// `x`, or the bound beyond which it lies; what is not a number stays so.
pub(super) fn clamp(x: f64, low: f64, high: f64) -> f64 {
    if x < low {
        low
    } else if x > high {
        high
    } else {
        x
    }
}

/// The smaller of two, not a number if either is not: [`f64::min`] would lose it.
pub(super) fn smaller(a: f64, b: f64) -> f64 {
    if a < b || a.is_nan() { a } else { b }
}

/// `f` of the elements of two arrays of one shape.
pub(super) fn zip(a: &ArrayD<f64>, b: &ArrayD<f64>, f: impl Fn(f64, f64) -> f64) -> Result<ArrayD<f64>, ArithError> {
    if a.shape() != b.shape() {
        return Err(ArithError::Shape(format!("shapes {:?} and {:?} differ", a.shape(), b.shape())));
    }
    Ok(Zip::from(a).and(b).map_collect(|&x, &y| f(x, y)))
}

/// Column `index` of the last axis.
pub(super) fn column(a: &ArrayD<f64>, index: usize) -> Result<ArrayD<f64>, ArithError> {
    match a.shape().last() {
        Some(&n) if index < n => Ok(a.index_axis(Axis(a.ndim() - 1), index).to_owned()),
        _ => Err(ArithError::Shape(format!("shape {:?} has no column {index}", a.shape()))),
    }
}

/// Sums along the last axis, repeated along it. Each is one chain of additions from the left, so zeros at a row's end
/// (padding) change no bit of it.
pub(super) fn row_total(a: &ArrayD<f64>) -> Result<ArrayD<f64>, ArithError> {
    if a.ndim() == 0 {
        return Err(ArithError::Shape("a single number has no rows".into()));
    }
    let last = Axis(a.ndim() - 1);
    let sums = a.map_axis(last, |row| row.iter().fold(0.0, |sum, x| sum + x)).insert_axis(last);
    Ok(sums.broadcast(a.raw_dim()).expect("one column spreads over any number").to_owned())
}

/// The sum of all elements, as an array without axes.
pub(super) fn total(a: &ArrayD<f64>) -> ArrayD<f64> {
    ndarray::arr0(a.sum()).into_dyn()
}

impl Arith for ArrayD<f64> {
    type Error = ArithError;

    fn dims(&self) -> Vec<usize> {
        self.shape().to_vec()
    }
    fn plus(&self, other: &Self) -> Result<Self, ArithError> {
        zip(self, other, |a, b| a + b)
    }
    fn minus(&self, other: &Self) -> Result<Self, ArithError> {
        zip(self, other, |a, b| a - b)
    }
    fn times(&self, other: &Self) -> Result<Self, ArithError> {
        zip(self, other, |a, b| a * b)
    }
    fn scale(&self, factor: f64) -> Result<Self, ArithError> {
        Ok(self.mapv(|a| factor * a))
    }
    fn shift(&self, constant: f64) -> Result<Self, ArithError> {
        Ok(self.mapv(|a| a + constant))
    }
    fn square(&self) -> Result<Self, ArithError> {
        Ok(self.mapv(|a| a * a))
    }
    fn exp(&self) -> Result<Self, ArithError> {
        Ok(self.mapv(f64::exp))
    }
    fn sign(&self) -> Result<Self, ArithError> {
        Ok(self.mapv(sign))
    }
    fn clamp(&self, low: f64, high: f64) -> Result<Self, ArithError> {
        Ok(self.mapv(|a| clamp(a, low, high)))
    }
    fn minimum(&self, other: &Self) -> Result<Self, ArithError> {
        zip(self, other, smaller)
    }
    fn log_sigmoid(&self) -> Result<Self, ArithError> {
        Ok(self.mapv(log_sigmoid))
    }
    fn column(&self, index: usize) -> Result<Self, ArithError> {
        column(self, index)
    }
    fn row_total(&self) -> Result<Self, ArithError> {
        row_total(self)
    }
    fn total(&self) -> Result<Self, ArithError> {
        Ok(total(self))
    }
}
