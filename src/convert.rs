//! `rebel convert`: a model's folder written anew.

use anyhow::Result;
use rebel_trainer::Error;
use rebel_trainer::models::convert::{Conversion, convert};
use rebel_trainer::models::shards::Precision;
use rebel_trainer::models::{hub, peft};
use std::path::PathBuf;

#[derive(clap::Args)]
pub struct Arguments {
    /// The model, or a PEFT adapter: a folder, or org/name (org/name@revision) in the local Hugging Face cache
    source: String,
    /// The base of an adapter, which is worked into its weights: a folder or a name as SOURCE [default: the one that the
    /// adapter names]
    #[arg(long, value_name = "BASE")]
    base: Option<String>,
    /// The folder to write
    destination: PathBuf,
    /// Type of the weights [default: each tensor's own]
    #[arg(long, value_enum)]
    dtype: Option<Dtype>,
    /// Largest file of weights; more go to several files with an index
    #[arg(long, value_name = "SIZE", default_value = "5GB", value_parser = size)]
    shard_size: u64,
    /// How the weights are written
    #[arg(long, value_enum, default_value = "safetensors")]
    format: Format,
    /// Replace a model that is at the destination
    #[arg(long)]
    overwrite: bool,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Dtype {
    F32,
    F16,
    Bf16,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Format {
    /// What transformers writes and reads first
    Safetensors,
}

/// A number of bytes: a plain number, or one with KB, MB, GB (powers of 1000), KiB, MiB or GiB (of 1024).
fn size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "" | "B" => 1,
        "KB" => 1000,
        "MB" => 1000 * 1000,
        "GB" => 1000 * 1000 * 1000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => 0,
    };
    let bytes = digits.parse::<u64>().ok().and_then(|n| n.checked_mul(unit)).filter(|&n| n > 0);
    bytes.ok_or_else(|| "expected a size such as 5GB, 500MB or 1GiB".into())
}

/// Runs it; `true` when done.
pub fn run(arguments: &Arguments) -> Result<bool> {
    let precision = arguments.dtype.map(|dtype| match dtype {
        Dtype::F32 => Precision::F32,
        Dtype::F16 => Precision::F16,
        Dtype::Bf16 => Precision::BF16,
    });
    let how = match arguments.format {
        Format::Safetensors => Conversion { precision, shard: arguments.shard_size, overwrite: arguments.overwrite },
    };
    let source = hub::folder(&arguments.source)?;
    let base = arguments.base.as_deref().map(hub::folder).transpose()?;
    if peft::is_adapter(&source) {
        peft::merge(&source, base.as_deref(), &arguments.destination, &how)?;
        say!("{}: the adapter and its base as one model", arguments.destination.display());
        return Ok(true);
    }
    if base.is_some() {
        let what = format!("--base: {} is no adapter (expected one's folder, or no --base)", source.display());
        return Err(Error::Usage(what).into());
    }
    let written = convert(&source, &arguments.destination, &how)?;
    let files = if written.files == 1 { "1 file".to_string() } else { format!("{} files", written.files) };
    say!("{}: {} tensors, {} bytes, {files}", arguments.destination.display(), written.tensors, written.bytes);
    Ok(true)
}
