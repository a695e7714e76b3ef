//! The allocator of every program here: mimalloc, told to keep the memory that it has.
//!
//! A training step asks for the same large buffers again and again, tens of milliseconds apart. An allocator that returns
//! them in between has the system clear every page anew: that took a fifth of a step on the CPU (4096 tokens, 576 → 4608).

use mimalloc::MiMalloc;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// `mi_option_purge_delay` in mimalloc's enumeration, whose bindings lack it; the same in its versions 2 and 3.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;

/// What is freed is kept for what comes next. To be called first thing in `main`: options are not guarded against threads.
/// A program that calls it has the allocator, too.
pub fn keep_pages() {
    // SAFETY: the option exists, -1 is its documented value for "never", and no other thread sets options.
    unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, -1) }
}
