//! Which frames a packet socket takes, as a program for the kernel's classic BPF machine (bpf(4); linux/filter.h).
//!
//! The kernel runs it before it queues a frame, so what is not for us costs nothing here. The machine has one register,
//! loads from the frame in network byte order, and a jump says how many instructions to skip if its test holds and if it
//! does not. The returned number is how many bytes of the frame to keep: none, or all.

use nix::libc;
use tapswitch_wire::Mac;

/// Instructions are plain data: code, jump if true, jump if false, operand.
pub(super) type Program = Vec<libc::sock_filter>;

/// Where the machine keeps `skb->pkt_type`: SKF_AD_OFF + SKF_AD_PKTTYPE.
const PACKET_TYPE: u32 = (-0x1000_i32 + 4) as u32;
const OUTGOING: u32 = libc::PACKET_OUTGOING as u32;
const DST: u32 = 0;
const SRC: u32 = 6;

const DROP: libc::sock_filter = step(libc::BPF_RET | libc::BPF_K, 0);
const TAKE: libc::sock_filter = step(libc::BPF_RET | libc::BPF_K, u32::MAX);

const fn step(code: u32, operand: u32) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt: 0, jf: 0, k: operand }
}

const fn load_byte(at: u32) -> libc::sock_filter {
    step(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS, at)
}

const fn load_half(at: u32) -> libc::sock_filter {
    step(libc::BPF_LD | libc::BPF_H | libc::BPF_ABS, at)
}

const fn load_word(at: u32) -> libc::sock_filter {
    step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, at)
}

/// Skips `yes` instructions if the register equals the operand, else `no`.
const fn if_equal(operand: u32, yes: u8, no: u8) -> libc::sock_filter {
    libc::sock_filter { jt: yes, jf: no, ..step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, operand) }
}

/// Skips `yes` instructions if the register has any of these bits, else `no`.
const fn if_any(bits: u32, yes: u8, no: u8) -> libc::sock_filter {
    libc::sock_filter { jt: yes, jf: no, ..step(libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K, bits) }
}

/// All that comes in; nothing that this machine sends.
pub(super) fn everything() -> Program {
    vec![load_byte(PACKET_TYPE), if_equal(OUTGOING, 0, 1), DROP, TAKE]
}

/// What is for this MAC address or for a group, unless it comes from this MAC address: that is our own frame, come back.
pub(super) fn only_for(mac: Mac) -> Program {
    let [a, b, c, d, e, f] = mac.0;
    let (high, low) = (u32::from(u16::from_be_bytes([a, b])), u32::from_be_bytes([c, d, e, f]));
    vec![
        load_byte(PACKET_TYPE),
        if_equal(OUTGOING, 10, 0),
        load_word(SRC + 2),
        if_equal(low, 0, 2),
        load_half(SRC),
        if_equal(high, 6, 0),
        load_byte(DST),
        if_any(1, 5, 0),
        load_word(DST + 2),
        if_equal(low, 0, 2),
        load_half(DST),
        if_equal(high, 1, 0),
        DROP,
        TAKE,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: Mac = Mac([0x02, 0x42, 0x0a, 0x09, 0x00, 0x02]);
    const OTHER: Mac = Mac([0x02, 0x42, 0x0a, 0x09, 0x00, 0x03]);

    /// The kernel's machine, as far as these programs need it.
    fn takes(program: &Program, packet_type: u32, dst: Mac, src: Mac) -> bool {
        let frame = [dst.0, src.0].concat();
        let (mut at, mut register) = (0, 0);
        loop {
            let libc::sock_filter { code, jt, jf, k } = program[at];
            at += 1;
            let load =
                |len: usize| frame[k as usize..][..len].iter().fold(0, |word, byte| word << 8 | u32::from(*byte));
            match u32::from(code) {
                libc::BPF_RET => return k > 0,
                0x30 if k == PACKET_TYPE => register = packet_type,
                0x30 => register = load(1),
                0x28 => register = load(2),
                0x20 => register = load(4),
                0x15 => at += usize::from(if register == k { jt } else { jf }),
                0x45 => at += usize::from(if register & k != 0 { jt } else { jf }),
                code => panic!("unknown instruction {code:#x}"),
            }
        }
    }

    #[test]
    fn frames_for_our_address_and_for_groups_are_taken_and_others_and_our_own_are_not() {
        let program = only_for(OURS);
        for (dst, src, taken) in [
            (OURS, OTHER, true),
            (Mac::BROADCAST, OTHER, true),
            (Mac([1, 0, 0x5e, 0, 0, 1]), OTHER, true),
            (OTHER, OTHER, false),
            (Mac([0x02, 0x43, 0x0a, 0x09, 0x00, 0x02]), OTHER, false),
            (Mac::BROADCAST, OURS, false),
            (OURS, OURS, false),
            // As ours, but for the upper half.
            (OURS, Mac([0x06, 0x42, 0x0a, 0x09, 0x00, 0x02]), true),
        ] {
            assert_eq!(takes(&program, 0, dst, src), taken, "{dst} from {src}");
            assert!(!takes(&program, OUTGOING, dst, src), "sent by this machine: {dst} from {src}");
        }
    }

    #[test]
    fn to_join_a_lan_all_that_comes_in_is_taken() {
        let program = everything();
        assert!(takes(&program, 0, OTHER, OURS) && takes(&program, 3, OURS, OTHER));
        assert!(!takes(&program, OUTGOING, OTHER, OURS));
    }
}
