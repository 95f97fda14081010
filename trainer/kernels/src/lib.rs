//! A decoder's block and head by hand, for CPUs in f32: forward, backward and decoding, in kernels written for them.
//!
//! Read in this order: [`panel`] (one layout for everything), [`gemm`] (the products), [`decoder`] (what a model is made of,
//! and the phases of a pass). Below them: [`simd`] (sixteen lanes on three instruction sets), [`math`], [`rows`], [`norm`],
//! [`attention`] and [`softmax`] (the rest of the arithmetic), [`kernels`] (all of it compiled for each instruction set),
//! [`pool`] (threads) and [`buffer`] (memory).
//!
//! **Bits.** Every element of a product is one chain of fused multiply-adds in ascending k; every reduction keeps sixteen
//! partial sums and folds them by halves. Tiles, chunks, threads and the number of rows decide who computes a chain and
//! when, never its order. So neither the instruction set nor the thread count changes a bit of anything, and the other
//! rows of a batch none of a row.

// Every kernel works on raw parts of buffers that tasks share, each its own; marking each access would hide the arithmetic.
#![allow(unsafe_op_in_unsafe_fn)]
#![allow(clippy::missing_safety_doc, clippy::too_many_arguments)]
// A list of ranges of rows often has one.
#![allow(clippy::single_range_in_vec_init)]

pub mod attention;
pub mod buffer;
pub mod decoder;
pub mod gemm;
pub mod isa;
pub mod kernels;
pub mod math;
pub mod norm;
pub mod panel;
pub mod pool;
pub mod rows;
pub mod simd;
pub mod softmax;

pub use isa::Isa;
