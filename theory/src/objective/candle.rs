//! [`Arith`] over candle tensors: the objectives under candle's autograd, on any device and float type.

use super::{Arith, ArithError};
use candle_core::{D, Error, Tensor};

impl From<ArithError> for Error {
    fn from(error: ArithError) -> Self {
        Error::Msg(error.to_string())
    }
}

/// candle broadcasts nothing here either: two shapes must be one.
fn same_shape(a: &Tensor, b: &Tensor) -> Result<(), Error> {
    if a.dims() == b.dims() {
        return Ok(());
    }
    Err(ArithError::Shape(format!("shapes {:?} and {:?} differ", a.dims(), b.dims())).into())
}

impl Arith for Tensor {
    type Error = Error;

    fn dims(&self) -> Vec<usize> {
        Tensor::dims(self).to_vec()
    }
    fn plus(&self, other: &Self) -> Result<Self, Error> {
        same_shape(self, other)?;
        self + other
    }
    fn minus(&self, other: &Self) -> Result<Self, Error> {
        same_shape(self, other)?;
        self - other
    }
    fn times(&self, other: &Self) -> Result<Self, Error> {
        same_shape(self, other)?;
        self * other
    }
    fn scale(&self, factor: f64) -> Result<Self, Error> {
        self.affine(factor, 0.0)
    }
    fn shift(&self, constant: f64) -> Result<Self, Error> {
        self.affine(1.0, constant)
    }
    fn square(&self) -> Result<Self, Error> {
        self.sqr()
    }
    fn exp(&self) -> Result<Self, Error> {
        Tensor::exp(self)
    }
    fn sign(&self) -> Result<Self, Error> {
        Tensor::sign(&self.detach())
    }
    /// By selection: candle's own clamp has slope 1/2 on the bounds.
    fn clamp(&self, low: f64, high: f64) -> Result<Self, Error> {
        let inside = self.ge(low)?.mul(&self.le(high)?)?;
        inside.where_cond(self, &Tensor::clamp(&self.detach(), low, high)?)
    }
    fn minimum(&self, other: &Self) -> Result<Self, Error> {
        same_shape(self, other)?;
        Tensor::minimum(self, other)
    }
    /// `-ln(e^0 + e^-x)` by log-sum-exp: smooth in candle's autograd, where `min(x, 0) - ln(1 + e^-|x|)` has slope 1 at 0.
    fn log_sigmoid(&self) -> Result<Self, Error> {
        let minus = self.neg()?;
        Tensor::stack(&[&minus.zeros_like()?, &minus], self.rank())?.log_sum_exp(D::Minus1)?.neg()
    }
    fn column(&self, index: usize) -> Result<Self, Error> {
        self.narrow(D::Minus1, index, 1)?.squeeze(D::Minus1)
    }
    fn row_total(&self) -> Result<Self, Error> {
        self.sum_keepdim(D::Minus1)?.broadcast_as(self.shape())
    }
    fn total(&self) -> Result<Self, Error> {
        self.sum_all()
    }
}
