//! An allocator for plugins: it only ever moves forward.
//!
//! A plugin's instance ends with its call, so nothing that it allocates needs to be given back.
//! What counts instead is that the instance starts cheaply: this allocator hands out the memory
//! that the instance begins with (see `.cargo/config.toml`), where the standard one would ask for
//! more at the first allocation, which costs the host two system calls per call.
//!
//! A plugin gets it with `use bump as _;`.

/// Where a block of `size` bytes goes: its address, a multiple of `align`, and the first byte
/// behind it; `None` where that is beyond the address space. `align` is a power of two.
#[cfg(any(test, target_family = "wasm"))]
fn place(next: usize, size: usize, align: usize) -> Option<(usize, usize)> {
    let at = next.checked_next_multiple_of(align)?;
    Some((at, at.checked_add(size)?))
}

#[cfg(target_family = "wasm")]
mod guest {
    #![allow(unsafe_code, reason = "an allocator hands out raw memory")]

    use core::alloc::{GlobalAlloc, Layout};
    use core::arch::wasm32::{memory_grow, memory_size};
    use core::cell::Cell;
    use core::ptr;

    use super::place;

    const PAGE_BYTES: usize = 64 * 1024;

    struct Bump {
        /// First free byte; 0 before the first allocation.
        next: Cell<usize>,
    }

    // SAFETY: a plugin has one thread.
    unsafe impl Sync for Bump {}

    #[global_allocator]
    static BUMP: Bump = Bump { next: Cell::new(0) };

    unsafe extern "C" {
        /// Set by the linker to the first byte behind stack and static data.
        static __heap_base: u8;
    }

    impl Bump {
        fn next(&self) -> usize {
            match self.next.get() {
                0 => (&raw const __heap_base) as usize,
                next => next,
            }
        }

        /// Makes sure that all bytes before `end` are there.
        fn reach(end: usize) -> bool {
            let pages = end.div_ceil(PAGE_BYTES);
            let have = memory_size(0);
            pages <= have || memory_grow(0, pages - have) != usize::MAX
        }
    }

    // SAFETY: blocks are aligned by `place`, lie behind everything the linker placed and behind
    // each other, and within memory by `reach`.
    unsafe impl GlobalAlloc for Bump {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            match place(self.next(), layout.size(), layout.align()) {
                Some((at, end)) if Self::reach(end) => {
                    self.next.set(end);
                    at as *mut u8
                }
                Some(_) | None => ptr::null_mut(),
            }
        }

        unsafe fn dealloc(&self, _: *mut u8, _: Layout) {}

        unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
            let is_last = block as usize + layout.size() == self.next();
            if is_last {
                // A growing string or list is mostly the last block: it grows where it is.
                let end = (block as usize).saturating_add(size);
                if !Self::reach(end) {
                    return ptr::null_mut();
                }
                self.next.set(end);
                return block;
            }
            if size <= layout.size() {
                return block;
            }
            // SAFETY: the new size with the old alignment is what the caller vouches for.
            let moved =
                unsafe { self.alloc(Layout::from_size_align_unchecked(size, layout.align())) };
            if !moved.is_null() {
                // SAFETY: both blocks have at least the old size and do not overlap.
                unsafe { ptr::copy_nonoverlapping(block, moved, layout.size()) };
            }
            moved
        }
    }
}

#[cfg(test)]
mod tests {
    use super::place;

    #[test]
    fn blocks_are_aligned_and_do_not_overlap() {
        assert_eq!(place(1024, 3, 1), Some((1024, 1027)));
        assert_eq!(place(1027, 8, 8), Some((1032, 1040)));
        assert_eq!(place(1040, 0, 16), Some((1040, 1040)));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        assert_eq!(place(usize::MAX, 1, 1), None);
        assert_eq!(place(usize::MAX - 2, 1, 8), None);
        assert_eq!(place(8, usize::MAX, 1), None);
    }
}
