//! The notebooks' two gates: every notebook as one plain program, and every notebook in the real kernel, without a
//! browser. Both are shown to fail where a cell fails.
//!
//! The kernel's tests need what `make test` and `make notebooks` install; without it they are skipped by name.

#[path = "notebooks/kernel.rs"]
mod kernel;
#[path = "notebooks/program.rs"]
mod program;

use kernel::{Kernel, notebook};
use std::fs;
use std::path::{Path, PathBuf};

/// The dependency lines of notebooks with and without the trainer.
const TRAIN: &str = ":dep rebel-notebook = { path = \"facade\" }";
const LIGHT: &str = ":dep rebel-notebook = { path = \"facade\", default-features = false }";

/// The folder of the notebooks.
fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("notebooks")
}

/// Every notebook of the course, in order.
fn notebooks() -> Vec<PathBuf> {
    let mut paths: Vec<_> = fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "ipynb"));
    paths.sort();
    assert!(!paths.is_empty(), "no notebook in {}", folder().display());
    paths
}

#[test]
fn every_notebook_runs_as_a_plain_program() {
    for path in notebooks() {
        let cells = program::cells(&path);
        assert!(cells.len() > 3, "{}: only {} cells", path.display(), cells.len());
        let run = program::run(path.file_stem().unwrap().to_str().unwrap(), &cells);
        assert!(run.passed, "{}\n{}", path.display(), run.output);
    }
}

#[test]
fn plain_program_fails_where_a_cell_fails() {
    let start = "use rebel_notebook::*;\nstart();";
    let run = |name, cell: &str| program::run(name, &[start.into(), cell.into()]);

    assert!(run("fine", "let one: usize = \"1\".parse()?;").passed);
    let check = run("check", "check_3(1);");
    assert!(!check.passed && check.output.contains("exercise 3: not yet"), "{}", check.output);
    let mark = run("question-mark", "let one: usize = \"one\".parse()?;");
    assert!(!mark.passed && mark.output.contains("InvalidDigit"), "{}", mark.output);
    let mistake = run("type-error", "let one: usize = \"one\";");
    assert!(!mistake.passed && mistake.output.contains("mismatched types"), "{}", mistake.output);
}

#[test]
fn every_notebook_runs_in_the_kernel_and_gives_the_committed_outputs() {
    let Some(kernel) = Kernel::find("every_notebook_runs_in_the_kernel_and_gives_the_committed_outputs") else {
        return;
    };
    for path in notebooks() {
        let run = kernel.check(&path, &["--compare", "-v"]);
        println!("{}", run.output);
        assert_eq!(run.code, 0, "{}", run.output);
    }
    kernel.assert_rustup_was_only_asked_which();
}

#[test]
fn failing_cell_fails_the_check() {
    let Some(kernel) = Kernel::find("failing_cell_fails_the_check") else { return };
    let fails = |name: &str, cells: &[&str], reason: &str| {
        let run = kernel.check(&kernel.write(name, &notebook("rebel-rust-light", cells)), &[]);
        assert_eq!(run.code, 1, "{name}: {}", run.output);
        assert!(run.output.contains(reason), "{name}: {}", run.output);
    };
    fails("panic", &["panic!(\"this cell panics\");", "1 + 1"], "cell 0: the cell stopped before its end");
    fails("question-mark", &["let one: usize = \"one\".parse()?;"], "cell 0: the cell stopped before its end");
    fails("return", &["let x: usize = 1; if x == 1 { return; }"], "left early");
    fails("type-error", &["let one: usize = 1;", "let two: usize = \"two\";"], "cell 1: the kernel reported an error");
}

#[test]
fn check_of_a_wrong_answer_shows_one_line_and_fails() {
    let Some(kernel) = Kernel::find("check_of_a_wrong_answer_shows_one_line_and_fails") else { return };
    let import = format!("{LIGHT}\nuse rebel_notebook::*;\nstart();");
    let cells = [import.as_str(), "check_3(12);", "check_3(1);"];
    let run = kernel.check(&kernel.write("wrong-answer", &notebook("rebel-rust-light", &cells)), &[]);
    assert_eq!(run.code, 1, "{}", run.output);
    assert!(run.output.contains("cell 2: the cell stopped before its end"), "{}", run.output);
    // What follows the cell's own output is the kernel's farewell on its standard error.
    let below = run.output.lines().skip_while(|line| !line.contains("output:")).skip(1);
    let shown: Vec<_> = below.take_while(|line| line.trim_start().starts_with('|')).collect();
    assert_eq!(shown.len(), 1, "{}", run.output);
    assert!(shown[0].contains("| exercise 3: not yet. After 1 steps"), "{}", run.output);
}

/// Two variables made in one cell and used in the next: with a second copy of candle's counter their ids would meet
/// again, and `backward` would add up the gradients of unrelated tensors without an error.
#[test]
fn gradients_are_right_across_cells() {
    let Some(kernel) = Kernel::find("gradients_are_right_across_cells") else { return };
    let import = format!("{TRAIN}\nuse rebel_notebook::*;\nuse candle_core::{{Device, Tensor, Var}};\nstart();");
    let variables = "let a: Var = Var::new(&[0.3f64, -0.7], &Device::Cpu)?;\n\
                     let b: Var = Var::new(&[1.1f64, 0.4], &Device::Cpu)?;";
    let function = "fn f(a: &Tensor, b: &Tensor) -> candle_core::Result<Tensor> {\n    \
                    ((a.tanh()? * b)?.sqr()? + (a * 0.5)?)?.sum_all()\n}";
    let gradient = "let gradients = f(&a, &b)?.backward()?;\n\
                    let da: Vec<f64> = gradients.get(&a).expect(\"a gradient of a\").to_vec1()?;\n\
                    let db: Vec<f64> = gradients.get(&b).expect(\"a gradient of b\").to_vec1()?;";
    let by_hand = "for (i, (x, y)) in [(0.3f64, 1.1f64), (-0.7, 0.4)].into_iter().enumerate() {\n    \
                   let t = x.tanh();\n    \
                   assert!((da[i] - (2.0 * y * y * t * (1.0 - t * t) + 0.5)).abs() < 1e-12, \"da {da:?}\");\n    \
                   assert!((db[i] - 2.0 * y * t * t).abs() < 1e-12, \"db {db:?}\");\n}";
    let ids = "let c: Var = Var::new(0f64, &Device::Cpu)?;\nassert!(c.id() != a.id() && c.id() != b.id());";
    let cells = [import.as_str(), variables, function, gradient, by_hand, ids];
    let run = kernel.check(&kernel.write("statics", &notebook("rebel-rust", &cells)), &[]);
    assert_eq!(run.code, 0, "{}", run.output);
}

/// Seconds from the kernel's start to the first picture, in a slot that is built, were wanted below 10 and, with
/// candle, 12. The test allows for a busy machine; the line it prints has the number.
#[test]
fn first_picture_comes_soon_after_the_start() {
    let Some(kernel) = Kernel::find("first_picture_comes_soon_after_the_start") else { return };
    let picture = "let points: Vec<(f64, f64)> = (0..50).map(|x| (x as f64, (x * x) as f64)).collect();\n\
                   let parabola: Figure = Figure::line_plot(\"x\", \"y\")\n    \
                   .line(Role::Measured, \"square\", &points).draw()?;\n\
                   parabola";
    for (name, dependency, wanted) in [("rebel-rust-light", LIGHT, 10.0), ("rebel-rust", TRAIN, 12.0)] {
        let import = format!("{dependency}\nuse rebel_notebook::*;\nuse figures::{{Figure, Role}};\nstart();");
        let path = kernel.write(name, &notebook(name, &[&import, picture]));
        kernel.check(&path, &[]); // the slot is copied here, where it is not there yet
        let run = kernel.check(&path, &[]);
        assert_eq!(run.code, 0, "{}", run.output);
        let after = run.output.split("first picture after ").nth(1).and_then(|rest| rest.split(' ').next());
        let seconds: f64 = after.expect(&run.output).parse().unwrap();
        println!("{name}: first picture after {seconds} s (wanted: {wanted} s on an idle machine)");
        assert!(seconds < 4.0 * wanted, "{name}: {seconds} s");
    }
}

#[test]
fn launcher_without_a_seed_refuses_in_one_line() {
    let home = tempfile::tempdir().unwrap();
    let answer = std::process::Command::new(folder().join("launch"))
        .arg("connection.json")
        .env("REBEL_KERNEL_HOME", home.path())
        .env("REBEL_EVCXR", "/bin/true")
        .output()
        .unwrap();
    let text = String::from_utf8(answer.stderr).unwrap();
    assert_eq!(answer.status.code(), Some(1));
    assert!(text.lines().count() == 1 && text.contains("is not built") && text.contains("make notebooks"), "{text}");
}
