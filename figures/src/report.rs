//! Results as pages for people: so far the claims, each with its statement, its numbers, its controls and its figures.

use std::collections::BTreeSet;

use rebel_theory::claims::{Limit, Quantity, Report, Tag, Verdict};

use crate::error::Result;
use crate::page::{Mark, Page, Section, Table, Text};

/// The parts of the theory, by the first digit of a claim's section.
const PARTS: [(char, &str); 8] = [
    ('1', "The exact step"),
    ('2', "The linearised step"),
    ('3', "Finite samples and variance"),
    ('4', "Log-linear policies"),
    ('5', "Regret"),
    ('6', "Preferences and self-play"),
    ('7', "Other objectives"),
    ('8', "Sequences of tokens"),
];

/// The page of these claims, in the order given: a table of all, then each with what was measured beside its limits, its
/// negative controls, its figures and the command that runs it again. The same reports give the same bytes.
///
/// # Errors
/// A figure that cannot be drawn from its committed numbers.
pub fn claims_page(reports: &[Report]) -> Result<String> {
    let mut page = Page::new("The claims of REBEL, measured");
    let passed = reports.iter().filter(|report| report.passed()).count();
    page.prose(
        Text::from("What is stated in ")
            .link("REBEL: Reinforcement Learning via Regressing Relative Rewards", "https://arxiv.org/abs/2404.16767")
            .plain(
                ", and what follows from checking it, is a measurement here: identities on random instances, inequalities by the worst ratio of measured to bound, \
                 exponents with intervals, and beside each a control, in which a condition is broken and the statement must fail (or restored, \
                 and it holds again). Labels such as E1.2 and N5.1 number the project's experiments and negative controls.",
            ),
    );
    page.prose(tally(reports, passed));
    page.section(reading()).section(summary(reports));
    let mut shown = BTreeSet::new();
    let mut others: Vec<&Report> = reports.iter().collect();
    for (digit, title) in PARTS {
        let (own, rest): (Vec<_>, Vec<_>) = others.into_iter().partition(|report| report.section.starts_with(digit));
        others = rest;
        add_part(&mut page, &format!("part-{digit}"), title, &own, &mut shown)?;
    }
    add_part(&mut page, "part-other", "Other claims", &others, &mut shown)?;
    Ok(page.html())
}

fn add_part(
    page: &mut Page,
    id: &str,
    title: &str,
    reports: &[&Report],
    shown: &mut BTreeSet<&'static str>,
) -> Result<()> {
    if reports.is_empty() {
        return Ok(());
    }
    let mut part = Section::new(id, title);
    for report in reports {
        part.section(claim(report, shown)?);
    }
    page.section(part);
    Ok(())
}

fn tally(reports: &[Report], passed: usize) -> Text {
    let of = |verdict| reports.iter().filter(|report| report.verdict == verdict).count();
    let text = format!(
        "{passed} of {} came out as stated: {} true, {} true under a condition, {} false as the paper words them.",
        reports.len(),
        of(Verdict::Verified),
        of(Verdict::VerifiedUnderCondition),
        of(Verdict::FalseAsWorded),
    );
    match reports.len() - passed {
        0 => Text::from(text),
        failed => Text::from(text).plain(" ").mark(Mark::Bad, &format!("{failed} did not")),
    }
}

/// How the page is to be read.
fn reading() -> Section {
    let mut section = Section::new("reading", "How to read this page");
    section.prose("A label says how the paper's wording stands after checking:");
    let tags = [Tag::True, Tag::Sharper, Tag::Assumption, Tag::False];
    section.list(tags.map(|tag| Text::new().mark(tag_mark(tag), tag_name(tag)).plain(" ").plain(tag_meaning(tag))));
    section.prose("And of the numbers:");
    section.list([
        Text::from("A number must keep to its limit: the worst error of an identity stays at rounding, the worst ratio to a bound at 1."),
        Text::from("Intervals are two-sided, 95%, of what was sampled; numbers without one are enumerated, or worst cases of many."),
        Text::from("A control holds if the statement visibly fails once the named condition is broken (or visibly holds once it is restored)."),
        Text::from("Numbers depend on seed and instances alone, not on threads; the last digits of rounding errors may differ between machines."),
    ]);
    section
}

fn summary(reports: &[Report]) -> Section {
    let mut section = Section::new("summary", "All claims");
    let mut table = Table::new(&["claim", "wording", "nearest to its limit", "limit", "verdict"]).numbers(&[2, 3]);
    for report in reports {
        let (value, limit) = match report.measured.iter().min_by(|a, b| slack(a).total_cmp(&slack(b))) {
            Some(nearest) => (Text::number(nearest.value), limit_text(nearest.limit)),
            None => (Text::new(), Text::new()),
        };
        table.row([
            Text::new().link(&report.title, &format!("#{}", report.id)).small(&report.id),
            Text::new().mark(tag_mark(report.tag), tag_name(report.tag)),
            value,
            limit,
            verdict(report),
        ]);
    }
    section.table(table);
    section
}

/// How far a quantity is from its limit, relative to both; negative beyond it.
fn slack(quantity: &Quantity) -> f64 {
    let value = quantity.value;
    let relative = |room: f64, limit: f64| room / limit.abs().max(value.abs()).max(f64::MIN_POSITIVE);
    let slack = match quantity.limit {
        Limit::AtMost(high) => relative(high - value, high),
        Limit::AtLeast(low) => relative(value - low, low),
        Limit::Within(low, high) => 2.0 * (value - low).min(high - value) / (high - low),
    };
    match slack {
        _ if slack.is_nan() => f64::NEG_INFINITY,
        0.0 if value == 0.0 => 1.0, // exactly nothing, where nothing was allowed
        _ => slack,
    }
}

fn claim(report: &Report, shown: &mut BTreeSet<&'static str>) -> Result<Section> {
    let mut section = Section::new(&report.id, &report.title);
    section.aside(
        Text::new()
            .code(&report.id)
            .plain(" ")
            .mark(tag_mark(report.tag), tag_name(report.tag))
            .plain(" ")
            .plain(tag_meaning(report.tag))
            .plain(&format!(" Theory, section {}.", report.section)),
    );
    section.prose(&report.statement).formula(&report.formula);
    if !report.preconditions.is_empty() {
        section.prose("Under the conditions:").list(&report.preconditions);
    }
    section.prose(
        Text::from("Measured on: ")
            .plain(&report.family)
            .plain("; ")
            .plain(&format!("{} instances, seed {}", report.instances, report.seed))
            .plain("."),
    );
    section.table(measurements(report));
    for (name, figure) in crate::of_claim(&report.id)? {
        let id = format!("figure-{name}");
        let shows = crate::names().into_iter().find(|known| known.name == name).map_or("", |known| known.shows);
        if shown.insert(name) {
            let caption = Text::from(shows).plain(". Its numbers: ").code(&format!("rebel figures --make {name}"));
            section.figure(&id, &figure, caption);
        } else {
            section.prose(Text::from("Figure: ").link(shows, &format!("#{id}")).plain("."));
        }
    }
    section.prose(Text::from("Conclusion: ").then(&verdict(report)));
    section.code(&command(report));
    Ok(section)
}

/// What was measured of the claim, then its controls; intervals have a column where there are any.
fn measurements(report: &Report) -> Table {
    let own = report.measured.iter().map(|quantity| ("claim", Text::from(&quantity.name), quantity));
    let controls = report.controls.iter().map(|control| {
        let what = Text::from(&control.breaks).small(&control.measured.name);
        ("control", what, &control.measured)
    });
    let rows: Vec<_> = own.chain(controls).collect();
    let sampled = rows.iter().any(|(_, _, quantity)| quantity.interval.is_some());
    let mut table = match sampled {
        true => Table::new(&["", "quantity", "value", "95% interval", "limit", ""]).numbers(&[2, 3, 4]),
        false => Table::new(&["", "quantity", "value", "limit", ""]).numbers(&[2, 3]),
    };
    for (kind, name, quantity) in rows {
        let (mark, word) = if quantity.holds { (Mark::Good, "holds") } else { (Mark::Bad, "fails") };
        let mut cells = vec![Text::from(kind), name, Text::number(quantity.value)];
        if sampled {
            let interval = quantity.interval.map(|(low, high)| Text::number(low).plain(" … ").value(high));
            cells.push(interval.unwrap_or_default());
        }
        cells.extend([limit_text(quantity.limit), Text::new().mark(mark, word)]);
        table.row(cells);
    }
    table
}

fn limit_text(limit: Limit) -> Text {
    match limit {
        Limit::AtMost(high) => Text::from("≤ ").value(high),
        Limit::AtLeast(low) => Text::from("≥ ").value(low),
        Limit::Within(low, high) => Text::number(low).plain(" … ").value(high),
    }
}

fn verdict(report: &Report) -> Text {
    let (mark, words) = match report.verdict {
        Verdict::Verified => (Mark::Good, "verified"),
        Verdict::VerifiedUnderCondition => (Mark::Good, "verified under its condition"),
        Verdict::FalseAsWorded => (Mark::Careful, "false as worded"),
        Verdict::NotVerified => (Mark::Bad, "NOT VERIFIED"),
    };
    Text::new().mark(mark, words)
}

/// The command that makes this report again.
fn command(report: &Report) -> String {
    let larger = if report.thorough { " --thorough" } else { "" };
    format!("rebel verify --claim {} --seed {} --instances {}{larger}", report.id, report.seed, report.instances)
}

fn tag_mark(tag: Tag) -> Mark {
    match tag {
        Tag::True | Tag::Sharper => Mark::Good,
        Tag::Assumption | Tag::False => Mark::Careful,
    }
}

fn tag_name(tag: Tag) -> &'static str {
    match tag {
        Tag::True => "true",
        Tag::Sharper => "true and more",
        Tag::Assumption => "conditional",
        Tag::False => "false as worded",
    }
}

fn tag_meaning(tag: Tag) -> &'static str {
    match tag {
        Tag::True => "True as the paper states it.",
        Tag::Sharper => "True, and a sharper or more general form holds.",
        Tag::Assumption => "True only under an assumption that the paper leaves implicit.",
        Tag::False => "False as worded; a counter-example is given.",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rebel_theory::claims::{Settings, find};

    fn report(id: &str) -> Report {
        find(id).unwrap().run(&Settings { instances: 20, ..Settings::default() }).unwrap()
    }

    #[test]
    fn page_shows_every_number_limit_control_and_the_command() {
        let report = report("conservativity");
        let html = claims_page(std::slice::from_ref(&report)).unwrap();
        for quantity in report.measured.iter().chain(report.controls.iter().map(|c| &c.measured)) {
            for cell in [Text::from(&quantity.name), Text::number(quantity.value), limit_text(quantity.limit)] {
                assert!(html.contains(cell.html()), "{}", quantity.name);
            }
        }
        assert!(html.contains("rebel verify --claim conservativity --seed 0 --instances 20</code>"));
        assert!(html.contains("<figure id=\"figure-theory_conservativity\">"));
    }

    #[test]
    fn same_reports_give_the_same_bytes() {
        let reports = [report("composition"), report("token-npg")];
        assert_eq!(claims_page(&reports).unwrap(), claims_page(&reports).unwrap());
    }

    #[test]
    fn claim_that_failed_is_counted_and_marked() {
        let mut failed = report("composition");
        failed.verdict = Verdict::NotVerified;
        failed.measured[0].holds = false;
        let html = claims_page(&[failed, report("md-equivalence")]).unwrap();
        assert!(html.contains("1 of 2 came out as stated") && html.contains("1 did not"));
        assert!(html.contains("NOT VERIFIED") && html.contains(">fails<"));
    }

    #[test]
    fn nearest_quantity_is_the_one_with_the_least_room() {
        let far = Quantity::at_most("far", 1e-15, 1e-9);
        let near = Quantity::at_most("near", -0.0053, -0.005);
        let inside = Quantity { limit: Limit::Within(1.9, 2.1), ..Quantity::at_most("inside", 2.05, 3.0) };
        assert!(slack(&near) < slack(&inside) && slack(&inside) < slack(&far));
        assert!(slack(&Quantity::at_most("", f64::NAN, 1.0)) < slack(&Quantity::at_most("", 2.0, 1.0)));
    }

    #[test]
    fn claim_of_an_unknown_section_is_not_left_out() {
        let mut foreign = report("composition");
        foreign.section = "A.3".into();
        assert!(claims_page(&[foreign]).unwrap().contains("<section id=\"composition\">"));
    }

    #[test]
    fn page_of_no_claims_is_a_page() {
        assert!(claims_page(&[]).unwrap().contains("0 of 0 came out as stated"));
    }
}
