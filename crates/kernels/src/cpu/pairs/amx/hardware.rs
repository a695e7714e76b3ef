//! The instructions themselves, one by one. They are written out because the compiler has no stable names for them.

use std::{
    arch::{
        asm,
        x86_64::{__cpuid, __cpuid_count, _xgetbv},
    },
    cell::Cell,
    marker::PhantomData,
    sync::OnceLock,
};

use super::{HEIGHT, LinePairs, Registers, Unit};
use crate::cpu::line::Line;

/// Proof that this process may use the registers, and that what comes out of them is right.
#[derive(Clone, Copy, Debug)]
pub(in crate::cpu) struct Found(());

impl Found {
    /// Asks once.
    pub(in crate::cpu) fn detect() -> Option<Self> {
        static FOUND: OnceLock<Option<Found>> = OnceLock::new();
        *FOUND.get_or_init(|| {
            let usable = is_there() && is_switched() && is_permitted();
            usable.then_some(Self(())).filter(|found| super::agrees(*found))
        })
    }
}

/// Whether the processor has AMX-TILE and AMX-BF16, with registers as large as they are taken to be here.
fn is_there() -> bool {
    const AMX_BF16: u32 = 1 << 22;
    const AMX_TILE: u32 = 1 << 24;
    const ALL: u32 = AMX_BF16 | AMX_TILE;
    /// Where sizes are told.
    const TILES: u32 = 0x1d;
    if __cpuid(0).eax < TILES || __cpuid_count(7, 0).edx & ALL != ALL {
        return false;
    }
    let sizes = __cpuid_count(TILES, 1);
    // Bytes of all and of one, names and bytes of a row, rows.
    [sizes.eax, sizes.ebx, sizes.ecx & 0xffff] == [(1024 << 16) | 8192, (8 << 16) | 64, HEIGHT as u32]
}

/// Whether the operating system saves the registers when it switches threads.
fn is_switched() -> bool {
    const OSXSAVE: u32 = 1 << 27;
    const TILES: u64 = 0b11 << 17;
    // SAFETY: the instruction is there if the operating system says that it has turned it on.
    __cpuid(1).ecx & OSXSAVE != 0 && unsafe { _xgetbv(0) } & TILES == TILES
}

/// Whether Linux lets this process use the registers. It wants to be asked first, since a thread's state is 8 KiB larger then.
fn is_permitted() -> bool {
    const ARCH_PRCTL: usize = 158;
    const ARCH_REQ_XCOMP_PERM: usize = 0x1023;
    const TILE_DATA: usize = 18;
    let failed: usize;
    // SAFETY: the call reads and writes no memory of this process; it changes rcx, r11 and rax, as every call does.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") ARCH_PRCTL => failed,
            in("rdi") ARCH_REQ_XCOMP_PERM,
            in("rsi") TILE_DATA,
            out("rcx") _,
            out("r11") _,
            options(nostack),
        );
    }
    failed == 0
}

impl Unit for Found {
    type Registers = Configured;

    fn registers(self) -> Configured {
        Configured::new(self)
    }
}

thread_local! {
    static TAKEN: Cell<bool> = const { Cell::new(false) };
}

/// The registers of this thread, from when they are configured to when they are given back. While they are not, switching
/// threads costs no more than without them. No code but this touches them: compilers leave them alone.
pub(in crate::cpu) struct Configured(
    /// Stays on its thread.
    PhantomData<*const ()>,
);

impl Configured {
    /// # Panics
    /// If this thread has them already: giving them back twice would take them from who is still at work.
    fn new(_: Found) -> Self {
        /// Of every register, how many bytes a row has, and how many rows there are.
        #[repr(C, align(64))]
        struct Configuration {
            palette: u8,
            start_row: u8,
            reserved: [u8; 14],
            bytes: [u16; 16],
            rows: [u8; 16],
        }
        static ALL: Configuration = Configuration {
            palette: 1,
            start_row: 0,
            reserved: [0; 14],
            bytes: [64, 64, 64, 64, 64, 64, 64, 64, 0, 0, 0, 0, 0, 0, 0, 0],
            rows: [16, 16, 16, 16, 16, 16, 16, 16, 0, 0, 0, 0, 0, 0, 0, 0],
        };
        const _: () = assert!(size_of::<Configuration>() == 64);
        assert!(!TAKEN.replace(true), "a thread has its registers once");
        // SAFETY: a `Found` says that the registers are there, and these 64 bytes describe them.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &ALL, options(nostack, preserves_flags)) };
        Self(PhantomData)
    }
}

impl Drop for Configured {
    fn drop(&mut self) {
        // SAFETY: this value says that the registers are there.
        unsafe { asm!("tilerelease", options(nostack, preserves_flags)) };
        TAKEN.set(false);
    }
}

impl Registers for Configured {
    #[inline(always)]
    fn load_pairs<const T: usize>(&mut self, lines: &[LinePairs], stride: usize) {
        assert!(lines.len() > (HEIGHT - 1) * stride, "all rows are there");
        // SAFETY: just asserted, and this value says that the register is there.
        unsafe { load::<T>(lines.as_ptr().cast(), stride * size_of::<LinePairs>()) }
    }

    #[inline(always)]
    fn load<const T: usize>(&mut self, lines: &[Line], stride: usize) {
        assert!(lines.len() > (HEIGHT - 1) * stride, "all rows are there");
        // SAFETY: as in `load_pairs`.
        unsafe { load::<T>(lines.as_ptr().cast(), stride * size_of::<Line>()) }
    }

    #[inline(always)]
    fn store<const T: usize>(&self, lines: &mut [Line], stride: usize) {
        assert!(lines.len() > (HEIGHT - 1) * stride, "all rows are there");
        // SAFETY: as in `load_pairs`.
        unsafe { store::<T>(lines.as_mut_ptr().cast(), stride * size_of::<Line>()) }
    }

    #[inline(always)]
    fn multiply<const C: usize, const A: usize, const B: usize>(&mut self) {
        // SAFETY: this value says that the registers are there.
        unsafe {
            asm!(
                "tdpbf16ps tmm{c}, tmm{a}, tmm{b}",
                c = const C,
                a = const A,
                b = const B,
                options(nostack, preserves_flags),
            );
        }
    }
}

/// # Safety
/// 16 rows of 64 bytes, `stride` bytes apart, may be read, and registers are configured.
#[inline(always)]
unsafe fn load<const T: usize>(from: *const u8, stride: usize) {
    // SAFETY: by the caller.
    unsafe {
        asm!(
            "tileloadd tmm{t}, [{from} + {stride}*1]",
            t = const T,
            from = in(reg) from,
            stride = in(reg) stride,
            options(nostack, preserves_flags),
        );
    }
}

/// # Safety
/// 16 rows of 64 bytes, `stride` bytes apart, may be written, and registers are configured.
#[inline(always)]
unsafe fn store<const T: usize>(to: *mut u8, stride: usize) {
    // SAFETY: by the caller.
    unsafe {
        asm!(
            "tilestored [{to} + {stride}*1], tmm{t}",
            t = const T,
            to = in(reg) to,
            stride = in(reg) stride,
            options(nostack, preserves_flags),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where there are any.
    #[test]
    fn registers_are_given_back() {
        let Some(found) = Found::detect() else { return };
        for _ in 0..3 {
            let taken = found.registers();
            assert!(
                std::thread::spawn(move || super::super::agrees(found)).join().is_ok_and(|agrees| agrees)
            );
            assert!(std::panic::catch_unwind(|| drop(found.registers())).is_err());
            drop(taken);
            assert!(super::super::agrees(found));
        }
    }
}
