//! Tells the outcome: plain lines for people, [TAP](https://testanything.org/) and JSON for programs.

use std::io::{self, Write};

use serde_json::{Value, json};

use crate::case::{Case, Outcome};
use crate::requirement::Level;

/// How to tell it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// One line a case, and the reasons below it
    Lines,
    /// Test Anything Protocol, version 13
    Tap,
    /// One JSON object
    Json,
}

/// Writes the outcomes as they come.
#[derive(Debug)]
pub struct Report<W> {
    format: Format,
    out: W,
    number: usize,
    passed: usize,
    failed: usize,
    skipped: usize,
    must_failed: bool,
    cases: Vec<Value>,
}

impl<W: Write> Report<W> {
    /// A report on `planned` cases.
    pub fn new(format: Format, mut out: W, planned: usize) -> io::Result<Self> {
        if format == Format::Tap {
            writeln!(out, "TAP version 13\n1..{planned}")?;
        }
        Ok(Self {
            format,
            out,
            number: 0,
            passed: 0,
            failed: 0,
            skipped: 0,
            must_failed: false,
            cases: Vec::new(),
        })
    }

    /// One case has ended.
    pub fn add(&mut self, case: &Case, outcome: &Outcome) -> io::Result<()> {
        self.number += 1;
        match outcome {
            Outcome::Passed => self.passed += 1,
            Outcome::Failed(_) => self.failed += 1,
            Outcome::Skipped(_) => self.skipped += 1,
        }
        self.must_failed |= outcome.broken() == Some(Level::Must);
        match self.format {
            Format::Lines => self.line(case, outcome)?,
            Format::Tap => self.tap(case, outcome)?,
            Format::Json => self.cases.push(as_json(case, outcome)),
        }
        self.out.flush()
    }

    fn line(&mut self, case: &Case, outcome: &Outcome) -> io::Result<()> {
        let out = &mut self.out;
        match outcome {
            Outcome::Passed => writeln!(out, "passed   {}", case.name),
            Outcome::Skipped(reason) => writeln!(out, "skipped  {}: {reason}", case.name),
            Outcome::Failed(findings) => {
                writeln!(out, "FAILED   {}", case.name)?;
                for finding in findings {
                    let requirement = finding.requirement;
                    writeln!(out, "         {} {}: {}", requirement.level, requirement.id, finding.message)?;
                    writeln!(out, "           {} {}", requirement.sentence, requirement.link())?;
                }
                Ok(())
            }
        }
    }

    fn tap(&mut self, case: &Case, outcome: &Outcome) -> io::Result<()> {
        let (out, number) = (&mut self.out, self.number);
        match outcome {
            Outcome::Passed => writeln!(out, "ok {number} - {}", case.name),
            Outcome::Skipped(reason) => writeln!(out, "ok {number} - {} # SKIP {reason}", case.name),
            Outcome::Failed(findings) => {
                writeln!(out, "not ok {number} - {}", case.name)?;
                for finding in findings {
                    // Diagnostics are one line each.
                    let message = finding.message.replace('\n', " ");
                    let requirement = finding.requirement;
                    writeln!(out, "# {} {}: {message}", requirement.level, requirement.id)?;
                    writeln!(out, "# {}", requirement.link())?;
                }
                Ok(())
            }
        }
    }

    /// The closing line. Returns whether every MUST was met.
    pub fn close(mut self, runtime: &str) -> io::Result<bool> {
        let summary = format!("{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped);
        match self.format {
            Format::Lines => writeln!(self.out, "{summary}")?,
            Format::Tap => writeln!(self.out, "# {summary}")?,
            Format::Json => {
                let whole = json!({
                    "runtime": runtime, "cases": self.cases,
                    "passed": self.passed, "failed": self.failed, "skipped": self.skipped,
                });
                writeln!(self.out, "{whole:#}")?;
            }
        }
        self.out.flush()?;
        Ok(!self.must_failed)
    }
}

fn as_json(case: &Case, outcome: &Outcome) -> Value {
    let proves: Vec<&str> = case.proves.iter().map(|requirement| requirement.id).collect();
    let mut entry = json!({"name": case.name, "requirements": proves});
    match outcome {
        Outcome::Passed => entry["outcome"] = json!("passed"),
        Outcome::Skipped(reason) => {
            entry["outcome"] = json!("skipped");
            entry["reason"] = json!(reason);
        }
        Outcome::Failed(findings) => {
            entry["outcome"] = json!("failed");
            entry["findings"] = findings
                .iter()
                .map(|finding| {
                    json!({
                        "requirement": finding.requirement.id,
                        "level": finding.requirement.level.to_string(),
                        "link": finding.requirement.link(),
                        "message": finding.message,
                    })
                })
                .collect();
        }
    }
    entry
}
