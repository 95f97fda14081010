//! A claim of the paper, run and shown as a small table.

use crate::{Error, start};
use rebel_theory::claims::{self, Limit, Quantity, Report, Settings, Verdict};

/// A claim that has been run. As the last expression of a cell it shows its statement, what was measured against which
/// limit, and the controls, where a precondition is broken and the statement must fail.
#[derive(Debug, Clone)]
pub struct Verified {
    /// All numbers.
    pub report: Report,
}

/// Runs the claim `id` on its default random instances.
///
/// # Errors
/// When there is no such claim, or a solver refuses an instance.
pub fn verify(id: &str) -> Result<Verified, Error> {
    start();
    let Some(claim) = claims::find(id) else {
        let known: Vec<_> = claims::all().iter().map(|claim| claim.id).collect();
        return Err(Error::UnknownClaim { id: id.to_string(), known: known.join(", ") });
    };
    Ok(Verified { report: claim.run(&Settings::default())? })
}

impl Verified {
    /// Shows the claim as the result of a notebook cell: evcxr calls this by name.
    pub fn evcxr_display(&self) {
        println!("EVCXR_BEGIN_CONTENT text/html\n{}\nEVCXR_END_CONTENT", self.html());
        println!("EVCXR_BEGIN_CONTENT text/plain\n{}\nEVCXR_END_CONTENT", self.text());
    }

    /// The claim in plain lines.
    pub fn text(&self) -> String {
        let Report { title, instances, .. } = &self.report;
        let rows = self.rows().into_iter().map(|row| format!("  {}: {} ({}), {}", row[0], row[1], row[2], row[3]));
        let mut lines = vec![format!("{title}: {} ({instances} random instances)", self.verdict())];
        lines.extend(rows);
        lines.join("\n")
    }

    fn html(&self) -> String {
        let Report { title, statement, instances, .. } = &self.report;
        let cells = |row: [String; 4]| row.map(|cell| format!("<td>{}</td>", escape(&cell))).concat();
        let rows: String = self.rows().into_iter().map(|row| format!("<tr>{}</tr>", cells(row))).collect();
        format!(
            "<p><b>{}</b>: {}<br/>{}</p><table><tr><th>quantity ({instances} random instances)</th><th>measured</th>\
             <th>limit</th><th>holds</th></tr>{rows}</table>",
            escape(title),
            self.verdict(),
            escape(statement),
        )
    }

    /// Name, number, limit and whether it holds, of each quantity and then of each control.
    fn rows(&self) -> Vec<[String; 4]> {
        let row = |name: String, q: &Quantity| {
            [name, number(q.value), limit(q.limit), if q.holds { "holds" } else { "does not hold" }.to_string()]
        };
        let measured = self.report.measured.iter().map(|q| row(q.name.clone(), q));
        let control =
            |c: &claims::Control| row(format!("control, without {}: {}", c.breaks, c.measured.name), &c.measured);
        measured.chain(self.report.controls.iter().map(control)).collect()
    }

    fn verdict(&self) -> &'static str {
        match self.report.verdict {
            Verdict::Verified => "verified",
            Verdict::VerifiedUnderCondition => "verified under its condition",
            Verdict::FalseAsWorded => "false as worded",
            Verdict::NotVerified => "not verified",
        }
    }
}

/// Three digits; of a rounding error none, since they differ from machine to machine.
fn number(value: f64) -> String {
    match value {
        0.0 => "0".into(),
        v if v.abs() < 1e-9 => "rounding error".into(),
        v if v.abs() < 1e-3 => format!("{v:.2e}"),
        v => format!("{v:.3}"),
    }
}

/// A limit as it was written.
fn limit(limit: Limit) -> String {
    let short = |v: f64| if v != 0.0 && v.abs() < 1e-3 { format!("{v:e}") } else { v.to_string() };
    match limit {
        Limit::AtMost(high) => format!("at most {}", short(high)),
        Limit::AtLeast(low) => format!("at least {}", short(low)),
        Limit::Within(low, high) => format!("{} to {}", short(low), short(high)),
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_claim_is_refused_with_the_ids_that_exist() {
        let error = verify("alchemy").unwrap_err().to_string();
        assert!(error.starts_with("alchemy: no claim") && error.contains("md-equivalence"), "{error}");
    }

    #[test]
    fn verified_claim_says_so_and_lists_every_quantity_and_control() {
        let verified = verify("md-equivalence").unwrap();
        let lines = 1 + verified.report.measured.len() + verified.report.controls.len();
        assert!(verified.text().lines().next().unwrap().contains(": verified ("), "{}", verified.text());
        assert_eq!(verified.text().lines().count(), lines);
        assert!(!verified.html().contains("<=") && verified.html().contains("<table>"));
    }

    #[test]
    fn rounding_error_shows_no_digits_and_limits_are_short() {
        assert_eq!([3.2e-15, 0.51234, 0.0].map(number), ["rounding error", "0.512", "0"]);
        assert_eq!(limit(Limit::AtMost(1e-10)), "at most 1e-10");
        assert_eq!(limit(Limit::Within(0.4, 0.6)), "0.4 to 0.6");
    }
}
