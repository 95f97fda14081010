//! A notebook as one plain program: all cells, in order, in one `main`, against the facade that cargo has built for
//! this test. Compile errors, panics and a top-level `?` then are what they are in any program.

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::{env, fs};

/// How a program ended, and what rustc and the program printed.
pub struct Run {
    pub passed: bool,
    pub output: String,
}

/// The code cells that are meant to succeed, without the lines that only the kernel knows.
pub fn cells(path: &Path) -> Vec<String> {
    let notebook: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    let is_program = |cell: &&Value| {
        let tags = cell["metadata"]["tags"].as_array().cloned().unwrap_or_default();
        cell["cell_type"] == "code" && !tags.iter().any(|tag| tag == "raises-exception" || tag == "skip-execution")
    };
    notebook["cells"].as_array().unwrap().iter().filter(is_program).map(|cell| plain(&source(cell))).collect()
}

/// A cell's text, which a notebook may keep as one string or as lines.
fn source(cell: &Value) -> String {
    match &cell["source"] {
        Value::Array(lines) => lines.iter().map(|line| line.as_str().unwrap()).collect(),
        text => text.as_str().unwrap().to_string(),
    }
}

/// The cell with its kernel commands (`:dep ...`) made blank, so that line numbers stay.
fn plain(cell: &str) -> String {
    cell.lines().map(|line| if line.starts_with(':') { "" } else { line }).collect::<Vec<_>>().join("\n")
}

/// Compiles and runs `cells` as the program `name`.
pub fn run(name: &str, cells: &[String]) -> Run {
    let mut text = String::from("#![allow(warnings)]\nfn main() -> Result<(), Box<dyn std::error::Error>> {\n");
    for (n, cell) in cells.iter().enumerate() {
        text += &format!("// ---- code cell {n}\n{cell}\n;\n");
    }
    text += "Ok(())\n}\n";

    let folder = deps().parent().unwrap().join("notebook-programs");
    fs::create_dir_all(&folder).unwrap();
    let file = folder.join(format!("{name}.rs"));
    fs::write(&file, text).unwrap();
    let program = folder.join(name);
    let compiled = compile(&file, &program);
    if !compiled.status.success() {
        return Run { passed: false, output: String::from_utf8_lossy(&compiled.stderr).into_owned() };
    }
    let ran =
        Command::new(&program).current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("notebooks")).output().unwrap();
    let output = String::from_utf8_lossy(&[ran.stdout, ran.stderr].concat()).into_owned();
    Run { passed: ran.status.success(), output }
}

/// Where cargo has put this test, and beside it the facade and everything below it.
fn deps() -> PathBuf {
    env::current_exe().unwrap().parent().unwrap().to_path_buf()
}

/// Nothing but `main` is compiled: this takes a second.
fn compile(file: &Path, program: &Path) -> Output {
    let library = deps().join("librebel_notebook.rlib");
    Command::new("rustc")
        .args(["--edition", "2024", "-C", "opt-level=1", "-C", "overflow-checks=on", "-C", "debug-assertions=on"])
        .arg("-L")
        .arg(format!("dependency={}", deps().display()))
        .arg("--extern")
        .arg(format!("rebel_notebook={}", library.display()))
        .arg("-o")
        .args([program, file])
        .output()
        .unwrap()
}
