//! Records everything that passes an interface, from the moment it is made, for tshark.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::namespace::Enter;
use crate::wire::Wire;

/// A recording that goes on until [`Recorder::stop`].
pub struct Recorder {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<u64>>,
    file: PathBuf,
}

impl Recorder {
    /// Records `interface` of `place` into `file`, in both directions.
    pub fn start(place: &impl Enter, interface: &str, file: &Path) -> Self {
        let mut wire = Wire::open(place, interface);
        let mut out = BufWriter::new(File::create(file).expect("a file"));
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            // The format of libpcap: microseconds, no limit that a frame reaches, Ethernet. All times are zero.
            let head = [0xa1b2_c3d4, 0x0004_0002, 0, 0, 1 << 18, 1_u32].map(u32::to_ne_bytes).concat();
            out.write_all(&head).expect("the disk has room");
            let mut count = 0;
            loop {
                // What passed before the end was asked for belongs to the recording.
                let last = stopped.load(Ordering::Acquire);
                let Some(frame) = wire.find(Duration::from_millis(20), |frame| Some(frame.to_vec())) else {
                    if last {
                        break;
                    }
                    continue;
                };
                let len = frame.len() as u32;
                let head = [0, 0, len, len].map(u32::to_ne_bytes).concat();
                out.write_all(&head).and_then(|()| out.write_all(&frame)).expect("the disk has room");
                count += 1;
            }
            out.flush().expect("the disk has room");
            count
        });
        Self { stop, thread: Some(thread), file: file.to_owned() }
    }

    /// Ends the recording. Returns the file and how many frames it holds.
    pub fn stop(mut self) -> (PathBuf, u64) {
        self.stop.store(true, Ordering::Release);
        let thread = self.thread.take().expect("it is stopped once");
        (self.file.clone(), thread.join().expect("the recorder does not panic"))
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
    }
}
