//! What a model says of answers that are already there: log-probabilities by a policy, rewards by a reward model. Which of
//! the two a folder holds is decided by its weights.

use std::cmp::Reverse;
use std::path::{Path, PathBuf};

use candle_core::DType;
use serde_json::{Map, Value, json};

use crate::data::exchange::{Exchange, Prompt};
use crate::models::chat::ChatTemplate;
use crate::models::{Decoder, Tokenizer, hf, peft, reward};
use crate::nn::{Place, Temperature};
use crate::rewards::{Judgement, LearnedReward};
use crate::{Error, Result};

/// A model that judges answers.
#[derive(Debug)]
pub enum Scorer {
    /// Gives log-probabilities.
    Policy(Box<Policy>),
    /// Gives rewards.
    Reward(Box<LearnedReward>),
}

/// A language model with its tokenizer and, where it has one, its chat template.
#[derive(Debug)]
pub struct Policy {
    decoder: Decoder,
    tokenizer: Tokenizer,
    template: Option<ChatTemplate>,
    temperature: Temperature,
    /// Tokens that end an answer.
    ends: Vec<u32>,
    folder: PathBuf,
}

/// An exchange as tokens: those from `answer` on are scored by a policy; a reward model reads them all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Prompt and answer.
    pub ids: Vec<u32>,
    /// Index of the answer's first token.
    pub answer: usize,
}

/// What a model says of one row.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// `ln pi` of each token of the answer given all before it, nats.
    LogProbabilities(Vec<f64>),
    /// A reward.
    Reward(Judgement),
}

/// Which columns are written beside the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Details {
    /// The log-probability of each token.
    pub token_logprobs: bool,
    /// Objectives and their weights.
    pub objectives: bool,
}

impl Scorer {
    /// Loads a folder to `place`. A policy's distribution is the one at `temperature` (1 where none is given).
    ///
    /// # Errors
    /// One line naming file and field; a temperature for a reward model is wrong usage.
    pub fn load(folder: &Path, temperature: Option<Temperature>, place: &Place) -> Result<Self> {
        if !peft::is_adapter(folder) && reward::folder::is_reward_model(folder)? {
            return match temperature {
                Some(_) => Err(Error::Usage(format!("--temperature: {}: a reward model has none", folder.display()))),
                None => Ok(Self::Reward(Box::new(LearnedReward::load(folder, place)?))),
            };
        }
        Ok(Self::Policy(Box::new(Policy::load(folder, temperature.unwrap_or(Temperature::ONE), place)?)))
    }

    /// What it gives, as progress calls it.
    pub fn gives(&self) -> &'static str {
        match self {
            Self::Policy(_) => "logprob",
            Self::Reward(_) => "reward",
        }
    }

    /// The tokens of an exchange, laid out as the model was trained to read them. With `chat`, a policy reads texts through
    /// its chat template too.
    ///
    /// # Errors
    /// More tokens than the model reads; messages without a template; a prompt without a token.
    pub fn row(&self, exchange: &Exchange, chat: bool) -> Result<Row> {
        match self {
            Self::Policy(policy) => policy.row(exchange, chat),
            Self::Reward(reward) => Ok(Row { ids: reward.reader().tokens(exchange)?, answer: 0 }),
        }
    }

    /// A verdict for each row, in order. Rows of like length go through the model together, `batch` at a time.
    ///
    /// # Errors
    /// When candle fails, or a number comes out that is none.
    pub fn verdicts(&self, rows: &[Row], batch: usize) -> Result<Vec<Verdict>> {
        let mut order: Vec<usize> = (0..rows.len()).collect();
        order.sort_by_key(|&i| Reverse(rows[i].ids.len())); // stable: equal lengths keep their order
        let mut verdicts: Vec<Option<Verdict>> = vec![None; rows.len()];
        for indices in order.chunks(batch.max(1)) {
            let of_batch: Vec<&Row> = indices.iter().map(|&i| &rows[i]).collect();
            for (&i, verdict) in indices.iter().zip(self.together(&of_batch)?) {
                verdicts[i] = Some(verdict);
            }
        }
        Ok(verdicts.into_iter().flatten().collect())
    }

    fn together(&self, rows: &[&Row]) -> Result<Vec<Verdict>> {
        match self {
            Self::Policy(policy) => policy.log_probabilities(rows),
            Self::Reward(reward) => {
                let ids: Vec<Vec<u32>> = rows.iter().map(|row| row.ids.clone()).collect();
                Ok(reward.judge(&ids)?.into_iter().map(Verdict::Reward).collect())
            }
        }
    }

    /// Writes a verdict into the columns of `row`, their names beginning with `prefix`: `logprob` and `tokens` (how many
    /// count), or `reward`, and what `details` asks for.
    ///
    /// # Errors
    /// A verdict that is not a finite number.
    pub fn write(&self, verdict: &Verdict, prefix: &str, details: Details, row: &mut Map<String, Value>) -> Result<()> {
        let mut put = |name: &str, value: Value| drop(row.insert(format!("{prefix}{name}"), value));
        let total = match verdict {
            Verdict::LogProbabilities(all) => all.iter().sum(),
            Verdict::Reward(judgement) => judgement.reward,
        };
        if !total.is_finite() {
            return Err(Error::invalid(format!("its {prefix}{} is {total} (expected a finite number)", self.gives())));
        }
        put(self.gives(), json!(total));
        match (verdict, self) {
            (Verdict::LogProbabilities(all), _) => {
                put("tokens", json!(all.len()));
                if details.token_logprobs {
                    put("token_logprobs", json!(all));
                }
            }
            (Verdict::Reward(Judgement { parts: Some(parts), .. }), Self::Reward(reward)) if details.objectives => {
                let named = |values: &[f64]| {
                    let pairs = reward.objectives().iter().zip(values);
                    Value::Object(pairs.map(|(name, value)| (name.clone(), json!(value))).collect())
                };
                put("objectives", named(&parts.objectives));
                put("gating", named(&parts.gating));
            }
            _ => {}
        }
        Ok(())
    }
}

impl Policy {
    fn load(folder: &Path, temperature: Temperature, place: &Place) -> Result<Self> {
        let (config, store, _) = peft::open(folder, None, place.dtype, &place.device)?;
        let texts = peft::text_folder(folder)?;
        let tokenizer = Tokenizer::load(&texts)?;
        tokenizer.check_vocabulary(config.vocab)?;
        let ends = config.eos.iter().copied().chain(tokenizer.eos().ok()).collect();
        Ok(Self {
            decoder: hf::decoder(&config, &store)?.detached(),
            template: ChatTemplate::load(&texts)?,
            tokenizer,
            temperature,
            ends,
            folder: folder.into(),
        })
    }

    /// Prompt and answer as tokens. A finished answer has its end: the one its template writes, or the end of text. What
    /// stands behind the first end of an answer is no part of it.
    fn row(&self, exchange: &Exchange, chat: bool) -> Result<Row> {
        let (mut ids, mut answer) = match (&exchange.prompt, chat) {
            (Prompt::Text(text), false) => {
                let encode = |text: &str| self.tokenizer.encode_special(text);
                self.joined(text, &exchange.answer, encode)?
            }
            _ => {
                let (question, answer) = self.rendered(exchange)?;
                self.joined(&question, &answer, |text| self.tokenizer.encode(text))?
            }
        };
        match answer.iter().position(|id| self.ends.contains(id)) {
            Some(end) => answer.truncate(end + 1),
            None if exchange.finished => answer.push(self.tokenizer.eos()?),
            None => {}
        }
        let config = self.decoder.config();
        if ids.is_empty() {
            ids.extend(config.bos); // a text from its beginning
        }
        let first = ids.len();
        if first == 0 {
            return Err(Error::invalid("the prompt has no token"));
        }
        ids.append(&mut answer);
        if ids.len() > config.max_positions {
            let what = format!("{} tokens (the model reads at most {})", ids.len(), config.max_positions);
            return Err(Error::invalid(what));
        }
        if let Some(id) = ids.iter().find(|&&id| id as usize >= config.vocab) {
            let what = format!("token {id} is not in the model (its vocab_size is {})", config.vocab);
            return Err(Error::file(self.folder.join("tokenizer.json"), what));
        }
        Ok(Row { ids, answer: first })
    }

    /// Tokens of prompt and answer: those of both as one text, where the prompt's own stand at its front (a tokenizer may
    /// see a word's beginning differently at the beginning of a text), else each by itself, as a policy would go on.
    fn joined(
        &self,
        prompt: &str,
        answer: &str,
        encode: impl Fn(&str) -> Result<Vec<u32>>,
    ) -> Result<(Vec<u32>, Vec<u32>)> {
        let (first, whole) = (encode(prompt)?, encode(&format!("{prompt}{answer}"))?);
        let rest = match whole.strip_prefix(first.as_slice()) {
            Some(rest) => rest.to_vec(),
            None => self.tokenizer.encode(answer)?,
        };
        Ok((first, rest))
    }

    /// Prompt and answer as the chat template writes them.
    fn rendered(&self, exchange: &Exchange) -> Result<(String, String)> {
        let template = self.template.as_ref().ok_or_else(|| {
            let what = "missing (expected a template, to read messages)";
            Error::field(self.folder.join("tokenizer_config.json"), "chat_template", what)
        })?;
        let question = template.render(&exchange.questions(), true)?;
        if !exchange.finished {
            return Ok((question, exchange.answer.clone()));
        }
        let whole = template.render(&exchange.messages(), false)?;
        match whole.strip_prefix(&question) {
            Some(answer) => Ok((question.clone(), answer.to_string())),
            None => Err(Error::invalid("the chat template begins a given answer in another way than one it asks for")),
        }
    }

    fn log_probabilities(&self, rows: &[&Row]) -> Result<Vec<Verdict>> {
        // Empty answers are certain.
        let answers: Vec<(&[u32], &[u32])> =
            rows.iter().map(|row| row.ids.split_at(row.answer)).filter(|(_, answer)| !answer.is_empty()).collect();
        if answers.is_empty() {
            return Ok(vec![Verdict::LogProbabilities(Vec::new()); rows.len()]);
        }
        let (logprobs, _) = self.decoder.scores(&answers, self.temperature)?;
        let mut flat = logprobs.to_dtype(DType::F64)?.to_vec1::<f64>()?.into_iter();
        let verdict = |row: &&Row| Verdict::LogProbabilities(flat.by_ref().take(row.ids.len() - row.answer).collect());
        Ok(rows.iter().map(verdict).collect())
    }
}
