//! A port with bad luck: frames are lost, doubled, damaged and reordered, by a seeded generator.
//!
//! The same seed and the same frames give the same faults, so a failure seen once can be seen again. Damage is done to
//! the frame as a wire would carry it: cut into segments, checksums complete. One bit behind the Ethernet header is
//! flipped, where the receiver's checksums are the only protection.

use tapswitch_wire::{DropReason, ETHERNET_HEADER_LEN, Meta};

use crate::port::tx_plain;
use crate::random::Random;
use crate::{Buffer, Port, Rx};

/// Probabilities, from 0.0 (never) to 1.0 (always), of what happens to a frame. Both directions are treated alike.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Faults {
    /// It is lost. The drop is counted as [`DropReason::FaultInjected`].
    pub loss: f64,
    /// It arrives twice.
    pub duplicate: f64,
    /// One bit of it, or of one of its segments, is flipped.
    pub corrupt: f64,
    /// It is overtaken by the next frame in its direction. With no next frame, it goes on when the port is read dry.
    pub reorder: f64,
}

/// How often each fault was injected.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Injected {
    /// Frames lost.
    pub lost: u64,
    /// Frames doubled.
    pub duplicated: u64,
    /// Frames damaged.
    pub corrupted: u64,
    /// Frames overtaken.
    pub reordered: u64,
}

/// What happens to one frame. At most one fault strikes it.
#[derive(Clone, Copy)]
enum Fate {
    Pass,
    Lose,
    Duplicate,
    Corrupt,
    HoldBack,
}

/// A port with faults in front of it.
#[derive(Debug)]
pub struct Fault<P> {
    port: P,
    faults: Faults,
    random: Random,
    injected: Injected,
    /// Frames that were read and are still to be given.
    arrived: Vec<(Meta, Vec<u8>)>,
    /// A frame that is to be sent after the next one.
    tx_held: Option<(Meta, Vec<u8>)>,
    scratch: Vec<u8>,
}

impl<P: Port> Fault<P> {
    /// Wraps a port.
    pub fn new(port: P, faults: Faults, seed: u64) -> Fault<P> {
        Fault {
            port,
            faults,
            random: Random::new(seed),
            injected: Injected::default(),
            arrived: Vec::new(),
            tx_held: None,
            scratch: Vec::new(),
        }
    }

    /// What has been injected so far.
    pub fn injected(&self) -> Injected {
        self.injected
    }

    /// Changes the probabilities from the next frame on.
    pub fn set_faults(&mut self, faults: Faults) {
        self.faults = faults;
    }

    /// The port inside.
    pub fn inner(&self) -> &P {
        &self.port
    }

    fn fate(&mut self) -> Fate {
        let Faults { loss, duplicate, corrupt, reorder } = self.faults;
        let injected = &mut self.injected;
        if self.random.chance(loss) {
            injected.lost += 1;
            Fate::Lose
        } else if self.random.chance(duplicate) {
            injected.duplicated += 1;
            Fate::Duplicate
        } else if self.random.chance(corrupt) {
            injected.corrupted += 1;
            Fate::Corrupt
        } else if self.random.chance(reorder) {
            Fate::HoldBack
        } else {
            Fate::Pass
        }
    }

    /// The frame as the wire-legal frames it stands for, one of them with a flipped bit.
    fn damaged(&mut self, meta: &Meta, frame: &[u8]) -> Result<Vec<Vec<u8>>, DropReason> {
        let mut frames = Vec::new();
        tx_plain(meta, frame, &mut self.scratch, |segment| {
            frames.push(segment.to_vec());
            Ok(())
        })?;
        let victim = self.random.below(frames.len().max(1));
        if let Some(victim) = frames.get_mut(victim)
            && victim.len() > ETHERNET_HEADER_LEN
        {
            let at = ETHERNET_HEADER_LEN + self.random.below(victim.len() - ETHERNET_HEADER_LEN);
            victim[at] ^= 1 << self.random.below(8);
        }
        Ok(frames)
    }

    fn release_tx(&mut self) -> Result<(), DropReason> {
        match self.tx_held.take() {
            Some((meta, frame)) => self.port.tx(&meta, &frame),
            None => Ok(()),
        }
    }

    /// Reads one frame from the port and says what became of it.
    fn read(&mut self, buffer: &mut Buffer) -> Rx {
        let outcome = self.port.rx(buffer);
        let Rx::Frame(meta, len) = outcome else { return outcome };
        match self.fate() {
            Fate::Pass => return outcome,
            Fate::Lose => return Rx::Bad(DropReason::FaultInjected),
            Fate::Duplicate => {
                self.arrived.push((meta, buffer.frame(len).to_vec()));
                return outcome;
            }
            Fate::HoldBack => {
                self.injected.reordered += 1;
                let held = (meta, buffer.frame(len).to_vec());
                let overtaking = self.port.rx(buffer);
                if let Rx::WouldBlock | Rx::Gone = overtaking {
                    return buffer.put(held.0, &held.1);
                }
                self.arrived.push(held);
                return overtaking;
            }
            Fate::Corrupt => match self.damaged(&meta, buffer.frame(len)) {
                // Given from the back.
                Ok(frames) => self.arrived.extend(frames.into_iter().rev().map(|frame| (Meta::PLAIN, frame))),
                Err(reason) => return Rx::Bad(reason),
            },
        }
        match self.arrived.pop() {
            Some((meta, frame)) => buffer.put(meta, &frame),
            None => Rx::Bad(DropReason::FaultInjected),
        }
    }
}

impl<P: Port> Port for Fault<P> {
    fn rx(&mut self, buffer: &mut Buffer) -> Rx {
        if let Some((meta, frame)) = self.arrived.pop() {
            return buffer.put(meta, &frame);
        }
        let outcome = self.read(buffer);
        if let Rx::WouldBlock | Rx::Gone = outcome
            && self.release_tx().is_err()
        {
            // The frame's sender has long been told that it was taken: to it, the wire lost the frame.
            self.injected.lost += 1;
        }
        outcome
    }

    fn tx(&mut self, meta: &Meta, frame: &[u8]) -> Result<(), DropReason> {
        let sent = match self.fate() {
            Fate::Lose => Err(DropReason::FaultInjected),
            Fate::HoldBack if self.tx_held.is_none() => {
                self.injected.reordered += 1;
                self.tx_held = Some((*meta, frame.to_vec()));
                return Ok(());
            }
            // While one is held back, this is the frame that overtakes it.
            Fate::Pass | Fate::HoldBack => self.port.tx(meta, frame),
            Fate::Duplicate => self.port.tx(meta, frame).and_then(|()| self.port.tx(meta, frame)),
            Fate::Corrupt => self
                .damaged(meta, frame)
                .and_then(|frames| frames.iter().try_for_each(|frame| self.port.tx(&Meta::PLAIN, frame))),
        };
        sent.and(self.release_tx())
    }

    fn offload(&self) -> bool {
        self.port.offload()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cable::{Cable, cable};
    use crate::testing::{plain_frame, super_frame};
    use tapswitch_wire::Parsed;

    fn rate(change: impl FnOnce(&mut Faults)) -> Faults {
        let mut faults = Faults::default();
        change(&mut faults);
        faults
    }

    fn drain(port: &mut impl Port) -> Vec<Vec<u8>> {
        let mut buffer = Buffer::new();
        let mut frames = Vec::new();
        loop {
            match port.rx(&mut buffer) {
                Rx::Frame(_, len) => frames.push(buffer.frame(len).to_vec()),
                Rx::Bad(_) => {}
                Rx::WouldBlock | Rx::Gone => return frames,
            }
        }
    }

    fn faulty(faults: Faults, seed: u64) -> (Fault<Cable>, Cable) {
        let (near, far) = cable(10_000, true);
        (Fault::new(near, faults, seed), far)
    }

    /// What arrives at the far end of a thousand numbered frames, and what was injected.
    fn send_thousand(faults: Faults, seed: u64) -> (Vec<Vec<u8>>, Injected) {
        let (mut port, mut far) = faulty(faults, seed);
        for number in 0..1000 {
            let _ = port.tx(&Meta::PLAIN, &plain_frame(number));
        }
        drain(&mut port);
        (drain(&mut far), port.injected())
    }

    #[test]
    fn same_seed_gives_the_same_faults_and_another_seed_gives_others() {
        let faults = Faults { loss: 0.1, duplicate: 0.1, corrupt: 0.1, reorder: 0.1 };
        assert_eq!(send_thousand(faults, 7), send_thousand(faults, 7));
        assert_ne!(send_thousand(faults, 7), send_thousand(faults, 8));
    }

    #[test]
    fn without_faults_everything_passes_unchanged() {
        let (frames, injected) = send_thousand(Faults::default(), 1);
        assert_eq!(frames, (0..1000).map(plain_frame).collect::<Vec<_>>());
        assert_eq!(injected, Injected::default());
    }

    #[test]
    fn loss_is_named_and_counted_in_both_directions() {
        let (mut port, mut far) = faulty(rate(|f| f.loss = 1.0), 1);
        let frame = plain_frame(1);
        assert_eq!(port.tx(&Meta::PLAIN, &frame), Err(DropReason::FaultInjected));
        far.tx(&Meta::PLAIN, &frame).unwrap();
        assert_eq!(port.rx(&mut Buffer::new()), Rx::Bad(DropReason::FaultInjected));
        assert_eq!(port.injected().lost, 2);
        let (frames, injected) = send_thousand(rate(|f| f.loss = 0.3), 1);
        assert_eq!(frames.len() as u64 + injected.lost, 1000);
        assert!((250..350).contains(&injected.lost), "{injected:?}");
    }

    #[test]
    fn duplicates_come_right_behind_the_original() {
        let (mut port, mut far) = faulty(rate(|f| f.duplicate = 1.0), 1);
        far.tx(&Meta::PLAIN, &plain_frame(1)).unwrap();
        assert_eq!(drain(&mut port), [plain_frame(1), plain_frame(1)]);
        port.tx(&Meta::PLAIN, &plain_frame(2)).unwrap();
        assert_eq!(drain(&mut far), [plain_frame(2), plain_frame(2)]);
    }

    #[test]
    fn reordered_frames_are_overtaken_and_never_lost() {
        let (mut port, mut far) = faulty(rate(|f| f.reorder = 1.0), 1);
        for number in 0..5 {
            far.tx(&Meta::PLAIN, &plain_frame(number)).unwrap();
        }
        assert_eq!(drain(&mut port), [1, 0, 3, 2, 4].map(plain_frame));
        for number in 0..5 {
            port.tx(&Meta::PLAIN, &plain_frame(number)).unwrap();
        }
        assert_eq!(drain(&mut far), [1, 0, 3, 2].map(plain_frame));
        drain(&mut port);
        assert_eq!(drain(&mut far), [plain_frame(4)], "the last one goes on when the port is read dry");
    }

    #[test]
    fn corruption_flips_one_bit_behind_the_ethernet_header() {
        let (frames, injected) = send_thousand(rate(|f| f.corrupt = 1.0), 3);
        assert_eq!((frames.len(), injected.corrupted), (1000, 1000));
        for (number, frame) in frames.iter().enumerate() {
            let sent = plain_frame(number as u16);
            assert_eq!(frame[..14], sent[..14]);
            let flipped: u32 = frame.iter().zip(&sent).map(|(a, b)| (a ^ b).count_ones()).sum();
            assert_eq!(flipped, 1);
        }
    }

    #[test]
    fn corrupted_super_frame_arrives_as_segments_of_which_one_is_bad() {
        for direction in ["rx", "tx"] {
            let (mut port, mut far) = faulty(rate(|f| f.corrupt = 1.0), 5);
            let (meta, frame) = super_frame(3000, 1000);
            let frames = if direction == "tx" {
                port.tx(&meta, &frame).unwrap();
                drain(&mut far)
            } else {
                far.tx(&meta, &frame).unwrap();
                drain(&mut port)
            };
            let mut wanted = Vec::new();
            tx_plain(&meta, &frame, &mut Vec::new(), |segment| {
                wanted.push(segment.to_vec());
                Ok(())
            })
            .unwrap();
            assert_eq!(frames.len(), 3);
            let bad = frames.iter().zip(&wanted).filter(|(a, b)| a != b).count();
            assert_eq!(bad, 1, "{direction}");
            assert!(frames.iter().all(|frame| Parsed::parse(frame).is_ok()));
        }
    }
}
