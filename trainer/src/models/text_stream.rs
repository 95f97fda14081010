//! The text of tokens as they come: a character whose bytes are spread over tokens appears when its last byte does.

use super::tokenizer::Tokenizer;
use crate::Result;

/// Tokens of what precedes that are looked at.
const BEFORE: usize = 16;

/// Turns the tokens that follow others into text one by one. The pieces together are the text that they all add, without
/// special ones.
///
/// A decoder may treat the beginning of a text in its own way (drop a space), so a piece is not the text of its tokens
/// but what they add to the text of those just before.
#[derive(Debug)]
pub struct TextStream<'a> {
    tokenizer: &'a Tokenizer,
    ids: Vec<u32>,
    /// Tokens `context..told` are the last whose text was given, or that were there before.
    context: usize,
    told: usize,
}

/// What a decoder writes for bytes that are no character (yet).
const NO_CHARACTER: char = '\u{FFFD}';

impl<'a> TextStream<'a> {
    /// No text yet; what comes follows the tokens `before`.
    pub fn after(tokenizer: &'a Tokenizer, before: &[u32]) -> Self {
        let ids = before[before.len().saturating_sub(BEFORE)..].to_vec();
        Self { tokenizer, context: 0, told: ids.len(), ids }
    }

    /// The text that is certain now that `id` follows; empty while a character is incomplete.
    ///
    /// # Errors
    /// Tokens that the tokenizer cannot put together.
    pub fn push(&mut self, id: u32) -> Result<String> {
        self.ids.push(id);
        if self.tokenizer.is_open(id) {
            return Ok(String::new());
        }
        let new = self.added()?;
        if new.is_empty() || new.ends_with(NO_CHARACTER) {
            return Ok(String::new());
        }
        (self.context, self.told) = (self.told, self.ids.len());
        Ok(new)
    }

    /// What is left when no token follows: bytes that did not become a character.
    ///
    /// # Errors
    /// As [`TextStream::push`].
    pub fn finish(self) -> Result<String> {
        self.added()
    }

    /// What the tokens not told yet add.
    fn added(&self) -> Result<String> {
        added(self.tokenizer, &self.ids[self.context..], self.told - self.context)
    }
}

/// The text that `ids` add to a text that ends with the tokens `before`, without special ones.
///
/// # Errors
/// Tokens that the tokenizer cannot put together.
pub fn continuation(tokenizer: &Tokenizer, before: &[u32], ids: &[u32]) -> Result<String> {
    let before = &before[before.len().saturating_sub(BEFORE)..];
    added(tokenizer, &[before, ids].concat(), before.len())
}

/// What the tokens from `told` on add to the text of those before.
fn added(tokenizer: &Tokenizer, ids: &[u32], told: usize) -> Result<String> {
    let (before, now) = (tokenizer.decode(&ids[..told], true)?, tokenizer.decode(ids, true)?);
    match now.strip_prefix(&before) {
        Some(new) => Ok(new.to_owned()),
        // Bytes before and after make up one run that is no text: only what follows by itself is known.
        None => tokenizer.decode(&ids[told..], true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    #[test]
    fn pieces_are_whole_characters_and_make_up_the_text() {
        // Bytes alone: an emoji is four tokens.
        let tokenizer = Tokenizer::train(["ab".to_string()].into_iter(), 258).unwrap();
        let text = "A \u{1F98A} is \u{e9}l\u{e9}gant \u{4f60}\u{597d}, \u{1F468}\u{200D}\u{1F469}!";
        let mut stream = TextStream::after(&tokenizer, &[]);
        let ids = tokenizer.encode(text).unwrap();
        assert!(ids.len() > text.chars().count());
        let pieces: Vec<String> = ids.iter().map(|&id| stream.push(id).unwrap()).collect();
        assert!(pieces.iter().all(|piece| !piece.contains(NO_CHARACTER)));
        assert_eq!(pieces.iter().filter(|piece| piece.is_empty()).count(), ids.len() - text.chars().count());
        assert_eq!(pieces.concat() + &stream.finish().unwrap(), text);
    }

    #[test]
    fn a_character_that_never_ends_comes_at_the_end() {
        let tokenizer = Tokenizer::train(["ab".to_string()].into_iter(), 258).unwrap();
        let ids = tokenizer.encode("x\u{1F98A}").unwrap();
        let mut stream = TextStream::after(&tokenizer, &[]);
        let pieces: Vec<String> = ids[..3].iter().map(|&id| stream.push(id).unwrap()).collect();
        assert_eq!(pieces, ["x", "", ""]);
        assert_eq!("x".to_string() + &stream.finish().unwrap(), tokenizer.decode(&ids[..3], true).unwrap());
    }

    /// A tokenizer whose decoder drops the first space and turns a run of byte tokens into text as a whole.
    fn byte_fallback() -> Tokenizer {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/vectors/hf/tok/openchat");
        Tokenizer::load(&folder).unwrap()
    }

    #[test]
    fn pieces_of_any_tokens_after_any_others_are_what_all_of_them_add() {
        let tokenizer = byte_fallback();
        let mut rng = ChaCha8Rng::seed_from_u64(11);
        let mut drawn = |n: usize| -> Vec<u32> {
            // Every other token is a byte: runs of them are common, and few are characters.
            (0..n).map(|_| if rng.random() { rng.random_range(3..259) } else { rng.random_range(0..320) }).collect()
        };
        let mut invalid = 0;
        for n in 0..300 {
            let (before, ids) = (drawn(n % 20), drawn(1 + n % 15));
            let mut stream = TextStream::after(&tokenizer, &before);
            let pieces: Vec<String> = ids.iter().map(|&id| stream.push(id).unwrap()).collect();
            let whole = continuation(&tokenizer, &before, &ids).unwrap();
            assert_eq!(pieces.concat() + &stream.finish().unwrap(), whole, "{before:?} {ids:?}");
            invalid += usize::from(whole.contains(NO_CHARACTER));
        }
        assert!(invalid > 50, "{invalid} texts with bytes that are no character");
    }

    #[test]
    fn a_word_that_follows_keeps_its_space() {
        let tokenizer = byte_fallback();
        let ids = tokenizer.encode("a post about a cat").unwrap();
        for cut in 1..ids.len() {
            let (before, after) = ids.split_at(cut);
            let text = tokenizer.decode(before, true).unwrap() + &continuation(&tokenizer, before, after).unwrap();
            assert_eq!(text, "a post about a cat");
        }
    }
}
