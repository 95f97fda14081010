//! Formulas in doc comments and claims, before a browser sees them: whole, distinct after Markdown, and ones KaTeX can read.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A formula and where it stands.
struct Formula {
    latex: String,
    place: String,
}

fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// The sources whose documentation is built, as `scripts/rustdoc.sh` lists them.
fn sources() -> Vec<PathBuf> {
    let mut found = vec![];
    let mut folders: Vec<PathBuf> =
        ["src", "theory/src", "trainer/src", "figures/src", "notebooks/facade/src"].map(|f| workspace().join(f)).into();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// The doc comments of a source: the line each begins at, and its lines without their markers.
fn doc_comments(source: &str) -> Vec<(usize, Vec<&str>)> {
    let mut comments: Vec<(usize, Vec<&str>)> = vec![];
    let mut open = false;
    for (n, line) in source.lines().enumerate() {
        let line = line.trim_start();
        let text = line.strip_prefix("//!").or_else(|| line.strip_prefix("///"));
        match (text, open) {
            (Some(text), false) => comments.push((n + 1, vec![text])),
            (Some(text), true) => comments.last_mut().expect("an open comment").1.push(text),
            (None, _) => {}
        }
        open = text.is_some();
    }
    comments
}

fn documented() -> Vec<Formula> {
    let mut formulas = vec![];
    for path in sources() {
        let source = std::fs::read_to_string(&path).unwrap();
        let shown = path.strip_prefix(workspace()).unwrap().display().to_string();
        for (line, comment) in doc_comments(&source) {
            let text = comment.join("\n");
            let parts: Vec<&str> = text.split("$$").collect();
            assert!(parts.len() % 2 == 1, "{shown}:{line}: a formula is opened and not closed");
            let inside = parts.iter().skip(1).step_by(2);
            formulas.extend(inside.map(|latex| Formula { latex: latex.to_string(), place: format!("{shown}:{line}") }));
        }
    }
    assert!(formulas.len() > 100, "only {} formulas were found", formulas.len());
    formulas
}

fn of_claims() -> impl Iterator<Item = Formula> {
    let all = rebel_theory::claims::all().into_iter();
    all.map(|claim| Formula { latex: claim.formula.to_owned(), place: format!("claim {}", claim.id) })
}

/// What is wrong with a formula as one piece of LaTeX within one paragraph of Markdown.
fn complaint(latex: &str) -> Option<String> {
    let mut depth = 0i64;
    let mut escaped = false;
    for letter in latex.chars() {
        match letter {
            '{' if !escaped => depth += 1,
            '}' if !escaped => depth -= 1,
            _ => {}
        }
        if depth < 0 {
            return Some("a brace is closed before it is opened".into());
        }
        escaped = letter == '\\' && !escaped;
    }
    if depth != 0 {
        return Some("a brace is not closed".into());
    }
    // fonts that are not in figures/assets/katex
    if let Some(font) = ["\\mathfrak", "\\mathscr", "\\mathsf", "\\mathtt"].iter().find(|font| latex.contains(*font)) {
        return Some(format!("{font}: that font is not shipped"));
    }
    let continued = latex.lines().skip(1).map(str::trim_start);
    for line in continued {
        let begins = |markers: &[&str]| markers.iter().any(|marker| line.starts_with(marker));
        if line.is_empty() || begins(&["- ", "+ ", "* ", "> ", "# ", "=", "|", "```"]) {
            return Some(format!("Markdown ends the paragraph before {line:?}"));
        }
    }
    None
}

/// What Markdown leaves of a formula, as `docs/rustdoc/formulas.html` compares it.
fn key(latex: &str) -> String {
    latex.chars().filter(|c| !"\\_*".contains(*c) && !c.is_whitespace()).collect()
}

#[test]
fn every_formula_is_whole_and_within_one_paragraph() {
    let wrong: Vec<String> = documented()
        .into_iter()
        .chain(of_claims())
        .filter_map(|formula| Some(format!("{}: {}: {}", formula.place, complaint(&formula.latex)?, formula.latex)))
        .collect();
    assert_eq!(wrong, [""; 0]);
}

#[test]
fn what_markdown_leaves_of_a_formula_tells_it_from_every_other() {
    let mut known: BTreeMap<String, Formula> = BTreeMap::new();
    let spaced = |latex: &str| latex.split_whitespace().collect::<String>();
    for formula in documented() {
        if let Some(other) = known.get(&key(&formula.latex)) {
            let same = spaced(&other.latex) == spaced(&formula.latex);
            assert!(same, "{} and {} look alike:\n{}\n{}", other.place, formula.place, other.latex, formula.latex);
        }
        known.insert(key(&formula.latex), formula);
    }
}

#[test]
fn complaints_find_what_is_broken() {
    for broken in ["\\frac{a}{b", "a}{b", "a\n\nb", "a\n- b", "a\n= b", "\\mathfrak{g}"] {
        assert!(complaint(broken).is_some(), "{broken}");
    }
    for whole in ["\\frac{a}{b}", "\\{a", "a\n-b", "x\n\\quad y"] {
        assert_eq!(complaint(whole), None, "{whole}");
    }
    assert_eq!(doc_comments("//! a\n//! b\n\nfn f() {}\n/// c"), [(1, vec![" a", " b"]), (5, vec![" c"])]);
}

/// Needs node, which the project does not ask for; the KaTeX is the one that is shipped.
#[test]
fn katex_reads_every_formula() {
    const SCRIPT: &str = "
        const katex = require(process.argv[1]);
        const formulas = JSON.parse(require('fs').readFileSync(0, 'utf8'));
        for (const [place, latex] of formulas) {
          try { katex.renderToString(latex, { strict: 'error', displayMode: true }); }
          catch (error) { console.log(`${place}: ${error.message}`); }
        }";
    let katex = workspace().join("figures/assets/katex/katex.min.js");
    let spawned = Command::new("node")
        .args(["-e", SCRIPT])
        .arg(&katex)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut node) = spawned else {
        println!("skipped: no node to run KaTeX with (type: apt-get install nodejs)");
        return;
    };
    let formulas: Vec<(String, String)> =
        documented().into_iter().chain(of_claims()).map(|f| (f.place, f.latex)).collect();
    let json = serde_json::to_vec(&formulas).unwrap();
    node.stdin.take().unwrap().write_all(&json).unwrap();
    let output = node.wait_with_output().unwrap();
    let [said, complained] = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    assert!(output.status.success(), "{complained}");
    assert_eq!(said, "");
}
