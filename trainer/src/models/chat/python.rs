//! What templates expect of Python and minijinja does otherwise: `tojson`, `strftime_now`, `indent`, and the methods of
//! strings that know white space, lines and letters.

use std::time::{SystemTime, UNIX_EPOCH};

use minijinja::value::Kwargs;
use minijinja::{Error, ErrorKind, Value};
use serde_json::Value as Json;

/// `json.dumps` as transformers gives it to templates: nothing escaped for HTML, letters as they are, `", "` and
/// `": "` between things.
pub(super) fn tojson(value: &Value, options: Kwargs) -> Result<Value, Error> {
    let faulty = |what: &str| Error::new(ErrorKind::InvalidOperation, format!("tojson: {what}"));
    let json = serde_json::to_value(value).map_err(|e| faulty(&e.to_string()))?;
    let indent: Option<usize> = options.get("indent")?;
    if indent.is_some_and(|width| width > 16) {
        return Err(faulty("indent: expected at most 16"));
    }
    let separators: Option<Vec<String>> = options.get("separators")?;
    let (between, after_key) = match separators.as_deref() {
        Some([between, after_key]) if between.len().max(after_key.len()) <= 16 => (between.clone(), after_key.clone()),
        Some(_) => return Err(faulty("separators: expected two short strings")),
        None => (if indent.is_some() { "," } else { ", " }.into(), ": ".into()),
    };
    let style = Style {
        between,
        after_key,
        indent,
        ascii: options.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false),
        sorted: options.get::<Option<bool>>("sort_keys")?.unwrap_or(false),
    };
    options.assert_all_used()?;
    let mut text = String::new();
    style.write(&json, 0, &mut text);
    Ok(Value::from(text))
}

/// How JSON is laid out.
struct Style {
    between: String,
    after_key: String,
    indent: Option<usize>,
    ascii: bool,
    sorted: bool,
}

impl Style {
    fn write(&self, json: &Json, depth: usize, out: &mut String) {
        match json {
            Json::String(text) => self.quote(text, out),
            Json::Array(items) if !items.is_empty() => {
                self.enclose('[', ']', depth, out, items.iter(), |item, out| self.write(item, depth + 1, out));
            }
            Json::Object(map) if !map.is_empty() => {
                let mut pairs: Vec<_> = map.iter().collect();
                if self.sorted {
                    pairs.sort_by_key(|(key, _)| *key);
                }
                self.enclose('{', '}', depth, out, pairs.into_iter(), |(key, value), out| {
                    self.quote(key, out);
                    out.push_str(&self.after_key);
                    self.write(value, depth + 1, out);
                });
            }
            plain => out.push_str(&plain.to_string()),
        }
    }

    fn enclose<T>(
        &self,
        open: char,
        close: char,
        depth: usize,
        out: &mut String,
        items: impl Iterator<Item = T>,
        write: impl Fn(T, &mut String),
    ) {
        let new_line = |depth: usize, out: &mut String| {
            if let Some(width) = self.indent {
                out.push('\n');
                out.extend(std::iter::repeat_n(' ', width * depth));
            }
        };
        out.push(open);
        for (i, item) in items.enumerate() {
            if i > 0 {
                out.push_str(&self.between);
            }
            new_line(depth + 1, out);
            write(item, out);
        }
        new_line(depth, out);
        out.push(close);
    }

    fn quote(&self, text: &str, out: &mut String) {
        let quoted = Json::from(text).to_string();
        for letter in quoted.chars() {
            if self.ascii && !letter.is_ascii() {
                let mut units = [0; 2];
                letter.encode_utf16(&mut units).iter().for_each(|unit| out.push_str(&format!("\\u{unit:04x}")));
            } else {
                out.push(letter);
            }
        }
    }
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

/// The time now, in UTC, as Python's `strftime` writes it.
pub(super) fn strftime_now(format: &str) -> Result<String, Error> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    strftime(now, format)
}

/// `seconds` since 1970 as `format` says.
fn strftime(seconds: u64, format: &str) -> Result<String, Error> {
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    let first_of_year = (0..=days).map(|back| days - back).take_while(|&d| civil(d).0 == year).count();
    let (hour, minute) = (second / 3600, second / 60 % 60);
    let (month_name, day_name) = (MONTHS[month as usize - 1], DAYS[((days + 4) % 7) as usize]); // 1970-01-01: a Thursday
    let mut text = String::new();
    let mut letters = format.chars();
    while let Some(letter) = letters.next() {
        if letter != '%' {
            text.push(letter);
            continue;
        }
        let (bare, directive) = match letters.next() {
            Some('-') => (true, letters.next()),
            directive => (false, directive),
        };
        let two = |n: u64| if bare { n.to_string() } else { format!("{n:02}") };
        text.push_str(&match directive {
            Some('Y') => year.to_string(),
            Some('y') => two(year % 100),
            Some('m') => two(month),
            Some('d') => two(day),
            Some('H') => two(hour),
            Some('I') => two((hour + 11) % 12 + 1),
            Some('M') => two(minute),
            Some('S') => two(second % 60),
            Some('p') => if hour < 12 { "AM" } else { "PM" }.into(),
            Some('j') => format!("{first_of_year:03}"),
            Some('B') => month_name.into(),
            Some('b') => month_name[..3].into(),
            Some('A') => day_name.into(),
            Some('a') => day_name[..3].into(),
            Some('%') => "%".into(),
            other => {
                let what = format!("strftime_now: %{} is not supported", other.map_or(String::new(), String::from));
                return Err(Error::new(ErrorKind::InvalidOperation, what));
            }
        });
    }
    Ok(text)
}

/// Year, month and day of a day since 1970-01-01 in the Gregorian calendar.
fn civil(days: u64) -> (u64, u64, u64) {
    // The year starts in March here, so that the leap day is its last.
    let from_0000_03_01 = days + 719_468;
    let (era, of_era) = (from_0000_03_01 / 146_097, from_0000_03_01 % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153; // 0 is March
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year + u64::from(month <= 2), month, day)
}

/// A method of strings where Python's notion differs from Rust's; none where it does not.
pub(super) fn method(name: &str, text: &str, arguments: &[Value]) -> Option<Value> {
    match (name, arguments) {
        ("title", []) => Some(title(text).into()),
        ("strip", []) => Some(text.trim_matches(is_space).into()),
        ("lstrip", []) => Some(text.trim_start_matches(is_space).into()),
        ("rstrip", []) => Some(text.trim_end_matches(is_space).into()),
        ("split", []) => Some(text.split(is_space).filter(|part| !part.is_empty()).map(Value::from).collect()),
        ("splitlines", []) => Some(lines(text).into_iter().map(Value::from).collect()),
        _ => None,
    }
}

/// `str.isspace`: Unicode's white space, and the separators of ASCII.
fn is_space(letter: char) -> bool {
    letter.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&letter)
}

/// `str.splitlines`.
fn lines(text: &str) -> Vec<&str> {
    let ends = |c: char| matches!(c, '\n'..='\r' | '\u{1c}'..='\u{1e}' | '\u{85}' | '\u{2028}' | '\u{2029}');
    let mut lines = Vec::new();
    let mut rest = text;
    while let Some(end) = rest.find(ends) {
        lines.push(&rest[..end]);
        let after = &rest[end..];
        let width = if after.starts_with("\r\n") { 2 } else { after.chars().next().map_or(0, char::len_utf8) };
        rest = &after[width..];
    }
    if !rest.is_empty() {
        lines.push(rest);
    }
    lines
}

/// The filter `trim`.
pub(super) fn trim(text: &Value, letters: Option<&str>) -> String {
    let text = text.as_str().map_or_else(|| text.to_string().into(), std::borrow::Cow::Borrowed);
    match letters {
        Some(letters) => text.trim_matches(|c| letters.contains(c)).to_owned(),
        None => text.trim_matches(is_space).to_owned(),
    }
}

/// The filter `indent`: `width` spaces before every line but the first, and but empty ones, unless asked for.
pub(super) fn indent(text: &str, width: Option<usize>, first: Option<bool>, blank: Option<bool>) -> String {
    let margin = " ".repeat(width.unwrap_or(4));
    let (first, blank) = (first.unwrap_or(false), blank.unwrap_or(false));
    // A last newline keeps its empty line, as in Jinja.
    let text = format!("{text}\n");
    let indented = lines(&text).into_iter().enumerate().map(|(i, line)| match i {
        0 if first => format!("{margin}{line}"),
        0 => line.to_owned(),
        _ if line.is_empty() && !blank => String::new(),
        _ => format!("{margin}{line}"),
    });
    indented.collect::<Vec<_>>().join("\n")
}

/// `str.title`: a capital at the beginning of every run of letters that have a case.
fn title(text: &str) -> String {
    let mut inside = false;
    let mut titled = String::with_capacity(text.len());
    for letter in text.chars() {
        match inside {
            true => titled.extend(letter.to_lowercase()),
            false => titled.extend(letter.to_uppercase()),
        }
        inside = letter.is_lowercase() || letter.is_uppercase();
    }
    titled
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(strftime(0, "%a %d %b %Y %H:%M:%S %j %%").unwrap(), "Thu 01 Jan 1970 00:00:00 001 %");
        let leap_day = 1_709_251_199; // date -u -d @1709251199
        assert_eq!(strftime(leap_day, "%A %-d %B %y %I:%M %p %j").unwrap(), "Thursday 29 February 24 11:59 PM 060");
        assert_eq!(strftime(4_107_542_400, "%Y-%m-%d").unwrap(), "2100-03-01");
        assert!(strftime(0, "%Q").is_err() && strftime(0, "%").is_err());
    }

    #[test]
    fn lines_spaces_and_margins_are_python_s() {
        assert_eq!(lines("a\r\nb\rc\u{2028}\n"), ["a", "b", "c", ""]);
        assert_eq!(method("strip", "\u{1c} x\u{a0}\n", &[]).unwrap().as_str(), Some("x"));
        assert_eq!(method("strip", "x", &["x".into()]), None);
        assert_eq!(indent("a\nb\n\nc\n", Some(2), None, None), "a\n  b\n\n  c\n");
        assert_eq!(indent("a\n\nb", Some(1), Some(true), Some(true)), " a\n \n b");
        assert_eq!(trim(&Value::from(" -x- "), None), "-x-");
        assert_eq!(trim(&Value::from("-x-"), Some("-")), "x");
    }

    #[test]
    fn titles_are_python_s() {
        assert_eq!(title("tool_response user's GPT4x"), "Tool_Response User'S Gpt4X");
    }
}
