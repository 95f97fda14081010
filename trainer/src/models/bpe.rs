//! Learning the merges of byte-pair encoding (Sennrich et al. 2016, arXiv 1508.07909).
//!
//! Written here rather than taken from the tokenizers crate because that one's queue orders equal candidates by a hash
//! map's walk, and its result may differ from run to run; this one is a function of the counts.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// Two neighbouring tokens.
type Pair = (u32, u32);

/// A learned vocabulary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Merges {
    /// Tokens in the order of their ids.
    pub tokens: Vec<String>,
    /// Pairs to merge, first things first.
    pub merges: Vec<(String, String)>,
}

/// A word as its tokens so far, and how often it was seen.
struct Word {
    tokens: Vec<u32>,
    count: u64,
}

impl Word {
    fn pairs(&self) -> impl Iterator<Item = Pair> {
        self.tokens.windows(2).map(|pair| (pair[0], pair[1]))
    }

    /// Replaces `pair` by `token`, from the left.
    fn merge(&mut self, pair: Pair, token: u32) {
        let mut merged = Vec::with_capacity(self.tokens.len());
        let mut rest = self.tokens.as_slice();
        while let [first, tail @ ..] = rest {
            if *first == pair.0 && tail.first() == Some(&pair.1) {
                merged.push(token);
                rest = &tail[1..];
            } else {
                merged.push(*first);
                rest = tail;
            }
        }
        self.tokens = merged;
    }
}

/// How often each pair occurs, and in which words.
#[derive(Default)]
struct Pairs {
    counts: HashMap<Pair, u64>,
    words: HashMap<Pair, HashSet<usize>>,
    /// Pairs that must not be merged.
    forbidden: HashSet<Pair>,
}

impl Pairs {
    fn add(&mut self, index: usize, word: &Word) {
        for pair in word.pairs() {
            *self.counts.entry(pair).or_default() += word.count;
            self.words.entry(pair).or_default().insert(index);
        }
    }

    fn remove(&mut self, index: usize, word: &Word) {
        for pair in word.pairs() {
            if let Some(count) = self.counts.get_mut(&pair) {
                *count -= word.count;
                if *count == 0 {
                    self.counts.remove(&pair);
                    self.words.remove(&pair);
                }
            }
            if let Some(words) = self.words.get_mut(&pair) {
                words.remove(&index);
            }
        }
    }

    /// The most frequent pair; of equals the one of the oldest tokens. `None` when none is left.
    fn best(&self) -> Option<Pair> {
        let allowed = self.counts.iter().filter(|(pair, _)| !self.forbidden.contains(pair));
        allowed.map(|(&pair, &count)| (count, Reverse(pair))).max().map(|(_, Reverse(pair))| pair)
    }
}

/// Learns merges from `words` (with counts) until the vocabulary has `size` tokens or no pair is left. It begins with
/// `special`, which no merge may produce, and with the characters of `alphabet` in order; characters of words outside
/// the alphabet are dropped.
pub fn learn(words: &BTreeMap<String, u64>, special: &str, alphabet: &BTreeSet<char>, size: usize) -> Merges {
    let mut tokens: Vec<String> = vec![special.into()];
    tokens.extend(alphabet.iter().map(char::to_string));
    let mut ids: HashMap<String, u32> = tokens.iter().cloned().zip(0..).collect();
    let mut pairs = Pairs::default();
    let mut split = Vec::with_capacity(words.len());
    for (text, &count) in words {
        let tokens = text.chars().filter_map(|c| ids.get(c.encode_utf8(&mut [0; 4]) as &str).copied()).collect();
        let word = Word { tokens, count };
        pairs.add(split.len(), &word);
        split.push(word);
    }
    let mut merges = Vec::new();
    let mut merged = HashSet::new();
    while tokens.len() < size {
        let Some(pair) = pairs.best() else { break };
        let text = format!("{}{}", tokens[pair.0 as usize], tokens[pair.1 as usize]);
        if text == special {
            pairs.forbidden.insert(pair);
            continue;
        }
        // Two ways of joining the same characters make one token.
        let token = *ids.entry(text.clone()).or_insert(tokens.len() as u32);
        if token as usize == tokens.len() {
            tokens.push(text);
        }
        if merged.insert(pair) {
            merges.push((tokens[pair.0 as usize].clone(), tokens[pair.1 as usize].clone()));
        }
        for index in pairs.words.get(&pair).cloned().unwrap_or_default() {
            pairs.remove(index, &split[index]);
            split[index].merge(pair, token);
            pairs.add(index, &split[index]);
        }
    }
    Merges { tokens, merges }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(words: &[(&str, u64)]) -> BTreeMap<String, u64> {
        words.iter().map(|&(word, count)| (word.into(), count)).collect()
    }

    #[test]
    fn the_most_frequent_pair_is_merged_first_and_equals_by_age() {
        // ab: 5, bc: 4, then (ab)c: 4; xy and yx tie at 1 and x is not after y.
        let words = counts(&[("abc", 4), ("ab", 1), ("yx", 1), ("xy", 1)]);
        let learned = learn(&words, "!", &"abcxy".chars().collect(), 10);
        assert_eq!(learned.tokens, ["!", "a", "b", "c", "x", "y", "ab", "abc", "xy", "yx"]);
        let pair = |a: &str, b: &str| (a.to_string(), b.to_string());
        assert_eq!(learned.merges, [pair("a", "b"), pair("ab", "c"), pair("x", "y"), pair("y", "x")]);
    }

    #[test]
    fn runs_of_one_letter_count_and_merge_from_the_left() {
        let learned = learn(&counts(&[("aaaaa", 1)]), "!", &"a".chars().collect(), 100);
        // aa aa a: of (aa, aa) and (aa, a), once each, the older tokens win.
        assert_eq!(learned.tokens, ["!", "a", "aa", "aaa", "aaaaa"]);
    }

    #[test]
    fn no_merge_makes_the_special_token() {
        let learned = learn(&counts(&[("abab", 9), ("cab", 1)]), "ab", &"abc".chars().collect(), 100);
        assert!(learned.tokens.iter().skip(1).all(|token| token != "ab"));
        assert_eq!(learned.tokens, ["ab", "a", "b", "c", "ba", "aba", "abab", "ca", "cab"]);
    }
}
