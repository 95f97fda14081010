//! `rebel generate`: completions of prompts, shown as they come.

mod output;
mod prompts;

use anyhow::Result;
use output::Output;
use prompts::Prompt;
use rebel_trainer::Error;
use rebel_trainer::models::{
    Completion, DecoderConfig, Event, Generation, GenerationDefaults, Tokenizer, generate_observed, hf, hub, peft,
    prompt_fault, reward,
};
use rebel_trainer::nn::device::Place;
use rebel_trainer::nn::{Choice, Purpose, Sampling, Streams, Temperature};
use std::io::IsTerminal;
use std::path::{Path, PathBuf};

/// New tokens where neither the command line nor the folder says how many; fewer where the model has less room.
const USUAL: usize = 256;

#[derive(clap::Args)]
#[command(
    group(clap::ArgGroup::new("from").required(true)),
    after_help = "\
The distribution is the model's at --temperature, cut to the --top-k most probable tokens and of these to the fewest that
reach --top-p, and renormalised; log-probabilities are natural and those of that distribution. Draws depend on --seed, the
number of the prompt and the number of the sample alone. What no flag says is taken from the folder's
generation_config.json.

Examples:
  rebel generate --model models/sft --prompt \"TL;DR:\"
  rebel generate --model models/sft --prompt \"Once\" --samples 4 --temperature 0.7 --top-p 0.9
  rebel generate --model meta-llama/Meta-Llama-3-8B-Instruct --chat --prompt \"Who was Ada Lovelace?\"
  rebel generate --model models/sft --file prompts.jsonl --json --out completions.jsonl
  echo \"A line\" | rebel generate --model models/sft --prompt - --greedy"
)]
pub struct Arguments {
    /// Folder of a language model or of an adapter, or org/name in the local Hugging Face cache
    #[arg(long, value_name = "DIR")]
    model: String,
    /// Folder of a PEFT adapter for it, or its name in that cache
    #[arg(long, value_name = "DIR")]
    adapter: Option<String>,
    /// A prompt; can be given several times; - reads one from standard input
    #[arg(long, value_name = "TEXT", group = "from")]
    prompt: Vec<String>,
    /// Prompts: each line of a text file, or each object of a .jsonl file by its "prompt", "query" or (with --chat)
    /// "messages"
    #[arg(long, value_name = "FILE", group = "from")]
    file: Option<PathBuf>,
    /// Put each prompt into the folder's chat template, as what the user says
    #[arg(long)]
    chat: bool,
    /// Completions of each prompt
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = samples)]
    samples: usize,
    /// New tokens at most [default: the folder's, or 256]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    max_new: Option<usize>,
    /// What logits are divided by [default: the folder's, or 1]
    #[arg(long, value_name = "T", allow_negative_numbers = true)]
    temperature: Option<f64>,
    /// Keep the K most probable tokens; 0 keeps all [default: the folder's, or all]
    #[arg(long, value_name = "K")]
    top_k: Option<usize>,
    /// Keep the fewest tokens that reach this share; 1 keeps all [default: the folder's, or all]
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    top_p: Option<f64>,
    /// Take the most probable token each time
    #[arg(long, conflicts_with_all = ["temperature", "top_k", "top_p"])]
    greedy: bool,
    /// What the draws start from
    #[arg(long, value_name = "S", default_value_t = 0)]
    seed: u64,
    /// Completions in work at a time
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = at_least_one)]
    batch: usize,
    /// Show the log-probability of every token (--json always has them)
    #[arg(long)]
    logprobs: bool,
    /// One JSON object a completion: prompt, completion, index (of the prompt), sample, stopped, logprob, token_ids,
    /// token_logprobs; in the order in which they are finished
    #[arg(long)]
    json: bool,
    /// Write to a file instead of standard output
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

fn samples(text: &str) -> Result<usize, String> {
    text.parse()
        .ok()
        .filter(|n| (1..=100_000).contains(n))
        .ok_or_else(|| "expected a whole number from 1 to 100000".to_owned())
}

fn at_least_one(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|&n| n > 0).ok_or_else(|| "expected a whole number of at least 1".to_owned())
}

/// What the flags and the folder's defaults come to.
struct Settings {
    choice: Choice,
    max_new: usize,
    stop: Vec<u32>,
}

impl Settings {
    fn resolve(
        arguments: &Arguments,
        defaults: &GenerationDefaults,
        config: &DecoderConfig,
        tokenizer: &Tokenizer,
        prompts: &[Prompt],
    ) -> Result<Self> {
        let Arguments { temperature, top_k, top_p, .. } = *arguments;
        let asked_to_sample = temperature.is_some() || top_k.is_some() || top_p.is_some() || arguments.samples > 1;
        let choice = match arguments.greedy || (defaults.do_sample == Some(false) && !asked_to_sample) {
            true => Choice::Greedy,
            false => {
                let temperature = match temperature.or(defaults.temperature) {
                    Some(t) => Temperature::new(t).map_err(|e| Error::Usage(format!("--{e}")))?,
                    None => Temperature::ONE,
                };
                let top_k = top_k.or(defaults.top_k).filter(|&k| k > 0);
                let sampling = Sampling::new(temperature, top_k, top_p.or(defaults.top_p));
                Choice::Sample(
                    sampling.map_err(|e| Error::Usage(format!("--{}", e.to_string().replacen('_', "-", 1))))?,
                )
            }
        };
        let stop = match (&defaults.eos, config.eos.as_slice()) {
            (Some(eos), _) => eos.clone(),
            (None, []) => tokenizer.eos().into_iter().collect(),
            (None, eos) => eos.to_vec(),
        };
        let max_new = match arguments.max_new {
            Some(n) => n,
            None => {
                let longest = prompts.iter().map(|p| p.ids.len()).max().unwrap_or(0);
                let room = config.max_positions.saturating_sub(longest).max(1);
                defaults.max_new.unwrap_or(USUAL).min(room)
            }
        };
        Ok(Self { choice, max_new, stop })
    }

    /// In a few words, for a person.
    fn in_words(&self) -> String {
        let how = match self.choice {
            Choice::Greedy => "the most probable token each time".to_owned(),
            Choice::Sample(sampling) => {
                // the divisor is 1e-7 more than the temperature
                let t = (sampling.temperature().divisor() * 1e6).round() / 1e6;
                let k = sampling.top_k().map(|k| format!(", top-k {k}")).unwrap_or_default();
                let p = sampling.top_p().map(|p| format!(", top-p {p}")).unwrap_or_default();
                format!("temperature {t}{k}{p}")
            }
        };
        let stop: Vec<String> = self.stop.iter().map(u32::to_string).collect();
        format!("{how}; at most {} new tokens, ended by {}", self.max_new, stop.join(" or "))
    }
}

/// Runs it; `true` when done.
pub fn run(arguments: &Arguments, place: &Place) -> Result<bool> {
    let folder = hub::folder(&arguments.model)?;
    let adapter = arguments.adapter.as_deref().map(hub::folder).transpose()?;
    if !peft::is_adapter(&folder) && reward::folder::is_reward_model(&folder)? {
        return Err(Error::file(&folder, "is a reward model (expected a language model; rebel score asks it)").into());
    }
    let texts = peft::text_folder(&folder)?;
    let tokenizer = Tokenizer::load(&texts)?;
    let defaults = GenerationDefaults::load(&texts)?;
    // before the weights, which may take a while
    let mut prompts = prompts::read(arguments, &texts, &tokenizer)?;
    let (config, store, lora) = match &adapter {
        Some(adapter) => peft::open(adapter, Some(&folder), place.dtype, &place.device)?,
        None => peft::open(&folder, None, place.dtype, &place.device)?,
    };
    // an empty prompt asks for a text from its beginning
    prompts.iter_mut().filter(|p| p.ids.is_empty()).for_each(|p| p.ids.extend(config.bos));
    let settings = Settings::resolve(arguments, &defaults, &config, &tokenizer, &prompts)?;
    for prompt in &prompts {
        check(prompt, &config, settings.max_new, &texts)?;
    }
    let store = if lora.is_some() { store.merged()? } else { store };
    let decoder = hf::decoder(&config, &store)?.detached();
    if std::io::stderr().is_terminal() {
        eprintln!("rebel: {}", settings.in_words());
        if !defaults.ignored.is_empty() {
            eprintln!("rebel: not applied, though generation_config.json has it: {}", defaults.ignored.join(", "));
        }
    }
    let mut output = Output::open(arguments, &prompts, &tokenizer)?;
    let ids: Vec<Vec<u32>> = prompts.iter().map(|prompt| prompt.ids.clone()).collect();
    let generation = Generation {
        max_new: settings.max_new,
        choice: settings.choice,
        stop: &settings.stop,
        samples: arguments.samples,
        batch: arguments.batch,
    };
    let streams = Streams::new(arguments.seed);
    let stream = |prompt: usize, sample: usize| streams.stream(Purpose("generate"), 0, prompt as u64, sample as u64);
    generate_observed(&decoder, &ids, generation, stream, |event| match event {
        Event::Logits(..) => Ok(()),
        Event::Token(_, Completion { ids, .. }) => output.token(ids[ids.len() - 1]),
        Event::Finished(number, completion) => output.finished(number, completion),
    })?;
    Ok(true)
}

/// Refuses, by its name, a prompt that the model cannot read or continue.
fn check(prompt: &Prompt, config: &DecoderConfig, max_new: usize, folder: &Path) -> Result<()> {
    if let Some(id) = prompt.ids.iter().find(|&&id| id as usize >= config.vocab) {
        let what = format!("gives token {id} in {} (expected less than vocab_size {})", prompt.name, config.vocab);
        return Err(Error::file(folder.join("tokenizer.json"), what).into());
    }
    match prompt_fault(config, &prompt.ids, max_new) {
        Some(what) => Err(Error::file(&prompt.name, what).into()),
        None => Ok(()),
    }
}
