//! One layout for every matrix: the panel.
//!
//! A matrix `[rows, columns]` lies as panels of 32 columns, each `[rows][32]` and contiguous: element (r, c) is at
//! `(c / 32) * stride + r * 32 + c % 32`. A panel is what a packed product wants as its right operand, what a tile reads
//! line by line as its left one, what a weight gradient reads as either, and what a tile writes: nothing is packed
//! again between two products. A head begins a panel of its own, so its queries, keys and values are panels too.

/// Columns of a panel.
pub const PANEL: usize = 32;

/// Elements of a square block of a panel.
pub const BLOCK: usize = PANEL * PANEL;

/// Rows apart that the panels of `rows` rows begin: 13 past a multiple of 32, so that the same row of many panels does not
/// fall into the same sets of a cache.
pub fn stride_rows(rows: usize) -> usize {
    (rows + 18) / PANEL * PANEL + 13
}

/// A matrix in panels that tasks share, each its own rows or panels of it.
#[derive(Debug, Clone, Copy)]
pub struct Matrix {
    start: *mut f32,
    stride: usize,
}

// SAFETY: only a place; whoever writes through it owns the part written.
unsafe impl Send for Matrix {}
// SAFETY: as above.
unsafe impl Sync for Matrix {}

impl Matrix {
    /// Panels `stride` elements apart.
    pub fn new(start: *mut f32, stride: usize) -> Self {
        Self { start, stride }
    }

    /// No matrix.
    pub const NONE: Self = Self { start: std::ptr::null_mut(), stride: 0 };

    /// Whether there is one.
    pub fn is_some(self) -> bool {
        !self.start.is_null()
    }

    /// Elements from a panel to the next.
    #[inline(always)]
    pub fn stride(self) -> usize {
        self.stride
    }

    /// Where row `row` of panel `panel` begins.
    #[inline(always)]
    pub fn at(self, panel: usize, row: usize) -> *mut f32 {
        self.start.wrapping_add(panel * self.stride + row * PANEL)
    }

    /// The same, or null where there is no matrix.
    #[inline(always)]
    pub fn place(self, panel: usize, row: usize) -> *mut f32 {
        if self.is_some() { self.at(panel, row) } else { self.start }
    }

    /// The panels from `panel` on, the rows from `row` on.
    #[inline(always)]
    pub fn from(self, panel: usize, row: usize) -> Self {
        match self.is_some() {
            true => Self { start: self.at(panel, row), stride: self.stride },
            false => self,
        }
    }
}

/// Up to 32 columns of a file's matrix that a panel holds, side by side; the rest of the panel is zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Columns {
    /// The first one's place in the file.
    pub first: usize,
    /// How many.
    pub count: usize,
}

/// The panels of `count` columns from `first` on.
pub fn panels(first: usize, count: usize) -> impl Iterator<Item = Columns> {
    (0..count).step_by(PANEL).map(move |c| Columns { first: first + c, count: PANEL.min(count - c) })
}
