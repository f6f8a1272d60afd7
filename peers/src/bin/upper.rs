//! Capitals from fd 0 to fd 1: the smallest useful UCSPI program.
//!
//! Not even a C library: the start of one asks the processor for its features, which a hypervisor may turn into
//! a millisecond, and what is measured is the server that runs this, not the program.
//!
//! # Safety
//! The only system calls are `read` and `write` of the one buffer with its own length, and `exit`.
#![no_std]
#![no_main]

use core::arch::{asm, global_asm};

#[cfg(target_arch = "x86_64")]
global_asm!(".globl _start", "_start:", "xor ebp, ebp", "call {}", sym upper);
#[cfg(target_arch = "aarch64")]
global_asm!(".globl _start", "_start:", "mov x29, xzr", "mov x30, xzr", "bl {}", sym upper);

#[cfg(target_arch = "x86_64")]
const READ_WRITE_EXIT: [isize; 3] = [0, 1, 60];
#[cfg(target_arch = "aarch64")]
const READ_WRITE_EXIT: [isize; 3] = [63, 64, 93];

extern "C" fn upper() -> ! {
    const LENGTH: usize = 4096;
    static mut LINE: [u8; LENGTH] = [0; LENGTH];
    let [read, write, exit] = READ_WRITE_EXIT;
    let line = &raw mut LINE;
    loop {
        // SAFETY: the buffer is static, used here only, and its own length is given.
        let n = unsafe { syscall(read, 0, line as isize, LENGTH as isize) };
        // SAFETY: the kernel wrote no more than the buffer's length; one thread, so one reference at a time.
        let text = unsafe { core::slice::from_raw_parts_mut(line.cast::<u8>(), n.max(0) as usize) };
        for byte in text.iter_mut() {
            byte.make_ascii_uppercase();
        }
        // SAFETY: `text` is a part of the static buffer.
        if n <= 0 || unsafe { syscall(write, 1, text.as_ptr() as isize, n) } != n {
            // SAFETY: takes no pointer.
            unsafe { syscall(exit, isize::from(n < 0), 0, 0) };
        }
    }
}

/// # Safety
/// The three arguments must be valid for the call.
unsafe fn syscall(number: isize, a: isize, b: isize, c: isize) -> isize {
    let result;
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the kernel's calling convention; the arguments are the caller's promise.
    unsafe {
        asm!("syscall", inlateout("rax") number => result, in("rdi") a, in("rsi") b, in("rdx") c,
             lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: as above.
    unsafe {
        asm!("svc 0", in("x8") number, inlateout("x0") a => result, in("x1") b, in("x2") c, options(nostack));
    }
    result
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
