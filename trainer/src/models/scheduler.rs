//! Which completion runs in which row of the cache: continuous batching without a tensor in sight.
//!
//! Completions start in order, prompt by prompt, as soon as a row is free. A prompt is read once, whatever the number of
//! its samples and of rows: its other samples begin in a copy of its first tokens, or in the row of a sample that has
//! finished, of which only what followed the prompt is forgotten.

/// How a completion begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Beginning {
    /// The prompt is to be read into the row.
    Read,
    /// The row begins with the prompt; the rest of it is to be forgotten.
    Again,
    /// Another row begins with the prompt: it is to be copied.
    Copy(usize),
}

/// A completion that starts now, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Start {
    /// Its number: `prompt * samples + sample`.
    pub completion: usize,
    /// Row of the cache.
    pub row: usize,
    /// What has to be done before.
    pub beginning: Beginning,
}

#[derive(Debug, Clone, Copy, Default)]
struct Row {
    busy: bool,
    /// Whose tokens it begins with.
    prompt: Option<usize>,
}

/// Hands rows to completions.
#[derive(Debug)]
pub(super) struct Scheduler {
    samples: usize,
    next: usize,
    completions: usize,
    rows: Vec<Row>,
}

impl Scheduler {
    /// `samples` completions of each of `prompts` prompts, at most `rows` at a time; both at least 1.
    pub fn new(prompts: usize, samples: usize, rows: usize) -> Self {
        let completions = prompts * samples;
        Self { samples, next: 0, completions, rows: vec![Row::default(); rows.min(completions)] }
    }

    /// Rows there are.
    pub fn rows(&self) -> usize {
        self.rows.len()
    }

    /// The completions that start now, in order. What is to be read comes before what is copied from it: all
    /// [`Beginning::Read`]s first, and the others in the order given.
    pub fn start(&mut self) -> Vec<Start> {
        let mut starts = Vec::new();
        while self.next < self.completions {
            let prompt = Some(self.next / self.samples);
            let find = |fits: &dyn Fn(&Row) -> bool| self.rows.iter().position(fits);
            let holder = find(&|row| row.prompt == prompt);
            // A free row of its own comes first: nothing to copy, and no other prompt takes it while samples wait.
            let (row, beginning) =
                match (find(&|row| !row.busy && row.prompt == prompt), find(&|row| !row.busy), holder) {
                    (Some(row), ..) => (row, Beginning::Again),
                    (None, Some(row), Some(from)) => (row, Beginning::Copy(from)),
                    (None, Some(row), None) => (row, Beginning::Read),
                    (None, None, _) => break,
                };
            self.rows[row] = Row { busy: true, prompt };
            starts.push(Start { completion: self.next, row, beginning });
            self.next += 1;
        }
        starts
    }

    /// The completion in `row` is finished.
    pub fn finish(&mut self, row: usize) {
        self.rows[row].busy = false;
    }

    /// Whether samples of `prompt` have not started yet.
    pub fn waits_for(&self, prompt: usize) -> bool {
        self.next < (prompt + 1) * self.samples
    }
}

#[cfg(test)]
mod tests {
    use rand::Rng;

    use super::*;
    use crate::nn::{Purpose, Streams};

    /// Any numbers of prompts, samples and rows, finished in any order: every completion runs once, in a row that begins
    /// with its prompt; every prompt is read once; no row is idle while one waits.
    #[test]
    fn every_completion_runs_once_and_every_prompt_is_read_once() {
        let mut random = Streams::new(1).stream(Purpose("test"), 0, 0, 0);
        for _ in 0..300 {
            let (prompts, samples, rows) =
                (random.random_range(1..20), random.random_range(1..6), random.random_range(1..9));
            let mut scheduler = Scheduler::new(prompts, samples, rows);
            let (mut started, mut reads) = (0, vec![0; prompts]);
            let mut holds: Vec<Option<usize>> = vec![None; scheduler.rows()]; // the prompt each row begins with
            let mut busy: Vec<usize> = Vec::new();
            loop {
                let starts = scheduler.start();
                for start in starts.iter().filter(|s| s.beginning == Beginning::Read) {
                    holds[start.row] = Some(start.completion / samples);
                    reads[start.completion / samples] += 1;
                }
                for start in starts {
                    assert_eq!(start.completion, started);
                    assert!(!busy.contains(&start.row));
                    let prompt = Some(start.completion / samples);
                    if let Beginning::Copy(from) = start.beginning {
                        assert_eq!(holds[from], prompt);
                        holds[start.row] = prompt;
                    }
                    assert_eq!(holds[start.row], prompt);
                    busy.push(start.row);
                    started += 1;
                }
                if busy.is_empty() {
                    break;
                }
                assert!(busy.len() == scheduler.rows() || started == prompts * samples);
                for _ in 0..random.random_range(1..=busy.len()) {
                    scheduler.finish(busy.swap_remove(random.random_range(0..busy.len())));
                }
            }
            assert_eq!(started, prompts * samples);
            assert!(reads.iter().all(|&n| n == 1), "{reads:?}");
        }
    }

    #[test]
    fn one_row_serves_all_samples_of_a_prompt_from_one_reading() {
        let mut scheduler = Scheduler::new(2, 3, 1);
        let mut beginnings = Vec::new();
        while let [start] = scheduler.start()[..] {
            beginnings.push(start.beginning);
            scheduler.finish(start.row);
        }
        use Beginning::{Again, Read};
        assert_eq!(beginnings, [Read, Again, Again, Read, Again, Again]);
    }
}
