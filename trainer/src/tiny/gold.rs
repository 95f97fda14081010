//! The gold reward: what the tiny world's people really want of a summary, computed from the two texts alone.

use std::collections::{BTreeSet, HashSet};
use std::sync::LazyLock;

use super::grammar::{ASKS, DETAILS, DISTRACTORS, EVENTS, FILLERS, facts_of_post, post_of_prompt};
use super::summary::{RAMBLES, SUMMARIES, perfect};
use super::text::{Facts, Piece, expansions, scan};
use super::words::Slot;

/// What the gold reward is made of. [`Parts::total`] is the reward.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Parts {
    /// Share of the post's facts that the summary states, in \[0, 1\].
    pub coverage: f64,
    /// Distinct slot values in the summary that are not facts of the post.
    pub invented: usize,
    /// Words beyond those of the plainest complete summary.
    pub excess_words: usize,
    /// Share of neighbouring pieces that no sentence of the world puts side by side, in \[0, 1\]; 1 for an empty text.
    pub garbled: f64,
    /// Whether the text ends with a sentence's end.
    pub ends: bool,
}

impl Parts {
    /// The gold reward; the formula is [`gold`]'s.
    pub fn total(&self) -> f64 {
        let missed = 2.5 * (1.0 - self.coverage);
        let invented = 1.5 * (1.0 - (-(self.invented as f64) / 2.0).exp());
        let long = 1.0 - (-(self.excess_words as f64) / 8.0).exp();
        let unended = if self.ends { 0.0 } else { 0.5 };
        2.0 - missed - invented - long - self.garbled - unended
    }
}

/// The gold reward of `response` as a summary of the post in `prompt`.
///
/// With C the share of the post's facts that the response states, I the number of distinct values it states that are not
/// facts of the post, W its words beyond those of the plainest complete summary, G the share of neighbouring
/// pieces no sentence of the world has side by side, and E = 0 when it ends with a full sentence, else 1:
///
/// $$ 2 - \tfrac52(1-C) - \tfrac32\big(1-e^{-I/2}\big) - \big(1-e^{-W/8}\big) - G - \tfrac12E $$
///
/// 2 is the most there is: the complete, brief and true summary. An empty text gets -2, the summary of another post
/// about -1.8; no text gets less than -4.5. Saying a fact twice earns nothing and costs words; naming every value
/// covers all facts and costs more than it earns; a wrong value costs twice, as a fact missed and a value invented.
///
/// `prompt` is the whole prompt or the post alone (then without facts to find, C = 0); `response` ends at its first
/// `<|endoftext|>`, if there is one. Any text is judged, none fails.
pub fn gold(prompt: &str, response: &str) -> f64 {
    parts(&facts_of_post(post_of_prompt(prompt)), response).total()
}

/// The parts of the gold reward of `response` given the facts of the post.
pub fn parts(facts: &Facts, response: &str) -> Parts {
    let text = response.split("<|endoftext|>").next().unwrap_or_default();
    let pieces = scan(text);
    let stated: BTreeSet<(Slot, &str)> = pieces
        .iter()
        .filter_map(|piece| match piece {
            Piece::Value(slot, value) => Some((*slot, *value)),
            Piece::Word(_) => None,
        })
        .collect();
    let covered = facts.iter().filter(|fact| stated.contains(fact)).count();
    Parts {
        coverage: covered as f64 / facts.len().max(1) as f64,
        invented: stated.len() - covered,
        excess_words: words(&pieces).saturating_sub(words(&scan(&perfect(facts)))),
        garbled: garbled(&pieces),
        ends: pieces.last().is_some_and(Piece::ends_sentence),
    }
}

fn words(pieces: &[Piece]) -> usize {
    pieces.iter().map(Piece::words).sum()
}

/// Neighbours within a sentence as `left right`, slots by name; `^` opens a sentence and `$` stands behind a text that
/// breaks off.
fn neighbours(pieces: &[Piece]) -> Vec<String> {
    let mut pairs = Vec::with_capacity(pieces.len() + 1);
    for sentence in pieces.split_inclusive(Piece::ends_sentence) {
        let mut left = "^".to_string();
        for piece in sentence {
            let right = piece.class();
            pairs.push(format!("{left} {right}"));
            left = right;
        }
        if !sentence.last().is_some_and(Piece::ends_sentence) {
            pairs.push(format!("{left} $"));
        }
    }
    pairs
}

/// Every pair of neighbours that a sentence of the world can have.
static FLUENT: LazyLock<HashSet<String>> = LazyLock::new(|| {
    [SUMMARIES, RAMBLES, EVENTS, DETAILS, ASKS, FILLERS, DISTRACTORS]
        .into_iter()
        .flatten()
        .flat_map(|template| expansions(template))
        .flat_map(|form| [form.replace("{pron}", "he"), form.replace("{pron}", "she")])
        .flat_map(|form| neighbours(&scan(&form)))
        .chain(["my stuff", "stuff ."].map(String::from))
        .collect()
});

/// Share of the text's neighbours that no sentence of the world has; 1 for a text without a piece.
fn garbled(pieces: &[Piece]) -> f64 {
    let pairs = neighbours(pieces);
    if pairs.is_empty() {
        return 1.0;
    }
    pairs.iter().filter(|pair| !FLUENT.contains(*pair)).count() as f64 / pairs.len() as f64
}

#[cfg(test)]
mod tests {
    use approx::assert_abs_diff_eq;

    use super::super::grammar::{Post, Purpose, Split, post, stream};
    use super::super::summary::{Corruption, corrupted, reference};
    use super::*;

    fn posts(n: u64) -> Vec<Post> {
        (0..n).map(|row| post(17, Split::Train, row)).collect()
    }

    fn score(post: &Post, text: &str) -> f64 {
        gold(&post.body, text)
    }

    fn mean(of: impl Iterator<Item = f64>) -> f64 {
        let all: Vec<f64> = of.collect();
        all.iter().sum::<f64>() / all.len() as f64
    }

    const POST: &str = "I am new here. My roommate broke my bike last week. Now he won't pay. Should I sue?";

    #[test]
    fn formula_matches_numbers_worked_by_hand() {
        assert_abs_diff_eq!(gold(POST, "My roommate broke my bike last week and won't pay. Should I sue?"), 2.0);
        // Five of six facts.
        assert_abs_diff_eq!(
            gold(POST, "My roommate broke my bike last week and won't pay."),
            2.0 - 2.5 / 6.0,
            epsilon = 1e-12
        );
        // One wrong value: a fact missed and a value invented.
        assert_abs_diff_eq!(
            gold(POST, "My brother broke my bike last week and won't pay. Should I sue?"),
            2.0 - 2.5 / 6.0 - 1.5 * (1.0 - (-0.5_f64).exp()),
            epsilon = 1e-12
        );
        // Eight words more.
        let ramble = "Thanks for reading. I have no idea why.";
        let text = format!("My roommate broke my bike last week and won't pay. Should I sue? {ramble}");
        assert_abs_diff_eq!(gold(POST, &text), 1.0 + (-1.0_f64).exp(), epsilon = 1e-12);
    }

    #[test]
    fn empty_text_gets_minus_two() {
        for text in ["", " ", "\n", "<|endoftext|>"] {
            assert_abs_diff_eq!(gold(POST, text), -2.0);
        }
    }

    #[test]
    fn perfect_summary_gets_the_most_and_beats_every_corruption() {
        for (row, post) in posts(400).iter().enumerate() {
            assert_abs_diff_eq!(score(post, &perfect(&post.facts)), 2.0);
            for corruption in Corruption::ALL {
                for severity in 1..=3 {
                    let rng = &mut stream(1, Split::Example, row as u64, Purpose::Candidates);
                    let text = corrupted(post, &[corruption], severity, rng);
                    assert!(score(post, &text) < 2.0, "{corruption:?} {severity}: {text}");
                }
            }
        }
    }

    #[test]
    fn severer_corruption_is_worse_on_average() {
        let posts = posts(400);
        for corruption in Corruption::ALL {
            let at = |severity| {
                mean(posts.iter().enumerate().map(|(row, post)| {
                    let rng = &mut stream(1, Split::Example, row as u64, Purpose::Candidates);
                    score(post, &corrupted(post, &[corruption], severity, rng))
                }))
            };
            assert!(at(1) > at(2) && at(2) > at(3) - 1e-9, "{corruption:?}: {} {} {}", at(1), at(2), at(3));
        }
    }

    #[test]
    fn reference_is_fluent_and_lies_between_sloppy_and_perfect() {
        let posts = posts(2000);
        let texts: Vec<String> = (0..)
            .zip(&posts)
            .map(|(row, post)| reference(post, &mut stream(17, Split::Train, row, Purpose::Reference)))
            .collect();
        for (post, text) in posts.iter().zip(&texts) {
            assert_eq!(parts(&post.facts, text).garbled, 0.0, "{text}");
        }
        let people = mean(posts.iter().zip(&texts).map(|(post, text)| score(post, text)));
        let sloppy = mean((0..).zip(&posts).map(|(row, post)| {
            let rng = &mut stream(1, Split::Example, row, Purpose::Candidates);
            score(post, &corrupted(post, &[Corruption::DroppedFact, Corruption::WrongValue], 1, rng))
        }));
        assert!(people < 1.75, "{people}");
        assert!(people > sloppy + 0.5, "{people} {sloppy}");
    }

    #[test]
    fn summary_of_another_post_is_worth_little_more_than_nothing() {
        let posts = posts(1000);
        let other = mean((1..posts.len()).map(|i| score(&posts[i - 1], &perfect(&posts[i].facts))));
        assert!((-1.95..-1.6).contains(&other), "{other}");
    }

    #[test]
    fn case_spacing_and_what_follows_the_end_do_not_matter() {
        for post in posts(200) {
            let text = perfect(&post.facts);
            let same = score(&post, &text);
            assert_abs_diff_eq!(score(&post, &format!("  {}\n", text.to_uppercase())), same);
            assert_abs_diff_eq!(score(&post, &format!(" {text}<|endoftext|> My wife stole my car")), same);
        }
    }

    #[test]
    fn whole_prompt_and_post_alone_give_the_same_gold() {
        for post in posts(200) {
            let prompt = post.prompt();
            for text in ["My boss hid my bonus. Should I quit?", "Should I wait?", "nonsense"] {
                assert_abs_diff_eq!(gold(&prompt, text), gold(&post.body, text));
            }
        }
    }

    #[test]
    fn repetition_and_listing_everything_do_not_pay() {
        let everything: Vec<&str> = Slot::ALL.iter().flat_map(|slot| slot.values()).copied().collect();
        let listing = format!("My {}.", everything.join(" "));
        for post in posts(200) {
            let once = perfect(&post.facts);
            let mut last = score(&post, &once);
            for times in 2..5 {
                let repeated = score(&post, &vec![once.as_str(); times].join(" "));
                assert!(repeated < last);
                last = repeated;
            }
            assert!(score(&post, &listing) < -1.0);
            // Hedging one fact with a second value costs more than leaving it out.
            let mut short = post.facts;
            short.clear(Slot::Ask);
            let hedged = format!("{} Should I sue? Should I quit? Should I wait?", perfect(&short));
            assert!(score(&post, &hedged) < score(&post, &perfect(&short)));
        }
    }

    #[test]
    fn facts_without_sentences_are_worth_less_than_sentences() {
        for post in posts(200) {
            let mut facts: Vec<&str> = post.facts.iter().map(|(_, value)| value).collect();
            facts.reverse();
            let salad = format!("{}.", facts.join(" "));
            assert!(score(&post, &salad) < score(&post, &perfect(&post.facts)) - 0.4, "{salad}");
        }
    }

    #[test]
    fn any_text_gets_a_finite_number_in_the_stated_range() {
        for text in ["!!!!", "....", "\u{0}\u{fffd}", "aaaa aaaa aaaa aaaa", "$ ' {who} {ask}", "東京 ."] {
            let value = gold(POST, text);
            assert!((-4.5..=0.0).contains(&value), "{text}: {value}");
            assert!(gold("", text) <= 0.0);
        }
    }
}
