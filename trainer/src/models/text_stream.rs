//! The text of tokens as they come: a character whose bytes are spread over tokens appears when its last byte does.

use super::tokenizer::Tokenizer;
use crate::Result;

/// Turns tokens into text one by one. The pieces together are the text of all tokens, without special ones.
///
/// A decoder may treat the beginning of a text in its own way (drop a space), so a piece is not the text of its tokens
/// but what they add to the text of those just before.
#[derive(Debug)]
pub struct TextStream<'a> {
    tokenizer: &'a Tokenizer,
    ids: Vec<u32>,
    /// Tokens `context..told` are the last whose text was given.
    context: usize,
    told: usize,
}

/// What a decoder writes for bytes that are no character (yet).
const NO_CHARACTER: char = '\u{FFFD}';

impl<'a> TextStream<'a> {
    /// No text yet.
    pub fn new(tokenizer: &'a Tokenizer) -> Self {
        Self { tokenizer, ids: Vec::new(), context: 0, told: 0 }
    }

    /// The text that is certain now that `id` follows; empty while a character is incomplete.
    ///
    /// # Errors
    /// Tokens that the tokenizer cannot put together.
    pub fn push(&mut self, id: u32) -> Result<String> {
        self.ids.push(id);
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
        let before = self.tokenizer.decode(&self.ids[self.context..self.told], true)?;
        let now = self.tokenizer.decode(&self.ids[self.context..], true)?;
        Ok(now.strip_prefix(&before).unwrap_or_default().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_whole_characters_and_make_up_the_text() {
        // Bytes alone: an emoji is four tokens.
        let tokenizer = Tokenizer::train(["ab".to_string()].into_iter(), 258).unwrap();
        let text = "A \u{1F98A} is \u{e9}l\u{e9}gant \u{4f60}\u{597d}, \u{1F468}\u{200D}\u{1F469}!";
        let mut stream = TextStream::new(&tokenizer);
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
        let mut stream = TextStream::new(&tokenizer);
        let pieces: Vec<String> = ids[..3].iter().map(|&id| stream.push(id).unwrap()).collect();
        assert_eq!(pieces, ["x", "", ""]);
        assert_eq!("x".to_string() + &stream.finish().unwrap(), tokenizer.decode(&ids[..3], true).unwrap());
    }
}
