//! What `rebel generate` shows: one completion token by token, several as each is finished, or JSON lines.

use super::Arguments;
use super::prompts::Prompt;
use rebel_trainer::models::text_stream::{TextStream, continuation};
use rebel_trainer::models::{Completion, Tokenizer};
use rebel_trainer::{Error, Result};
use serde_json::json;
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;

/// Where completions go, and how.
pub struct Output<'a> {
    prompts: &'a [Prompt],
    samples: usize,
    tokenizer: &'a Tokenizer,
    file: Option<(PathBuf, File)>,
    json: bool,
    log_probs: bool,
    /// The text of the only completion, as far as it is shown.
    stream: Option<TextStream<'a>>,
}

impl<'a> Output<'a> {
    /// Makes the file, where one is asked for.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn open(arguments: &Arguments, prompts: &'a [Prompt], tokenizer: &'a Tokenizer) -> Result<Self> {
        let file = match &arguments.out {
            Some(path) => Some((path.clone(), File::create(path).map_err(|e| Error::file(path, e))?)),
            None => None,
        };
        let alone = prompts.len() * arguments.samples == 1 && !arguments.json;
        Ok(Self {
            prompts,
            samples: arguments.samples,
            tokenizer,
            file,
            json: arguments.json,
            log_probs: arguments.logprobs,
            stream: alone.then(|| TextStream::after(tokenizer, &prompts[0].ids)),
        })
    }

    /// A completion has the token `id` more.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn token(&mut self, id: u32) -> Result<()> {
        match &mut self.stream {
            Some(stream) => {
                let text = stream.push(id)?;
                self.write(&text)
            }
            None => Ok(()),
        }
    }

    /// A completion is finished.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn finished(&mut self, number: usize, completion: &Completion) -> Result<()> {
        let (prompt, sample) = (number / self.samples, number % self.samples);
        let Completion { ids, log_probs, stopped } = completion;
        let total: f64 = log_probs.iter().sum();
        let added = || continuation(self.tokenizer, &self.prompts[prompt].ids, ids);
        let mut text = match self.stream.take() {
            Some(stream) => stream.finish()? + "\n",
            None if self.json => {
                let line = json!({
                    "prompt": self.prompts[prompt].shown,
                    "completion": added()?,
                    "index": prompt,
                    "sample": sample,
                    "stopped": stopped,
                    "logprob": total,
                    "token_ids": ids,
                    "token_logprobs": log_probs,
                });
                return self.write(&format!("{line}\n"));
            }
            None => {
                let end = if *stopped { "stopped" } else { "at the limit" };
                let head = format!("# prompt {prompt}, sample {sample}: {} tokens, {end}", ids.len());
                format!("{head}, ln p {total:.3}\n{}\n", added()?)
            }
        };
        if self.log_probs {
            for (&id, log_prob) in ids.iter().zip(log_probs) {
                text += &format!("{log_prob:>10.4}  {:?}\n", self.tokenizer.decode(&[id], false)?);
            }
        }
        self.write(&text)
    }

    fn write(&mut self, text: &str) -> Result<()> {
        match &mut self.file {
            Some((path, file)) => file.write_all(text.as_bytes()).map_err(|e| Error::file(path, e)),
            None => {
                say_part!("{text}");
                Ok(())
            }
        }
    }
}
