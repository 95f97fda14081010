//! Memory for weights and activations: zeroed, aligned, in huge pages where the system offers them.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::sync::Mutex;

use crate::panel::{Matrix, PANEL, stride_rows};

/// f32 memory that tasks write in disjoint parts. Panels are long streams, which the processor prefetches only within a
/// page: hence pages of 2 MiB for whatever fills one.
#[derive(Debug)]
pub struct Buffer {
    start: *mut f32,
    len: usize,
}

// SAFETY: a buffer owns its memory; who writes where is the business of the unsafe code that takes its pointer.
unsafe impl Send for Buffer {}
// SAFETY: as above.
unsafe impl Sync for Buffer {}

const HUGE: usize = 2 << 20;

impl Buffer {
    /// `len` zeros.
    pub fn zeros(len: usize) -> Self {
        let layout = Self::layout(len);
        // SAFETY: the layout's size is not zero.
        let start = unsafe { alloc_zeroed(layout) };
        if start.is_null() {
            handle_alloc_error(layout);
        }
        advise_huge_pages(start, layout);
        Self { start: start.cast(), len }
    }

    fn layout(len: usize) -> Layout {
        let bytes = (len.max(1) * 4).next_multiple_of(64);
        let align = if bytes >= HUGE { HUGE } else { 64 };
        Layout::from_size_align(bytes, align).expect("less than the address space")
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Where it begins.
    pub fn start(&self) -> *mut f32 {
        self.start
    }

    /// All elements.
    pub fn as_slice(&self) -> &[f32] {
        // SAFETY: `len` initialised elements belong to this buffer.
        unsafe { std::slice::from_raw_parts(self.start, self.len) }
    }

    /// All elements, to write.
    pub fn as_mut_slice(&mut self) -> &mut [f32] {
        // SAFETY: `len` initialised elements belong to this buffer, which is borrowed for writing.
        unsafe { std::slice::from_raw_parts_mut(self.start, self.len) }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: allocated with the same layout.
        unsafe { dealloc(self.start.cast(), Self::layout(self.len)) }
    }
}

fn advise_huge_pages(_start: *mut u8, _layout: Layout) {
    #[cfg(target_os = "linux")]
    if _layout.align() == HUGE {
        unsafe extern "C" {
            fn madvise(start: *mut u8, len: usize, advice: i32) -> i32;
        }
        const MADV_HUGEPAGE: i32 = 14;
        // SAFETY: the range was just allocated; a refusal changes nothing.
        unsafe { madvise(_start, _layout.size(), MADV_HUGEPAGE) };
    }
}

/// Buffers that were used and wait to be used again: the next pass is mostly like the last.
#[derive(Debug, Default)]
pub struct Spare(Mutex<Vec<Buffer>>);

/// Bytes of waiting buffers kept at most.
const KEPT: usize = 1 << 30;

impl Spare {
    /// A buffer of at least `len` elements, of any content: the smallest that waits and is not much too large, or a new one.
    pub fn take(&self, len: usize) -> Buffer {
        let mut waiting = self.0.lock().expect("no thread panics while it holds the list");
        let fits = |b: &Buffer| b.len() >= len && b.len() <= 2 * len + 4096;
        let best = (0..waiting.len()).filter(|&i| fits(&waiting[i])).min_by_key(|&i| waiting[i].len());
        if let Some(i) = best {
            return waiting.swap_remove(i);
        }
        // One that was for smaller batches makes room for the new one.
        if let Some(i) = (0..waiting.len()).find(|&i| waiting[i].len() < len && 2 * waiting[i].len() > len) {
            waiting.swap_remove(i);
        }
        drop(waiting);
        Buffer::zeros(len)
    }

    /// Takes a buffer back.
    pub fn give(&self, buffer: Buffer) {
        let mut waiting = self.0.lock().expect("no thread panics while it holds the list");
        let total: usize = waiting.iter().map(Buffer::len).sum();
        if 4 * (total + buffer.len()) <= KEPT {
            waiting.push(buffer);
        }
    }
}

/// Parts of one buffer, given out one after the other. A first walk with [`Arena::measuring`] says how long it must be.
#[derive(Debug)]
pub struct Arena {
    start: *mut f32,
    at: usize,
}

impl Arena {
    /// Gives out nothing, and counts.
    pub fn measuring() -> Self {
        Self { start: std::ptr::null_mut(), at: 0 }
    }

    /// Parts of `buffer`.
    pub fn of(buffer: &Buffer) -> Self {
        Self { start: buffer.start(), at: 0 }
    }

    /// Elements given out.
    pub fn len(&self) -> usize {
        self.at
    }

    /// Whether nothing was.
    pub fn is_empty(&self) -> bool {
        self.at == 0
    }

    /// The next `len` elements.
    pub fn take(&mut self, len: usize) -> *mut f32 {
        let start = self.start.wrapping_add(self.at);
        self.at += len.next_multiple_of(16);
        start
    }

    /// The next matrix of so many panels and rows.
    pub fn matrix(&mut self, panels: usize, rows: usize) -> Matrix {
        let stride = stride_rows(rows) * PANEL;
        match panels {
            0 => Matrix::NONE,
            _ => Matrix::new(self.take(panels * stride), stride),
        }
    }
}
