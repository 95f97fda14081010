//! Where a tensor of a pickle lies in its storage, whether it can lie there, and its elements in order.

use candle_core::DType;

use super::machine::Step;
use crate::models::tensors::Info;

/// Where a tensor lies: a storage, and how it is strided there.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub storage: String,
    pub dtype: DType,
    /// In elements, like the strides.
    pub offset: usize,
    pub shape: Vec<usize>,
    pub strides: Vec<usize>,
}

impl Place {
    /// Type and shape.
    pub fn info(&self) -> Info {
        Info { dtype: self.dtype, shape: self.shape.clone() }
    }

    fn elements(&self) -> Option<usize> {
        self.shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d))
    }

    /// What is wrong with the place in a storage of `bytes`, if anything.
    pub fn check(&self, bytes: u64) -> Step<()> {
        let size = self.dtype.size_in_bytes();
        let count = usize::try_from(bytes).unwrap_or(usize::MAX) / size;
        let last = self.shape.iter().zip(&self.strides).try_fold(self.offset, |at, (&n, &stride)| {
            at.checked_add(n.saturating_sub(1).checked_mul(stride)?) // an empty tensor touches nothing
        });
        let fits = last.is_some_and(|last| last < count);
        // An expanded tensor (stride 0) could ask for more than the file holds.
        match self.elements() {
            Some(0) => Ok(()),
            Some(n) if fits && n <= count => Ok(()),
            _ => Err(format!("shape {:?} does not fit its storage of {count} elements", self.shape)),
        }
    }

    /// Elements from the first to the last one, both included.
    pub fn span(&self) -> usize {
        match self.shape.contains(&0) {
            true => 0,
            false => 1 + self.shape.iter().zip(&self.strides).map(|(&n, &stride)| (n - 1) * stride).sum::<usize>(),
        }
    }

    /// Whether the elements lie row by row without gaps.
    pub fn contiguous(&self) -> bool {
        let mut expected = 1;
        self.shape.iter().zip(&self.strides).rev().all(|(&n, &stride)| {
            let fits = n == 1 || stride == expected;
            expected *= n;
            fits
        }) || self.shape.contains(&0)
    }

    /// The elements row by row out of the bytes of their span.
    pub fn gather(&self, span: &[u8]) -> Vec<u8> {
        let size = self.dtype.size_in_bytes();
        let count: usize = self.shape.iter().product();
        let mut bytes = Vec::with_capacity(count * size);
        let mut index = vec![0; self.shape.len()];
        let mut at = 0;
        for _ in 0..count {
            bytes.extend_from_slice(&span[at * size..(at + 1) * size]);
            for (axis, i) in index.iter_mut().enumerate().rev() {
                *i += 1;
                at += self.strides[axis];
                if *i < self.shape[axis] {
                    break;
                }
                at -= *i * self.strides[axis];
                *i = 0;
            }
        }
        bytes
    }
}
