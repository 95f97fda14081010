//! A reverse-mode tape over arrays of f64: the value of an objective and the *cotangents* of its inputs, that is the
//! derivative of the loss with respect to each log-probability, value or score. The trainer hands them to the model,
//! so what is trained is the very function that is checked here.
//!
//! ```
//! use ndarray::arr2;
//! use rebel_theory::objective::{bradley_terry, tape::Tape};
//!
//! let tape = Tape::new();
//! let score = tape.input(arr2(&[[0.0, 0.0]]).into_dyn());
//! let loss = bradley_terry(&score).unwrap();
//! let cotangents = tape.cotangents(&loss).unwrap();
//! assert_eq!(cotangents.of(&score), arr2(&[[-0.5, 0.5]]).into_dyn());
//! ```

use super::array::{clamp, column, log_sigmoid, row_total, sigmoid, sign, smaller, total, zip};
use super::{Arith, ArithError};
use ndarray::{ArrayD, Axis, Zip};
use std::cell::RefCell;
use std::rc::Rc;

/// Records every operation on the variables it hands out.
#[derive(Debug, Default)]
pub struct Tape {
    nodes: RefCell<Vec<Node>>,
}

/// A value on a [`Tape`].
#[derive(Debug, Clone)]
pub struct Var<'t> {
    tape: &'t Tape,
    index: usize,
    value: Rc<ArrayD<f64>>,
}

#[derive(Debug)]
struct Node {
    made_by: Made,
    shape: Vec<usize>,
}

/// How a value came about, with what its derivative needs.
#[derive(Debug)]
enum Made {
    Input,
    Plus(usize, usize),
    Minus(usize, usize),
    Times(usize, Rc<ArrayD<f64>>, usize, Rc<ArrayD<f64>>),
    Scale(usize, f64),
    Shift(usize),
    Square(usize, Rc<ArrayD<f64>>),
    Exp(usize, Rc<ArrayD<f64>>),
    /// A function that is flat wherever it has a slope.
    Flat,
    Clamp(usize, Rc<ArrayD<f64>>, f64, f64),
    Minimum(usize, Rc<ArrayD<f64>>, usize, Rc<ArrayD<f64>>),
    LogSigmoid(usize, Rc<ArrayD<f64>>),
    Column(usize, usize),
    RowTotal(usize),
    Total(usize),
    Reshape(usize),
}

impl Tape {
    /// An empty tape.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts a value on the tape.
    pub fn input(&self, value: ArrayD<f64>) -> Var<'_> {
        self.record(Made::Input, value)
    }

    fn record(&self, made_by: Made, value: ArrayD<f64>) -> Var<'_> {
        self.record_shared(made_by, Rc::new(value))
    }

    /// As `record`, for a value that the derivative needs too.
    fn record_shared(&self, made_by: Made, value: Rc<ArrayD<f64>>) -> Var<'_> {
        let mut nodes = self.nodes.borrow_mut();
        nodes.push(Node { made_by, shape: value.shape().to_vec() });
        Var { tape: self, index: nodes.len() - 1, value }
    }

    /// The derivative of `loss` with respect to every value on the tape.
    ///
    /// # Errors
    /// When `loss` is not a single number.
    pub fn cotangents(&self, loss: &Var<'_>) -> Result<Cotangents, ArithError> {
        if loss.value.len() != 1 {
            let what = format!("a loss of shape {:?} is not a single number", loss.value.shape());
            return Err(ArithError::Shape(what));
        }
        let nodes = self.nodes.borrow();
        let mut of: Vec<Option<ArrayD<f64>>> = vec![None; nodes.len()];
        of[loss.index] = Some(ArrayD::ones(loss.value.shape()));
        for index in (0..=loss.index).rev() {
            let Some(up) = of[index].take() else { continue };
            for (parent, contribution) in nodes[index].made_by.pull(&up, &nodes) {
                match &mut of[parent] {
                    Some(sum) => *sum += &contribution,
                    empty => *empty = Some(contribution),
                }
            }
            of[index] = Some(up);
        }
        let shapes = nodes.iter().map(|node| node.shape.clone()).collect();
        Ok(Cotangents { of, shapes })
    }
}

impl Made {
    /// What a cotangent `up` of the result contributes to each operand.
    fn pull(&self, up: &ArrayD<f64>, nodes: &[Node]) -> Vec<(usize, ArrayD<f64>)> {
        match self {
            Made::Input | Made::Flat => vec![],
            Made::Plus(a, b) => vec![(*a, up.clone()), (*b, up.clone())],
            Made::Minus(a, b) => vec![(*a, up.clone()), (*b, -up)],
            Made::Times(a, x, b, y) => vec![(*a, up * &**y), (*b, up * &**x)],
            Made::Scale(a, factor) => vec![(*a, up * *factor)],
            Made::Shift(a) => vec![(*a, up.clone())],
            Made::Exp(a, result) => vec![(*a, up * &**result)],
            Made::Clamp(a, x, low, high) => {
                let inside = |&up: &f64, &x: &f64| if (*low..=*high).contains(&x) { up } else { 0.0 };
                vec![(*a, Zip::from(up).and(&**x).map_collect(inside))]
            }
            Made::Minimum(a, x, b, y) => {
                let share = |up: f64, mine: f64, other: f64| match mine == other {
                    true => 0.5 * up,
                    false if mine < other => up,
                    false => 0.0,
                };
                let of = |mine: &ArrayD<f64>, other: &ArrayD<f64>| {
                    Zip::from(up).and(mine).and(other).map_collect(|&up, &mine, &other| share(up, mine, other))
                };
                vec![(*a, of(x, y)), (*b, of(y, x))]
            }
            Made::Square(a, x) => vec![(*a, up * &x.mapv(|v| 2.0 * v))],
            Made::LogSigmoid(a, x) => vec![(*a, up * &x.mapv(|v| sigmoid(-v)))],
            Made::Column(a, index) => {
                let mut whole = ArrayD::zeros(nodes[*a].shape.as_slice());
                let last = Axis(whole.ndim() - 1);
                whole.index_axis_mut(last, *index).assign(up);
                vec![(*a, whole)]
            }
            Made::RowTotal(a) => vec![(*a, row_total(up).expect("the result has the operand's shape"))],
            Made::Total(a) => vec![(*a, ArrayD::from_elem(nodes[*a].shape.as_slice(), up.sum()))],
            Made::Reshape(a) => {
                let whole = up.to_shape(nodes[*a].shape.as_slice()).expect("as many elements");
                vec![(*a, whole.into_owned())]
            }
        }
    }
}

/// The derivatives that [`Tape::cotangents`] found.
#[derive(Debug)]
pub struct Cotangents {
    of: Vec<Option<ArrayD<f64>>>,
    shapes: Vec<Vec<usize>>,
}

impl Cotangents {
    /// The derivative of the loss with respect to `var`, in its shape; zero where the loss does not depend on it.
    pub fn of(&self, var: &Var<'_>) -> ArrayD<f64> {
        self.of[var.index].clone().unwrap_or_else(|| ArrayD::zeros(self.shapes[var.index].as_slice()))
    }
}

impl<'t> Var<'t> {
    /// The value.
    pub fn value(&self) -> &ArrayD<f64> {
        &self.value
    }

    /// The same elements in another shape: `[groups * k] -> [groups, k]`.
    ///
    /// # Errors
    /// When the number of elements differs.
    pub fn reshape(&self, shape: &[usize]) -> Result<Self, ArithError> {
        match self.value.to_shape(shape) {
            Ok(value) => self.record(Made::Reshape(self.index), value.into_owned()),
            Err(_) => Err(ArithError::Shape(format!("shape {:?} cannot become {shape:?}", self.value.shape()))),
        }
    }

    fn record(&self, made_by: Made, value: ArrayD<f64>) -> Result<Self, ArithError> {
        Ok(self.tape.record(made_by, value))
    }
}

impl Arith for Var<'_> {
    type Error = ArithError;

    fn dims(&self) -> Vec<usize> {
        self.value.shape().to_vec()
    }
    fn plus(&self, other: &Self) -> Result<Self, ArithError> {
        let value = zip(&self.value, &other.value, |a, b| a + b)?;
        self.record(Made::Plus(self.index, other.index), value)
    }
    fn minus(&self, other: &Self) -> Result<Self, ArithError> {
        let value = zip(&self.value, &other.value, |a, b| a - b)?;
        self.record(Made::Minus(self.index, other.index), value)
    }
    fn times(&self, other: &Self) -> Result<Self, ArithError> {
        let value = zip(&self.value, &other.value, |a, b| a * b)?;
        self.record(Made::Times(self.index, self.value.clone(), other.index, other.value.clone()), value)
    }
    fn scale(&self, factor: f64) -> Result<Self, ArithError> {
        self.record(Made::Scale(self.index, factor), self.value.mapv(|a| factor * a))
    }
    fn shift(&self, constant: f64) -> Result<Self, ArithError> {
        self.record(Made::Shift(self.index), self.value.mapv(|a| a + constant))
    }
    fn exp(&self) -> Result<Self, ArithError> {
        let value = Rc::new(self.value.mapv(f64::exp));
        let made_by = Made::Exp(self.index, value.clone());
        Ok(self.tape.record_shared(made_by, value))
    }
    fn sign(&self) -> Result<Self, ArithError> {
        self.record(Made::Flat, self.value.mapv(sign))
    }
    fn clamp(&self, low: f64, high: f64) -> Result<Self, ArithError> {
        let value = self.value.mapv(|a| clamp(a, low, high));
        self.record(Made::Clamp(self.index, self.value.clone(), low, high), value)
    }
    fn minimum(&self, other: &Self) -> Result<Self, ArithError> {
        let value = zip(&self.value, &other.value, smaller)?;
        self.record(Made::Minimum(self.index, self.value.clone(), other.index, other.value.clone()), value)
    }
    fn square(&self) -> Result<Self, ArithError> {
        self.record(Made::Square(self.index, self.value.clone()), self.value.mapv(|a| a * a))
    }
    fn log_sigmoid(&self) -> Result<Self, ArithError> {
        self.record(Made::LogSigmoid(self.index, self.value.clone()), self.value.mapv(log_sigmoid))
    }
    fn column(&self, index: usize) -> Result<Self, ArithError> {
        self.record(Made::Column(self.index, index), column(&self.value, index)?)
    }
    fn row_total(&self) -> Result<Self, ArithError> {
        self.record(Made::RowTotal(self.index), row_total(&self.value)?)
    }
    fn total(&self) -> Result<Self, ArithError> {
        self.record(Made::Total(self.index), total(&self.value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::arr1;

    #[test]
    fn a_value_used_twice_collects_both_contributions() {
        let tape = Tape::new();
        let x = tape.input(arr1(&[3.0, -1.0]).into_dyn());
        let y = x.times(&x).unwrap().plus(&x.scale(5.0).unwrap()).unwrap().total().unwrap(); // x^2 + 5x
        assert_eq!(y.value().sum(), 10.0 + 10.0);
        assert_eq!(tape.cotangents(&y).unwrap().of(&x), arr1(&[11.0, 3.0]).into_dyn());
    }

    #[test]
    fn a_value_the_loss_does_not_use_has_cotangent_zero() {
        let tape = Tape::new();
        let (x, unused) = (tape.input(arr1(&[1.0]).into_dyn()), tape.input(arr1(&[1.0, 2.0]).into_dyn()));
        let loss = x.total().unwrap();
        assert_eq!(tape.cotangents(&loss).unwrap().of(&unused), arr1(&[0.0, 0.0]).into_dyn());
    }

    #[test]
    fn a_reshaped_value_passes_its_cotangent_back_in_the_old_shape() {
        let tape = Tape::new();
        let x = tape.input(arr1(&[1.0, 2.0, 4.0, 8.0]).into_dyn());
        let loss = x.reshape(&[2, 2]).unwrap().difference_of_pair().unwrap().square().unwrap().total().unwrap();
        assert_eq!(tape.cotangents(&loss).unwrap().of(&x), arr1(&[-2.0, 2.0, -8.0, 8.0]).into_dyn());
        assert!(x.reshape(&[3]).is_err());
    }

    #[test]
    fn a_loss_of_two_numbers_is_refused() {
        let tape = Tape::new();
        let x = tape.input(arr1(&[1.0, 2.0]).into_dyn());
        assert!(tape.cotangents(&x).is_err());
    }
}
