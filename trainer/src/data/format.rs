//! The text of a TL;DR example: prompt, response, and how a prompt that is too long is cut.

/// What ends every response; in the published tokenizer the token with id 0.
pub const END_OF_TEXT: &str = "<|endoftext|>";

/// The TL;DR prompt, without a trailing space: the response begins with one.
///
/// `prompt("pets", "My cat", "It ran.")` is `SUBREDDIT: r/pets\n\nTITLE: My cat\n\nPOST: It ran.\n\nTL;DR:`.
pub fn prompt(subreddit: &str, title: &str, post: &str) -> String {
    format!("SUBREDDIT: r/{subreddit}\n\nTITLE: {title}\n\nPOST: {post}\n\nTL;DR:")
}

/// The response that follows a prompt: a space, the summary, the end of text.
pub fn response(summary: &str) -> String {
    format!(" {summary}{END_OF_TEXT}")
}

/// A prompt of at most `most` tokens by `length`. While it is longer, the post is cut before its last newline or, where
/// it has none, by its last character; what the published preprocessing does.
///
/// Returns `None` where even the empty post is too long.
pub fn fitted_prompt(
    subreddit: &str,
    title: &str,
    post: &str,
    most: usize,
    length: impl Fn(&str) -> usize,
) -> Option<String> {
    let mut post = post;
    loop {
        let text = prompt(subreddit, title, post);
        if length(&text) <= most {
            return Some(text);
        }
        let cut = match post.rfind('\n') {
            Some(newline) => newline,
            None => post.char_indices().next_back()?.0,
        };
        post = &post[..cut];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> usize {
        text.split_whitespace().count()
    }

    #[test]
    fn prompt_that_fits_is_kept_whole() {
        let whole = prompt("pets", "a cat", "it ran.\n\nhelp");
        assert_eq!(fitted_prompt("pets", "a cat", "it ran.\n\nhelp", words(&whole), words), Some(whole));
    }

    #[test]
    fn long_prompt_loses_whole_lines_first_and_then_characters() {
        // SUBREDDIT: r/s TITLE: t POST: + 4 words + TL;DR: = 10 words.
        let fit = |most| fitted_prompt("s", "t", "one two\nthree four", most, words).unwrap();
        assert_eq!(fit(10), prompt("s", "t", "one two\nthree four"));
        assert_eq!(fit(9), prompt("s", "t", "one two"));
        assert_eq!(fit(7), prompt("s", "t", "one "));
    }

    #[test]
    fn prompt_whose_frame_is_too_long_is_refused() {
        assert_eq!(fitted_prompt("s", "a very long title", "post", 3, words), None);
    }

    #[test]
    fn characters_of_several_bytes_are_cut_whole() {
        let cut = fitted_prompt("s", "t", "ab東京", prompt("s", "t", "ab東").len(), str::len);
        assert_eq!(cut, Some(prompt("s", "t", "ab東")));
    }
}
