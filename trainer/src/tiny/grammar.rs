//! The grammar of posts: a seeded draw gives a subreddit, a title and a post that states four to six facts in
//! varied order and phrasing, among sentences that have nothing to do with them.
//!
//! [`post`] draws one; [`facts_of_post`] reads the facts back from the text alone, which is all a reward sees.

use std::sync::LazyLock;

use rand::Rng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use super::text::{Facts, Piece, capitalised, needed, render, scan, slots_of};
use super::words::{Slot, TOPICS, Topic, pronouns};

/// Titles, with values of the post's facts or none.
pub(crate) const TITLES: &[&str] = &[
    "My {who} {deed} my {thing}",
    "Problem with my {who}",
    "My {who} and my {thing}",
    "Should I {ask}?",
    "Need advice about my {thing}",
    "What should I do?",
    "Help me please",
    "Am I wrong about this?",
    "My {who}, again",
];

/// Sentences that tell what happened.
pub(crate) const EVENTS: &[&str] = &[
    "My {who} {deed} my[ {amount}] {thing}[ {place}][ {when}].",
    "So[ {when}] my {who} {deed} my[ {amount}] {thing}[ {place}].",
    "[{when} ]my {who} {deed} my {thing}[ {place}].",
    "I found out my {who} {deed} my[ {amount}] {thing}[ {when}].",
    "I loved my[ {amount}] {thing} but my {who} {deed} it[ {place}][ {when}].",
    "I was {place}[ {when}] when my {who} {deed} my {thing}.",
    "You guys, my {who} {deed} my[ {amount}] {thing}[ {place}].",
];

/// Sentences that add what the event left open.
pub(crate) const DETAILS: &[&str] = &[
    "This was {when}.",
    "It happened {when}.",
    "This was {place}.",
    "It happened {place}.",
    "We were {place}.",
    "It happened {place} {when}.",
    "It cost {amount}.",
    "I paid {amount} for it.",
    "That is {amount} gone.",
    "Now {pron} {reaction}.",
    "{pron} just {reaction}.",
    "Of course {pron} {reaction}.",
    "And {pron} {reaction}!",
];

/// What the author asks.
pub(crate) const ASKS: &[&str] = &[
    "Should I {ask}?",
    "Do you think I should {ask}?",
    "I am not sure if I should {ask}.",
    "Would it be wrong to {ask}?",
    "Is it time to {ask}?",
    "I kind of want to {ask}.",
];

/// Sentences that state no fact of the post.
pub(crate) const FILLERS: &[&str] = &[
    "I am new here.",
    "This is my first post.",
    "Sorry for the long post.",
    "I am on mobile.",
    "Throwaway account.",
    "I am so mad.",
    "I can't sleep.",
    "It has been a hard year.",
    "I live in a small town.",
    "I like coffee.",
    "It was raining.",
    "I am tired.",
    "I have no idea what to do.",
    "We were close.",
];

/// Sentences with a value that is *not* a fact of the post: somebody else's opinion, another time.
pub(crate) const DISTRACTORS: &[&str] =
    &["My {who} says to relax.", "My {who} thinks it is funny.", "All was fine {when}."];

/// A post of the tiny world, in the columns of the real data set, and the facts it states.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Post {
    /// `t3_` and six digits of base 36, different for each row and split of a world.
    pub id: String,
    /// The subreddit's name without `r/`.
    pub subreddit: &'static str,
    /// One line.
    pub title: String,
    /// One or two paragraphs.
    pub body: String,
    /// What the post states: who, deed, thing and ask always, and at most two of the other slots.
    pub facts: Facts,
}

/// What a random stream is for. Streams of different purposes, splits and rows are independent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    Post = 1,
    Reference = 2,
    Corpus = 3,
    Candidates = 4,
    Label = 5,
}

/// A part of the world: rows of different splits never share a random stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Split {
    /// Rows to train on.
    Train = 1,
    /// Rows to watch during training.
    Validation = 2,
    /// Rows to judge by at the end.
    Test = 3,
    /// Posts of the pre-training text.
    Corpus = 4,
    /// Posts for looking at.
    Example = 5,
    /// Posts whose candidate summaries are compared, to train a reward model on.
    ComparisonTrain = 6,
    /// The same, to judge a reward model by.
    ComparisonValidation = 7,
}

impl Split {
    /// The name of the split's files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Train | Self::ComparisonTrain => "train",
            Self::Validation | Self::ComparisonValidation => "validation",
            Self::Test => "test",
            Self::Corpus => "corpus",
            Self::Example => "example",
        }
    }
}

/// The random stream of one row: ChaCha keyed by the world's seed, the split, the row and the purpose, so that a
/// row's bytes depend on nothing else.
pub(crate) fn stream(seed: u64, split: Split, row: u64, purpose: Purpose) -> ChaCha8Rng {
    let mut key = [0; 32];
    for (part, value) in key.chunks_exact_mut(8).zip([seed, split as u64, row, purpose as u64]) {
        part.copy_from_slice(&value.to_le_bytes());
    }
    ChaCha8Rng::from_seed(key)
}

/// One of a list that is not empty.
pub(crate) fn pick<T: Copy>(list: &[T], rng: &mut ChaCha8Rng) -> T {
    *list.choose(rng).expect("the grammar's lists are not empty")
}

/// The post of a row.
pub fn post(seed: u64, split: Split, row: u64) -> Post {
    let rng = &mut stream(seed, split, row, Purpose::Post);
    let topic = TOPICS.choose(rng).expect("there are subreddits");
    let facts = draw_facts(topic, rng);
    let title = render(pick(TITLES, rng), &facts, |_| true);
    let body = body(topic, &facts, rng);
    Post { id: id(split, row), subreddit: topic.subreddit, title, body, facts }
}

impl Post {
    /// The prompt that asks for a summary of the post.
    pub fn prompt(&self) -> String {
        crate::data::format::prompt(self.subreddit, &self.title, &self.body)
    }
}

/// An id in the form of the real set's. Multiplying by a number prime to 36 scatters the rows without making two
/// alike.
fn id(split: Split, row: u64) -> String {
    let mut number = (u128::from(row) * 8 + split as u128) * 1_234_577 % 36_u128.pow(6);
    let mut digits = [b'0'; 6];
    for digit in digits.iter_mut().rev() {
        *digit = b"0123456789abcdefghijklmnopqrstuvwxyz"[(number % 36) as usize];
        number /= 36;
    }
    format!("t3_{}", String::from_utf8_lossy(&digits))
}

/// The four facts every post has, and none, one or two of the others.
fn draw_facts(topic: &Topic, rng: &mut ChaCha8Rng) -> Facts {
    let mut facts = Facts::default();
    for slot in [Slot::Who, Slot::Deed, Slot::Thing, Slot::Ask] {
        facts.set(slot, pick(topic.values(slot), rng));
    }
    let extra = pick(&[0, 1, 1, 1, 2, 2, 2, 2], rng);
    for &slot in Slot::OPTIONAL.choose_multiple(rng, extra) {
        facts.set(slot, pick(topic.values(slot), rng));
    }
    facts
}

/// Writes the post: an event, the details it left open, the question, and one to three irrelevant sentences.
fn body(topic: &Topic, facts: &Facts, rng: &mut ChaCha8Rng) -> String {
    let who = facts.value(Slot::Who).unwrap_or_default();
    let pronoun = pick(pronouns(who), rng);
    let event = pick(&fitting(EVENTS, facts), rng);
    let mut said = vec![Slot::Who, Slot::Deed, Slot::Thing, Slot::Ask];
    said.extend(needed(event));
    let mut inline = Vec::new();
    let event = render(event, facts, |slot| {
        let told = rng.random_bool(0.5);
        inline.extend(told.then_some(slot));
        told
    });
    said.extend(inline);

    let mut sentences = vec![event];
    let mut open: Vec<Slot> = facts.iter().map(|(slot, _)| slot).filter(|slot| !said.contains(slot)).collect();
    open.shuffle(rng);
    // Both at once reads better than two sentences of one form.
    let together = open.contains(&Slot::When) && open.contains(&Slot::Place) && rng.random_bool(0.7);
    let groups: Vec<Vec<Slot>> =
        if together { vec![vec![Slot::When, Slot::Place]] } else { open.iter().map(|&slot| vec![slot]).collect() };
    for group in groups {
        let about: Vec<&str> = DETAILS.iter().copied().filter(|detail| slots_of(detail) == group).collect();
        sentences.push(render(&pick(&about, rng).replace("{pron}", pronoun), facts, |_| true));
    }
    // A short post has room for more that is beside the point.
    let fillers = if sentences.len() > 2 { 1 } else { rng.random_range(1..=2) };
    for filler in FILLERS.choose_multiple(rng, fillers) {
        // Not between the event and its details, where "it" would change its meaning.
        let at = if rng.random_bool(0.5) { 0 } else { sentences.len() };
        sentences.insert(at, (*filler).to_string());
    }
    if rng.random_bool(0.2) {
        sentences.push(distractor(topic, facts, rng));
    }
    let ask = render(pick(ASKS, rng), facts, |_| true);
    match rng.random_range(0..10) {
        0 => format!("{ask} {}", sentences.join(" ")),
        1..=3 => format!("{}\n\n{ask}", sentences.join(" ")),
        _ => format!("{} {ask}", sentences.join(" ")),
    }
}

/// The templates whose needed slots the facts fill.
fn fitting<'a>(templates: &[&'a str], facts: &Facts) -> Vec<&'a str> {
    templates.iter().copied().filter(|t| needed(t).into_iter().all(|slot| facts.has(slot))).collect()
}

/// A sentence with a value other than the post's own.
fn distractor(topic: &Topic, facts: &Facts, rng: &mut ChaCha8Rng) -> String {
    let template = pick(DISTRACTORS, rng);
    let mut other = Facts::default();
    for slot in slots_of(template) {
        let values: Vec<&str> = topic.values(slot).iter().copied().filter(|v| Some(*v) != facts.value(slot)).collect();
        other.set(slot, pick(&values, rng));
    }
    capitalised(&render(template, &other, |_| true))
}

/// A sentence with its values replaced by their slots' names.
fn form(sentence: &[Piece]) -> String {
    sentence.iter().map(Piece::class).collect::<Vec<_>>().join(" ")
}

/// The forms of [`DISTRACTORS`].
static DISTRACTOR_FORMS: LazyLock<Vec<String>> =
    LazyLock::new(|| DISTRACTORS.iter().map(|template| form(&scan(template))).collect());

/// The facts that a post's text states: the slot values of its sentences, the first of each slot, leaving out
/// the sentences that have the form of a distractor. Any text is allowed; one without facts gives none.
pub fn facts_of_post(body: &str) -> Facts {
    let mut facts = Facts::default();
    for sentence in scan(body).split_inclusive(Piece::ends_sentence) {
        if DISTRACTOR_FORMS.contains(&form(sentence)) {
            continue;
        }
        for piece in sentence {
            if let Piece::Value(slot, value) = piece
                && !facts.has(*slot)
            {
                facts.set(*slot, value);
            }
        }
    }
    facts
}

/// The post's own text within a prompt: what stands between `POST: ` and the closing `TL;DR:`. A text without
/// these marks is taken whole.
pub fn post_of_prompt(prompt: &str) -> &str {
    let from = prompt.find("POST: ").map_or(prompt, |at| &prompt[at + "POST: ".len()..]);
    from.rfind("TL;DR:").map_or(from, |at| &from[..at]).trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parsing_recovers_the_facts_of_every_post() {
        for row in 0..5000 {
            let post = post(11, Split::Train, row);
            assert_eq!(facts_of_post(&post.body), post.facts, "{}", post.body);
        }
    }

    #[test]
    fn post_has_four_to_six_facts() {
        let counts: Vec<usize> = (0..2000).map(|row| post(1, Split::Train, row).facts.len()).collect();
        assert_eq!(counts.iter().min(), Some(&4));
        assert_eq!(counts.iter().max(), Some(&6));
    }

    #[test]
    fn splits_and_seeds_give_different_posts() {
        let bodies = |seed, split| (0..50).map(|row| post(seed, split, row).body).collect::<Vec<_>>();
        assert_eq!(bodies(1, Split::Train), bodies(1, Split::Train));
        assert_ne!(bodies(1, Split::Train), bodies(2, Split::Train));
        assert_ne!(bodies(1, Split::Train), bodies(1, Split::Test));
    }

    #[test]
    fn posts_do_not_repeat() {
        let posts: std::collections::BTreeSet<String> = (0..5000).map(|r| post(3, Split::Train, r).body).collect();
        assert!(posts.len() >= 4990, "{} distinct of 5000", posts.len());
    }

    #[test]
    fn ids_do_not_repeat_within_a_world() {
        let splits = [Split::Train, Split::Validation, Split::ComparisonTrain];
        let ids: std::collections::BTreeSet<String> =
            splits.iter().flat_map(|&split| (0..3000).map(move |row| id(split, row))).collect();
        assert_eq!(ids.len(), 9000);
    }

    #[test]
    fn post_is_cut_out_of_its_prompt() {
        let prompt = "SUBREDDIT: r/pets\n\nTITLE: x\n\nPOST: My ex hid my cat.\n\nWhy?\n\nTL;DR:";
        assert_eq!(post_of_prompt(prompt), "My ex hid my cat.\n\nWhy?");
        assert_eq!(post_of_prompt("no marks"), "no marks");
    }

    #[test]
    fn fillers_hold_no_value_of_a_slot() {
        for filler in FILLERS {
            assert!(scan(filler).iter().all(|piece| matches!(piece, Piece::Word(_))), "{filler}");
        }
    }
}
