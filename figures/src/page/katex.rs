//! KaTeX inside a page: its style with the fonts in it, its program, and the few lines that call it.

const SCRIPT: &str = include_str!("../../assets/katex/katex.min.js");
const STYLE: &str = include_str!("../../assets/katex/katex.min.css");

/// Without the program (scripts forbidden, an old reader) a formula stays what it is in the file: LaTeX.
const TYPESET: &str = r#"
for (const formula of document.querySelectorAll(".formula")) {
  // not KaTeX's display mode, which never breaks a line
  const style = formula.tagName === "DIV" ? "\\displaystyle " : "";
  katex.render(style + formula.textContent, formula, { throwOnError: false });
}
"#;

macro_rules! fonts {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_bytes!(concat!("../../assets/katex/fonts/KaTeX_", $name, ".woff2")) as &[u8])),*]
    };
}

const FONTS: &[(&str, &[u8])] = fonts![
    "AMS-Regular",
    "Caligraphic-Regular",
    "Main-Bold",
    "Main-Italic",
    "Main-Regular",
    "Math-BoldItalic",
    "Math-Italic",
    "Size1-Regular",
    "Size2-Regular",
    "Size3-Regular",
    "Size4-Regular",
];

/// What goes into a page's head and to its end.
pub(super) struct Typesetting {
    pub style: String,
    pub script: String,
}

/// What a page of these pieces of HTML needs; nothing if there is no formula in them.
pub(super) fn used_in(html: &[&str]) -> Typesetting {
    if !html.iter().any(|html| html.contains("class=\"formula\"")) {
        return Typesetting { style: String::new(), script: String::new() };
    }
    Typesetting {
        style: format!("<style>\n{}\n</style>\n", style_with_fonts()),
        script: format!("<script>\n{SCRIPT}\n</script>\n<script>{TYPESET}</script>\n"),
    }
}

/// KaTeX's style sheet in which the fonts there are stand in the place of their files; those there are not are left out.
fn style_with_fonts() -> String {
    let mut style = String::new();
    for rule in STYLE.split_inclusive('}') {
        if !rule.starts_with("@font-face") {
            style.push_str(rule);
            continue;
        }
        let font = FONTS.iter().find(|(name, _)| rule.contains(&format!("url(fonts/KaTeX_{name}.woff2)")));
        if let Some((_, bytes)) = font {
            let before = &rule[..rule.find("src:").expect("a font-face has a source")];
            style.push_str(&format!("{before}src:url(data:font/woff2;base64,{}) format(\"woff2\")}}", base64(bytes)));
        }
    }
    style
}

/// Bytes in base 64, padded (RFC 4648).
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let bits = three.iter().enumerate().fold(0u32, |bits, (i, &byte)| bits | u32::from(byte) << (16 - 8 * i));
        for digit in 0..4 {
            let value = bits >> (18 - 6 * digit) & 63;
            text.push(if digit <= three.len() { char::from(DIGITS[value as usize]) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base_64_of_known_texts_is_that_of_the_standard() {
        for (plain, coded) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")] {
            assert_eq!(base64(plain.as_bytes()), coded);
        }
        assert_eq!(base64(&[255, 255, 254]), "///+");
    }

    #[test]
    fn every_font_there_is_stands_in_the_style_and_no_file_does() {
        let style = style_with_fonts();
        assert_eq!(style.matches("data:font/woff2;base64,").count(), FONTS.len());
        assert!(!style.contains("url(fonts/"));
        assert!(style.contains(".katex-display"));
    }

    #[test]
    fn program_does_not_end_its_own_element() {
        assert!(!SCRIPT.contains("</script"));
    }
}
