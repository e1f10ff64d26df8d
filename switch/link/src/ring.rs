//! Reading by io_uring: one multishot read for each port, into buffers that all ports share.
//!
//! # Theory of operation
//!
//! A multishot read stays under way until it fails: whenever the device has frames, the kernel takes a buffer out of the
//! ring of provided buffers for each, fills it, and posts a completion that names the buffer. It does so in this thread,
//! when the thread enters the kernel to wait (`IORING_SETUP_DEFER_TASKRUN`), so completions never race with it; a flag in
//! shared memory says whether entering is worth while, so looking again without news costs no system call.
//!
//! A buffer belongs to the kernel, or to one completion that was not looked at yet, or to the frame that
//! [`Ring::take`] lent last. It goes back at the following call. When every buffer is taken, reads end with `ENOBUFS`
//! and are begun again in the next turn, in the order in which they ended; until then frames wait in their devices.
//!
//! A request carries the port's token and a serial number, so what a removed port still completes is told apart from what
//! the next holder of its token does.
//!
//! Sockets, and devices of which a multishot read does not bring whole frames, stay with mio: its descriptor is polled
//! through the ring like any other file, and asked when it stirs.
//!
//! io_uring does not look at `O_NONBLOCK` as `read` does: a multishot read of a non-blocking file ends with `EAGAIN`
//! instead of waiting. So devices are read blocking here.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::ptr::NonNull;
use std::slice;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use io_uring::types::{BufRingEntry, Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, Probe, cqueue, opcode, squeue};
use nix::errno::Errno;
use nix::libc;
use tapswitch_wire::{MAX_FRAME_LEN, VNET_HEADER_LEN};

use crate::intake::Arrival;
use crate::poller::{Poller, Token};
use crate::tap::{Tap, describe, rx_outcome};
use crate::{Port, Rx};

/// Requests that may be queued before the kernel is told of them.
const REQUESTS: u32 = 256;
/// Completions that fit; more are kept by the kernel until there is room.
const COMPLETIONS: u32 = 1024;
/// Buffers, a power of two. Few, so that they stay in the CPU's cache.
const BUFFERS: u16 = 32;
/// Bytes of a buffer: one more than header and frame may have, so that a longer frame is noticed, in whole pages.
const BUFFER_LEN: usize = (VNET_HEADER_LEN + MAX_FRAME_LEN + 1).next_multiple_of(PAGE);
const PAGE: usize = 4096;
const GROUP: u16 = 0;
/// How often in a row a device may be found non-blocking.
const REFUSALS: u32 = 3;
/// Requests that are no port's.
const SOCKETS: u64 = u64::MAX;
const CANCEL: u64 = u64::MAX - 1;

/// A port.
#[derive(Debug)]
struct Source {
    tap: Tap,
    vnet: bool,
    serial: u32,
    /// Whether a read is under way.
    reading: bool,
    /// How often in a row the device said that it does not wait.
    refusals: u32,
}

/// See the module's text.
pub(crate) struct Ring {
    // Dropped before the buffers. What is under way then is cancelled, and fills none.
    uring: IoUring,
    buffers: Buffers,
    sources: Vec<Option<Source>>,
    /// Removed, and kept until their reads have ended: the ring has a hold on the device for so long, and the last hold
    /// should not be the ring's.
    leaving: Vec<(u64, Tap)>,
    /// Reads that are to be ended.
    cancels: Vec<u64>,
    serial: u32,
    /// Completions of this turn that were not looked at yet.
    turn: VecDeque<cqueue::Entry>,
    /// Ports whose read must be begun (again).
    idle: VecDeque<(Token, u32)>,
    /// The buffer whose frame is lent out.
    lent: Option<u16>,
    /// Whether the poller's descriptor is being watched.
    watching: bool,
    /// Whether the poller may have more news than it told last.
    unasked: bool,
    enabled: bool,
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ring").field("sources", &self.sources).field("idle", &self.idle).finish_non_exhaustive()
    }
}

impl Ring {
    /// A ring without ports. The thread that first calls [`Ring::poll`] is the one that it belongs to.
    pub(crate) fn new() -> io::Result<Ring> {
        let uring = IoUring::builder()
            .setup_cqsize(COMPLETIONS)
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_r_disabled()
            .build(REQUESTS)?;
        let mut probe = Probe::new();
        uring.submitter().register_probe(&mut probe)?;
        if !probe.is_supported(opcode::ReadMulti::CODE) || !uring.params().is_feature_ext_arg() {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "this kernel's io_uring has no multishot read"));
        }
        let buffers = Buffers::new();
        // SAFETY: the memory is page-aligned, as large as the entries need, and lives until the ring is dropped.
        unsafe { uring.submitter().register_buf_ring_with_flags(buffers.ring.as_ptr() as u64, BUFFERS, GROUP, 0) }?;
        Ok(Ring {
            uring,
            buffers,
            sources: Vec::new(),
            leaving: Vec::new(),
            cancels: Vec::new(),
            serial: 0,
            turn: VecDeque::with_capacity(COMPLETIONS as usize),
            idle: VecDeque::new(),
            lent: None,
            watching: false,
            unasked: false,
            enabled: false,
        })
    }

    /// Begins to read a port whose token is below [`Poller::FIRST_FOREIGN`] and not in use.
    pub(crate) fn add(&mut self, token: Token, tap: Tap) -> io::Result<()> {
        if self.sources.len() <= token.0 {
            self.sources.resize_with(token.0 + 1, || None);
        }
        tap.set_nonblocking(false).map_err(io::Error::other)?;
        self.serial = self.serial.wrapping_add(1);
        self.idle.push_back((token, self.serial));
        self.sources[token.0] =
            Some(Source { vnet: tap.offload(), tap, serial: self.serial, reading: false, refusals: 0 });
        Ok(())
    }

    /// The port of this token, if it is read here.
    pub(crate) fn tap(&self, token: Token) -> Option<&Tap> {
        Some(&self.sources.get(token.0)?.as_ref()?.tap)
    }

    pub(crate) fn remove(&mut self, token: Token) {
        let Some(source) = self.sources.get_mut(token.0).and_then(Option::take) else { return };
        self.idle.retain(|(idle, _)| *idle != token);
        if source.reading {
            let read = request(token, source.serial);
            self.leaving.push((read, source.tap));
            self.cancels.push(read);
        }
    }

    pub(crate) fn is_busy(&self) -> bool {
        !self.turn.is_empty()
    }

    /// Begins a turn, in which `poller` has its part.
    pub(crate) fn poll(&mut self, poller: &mut Poller, timeout: Option<Duration>) -> io::Result<()> {
        self.give_back();
        if !self.enabled {
            self.uring.submitter().register_enable_rings()?;
            self.enabled = true;
        }
        self.begin_reads(poller)?;
        let waiting = self.unasked
            || poller.is_busy()
            || !self.cancels.is_empty()
            || !self.idle.is_empty()
            || !self.uring.completion().is_empty()
            || !self.turn.is_empty();
        self.enter(if waiting { Some(Duration::ZERO) } else { timeout })?;
        self.turn.extend(self.uring.completion());
        let (watching, unasked) = (&mut self.watching, &mut self.unasked);
        self.turn.retain(|entry| {
            let is_sockets = entry.user_data() == SOCKETS;
            *unasked |= is_sockets;
            *watching &= !is_sockets || cqueue::more(entry.flags());
            !is_sockets
        });
        if !self.unasked {
            poller.no_news();
            return Ok(());
        }
        poller.poll(Some(Duration::ZERO))?;
        self.unasked = poller.was_full();
        Ok(())
    }

    pub(crate) fn take(&mut self) -> Option<(Token, Arrival<'_>)> {
        self.give_back();
        while let Some(entry) = self.turn.pop_front() {
            let buffer = cqueue::buffer_select(entry.flags());
            let (token, serial) = told(entry.user_data());
            let ended = !cqueue::more(entry.flags());
            let source = self.sources.get_mut(token.0).and_then(Option::as_mut);
            let Some(source) = source.filter(|source| source.serial == serial) else {
                // Of a port that was removed, or the answer to a cancellation.
                if let Some(buffer) = buffer {
                    self.buffers.give_back(buffer);
                }
                if ended {
                    self.leaving.retain(|(read, _)| *read != entry.user_data());
                }
                continue;
            };
            source.reading &= !ended;
            let read = usize::try_from(entry.result()).unwrap_or(0);
            if let (Some(buffer), true) = (buffer, read > 0) {
                source.refusals = 0;
                if ended {
                    self.idle.push_back((token, serial));
                }
                self.lent = Some(buffer);
                let header = if source.vnet { read.min(VNET_HEADER_LEN) } else { 0 };
                let (header, frame) = self.buffers.filled(buffer, read).split_at_mut(header);
                let arrival = match describe(source.vnet, header, frame) {
                    Ok(meta) => Arrival::Frame(meta, frame),
                    Err(reason) => Arrival::Bad(reason),
                };
                return Some((token, arrival));
            }
            if let Some(buffer) = buffer {
                self.buffers.give_back(buffer);
            }
            let outcome = match Errno::from_raw(-entry.result()) {
                // All buffers were taken, or the kernel wants to be asked again.
                Errno::ENOBUFS | Errno::ECANCELED | Errno::EINTR => Rx::WouldBlock,
                // Somebody who shares the device made it non-blocking: it is set right once, and not for ever.
                Errno::EAGAIN => {
                    source.refusals += 1;
                    let set = source.tap.set_nonblocking(false);
                    if set.is_err() || source.refusals > REFUSALS { Rx::Gone } else { Rx::WouldBlock }
                }
                _ if entry.result() == 0 => Rx::Gone,
                errno => rx_outcome(&io::Error::from_raw_os_error(errno as i32)),
            };
            if ended && outcome != Rx::Gone {
                self.idle.push_back((token, serial));
            }
            match outcome {
                Rx::Bad(reason) => return Some((token, Arrival::Bad(reason))),
                Rx::Gone => return Some((token, Arrival::Gone)),
                Rx::WouldBlock | Rx::Frame(..) => {}
            }
        }
        None
    }

    /// The frame that was lent is not looked at any more.
    fn give_back(&mut self) {
        if let Some(buffer) = self.lent.take() {
            self.buffers.give_back(buffer);
        }
    }

    /// Queues a read for each port that has none, what is to be cancelled, and the watch over the sockets. What finds no
    /// place now is queued in the next turn.
    fn begin_reads(&mut self, poller: &Poller) -> io::Result<()> {
        if !self.watching {
            let fd = Fd(poller.as_raw_fd());
            let watch = opcode::PollAdd::new(fd, libc::POLLIN as u32).multi(true).build().user_data(SOCKETS);
            self.watching = self.push(&watch)?;
        }
        while let Some(read) = self.cancels.last().copied() {
            let cancel = opcode::AsyncCancel::new(read).build().user_data(CANCEL);
            if !self.push(&cancel)? {
                return Ok(());
            }
            self.cancels.pop();
        }
        while let Some((token, serial)) = self.idle.front().copied() {
            let source = self.sources.get(token.0).and_then(Option::as_ref);
            if let Some(source) = source {
                let fd = Fd(source.tap.as_fd().as_raw_fd());
                // A device has no place to read from: -1 is "where it stands".
                let read = opcode::ReadMulti::new(fd, 0, GROUP).offset(u64::MAX).build();
                if !self.push(&read.user_data(request(token, serial)))? {
                    return Ok(());
                }
            }
            self.idle.pop_front();
            if let Some(Some(source)) = self.sources.get_mut(token.0) {
                source.reading = true;
            }
        }
        Ok(())
    }

    /// Queues a request; says no if there is no room for it now.
    fn push(&mut self, entry: &squeue::Entry) -> io::Result<bool> {
        for _ in 0..2 {
            // SAFETY: the requests here name descriptors that are open now; their memory is the registered ring's.
            if unsafe { self.uring.submission().push(entry) }.is_ok() {
                return Ok(true);
            }
            self.tolerant(|uring| uring.submit())?;
        }
        Ok(false)
    }

    /// Enters the kernel. That it is short of memory, that completions must be looked at first, or that a signal came, is
    /// no error: the next turn enters again.
    fn tolerant(&self, enter: impl FnOnce(&IoUring) -> io::Result<usize>) -> io::Result<()> {
        match enter(&self.uring) {
            Ok(_) => Ok(()),
            Err(e) if matches!(e.raw_os_error(), Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN)) => {
                Ok(())
            }
            Err(e) => Err(e),
        }
    }

    /// Tells the kernel of what is queued, lets it complete what it can, and waits for news if there are none.
    fn enter(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        if timeout == Some(Duration::ZERO) {
            let queue = self.uring.submission();
            if queue.is_empty() && !queue.taskrun() && !queue.cq_overflow() {
                return Ok(());
            }
        }
        self.tolerant(|uring| match timeout {
            Some(Duration::ZERO) => uring.submit(),
            None => uring.submit_and_wait(1),
            Some(limit) => {
                let limit = Timespec::from(limit);
                uring.submitter().submit_with_args(1, &SubmitArgs::new().timespec(&limit))
            }
        })
    }
}

fn request(token: Token, serial: u32) -> u64 {
    u64::from(serial) << 16 | token.0 as u64
}

fn told(request: u64) -> (Token, u32) {
    (Token((request & 0xffff) as usize), (request >> 16) as u32)
}

/// The provided buffers and the ring by which the kernel gets them.
struct Buffers {
    ring: NonNull<BufRingEntry>,
    bytes: NonNull<u8>,
    tail: u16,
}

// SAFETY: the memory is this value's alone, and the kernel's.
unsafe impl Send for Buffers {}

impl Buffers {
    fn ring_layout() -> Layout {
        Layout::array::<BufRingEntry>(usize::from(BUFFERS))
            .and_then(|l| l.align_to(PAGE))
            .unwrap_or(Layout::new::<()>())
    }

    fn bytes_layout() -> Layout {
        Layout::from_size_align(usize::from(BUFFERS) * BUFFER_LEN, PAGE).unwrap_or(Layout::new::<()>())
    }

    fn new() -> Buffers {
        fn zeroed<T>(layout: Layout) -> NonNull<T> {
            // SAFETY: neither layout is empty.
            NonNull::new(unsafe { alloc_zeroed(layout) }.cast()).unwrap_or_else(|| handle_alloc_error(layout))
        }
        let mut buffers = Buffers { ring: zeroed(Self::ring_layout()), bytes: zeroed(Self::bytes_layout()), tail: 0 };
        for buffer in 0..BUFFERS {
            buffers.give_back(buffer);
        }
        buffers
    }

    /// Hands a buffer to the kernel.
    fn give_back(&mut self, buffer: u16) {
        let buffer = buffer % BUFFERS;
        let at = usize::from(self.tail & (BUFFERS - 1));
        let start = usize::from(buffer) * BUFFER_LEN;
        // SAFETY: `at` and `start` are within their allocations. The kernel reads an entry only once the tail has passed it,
        // which the store below says after the entry is written.
        unsafe {
            let entry = &mut *self.ring.as_ptr().add(at);
            entry.set_addr(self.bytes.as_ptr().add(start) as u64);
            entry.set_len(BUFFER_LEN as u32);
            entry.set_bid(buffer);
            self.tail = self.tail.wrapping_add(1);
            let tail = BufRingEntry::tail(self.ring.as_ptr()).cast_mut();
            AtomicU16::from_ptr(tail).store(self.tail, Ordering::Release);
        }
    }

    /// What the kernel wrote into a buffer that it gave us.
    fn filled(&mut self, buffer: u16, len: usize) -> &mut [u8] {
        let start = usize::from(buffer % BUFFERS) * BUFFER_LEN;
        // SAFETY: the slice is within the allocation and initialised. The kernel named the buffer in a completion, so it
        // does not write to it until it is given back, for which `&mut self` is needed.
        unsafe { slice::from_raw_parts_mut(self.bytes.as_ptr().add(start), len.min(BUFFER_LEN)) }
    }
}

impl Drop for Buffers {
    fn drop(&mut self) {
        // SAFETY: allocated with these layouts. The io_uring instance is closed: the kernel fills buffers only while a thread
        // enters it, so none is filled any more.
        unsafe {
            dealloc(self.ring.as_ptr().cast(), Self::ring_layout());
            dealloc(self.bytes.as_ptr(), Self::bytes_layout());
        }
    }
}
