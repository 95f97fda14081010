//! Where tensors live and are computed: the one place that opens a device.
//!
//! A program built with the feature `cuda` runs on machines without CUDA too, on the CPU; only opening a GPU fails there, in
//! one line that says what is missing. `docs/cuda.md` says how it is built.

use std::fmt;
use std::str::FromStr;

use candle_core::{DType, Device};

use crate::{Error, Result};

/// A device by name: `cpu`, `cuda` (the first GPU) or `cuda:N`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceName {
    /// Host memory.
    Cpu,
    /// The GPU of this number, in CUDA's order (`CUDA_VISIBLE_DEVICES`).
    Cuda(usize),
}

impl FromStr for DeviceName {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let number = |n: &str| n.parse().ok().filter(|&n| n < 1024 && !text.contains('+'));
        match text.split_once(':') {
            None if text == "cpu" => Some(Self::Cpu),
            None if text == "cuda" => Some(Self::Cuda(0)),
            Some(("cuda", n)) => number(n).map(Self::Cuda),
            _ => None,
        }
        .ok_or_else(|| "expected cpu, cuda or cuda:N".to_owned())
    }
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => write!(f, "cpu"),
            Self::Cuda(0) => write!(f, "cuda"),
            Self::Cuda(n) => write!(f, "cuda:{n}"),
        }
    }
}

/// Where a model runs, and of what type its weights are there. Logits, and all that is computed from them, are f32 at least.
#[derive(Debug, Clone)]
pub struct Place {
    /// Where the weights live.
    pub device: Device,
    /// Their type: f32, or bf16 for half the memory.
    pub dtype: DType,
}

impl Place {
    /// Host memory, f32: where the results are the same bits on every machine of a kind.
    pub const HOST: Self = Self { device: Device::Cpu, dtype: DType::F32 };
}

impl DeviceName {
    /// Opens the device. A GPU gets one stream for all of the program, keeps freed memory for the next tensor, and multiplies
    /// f32 as f32 (no TF32).
    ///
    /// # Errors
    /// When this program was built without CUDA, or the driver, the GPU or one of CUDA's libraries is missing.
    pub fn open(self) -> Result<Device> {
        match self {
            Self::Cpu => Ok(Device::Cpu),
            Self::Cuda(number) => cuda::open(number).map_err(|what| Error::invalid(format!("{self}: {what}"))),
        }
    }
}

#[cfg(not(feature = "cuda"))]
mod cuda {
    use candle_core::Device;

    pub(super) fn open(_: usize) -> Result<Device, String> {
        Err("this program was built without CUDA (type: make check-cuda, and run the program it makes)".into())
    }
}

#[cfg(feature = "cuda")]
mod cuda {
    use std::panic;

    use candle_core::Device;
    use candle_core::cuda_backend::cudarc::driver::sys;
    use candle_core::cuda_backend::{WrapErr, set_gemm_reduced_precision_bf16, set_gemm_reduced_precision_f32};

    pub(super) fn open(number: usize) -> Result<Device, String> {
        // A library that cannot be loaded is a panic inside the bindings; nobody but this function should see it.
        let hook = panic::take_hook();
        panic::set_hook(Box::new(|_| ()));
        let opened = panic::catch_unwind(|| Device::new_cuda_with_stream(number).and_then(|device| settle(&device)));
        panic::set_hook(hook);
        match opened {
            Ok(Ok(device)) => Ok(device),
            Ok(Err(error)) => Err(error.to_string().lines().next().unwrap_or_default().to_owned()),
            Err(panic) => Err(missing_library(panic.downcast_ref::<String>().map_or("", String::as_str))),
        }
    }

    /// What the bindings' panic says about the library they did not find.
    fn missing_library(panic: &str) -> String {
        match panic.split('"').nth(1) {
            Some("cuda") => "libcuda is missing (expected an NVIDIA driver of CUDA 13.0 or later)".into(),
            Some(name) => format!("lib{name} is missing (expected CUDA 13's: scripts/cuda/run.sh finds a PyTorch's)"),
            None => format!("no CUDA: {}", panic.lines().next().unwrap_or_default()),
        }
    }

    fn settle(device: &Device) -> candle_core::Result<Device> {
        set_gemm_reduced_precision_f32(false);
        set_gemm_reduced_precision_bf16(false);
        let cuda = device.as_cuda_device()?;
        // SAFETY: every tensor of this program is made, used and freed on this device's one stream, which orders all of it;
        // events between streams would order nothing more.
        unsafe { cuda.disable_event_tracking() };
        let stream = cuda.cuda_stream();
        let context = stream.context();
        if context.has_async_alloc() {
            // By default the driver gives freed memory back at every synchronisation, and training frees all the time.
            let (mut pool, mut threshold) = (std::ptr::null_mut(), u64::MAX);
            let attribute = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
            // SAFETY: the context lives as long as `device`; the first call fills `pool`, and the attribute of the second is a
            // 64-bit number, as `threshold` is.
            unsafe {
                sys::cuDeviceGetDefaultMemPool(&mut pool, context.cu_device()).result().w()?;
                sys::cuMemPoolSetAttribute(pool, attribute, (&raw mut threshold).cast()).result().w()?;
            }
        }
        Ok(device.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written_and_others_are_refused() {
        for (text, name) in [("cpu", DeviceName::Cpu), ("cuda", DeviceName::Cuda(0)), ("cuda:3", DeviceName::Cuda(3))] {
            assert_eq!(text.parse(), Ok(name));
            assert_eq!(name.to_string(), text);
        }
        for text in
            ["", "CPU", "cpu:0", "cuda:", "cuda:-1", "cuda:+1", "cuda:99999999999999999999", "cuda:1:1", "metal"]
        {
            assert!(text.parse::<DeviceName>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_gpu_that_is_not_there_is_an_error_of_one_line() {
        // No machine has the last of 1024 GPUs, with CUDA or without.
        let error = DeviceName::Cuda(1023).open().unwrap_err().to_string();
        assert!(error.starts_with("cuda:1023: ") && !error.contains('\n'), "{error}");
    }
}
