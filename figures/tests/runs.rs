//! Figures of made-up runs: what is drawn, what is skipped and why, and that nothing is cut.

use std::path::{Path, PathBuf};

use rebel_figures::{Figure, Plot, Role, Sheet, Written, data::Run, from_run, plots};

/// A run whose curves have the shapes of real ones: the learned reward rises, the gold one turns down.
fn write_run(folder: &Path, seed: u32, held_out: bool) {
    let noise = |t: u32| f64::from((t * 7919 + seed * 104_729) % 97) / 97.0 - 0.5;
    let mut lines = Vec::new();
    for step in (0..200).step_by(10) {
        let loss = 1.1 + 3.0 * (-f64::from(step) / 60.0).exp() + 0.1 * noise(step);
        lines.push(format!(
            "{{\"stage\":\"sft\",\"step\":{step},\"loss/train\":{loss},\"loss/validation\":{}}}",
            loss + 0.1
        ));
        let accuracy = 0.8 - 0.3 * (-f64::from(step) / 50.0).exp() + 0.02 * noise(step);
        lines.push(format!("{{\"stage\":\"reward\",\"step\":{step},\"eval/accuracy\":{accuracy}}}"));
    }
    for step in 0..60u32 {
        let t = f64::from(step) / 60.0;
        let (kl, scores, gold) = (20.0 * t + noise(step).abs(), 3.0 * t.sqrt() - 0.5, 0.3 + 0.5 * t - 0.35 * t * t);
        let null = 0.2 + 1.8 * (-3.0 * t).exp();
        let mut line = format!(
            "{{\"stage\":\"rebel\",\"step\":{step},\"queries\":{},\"objective/kl\":{kl},\"objective/scores\":{},\
             \"objective/gold\":{},\"objective/entropy\":{},\"loss/regression\":{}",
            64 * (step + 1),
            scores + 0.2 * noise(step),
            gold + 0.1 * noise(step + 1),
            30.0 - 10.0 * t,
            0.6 * null
        );
        if held_out && step % 5 == 0 {
            line += &format!(
                ",\"eval/kl\":{kl},\"eval/scores\":{scores},\"eval/gold\":{},\"heldout/pair_loss\":{},\
                 \"heldout/null_loss\":{null},\"heldout/stderr\":0.05",
                gold + 0.02 * noise(step),
                0.7 * null + 0.05 * noise(step)
            );
        }
        lines.push(line + "}");
    }
    std::fs::create_dir_all(folder).unwrap();
    std::fs::write(folder.join("metrics.jsonl"), lines.join("\n")).unwrap();
    let levels = "{\"sft\":{\"scores\":-0.5,\"gold\":0.3},\"reference\":{\"scores\":1.4,\"gold\":0.8}}";
    std::fs::write(folder.join("eval.json"), levels).unwrap();
}

fn runs(root: &Path, seeds: u32, held_out: bool) -> Vec<PathBuf> {
    let folder = |seed| root.join(format!("tiny-{seed}"));
    (0..seeds).for_each(|seed| write_run(&folder(seed), seed, held_out));
    (0..seeds).map(folder).collect()
}

fn drawn(written: &[Written]) -> Vec<&str> {
    let name = |w: &'_ Written| if let Written::Drawn { name, .. } = w { Some(*name) } else { None };
    written.iter().filter_map(name).collect()
}

#[test]
fn full_runs_give_every_figure_twice_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let runs = runs(folder.path(), 3, true);
    let [a, b] = ["a", "b"].map(|name| folder.path().join(name));
    let written = from_run(&runs, &a).unwrap();
    assert_eq!(drawn(&written), ["fig5_reward_kl", "fig6_regression_loss", "training_curves"]);
    from_run(&runs, &b).unwrap();
    let files: Vec<_> = std::fs::read_dir(&a).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(files.len(), 6, "{files:?}");
    for file in files {
        assert_eq!(std::fs::read(a.join(&file)).unwrap(), std::fs::read(b.join(&file)).unwrap(), "{file:?}");
    }
}

#[test]
fn no_text_is_cut_at_the_edge_with_one_seed_or_three_with_or_without_held_out_data() {
    for (seeds, held_out) in [(1, true), (3, true), (1, false), (3, false)] {
        let folder = tempfile::tempdir().unwrap();
        let runs = Run::read_all(&runs(folder.path(), seeds, held_out)).unwrap();
        let figures = [
            plots::fig5_reward_kl::draw(&plots::fig5_reward_kl::data(&runs).unwrap()).unwrap(),
            plots::fig6_regression_loss::draw(&plots::fig6_regression_loss::data(&runs).unwrap()).unwrap(),
            plots::training_curves::draw(&plots::training_curves::data(&runs).unwrap()).unwrap(),
        ];
        for figure in figures {
            assert!(!figure.touches_edge(2.0).unwrap(), "{} ({seeds} seeds)", figure.description());
        }
    }
}

#[test]
fn no_text_is_cut_where_numbers_and_names_are_long() {
    let points = [(0.0, -1_234_567.0), (3_000_000.0, 2_345_678.0)];
    let wide = |title: &str| {
        Plot::new("reward queries over the whole of training", "a label of the ordinate that is too long for it")
            .title(title)
            .line(Role::Rebel, "REBEL by another name", &points)
            .level(Role::Human, 2_345_678.0, "references written\nby people")
    };
    for figure in [
        wide("A title that says in one line what the panel shows and a bit more").draw().unwrap(),
        Sheet::row(vec![wide("a"), wide("b"), wide("c")]).note(&"n".repeat(90)).draw().unwrap(),
        Figure::line_plot("x", "y").log_x().line(Role::Ppo, "PPO", &[(1e-9, 1.0), (1e9, 2.0)]).draw().unwrap(),
    ] {
        assert!(!figure.touches_edge(2.0).unwrap(), "{}", figure.description());
    }
}

#[test]
fn figures_without_data_are_skipped_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("sft-only");
    std::fs::create_dir(&run).unwrap();
    std::fs::write(run.join("metrics.jsonl"), "{\"stage\":\"sft\",\"step\":0,\"loss/train\":2.0}\n").unwrap();
    let written = from_run(&[run], folder.path()).unwrap();
    assert_eq!(drawn(&written), ["training_curves"]);
    let reason = "no run has a stage `rebel`".to_string();
    assert!(written.contains(&Written::Skipped { name: "fig6_regression_loss", reason }), "{written:?}");
    assert!(!folder.path().join("fig6_regression_loss.svg").exists());
}

#[test]
fn rewards_of_rollouts_are_averaged_over_blocks_and_evaluations_are_not() {
    let folder = tempfile::tempdir().unwrap();
    let data = |held_out| {
        let runs = Run::read_all(&runs(folder.path(), 2, held_out)).unwrap();
        plots::fig5_reward_kl::data(&runs).unwrap()
    };
    let (evaluations, rollouts) = (data(true), data(false));
    assert_eq!((evaluations.block, evaluations.panels[0].tracks[0].mean.len()), (1, 12));
    assert_eq!((rollouts.block, rollouts.panels[0].tracks[0].mean.len()), (2, 30));
    assert_eq!((evaluations.panels[1].sft, evaluations.panels[1].reference), (Some(0.3), Some(0.8)));
}

#[test]
fn explained_part_is_one_minus_held_out_over_null() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("one");
    std::fs::create_dir(&run).unwrap();
    let line = "{\"stage\":\"rebel\",\"step\":4,\"loss/regression\":0.4,\"heldout/pair_loss\":0.5,\"heldout/null_loss\":2.0,\
                \"heldout/stderr\":0.3}";
    std::fs::write(run.join("metrics.jsonl"), line).unwrap();
    let data = plots::fig6_regression_loss::data(&Run::read_all(&[run]).unwrap()).unwrap();
    assert_eq!(data.explained.unwrap().mean[0].at, (4.0, 0.75));
    let held_out = data.held_out.unwrap().mean[0].y;
    assert_eq!(held_out, (0.0, 1.1), "two standard errors, and a squared error is not negative");
}
