//! Noisy human preferences: two candidate summaries of a post, and a judge who sees their gold rewards through noise.

use rand::Rng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;
use serde_json::{Map, Value, json};

use super::gold::gold;
use super::grammar::{Post, Purpose, Split, pick, post, stream};
use super::summary::{Corruption, corrupted, perfect, reference};
use crate::data::columns::{self, Tokens};

/// A summary put before a judge, and what wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The summary with its leading space, without the end of text.
    pub text: String,
    /// The writer's name: `reference`, `careful`, the names of corruptions, or a model.
    pub policy: String,
}

/// The judge of a world: prefers the first text with the Bradley-Terry probability of the two gold rewards.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Judge {
    /// Seed of the labels.
    pub seed: u64,
    /// Inverse noise level, per unit of gold reward: 0 is a coin, large is a judge who never errs.
    pub beta: f64,
}

/// What a judge said of two texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Label {
    /// 0 when the first text was preferred, else 1.
    pub choice: usize,
    /// How sure the judge was: 1 (a coin) to 9.
    pub confidence: u8,
}

impl Judge {
    /// Probability that the first text is preferred: `sigmoid(beta (first - second))`, the arguments being gold rewards.
    pub fn preference(&self, first: f64, second: f64) -> f64 {
        1.0 / (1.0 + (-self.beta * (first - second)).exp())
    }

    /// The label of two texts under `prompt`; `split` and `row` name the random stream, so that a pair's label
    /// depends on no other pair. The confidence is `1 + round(8 |2p - 1|)`, p being the preference's probability: a
    /// judge feels as sure as the gap is wide, also when the noise has turned the label.
    pub fn label(&self, split: Split, row: u64, prompt: &str, texts: [&str; 2]) -> Label {
        let p = self.preference(gold(prompt, texts[0]), gold(prompt, texts[1]));
        let choice = usize::from(!stream(self.seed, split, row, Purpose::Label).random_bool(p));
        Label { choice, confidence: 1 + (8.0 * (2.0 * p - 1.0).abs()).round() as u8 }
    }
}

/// Two summaries of a post with a judge's label: a row of the comparison set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compared {
    /// The post summarised.
    pub post: Post,
    /// The two summaries, in the order the judge saw them.
    pub summaries: [Candidate; 2],
    /// Which was preferred.
    pub label: Label,
    split: Split,
    row: u64,
}

impl Compared {
    /// Has `judge` compare two given summaries of `post`: samples of a model, say.
    pub fn of(judge: &Judge, split: Split, row: u64, post: Post, summaries: [Candidate; 2]) -> Self {
        let label = judge.label(split, row, &post.prompt(), [&summaries[0].text, &summaries[1].text]);
        Self { post, summaries, label, split, row }
    }

    /// The row of a world's own comparisons: two different candidates, drawn and labelled.
    pub fn draw(judge: &Judge, split: Split, row: u64) -> Self {
        let post = post(judge.seed, split, row);
        let rng = &mut stream(judge.seed, split, row, Purpose::Candidates);
        let first = candidate(&post, rng);
        let mut second = candidate(&post, rng);
        while second.text == first.text {
            second = candidate(&post, rng);
        }
        Self::of(judge, split, row, post, [first, second])
    }

    /// The row in the layout of the raw set: `info`, `summaries`, `choice`, `worker`, `batch`, `split`, `extra`.
    pub fn raw(&self) -> Map<String, Value> {
        let post = &self.post;
        let summaries: Vec<Value> = self
            .summaries
            .iter()
            .map(|summary| json!({"text": summary.text, "policy": summary.policy, "note": null}))
            .collect();
        let row = json!({
            "info": {
                "id": post.id, "post": post.body, "title": post.title, "subreddit": post.subreddit,
                "site": null, "article": null,
            },
            "summaries": summaries,
            "choice": self.label.choice,
            "worker": format!("w{}", self.row % 7),
            "batch": format!("batch{}", self.row / 1024),
            "split": if self.split.name() == "validation" { "valid1" } else { self.split.name() },
            "extra": {"confidence": self.label.confidence},
        });
        row.as_object().cloned().unwrap_or_default()
    }

    /// The row in the layout of the processed set; token columns where a tokenizer is given.
    pub fn processed(&self, tokens: Option<&Tokens<'_>>) -> Map<String, Value> {
        let [first, second] = &self.summaries;
        let summaries = [(first.text.as_str(), first.policy.as_str()), (second.text.as_str(), second.policy.as_str())];
        columns::comparison(&self.post.prompt(), summaries, self.label.choice, tokens)
    }
}

/// One candidate: a person's reference (3 in 10), the complete and brief one (1), or one spoilt by one (4) or two (2)
/// different corruptions of severity 1 to 3, mild ones more often.
fn candidate(post: &Post, rng: &mut ChaCha8Rng) -> Candidate {
    let (text, policy) = match rng.random_range(0..10) {
        0..=2 => (reference(post, rng), "reference".to_string()),
        3 => (perfect(&post.facts), "careful".to_string()),
        draw => {
            let number = if draw < 8 { 1 } else { 2 };
            let chosen: Vec<Corruption> = Corruption::ALL.choose_multiple(rng, number).copied().collect();
            let severity = pick(&[1, 1, 1, 2, 2, 3], rng);
            let names: Vec<&str> = chosen.iter().map(|corruption| corruption.name()).collect();
            (corrupted(post, &chosen, severity, rng), names.join("+"))
        }
    };
    Candidate { text: format!(" {text}"), policy }
}

#[cfg(test)]
mod tests {
    use statrs::distribution::{ContinuousCDF, Normal};

    use super::*;

    fn drawn(beta: f64, n: u64) -> Vec<Compared> {
        let judge = Judge { seed: 23, beta };
        (0..n).map(|row| Compared::draw(&judge, Split::ComparisonTrain, row)).collect()
    }

    fn golds(pair: &Compared) -> [f64; 2] {
        [0, 1].map(|i| gold(&pair.post.body, &pair.summaries[i].text))
    }

    /// Wins of the first summary, less their expectation, in standard deviations; binned by the preference's
    /// probability. With 8 bins and a bound of z at 1 - 1e-6/16 a true sampler fails once in a million seeds.
    #[test]
    fn wins_follow_the_bradley_terry_probability_in_every_bin() {
        let bound = Normal::standard().inverse_cdf(1.0 - 1e-6 / 16.0);
        let beta = 2.0;
        let judge = Judge { seed: 23, beta };
        let mut bins = [(0.0, 0.0, 0.0); 8];
        for pair in drawn(beta, 8000) {
            let [first, second] = golds(&pair);
            let p = judge.preference(first, second);
            let bin = &mut bins[((p * 8.0) as usize).min(7)];
            bin.0 += if pair.label.choice == 0 { 1.0 } else { 0.0 };
            bin.1 += p;
            bin.2 += p * (1.0 - p);
        }
        for (wins, expected, variance) in bins {
            assert!(variance > 5.0, "a bin is too small to test");
            let z = (wins - expected) / f64::sqrt(variance);
            assert!(z.abs() < bound, "{wins} wins, {expected} expected, z {z}");
        }
    }

    #[test]
    fn noiseless_judge_prefers_the_better_text() {
        for pair in drawn(1e6, 500) {
            let golds = golds(&pair);
            assert!((golds[0] - golds[1]).abs() < 1e-4 || golds[pair.label.choice] > golds[1 - pair.label.choice]);
        }
    }

    #[test]
    fn wide_gaps_are_labelled_with_more_confidence() {
        let judge = Judge { seed: 1, beta: 3.0 };
        let post = post(1, Split::Example, 0);
        let good = format!(" {}", perfect(&post.facts));
        let confidence = |a: &str, b: &str| judge.label(Split::Example, 0, &post.prompt(), [a, b]).confidence;
        assert_eq!(confidence(&good, &good), 1);
        assert_eq!(confidence(&good, ""), 9);
        assert_eq!(confidence("", &good), 9);
    }

    #[test]
    fn two_candidates_differ_and_both_are_summaries_of_the_post() {
        for pair in drawn(2.0, 500) {
            assert_ne!(pair.summaries[0].text, pair.summaries[1].text);
            assert!(pair.summaries.iter().all(|s| s.text.starts_with(' ') && s.text.len() > 1));
        }
    }

    #[test]
    fn given_texts_are_labelled_as_drawn_ones_are() {
        let judge = Judge { seed: 23, beta: 2.0 };
        for pair in drawn(2.0, 100) {
            let again = Compared::of(&judge, pair.split, pair.row, pair.post.clone(), pair.summaries.clone());
            assert_eq!(again, pair);
        }
    }
}
