//! `rebel verify`: the paper's claims, each beside its negative control.

use anyhow::{Result, bail};
use rebel_theory::claims::{self, Claim, Limit, Quantity, Report, Settings, Verdict};
use rebel_trainer::files;
use std::path::PathBuf;

#[derive(clap::Args)]
pub struct Arguments {
    /// Only this claim; can be given several times
    #[arg(long = "claim", value_name = "ID")]
    pub claims: Vec<String>,
    /// Seed of the random instances
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Random instances of each measurement
    #[arg(long, default_value_t = 1000, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub instances: u64,
    /// Larger instances; takes longer
    #[arg(long)]
    pub thorough: bool,
    /// Print one line a claim
    #[arg(long, conflicts_with = "json")]
    pub brief: bool,
    /// Print the reports as JSON, for machines
    #[arg(long)]
    pub json: bool,
    /// Also write the reports as a page to read, with formulas and figures; it needs no network
    #[arg(long, value_name = "FILE", conflicts_with = "list")]
    pub html: Option<PathBuf>,
    /// List the claims and run none
    #[arg(long)]
    pub list: bool,
}

/// Runs it; `true` when every claim came out as stated.
pub fn run(arguments: &Arguments) -> Result<bool> {
    let chosen = choose(&arguments.claims)?;
    if arguments.list {
        for claim in chosen {
            say!("{:<26} {}", claim.id, claim.title);
        }
        return Ok(true);
    }
    if let Some(path) = arguments.html.as_ref().filter(|path| path.is_dir()) {
        bail!(rebel_trainer::Error::Usage(format!("--html {}: is a folder (expected a file)", path.display())));
    }
    let settings =
        Settings { seed: arguments.seed, instances: arguments.instances as usize, thorough: arguments.thorough };
    let mut reports = vec![];
    for claim in chosen {
        let report = claim.run(&settings)?;
        match (arguments.json, arguments.brief) {
            (true, _) => {}
            (false, true) => say!("{:<26} {}: {}", report.id, report.title, verdict(&report)),
            (false, false) => print(&report),
        }
        reports.push(report);
    }
    if let Some(path) = &arguments.html {
        let page = rebel_figures::report::claims_page(&reports)?;
        files::write_whole(path, |out| out.write_all(page.as_bytes()))?;
    }
    let passed = reports.iter().filter(|r| r.passed()).count();
    if arguments.json {
        say!("{}", serde_json::to_string_pretty(&serde_json::json!({ "claims": reports }))?);
    } else {
        let of = |verdict| reports.iter().filter(|r| r.verdict == verdict).count();
        say!(
            "{passed} of {} claims came out as the project states them: {} true, {} true under a condition, {} false as the paper words them",
            reports.len(),
            of(Verdict::Verified),
            of(Verdict::VerifiedUnderCondition),
            of(Verdict::FalseAsWorded),
        );
        for report in reports.iter().filter(|r| !r.passed()) {
            say!("NOT VERIFIED: {}", report.id);
        }
        if let Some(path) = &arguments.html {
            say!("the page: {}", path.display());
        }
    }
    Ok(passed == reports.len())
}

fn choose(ids: &[String]) -> Result<Vec<&'static Claim>> {
    if ids.is_empty() {
        return Ok(claims::all());
    }
    let mut chosen: Vec<&'static Claim> = vec![];
    for id in ids {
        match claims::find(id) {
            Some(claim) if chosen.iter().any(|one| one.id == claim.id) => {}
            Some(claim) => chosen.push(claim),
            None => {
                let known: Vec<&str> = claims::all().iter().map(|claim| claim.id).collect();
                let what = format!("--claim {id}: no such claim (expected one of {})", known.join(", "));
                bail!(rebel_trainer::Error::Usage(what));
            }
        }
    }
    Ok(chosen)
}

fn verdict(report: &Report) -> &'static str {
    match report.verdict {
        Verdict::Verified => "verified",
        Verdict::VerifiedUnderCondition => "verified under its condition",
        Verdict::FalseAsWorded => "false as worded: the counter-example holds",
        Verdict::NotVerified => "NOT VERIFIED",
    }
}

/// One claim as a person reads it.
fn print(report: &Report) {
    say!("{}  {}", report.id, report.title);
    say!("  {}", report.statement);
    say!("  {} instances of: {}", report.instances, report.family);
    for quantity in &report.measured {
        say!("  {} {}", mark(quantity), line(quantity));
    }
    for control in &report.controls {
        say!("  {} control, {}: {}", mark(&control.measured), control.breaks, line(&control.measured));
    }
    say!("  -> {}\n", verdict(report));
}

fn mark(quantity: &Quantity) -> &'static str {
    if quantity.holds { "ok " } else { "BAD" }
}

fn line(quantity: &Quantity) -> String {
    let limit = match quantity.limit {
        Limit::AtMost(high) => format!("at most {}", number(high)),
        Limit::AtLeast(low) => format!("at least {}", number(low)),
        Limit::Within(low, high) => format!("within {} .. {}", number(low), number(high)),
    };
    let interval = quantity.interval.map(|(low, high)| format!(", 95% {} .. {}", number(low), number(high)));
    format!("{} = {} ({limit}{})", quantity.name, number(quantity.value), interval.unwrap_or_default())
}

/// Near 1 by how far from 1 it is, which is what the ratio to a bound tells.
fn number(value: f64) -> String {
    let from_one = value - 1.0;
    if value == 0.0 || value == 1.0 {
        return format!("{}", value.abs());
    }
    if from_one.abs() < 5e-5 {
        return format!("1 {} {:.1e}", if from_one < 0.0 { '-' } else { '+' }, from_one.abs());
    }
    if (1e-2..1e4).contains(&value.abs()) { format!("{value:.4}") } else { format!("{value:.2e}") }
}
