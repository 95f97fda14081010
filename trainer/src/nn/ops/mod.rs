//! Own operations: each has a composed definition in plain candle operations, which is its meaning and runs on every
//! device and dtype, and a fused form for host memory in f32 and f64 with an analytic backward. Tests hold both equal in
//! value and in every gradient.

pub mod attention;
pub mod embedding;
pub mod gelu;
pub mod join;
pub mod layer_norm;
pub mod linear;
pub mod low_rank;
pub mod rms_norm;
mod rows;
pub mod sum;
pub mod swiglu;
pub mod token_logprob;

use candle_core::{CpuStorage, DType, Layout, Shape, Tensor};

/// Whether `x` is of the kind the fused forms are written for.
pub(crate) fn has_fused_form(x: &Tensor) -> bool {
    #[cfg(test)]
    if testing::is_unfused() {
        return false;
    }
    x.device().is_cpu() && matches!(x.dtype(), DType::F32 | DType::F64)
}

/// Whether sums may not be taken in the type of `x`: in bf16 a sum of ones stops at 256.
pub(crate) fn is_narrow(x: &Tensor) -> bool {
    matches!(x.dtype(), DType::F16 | DType::BF16)
}

/// `x` in a type that sums may be taken in: f32 where its own is narrower, else as it is.
pub(crate) fn widened(x: &Tensor) -> candle_core::Result<Tensor> {
    if is_narrow(x) { x.to_dtype(DType::F32) } else { Ok(x.clone()) }
}

/// One input of a host form.
type Input<'a> = (&'a CpuStorage, &'a Layout);

/// What a host form gives candle.
type Output = candle_core::Result<(CpuStorage, Shape)>;

/// Runs `$run::<T>` for the float type of `$storage`.
macro_rules! by_dtype {
    ($storage:expr, $run:ident, $($arg:expr),* $(,)?) => {
        match $storage {
            candle_core::CpuStorage::F32(_) => $run::<f32>($($arg),*),
            candle_core::CpuStorage::F64(_) => $run::<f64>($($arg),*),
            _ => candle_core::bail!("a fused operation was given a dtype it is not written for"),
        }
    };
}
use by_dtype;

/// What candle asks of an operation on one, two or three inputs besides its backward: its name, and its host form, which is
/// `$run::<T>` of the inputs and then of `$arg`s, for the float type of the first input.
macro_rules! on_host {
    (1, $($of:tt)*) => { on_host!(@ [], $($of)*); };
    (2, $($of:tt)*) => { on_host!(@ [s2 l2], $($of)*); };
    (3, $($of:tt)*) => { on_host!(@ [s2 l2, s3 l3], $($of)*); };
    (@ [$($s:ident $l:ident),*], $name:literal, $run:ident, $this:ident $(, $arg:expr)*) => {
        fn name(&self) -> &'static str {
            $name
        }

        fn cpu_fwd(
            &$this,
            s1: &candle_core::CpuStorage,
            l1: &candle_core::Layout,
            $($s: &candle_core::CpuStorage, $l: &candle_core::Layout,)*
        ) -> super::Output {
            super::by_dtype!(s1, $run, (s1, l1), $(($s, $l),)* $($arg),*)
        }
    };
}
use on_host;

/// The same for an operation on two inputs whose `$run` is written for the storage of every device.
macro_rules! on_every_device {
    ($name:literal, $run:ident) => {
        fn name(&self) -> &'static str {
            $name
        }

        fn cpu_fwd(
            &self,
            s1: &candle_core::CpuStorage,
            l1: &candle_core::Layout,
            s2: &candle_core::CpuStorage,
            l2: &candle_core::Layout,
        ) -> super::Output {
            $run((s1, l1), (s2, l2))
        }

        fn cuda_fwd(
            &self,
            s1: &candle_core::CudaStorage,
            l1: &candle_core::Layout,
            s2: &candle_core::CudaStorage,
            l2: &candle_core::Layout,
        ) -> candle_core::Result<(candle_core::CudaStorage, candle_core::Shape)> {
            $run((s1, l1), (s2, l2))
        }
    };
}
use on_every_device;

#[cfg(test)]
pub(crate) mod testing {
    //! How every own operation is tested: fused against composed, and against finite differences in f64.

    use candle_core::{DType, Device, Tensor, Var};

    use crate::nn::{Streams, normal};

    std::thread_local! {
        static UNFUSED: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
    }

    /// What `f` gives when this thread computes as it would on a device without fused forms.
    pub fn unfused<T>(f: impl FnOnce() -> T) -> T {
        UNFUSED.set(true);
        let value = f();
        UNFUSED.set(false);
        value
    }

    pub fn is_unfused() -> bool {
        UNFUSED.get()
    }

    pub fn random(name: &str, shape: &[usize], dtype: DType) -> Tensor {
        normal(&Streams::new(7), name, shape, 1.0, dtype, &Device::Cpu).unwrap()
    }

    /// Largest absolute difference relative to the larger of 1 and the largest entry of `b`.
    pub fn difference(a: &Tensor, b: &Tensor) -> f64 {
        assert_eq!(a.dims(), b.dims());
        let wide = |t: &Tensor| t.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
        let (a, b) = (wide(a), wide(b));
        let scale = b.iter().fold(1.0f64, |m, x| m.max(x.abs()));
        a.iter().zip(&b).fold(0.0f64, |m, (x, y)| m.max((x - y).abs())) / scale
    }

    /// Holds two forms of a function of `inputs` equal in value and in the gradient of every input, in f32 and f64.
    pub fn agree(
        inputs: &[Tensor],
        fused: impl Fn(&[Tensor]) -> Tensor,
        composed: impl Fn(&[Tensor]) -> Tensor,
        tolerance: [f64; 2],
    ) {
        for (dtype, tolerance) in [DType::F32, DType::F64].into_iter().zip(tolerance) {
            let vars: Vec<Var> =
                inputs.iter().map(|t| Var::from_tensor(&t.to_dtype(dtype).unwrap().copy().unwrap()).unwrap()).collect();
            let args: Vec<Tensor> = vars.iter().map(|v| v.as_tensor().clone()).collect();
            let (a, b) = (fused(&args), composed(&args));
            let off = difference(&a, &b);
            assert!(off < tolerance, "{dtype:?}: values differ by {off}");
            let weight = random("cotangent", a.dims(), dtype);
            let gradient = |y: &Tensor| (y * &weight).unwrap().sum_all().unwrap().backward().unwrap();
            let (ga, gb) = (gradient(&a), gradient(&b));
            for (i, arg) in args.iter().enumerate() {
                let (ga, gb) = (ga.get(arg).expect("a gradient"), gb.get(arg).expect("a gradient"));
                let off = difference(ga, gb);
                assert!(off < tolerance, "{dtype:?}: gradients of input {i} differ by {off}");
            }
        }
    }

    /// Holds the f64 gradients of a function equal to central differences at up to 40 entries of each input.
    pub fn matches_finite_differences(inputs: &[Tensor], f: impl Fn(&[Tensor]) -> Tensor, tolerance: f64) {
        let vars: Vec<Var> = inputs
            .iter()
            .map(|t| Var::from_tensor(&t.to_dtype(DType::F64).unwrap().copy().unwrap()).unwrap())
            .collect();
        let args: Vec<Tensor> = vars.iter().map(|v| v.as_tensor().clone()).collect();
        let y = f(&args);
        let weight = random("cotangent", y.dims(), DType::F64);
        let value = |y: &Tensor| (y * &weight).unwrap().sum_all().unwrap();
        let gradients = value(&y).backward().unwrap();
        for (i, var) in vars.iter().enumerate() {
            let analytic = gradients.get(var).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
            let start = var.as_tensor().copy().unwrap();
            let base = start.flatten_all().unwrap().to_vec1::<f64>().unwrap();
            for e in (0..base.len()).step_by(base.len().div_ceil(40)) {
                let h = 1e-5;
                let at = |x: f64| {
                    let mut moved = base.clone();
                    moved[e] = x;
                    var.set(&Tensor::from_vec(moved, start.shape(), &Device::Cpu).unwrap()).unwrap();
                    value(&f(&args)).to_scalar::<f64>().unwrap()
                };
                let numeric = (at(base[e] + h) - at(base[e] - h)) / (2.0 * h);
                var.set(&start).unwrap();
                let off = (numeric - analytic[e]).abs() / numeric.abs().max(1.0);
                assert!(off < tolerance, "input {i}, element {e}: {} by hand, {numeric} by differences", analytic[e]);
            }
        }
    }
}
