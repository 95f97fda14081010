//! Which rows a pass has, who sees whom, and what is read at the end.

use std::ops::Range;

/// Consecutive rows of a unit. A row sees the unit's first `context` rows and, causally, its own segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// First row within the unit.
    pub start: usize,
    /// Rows.
    pub len: usize,
    /// Rows of the unit that come before in position.
    pub context: usize,
}

/// A sequence, or a prompt with the responses that share it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    /// First row of the batch.
    pub first: usize,
    /// Rows.
    pub rows: usize,
    /// The first row (within the unit) that anyone reads at the end: in the last block the rows before it matter through
    /// their keys and values alone.
    pub live: usize,
    pub segments: Vec<Segment>,
}

impl Unit {
    /// Its rows of the batch.
    pub fn range(&self) -> Range<usize> {
        self.first..self.first + self.rows
    }

    /// Those that are live in the last block.
    pub fn live_range(&self) -> Range<usize> {
        self.first + self.live..self.first + self.rows
    }
}

/// Rows of tokens.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    /// Token of each row.
    pub tokens: Vec<u32>,
    /// Position of each row in its sequence.
    pub positions: Vec<u32>,
    pub units: Vec<Unit>,
    /// Rows whose final states are read, in the order asked for; a row may be read twice.
    pub reads: Vec<usize>,
}

impl Batch {
    /// Rows.
    pub fn rows(&self) -> usize {
        self.tokens.len()
    }

    /// Adds a sequence; `read`: the rows of it that are read.
    pub fn push(&mut self, tokens: &[u32], read: Range<usize>) {
        let first = self.rows();
        self.tokens.extend_from_slice(tokens);
        self.positions.extend(0..tokens.len() as u32);
        let live = if read.is_empty() { tokens.len() } else { read.start };
        self.reads.extend(read.map(|row| first + row));
        let segments = vec![Segment { start: 0, len: tokens.len(), context: 0 }];
        self.units.push(Unit { first, rows: tokens.len(), live, segments });
    }

    /// Adds a prompt with its responses behind it; read are the rows that predict the responses' tokens: of each response
    /// the prompt's last row, then all of its own but the last.
    pub fn push_shared(&mut self, prompt: &[u32], responses: &[&[u32]]) {
        let first = self.rows();
        let mut segments = vec![Segment { start: 0, len: prompt.len(), context: 0 }];
        self.tokens.extend_from_slice(prompt);
        self.positions.extend(0..prompt.len() as u32);
        for response in responses {
            self.reads.push(first + prompt.len() - 1);
            // What predicts nothing is no row.
            let rows = &response[..response.len() - 1];
            let start = self.rows();
            self.reads.extend(start..start + rows.len());
            if !rows.is_empty() {
                segments.push(Segment { start: start - first, len: rows.len(), context: prompt.len() });
                self.tokens.extend_from_slice(rows);
                self.positions.extend((0..rows.len()).map(|i| (prompt.len() + i) as u32));
            }
        }
        let rows = self.rows() - first;
        self.units.push(Unit { first, rows, live: prompt.len() - 1, segments });
    }

    /// Whether all is within bounds, tokens below `vocab`: what unsafe code relies on.
    pub(super) fn check(&self, vocab: usize) {
        let rows = self.rows();
        assert!(self.positions.len() == rows && rows > 0, "a position for every row");
        assert!(self.tokens.iter().all(|&t| (t as usize) < vocab), "tokens of the vocabulary");
        assert!(self.reads.iter().all(|&r| r < rows), "read rows are there");
        let mut next = 0;
        for unit in &self.units {
            assert!(unit.first == next && unit.rows > 0 && unit.live <= unit.rows, "units follow each other");
            next += unit.rows;
            let mut start = 0;
            for s in &unit.segments {
                let context_is_a_beginning =
                    s.context == 0 || unit.segments[0] == Segment { start: 0, len: s.context, context: 0 };
                assert!(s.start == start && s.len > 0 && context_is_a_beginning, "segments follow each other");
                start += s.len;
            }
            assert_eq!(start, unit.rows, "segments fill their unit");
        }
        assert_eq!(next, rows, "units fill the batch");
    }
}
