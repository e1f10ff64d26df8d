//! Wakes a poll thread that sleeps, and only then: waking one that is awake is a system call for nothing.
//!
//! # Theory of operation
//!
//! The thread says that it will sleep, *then* looks once more for work, and sleeps only if there is none. Whoever brings
//! work puts it down first, *then* looks whether the thread said so. Both orders are made strict by sequentially
//! consistent fences, so at least one of the two sees the other: either the thread finds the work, or the bell is rung. A
//! bell that is rung for a thread which is awake by now costs it one turn without news.
//!
//! One flag is all of it. It is checked for every interleaving by loom, with feature `loom`: see the test.

use crate::poller::Waker;

#[cfg(feature = "loom")]
use loom::sync::{
    Arc,
    atomic::{AtomicBool, Ordering, fence},
};
#[cfg(not(feature = "loom"))]
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering, fence},
};

/// The sleeper's flag.
#[derive(Debug)]
struct Bell(AtomicBool);

impl Bell {
    /// From now on the bell is heard.
    fn listen(&self) {
        self.0.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// The thread is awake.
    fn awake(&self) {
        self.0.store(false, Ordering::Relaxed);
    }

    /// After work was put down: whether the thread must be woken. Of several who ask, one is told so.
    fn must_wake(&self) -> bool {
        fence(Ordering::SeqCst);
        self.0.load(Ordering::Relaxed) && self.0.swap(false, Ordering::Relaxed)
    }
}

/// The sleeping thread's end.
#[derive(Debug)]
pub struct Doorbell {
    bell: Arc<Bell>,
    waker: Waker,
}

/// The end of those who bring work.
#[derive(Clone, Debug)]
pub struct Ringer {
    bell: Arc<Bell>,
    waker: Waker,
}

impl Doorbell {
    /// The bell of the thread that this waker wakes.
    pub fn new(waker: Waker) -> Doorbell {
        Doorbell { bell: Arc::new(Bell(AtomicBool::new(false))), waker }
    }

    /// For one who brings work.
    pub fn ringer(&self) -> Ringer {
        Ringer { bell: Arc::clone(&self.bell), waker: self.waker.clone() }
    }

    /// Says that this thread is about to sleep. Look for work once more after it, and do not sleep if there is any.
    pub fn listen(&self) {
        self.bell.listen();
    }

    /// Says that this thread is awake.
    pub fn awake(&self) {
        self.bell.awake();
    }
}

impl Ringer {
    /// After work was put down: wakes the thread if it sleeps.
    pub fn ring(&self) {
        if self.bell.must_wake() {
            // A wake-up that fails is one that is already under way.
            let _ = self.waker.wake();
        }
    }
}

#[cfg(all(test, not(feature = "loom")))]
mod tests {
    use super::*;

    #[test]
    fn only_a_listening_thread_is_woken_and_only_once() {
        let bell = Bell(AtomicBool::new(false));
        assert!(!bell.must_wake());
        bell.listen();
        assert!(bell.must_wake());
        assert!(!bell.must_wake(), "it is being woken already");
        bell.listen();
        bell.awake();
        assert!(!bell.must_wake());
    }
}

#[cfg(all(test, feature = "loom"))]
mod model {
    use loom::sync::atomic::AtomicUsize;
    use loom::thread;

    use super::*;

    /// Two bring work, one sleeps: in no interleaving does it sleep while work lies there and nobody woke it.
    #[test]
    fn no_work_is_slept_through() {
        loom::model(|| {
            let bell = Arc::new(Bell(AtomicBool::new(false)));
            let (work, wakes) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
            let bringers: Vec<_> = (0..2)
                .map(|_| {
                    let (bell, work, wakes) = (Arc::clone(&bell), Arc::clone(&work), Arc::clone(&wakes));
                    thread::spawn(move || {
                        work.fetch_add(1, Ordering::Relaxed);
                        if bell.must_wake() {
                            wakes.fetch_add(1, Ordering::Relaxed);
                        }
                    })
                })
                .collect();
            bell.listen();
            let seen = work.load(Ordering::Relaxed);
            for bringer in bringers {
                bringer.join().unwrap();
            }
            let woken = wakes.load(Ordering::Relaxed);
            assert!(seen == 2 || woken == 1, "it saw {seen} of 2 and was woken {woken} times");
        });
    }
}
