//! Summaries of a post: the short and complete one, what people write (some forget, some ramble, a few get a
//! fact wrong), and a family of corruptions of graded severity.

use rand::Rng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;

use super::grammar::{FILLERS, Post, pick};
use super::text::{Facts, render};
use super::words::{Slot, TOPICS, Topic};

/// The ways people put it. The first is the plainest and fills [`perfect`].
pub(crate) const SUMMARIES: &[&str] = &[
    "My {who} {deed} my[ {amount}] {thing}[ {place}][ {when}][ and {reaction}].[ Should I {ask}?]",
    "[{when} ]my {who} {deed} my[ {amount}] {thing}[ {place}][ and {reaction}].[ Should I {ask}?]",
    "[{place} ]my {who} {deed} my[ {amount}] {thing}[ {when}][ and {reaction}].[ Not sure if I should {ask}.]",
    "[Should I {ask}? ]My {who} {deed} my[ {amount}] {thing}[ {place}][ {when}][ and {reaction}].",
];

/// What people add that summarises nothing, beside the post's own kind of filler.
pub(crate) const RAMBLES: &[&str] =
    &["It is a mess.", "I need some advice.", "Thanks for reading.", "I have no idea why."];

/// Every fact, nothing else, in the plainest words: the shortest summary that the gold reward cannot improve.
pub fn perfect(facts: &Facts) -> String {
    render(SUMMARIES[0], facts, |_| true)
}

/// A summary in one of people's phrasings.
fn phrased(facts: &Facts, rng: &mut ChaCha8Rng) -> String {
    let template = match rng.random_range(0..20) {
        0..=8 => SUMMARIES[0],
        9..=13 => SUMMARIES[1],
        14..=16 => SUMMARIES[2],
        _ => SUMMARIES[3],
    };
    render(template, facts, |_| true)
}

/// Something beside the point: a ramble or one of the shorter fillers.
fn aside(rng: &mut ChaCha8Rng) -> &'static str {
    if rng.random_bool(0.5) {
        return pick(RAMBLES, rng);
    }
    let short: Vec<&str> = FILLERS.iter().copied().filter(|filler| filler.split(' ').count() <= 5).collect();
    pick(&short, rng)
}

/// The reference summary a person writes under a post. Of a hundred writers 30 state every fact briefly, 30 forget
/// one fact, 25 ramble, 15 do both; four in a hundred get a fact wrong on top.
pub fn reference(post: &Post, rng: &mut ChaCha8Rng) -> String {
    let mut facts = post.facts;
    let writer = rng.random_range(0..100);
    let (forgets, rambles) = ((30..60).contains(&writer) || writer >= 85, writer >= 60);
    if rng.random_bool(0.04) {
        mistake(&mut facts, post, rng);
    }
    if forgets {
        forget(&mut facts, rng);
    }
    let text = phrased(&facts, rng);
    if !rambles {
        return text;
    }
    if rng.random_bool(0.3) { format!("{} {text}", aside(rng)) } else { format!("{text} {}", aside(rng)) }
}

fn topic(post: &Post) -> &'static Topic {
    TOPICS.iter().find(|topic| topic.subreddit == post.subreddit).unwrap_or(&TOPICS[0])
}

/// Leaves out one fact that a sentence can do without; with none left, the thing becomes `stuff`.
fn forget(facts: &mut Facts, rng: &mut ChaCha8Rng) {
    let open: Vec<Slot> = Slot::OPTIONAL.into_iter().chain([Slot::Ask]).filter(|slot| facts.has(*slot)).collect();
    facts.clear(*open.choose(rng).unwrap_or(&Slot::Thing));
}

/// Replaces one fact that is still true by another value of its slot, one that posts of this subreddit use.
fn mistake(facts: &mut Facts, post: &Post, rng: &mut ChaCha8Rng) {
    let still_true: Vec<(Slot, &str)> =
        facts.iter().filter(|(slot, value)| post.facts.value(*slot) == Some(value)).collect();
    let Some(&(slot, value)) = still_true.choose(rng) else { return };
    let others: Vec<&str> = topic(post).values(slot).iter().copied().filter(|v| *v != value).collect();
    facts.set(slot, pick(&others, rng));
}

/// Adds a value to a slot the post left open; a post always leaves two open.
fn invent(facts: &mut Facts, topic: &Topic, rng: &mut ChaCha8Rng) {
    let open: Vec<Slot> = Slot::OPTIONAL.into_iter().filter(|slot| !facts.has(*slot)).collect();
    if let Some(&slot) = open.choose(rng) {
        facts.set(slot, pick(topic.values(slot), rng));
    }
}

/// A way to spoil a good summary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Corruption {
    /// Facts left out.
    DroppedFact,
    /// Facts added that the post does not state.
    InventedFact,
    /// Facts with another value than the post's.
    WrongValue,
    /// Sentences beside the point.
    Rambling,
    /// The end missing.
    Truncated,
    /// The whole said again.
    Repeated,
}

impl Corruption {
    /// Every corruption.
    pub const ALL: [Self; 6] =
        [Self::DroppedFact, Self::InventedFact, Self::WrongValue, Self::Rambling, Self::Truncated, Self::Repeated];

    /// The policy's name in comparison files.
    pub fn name(self) -> &'static str {
        match self {
            Self::DroppedFact => "dropped_fact",
            Self::InventedFact => "invented_fact",
            Self::WrongValue => "wrong_value",
            Self::Rambling => "rambling",
            Self::Truncated => "truncated",
            Self::Repeated => "repeated",
        }
    }
}

/// A complete and brief summary of `post`, spoilt by each of `corruptions`, `severity` times each (1 to 3): that many
/// facts dropped, invented (at most two) or wrong, that many asides or repetitions, that many quarters cut off.
pub fn corrupted(post: &Post, corruptions: &[Corruption], severity: usize, rng: &mut ChaCha8Rng) -> String {
    let mut facts = post.facts;
    let has = |corruption| corruptions.contains(&corruption);
    for _ in 0..severity {
        if has(Corruption::DroppedFact) {
            forget(&mut facts, rng);
        }
        if has(Corruption::WrongValue) {
            mistake(&mut facts, post, rng);
        }
        if has(Corruption::InventedFact) {
            invent(&mut facts, topic(post), rng);
        }
    }
    let told = phrased(&facts, rng);
    let mut text = told.clone();
    for _ in 0..severity {
        if has(Corruption::Rambling) {
            text = format!("{text} {}", aside(rng));
        }
        if has(Corruption::Repeated) {
            text = format!("{text} {told}");
        }
    }
    if has(Corruption::Truncated) {
        let words: Vec<&str> = text.split(' ').collect();
        let kept = (words.len() * 4usize.saturating_sub(severity.max(1)) / 4).min(words.len() - 1);
        text = words[..kept].join(" ");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::grammar::{Purpose, Split, post, stream};
    use super::super::text::{Piece, scan};
    use super::*;

    #[test]
    fn perfect_summary_states_exactly_the_facts() {
        for row in 0..500 {
            let post = post(5, Split::Train, row);
            let mut said = Facts::default();
            for piece in scan(&perfect(&post.facts)) {
                if let Piece::Value(slot, value) = piece {
                    said.set(slot, value);
                }
            }
            assert_eq!(said, post.facts);
        }
    }

    #[test]
    fn every_corruption_changes_the_summary() {
        for row in 0..200 {
            let post = post(5, Split::Train, row);
            for corruption in Corruption::ALL {
                let with = |what: &[Corruption]| {
                    corrupted(&post, what, 1, &mut stream(5, Split::Train, row, Purpose::Candidates))
                };
                assert_ne!(with(&[corruption]), with(&[]), "{corruption:?}");
            }
        }
    }
}
