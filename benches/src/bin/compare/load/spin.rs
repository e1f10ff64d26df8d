//! A container's own work: a process that wants a whole CPU.

use std::hint::{black_box, spin_loop};

pub(super) fn spin() -> ! {
    super::ready();
    loop {
        spin_loop();
        black_box(());
    }
}
