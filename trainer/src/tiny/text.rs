//! Facts in text: how a template with slots becomes a sentence, and how a sentence is read back.
//!
//! A template is plain English with slots in braces and optional groups in brackets:
//! `My {who} {deed} my[ {amount}] {thing}[ {when}].` `render` fills it; [`scan`] reads any text back into words
//! and slot values; `expansions` lists a template's forms with the slots left as they are.

use std::collections::HashMap;
use std::sync::LazyLock;

use super::words::Slot;

/// The facts of a post: for each slot the index of its value in [`Slot::values`], or nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Facts([Option<u8>; Slot::ALL.len()]);

impl Facts {
    /// The value of `slot`, if the facts have one.
    pub fn value(&self, slot: Slot) -> Option<&'static str> {
        self.0[slot.index()].map(|i| slot.values()[usize::from(i)])
    }

    /// Sets `slot` to `value`; a value that is not in the slot's list leaves the slot empty.
    pub fn set(&mut self, slot: Slot, value: &str) {
        let index = slot.values().iter().position(|&v| v == value);
        self.0[slot.index()] = index.and_then(|i| u8::try_from(i).ok());
    }

    /// Forgets `slot`.
    pub fn clear(&mut self, slot: Slot) {
        self.0[slot.index()] = None;
    }

    /// Whether `slot` has a value.
    pub fn has(&self, slot: Slot) -> bool {
        self.0[slot.index()].is_some()
    }

    /// The number of facts.
    pub fn len(&self) -> usize {
        self.0.iter().flatten().count()
    }

    /// Whether there is no fact at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The facts as (slot, value), in the order of [`Slot::ALL`].
    pub fn iter(&self) -> impl Iterator<Item = (Slot, &'static str)> + '_ {
        Slot::ALL.into_iter().filter_map(|slot| self.value(slot).map(|value| (slot, value)))
    }
}

/// One piece of a text as [`scan`] reads it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Piece {
    /// A value of a slot, in any case of letters.
    Value(Slot, &'static str),
    /// Any other word, in lower case, or a single mark of punctuation.
    Word(String),
}

impl Piece {
    /// What the piece is to grammar: its slot's name in braces, or the word itself.
    pub fn class(&self) -> String {
        match self {
            Self::Value(slot, _) => format!("{{{}}}", slot.name()),
            Self::Word(word) => word.clone(),
        }
    }

    /// The number of words of the piece; punctuation has none.
    pub fn words(&self) -> usize {
        match self {
            Self::Value(_, value) => value.split(' ').count(),
            Self::Word(word) => usize::from(word.chars().any(char::is_alphanumeric)),
        }
    }

    /// Whether the piece ends a sentence.
    pub fn ends_sentence(&self) -> bool {
        matches!(self, Self::Word(word) if matches!(word.as_str(), "." | "?" | "!"))
    }
}

/// Cuts a text into lower-case words and single marks. Letters, digits, `'`, `$` and the braces of a template's
/// slot hold a word together.
fn words(text: &str) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    let mut open = false;
    for c in text.chars() {
        if c.is_whitespace() {
            open = false;
        } else if c.is_alphanumeric() || matches!(c, '\'' | '$' | '{' | '}') {
            if !open {
                out.push(String::new());
                open = true;
            }
            if let Some(word) = out.last_mut() {
                word.extend(c.to_lowercase());
            }
        } else {
            out.push(c.to_string());
            open = false;
        }
    }
    out
}

/// Reads a text: the longest value of a slot that starts at a word, else the word itself.
///
/// `My roommate won't pay.` gives the word `my`, the value (who, `roommate`), the value (reaction, `won't pay`) and
/// the mark `.`; the letters' case does not matter. Never fails: any text is a sequence of pieces.
pub fn scan(text: &str) -> Vec<Piece> {
    let words = words(text);
    let mut pieces = Vec::with_capacity(words.len());
    let mut at = 0;
    while at < words.len() {
        match longest_value(&words[at..]) {
            Some((slot, value, taken)) => {
                pieces.push(Piece::Value(slot, value));
                at += taken;
            }
            None => {
                pieces.push(Piece::Word(words[at].clone()));
                at += 1;
            }
        }
    }
    pieces
}

/// The slot values by their first word in lower case, the longest first.
static BY_FIRST_WORD: LazyLock<HashMap<String, Vec<(Slot, &'static str)>>> = LazyLock::new(|| {
    let mut index: HashMap<String, Vec<(Slot, &'static str)>> = HashMap::new();
    for slot in Slot::ALL {
        for &value in slot.values() {
            let first = value.split(' ').next().unwrap_or_default().to_lowercase();
            index.entry(first).or_default().push((slot, value));
        }
    }
    for values in index.values_mut() {
        values.sort_by_key(|(_, value)| std::cmp::Reverse(value.split(' ').count()));
    }
    index
});

/// The longest slot value that `words` begins with, and how many words it takes.
fn longest_value(words: &[String]) -> Option<(Slot, &'static str, usize)> {
    BY_FIRST_WORD.get(words.first()?)?.iter().find_map(|&(slot, value)| {
        let taken = value.split(' ').count();
        let fits = taken <= words.len() && value.split(' ').zip(words).all(|(v, w)| v.eq_ignore_ascii_case(w));
        fits.then_some((slot, value, taken))
    })
}

/// One stretch of a template: text that is always there, or an optional group.
fn stretches(template: &str) -> Vec<(bool, &str)> {
    let mut out = Vec::new();
    let mut rest = template;
    while let Some(open) = rest.find('[') {
        let close = rest[open..].find(']').map_or(rest.len(), |c| open + c);
        out.push((false, &rest[..open]));
        out.push((true, &rest[open + 1..close]));
        rest = rest.get(close + 1..).unwrap_or_default();
    }
    out.push((false, rest));
    out
}

/// The slots a template (or a stretch of one) names.
pub(crate) fn slots_of(template: &str) -> Vec<Slot> {
    Slot::ALL.into_iter().filter(|slot| template.contains(&format!("{{{}}}", slot.name()))).collect()
}

/// The slots a template needs: those outside its optional groups.
pub(crate) fn needed(template: &str) -> Vec<Slot> {
    stretches(template).into_iter().filter(|(optional, _)| !optional).flat_map(|(_, s)| slots_of(s)).collect()
}

/// Fills a template with facts. An optional group is written when `wanted` says so and all its slots have a value;
/// a slot without a value that is not optional is written as `stuff`. Every sentence begins with a capital.
pub(crate) fn render(template: &str, facts: &Facts, mut wanted: impl FnMut(Slot) -> bool) -> String {
    let mut out = String::new();
    for (optional, stretch) in stretches(template) {
        if optional && !slots_of(stretch).into_iter().all(|slot| facts.has(slot) && wanted(slot)) {
            continue;
        }
        let mut filled = stretch.to_string();
        for slot in slots_of(stretch) {
            filled = filled.replace(&format!("{{{}}}", slot.name()), facts.value(slot).unwrap_or("stuff"));
        }
        out.push_str(&filled);
    }
    capitalised(out.trim())
}

/// Puts a capital at the beginning of every sentence.
pub(crate) fn capitalised(text: &str) -> String {
    let mut start = true;
    text.chars()
        .map(|c| {
            let shown = if start { c.to_ascii_uppercase() } else { c };
            start = matches!(c, '.' | '?' | '!') || (start && c.is_whitespace());
            shown
        })
        .collect()
}

/// Every form of a template, one for each choice of its optional groups, with the slots left in braces.
pub(crate) fn expansions(template: &str) -> Vec<String> {
    stretches(template).into_iter().fold(vec![String::new()], |forms, (optional, stretch)| {
        let with = forms.iter().map(|form| format!("{form}{stretch}"));
        if optional { with.chain(forms.iter().cloned()).collect() } else { with.collect() }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts {
        let mut facts = Facts::default();
        facts.set(Slot::Who, "roommate");
        facts.set(Slot::Deed, "broke");
        facts.set(Slot::Thing, "bike");
        facts.set(Slot::When, "last week");
        facts
    }

    #[test]
    fn template_is_filled_and_absent_groups_are_left_out() {
        let text = render("[{when} ]my {who} {deed} my[ {amount}] {thing}.", &facts(), |_| true);
        assert_eq!(text, "Last week my roommate broke my bike.");
        let text = render("[{when} ]my {who} {deed} my[ {amount}] {thing}.", &facts(), |_| false);
        assert_eq!(text, "My roommate broke my bike.");
    }

    #[test]
    fn longest_value_wins_and_case_does_not_matter() {
        let read = scan("LAST WEEK, last");
        let word = |w: &str| Piece::Word(w.into());
        assert_eq!(read, [Piece::Value(Slot::When, "last week"), word(","), word("last")]);
    }

    #[test]
    fn expansions_are_two_to_the_number_of_groups() {
        assert_eq!(expansions("a[ b] c[ d]").len(), 4);
        assert!(expansions("a[ b] c").contains(&"a c".to_string()));
    }

    #[test]
    fn capitals_follow_sentence_ends_and_paragraphs() {
        assert_eq!(capitalised("my $20 cat. why?\n\nhelp"), "My $20 cat. Why?\n\nHelp");
    }

    #[test]
    fn garbled_text_is_read_without_panic() {
        for text in ["", "\u{fffd}\u{0}", "{{{", "]]][", "''' $$ ...", "é̀é̀ 東京"] {
            scan(text);
        }
    }
}
