//! Request and response of one byte: how long a packet takes there and back.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::{Proto, at};

const PORT: u16 = 5301;

/// How long a UDP question waits for its answer before it is lost and asked again.
const LOST_AFTER: Duration = Duration::from_millis(200);

/// Questions that open the path (ARP, the switch's tables, the caches) before the clock runs.
const WARM_UP: u32 = 100;

/// Longest latency that the histogram tells from others.
const LONGEST: Duration = Duration::from_secs(60);

/// What the asking, or connecting, side saw.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Answered {
    pub answers: u64,
    pub lost: u64,
    pub seconds: f64,
    pub p50_us: f64,
    pub p99_us: f64,
    pub p999_us: f64,
}

/// Sends back what comes, until it is killed.
pub(super) fn echo(proto: Proto) -> Result<(), String> {
    let mut byte = [0; 1];
    match proto {
        Proto::Tcp => {
            let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)).map_err(at("cannot listen"))?;
            super::ready();
            let (mut stream, _) = listener.accept().map_err(at("cannot accept"))?;
            stream.set_nodelay(true).map_err(at("TCP_NODELAY"))?;
            while stream.read(&mut byte).map_err(at("cannot read"))? != 0 {
                stream.write_all(&byte).map_err(at("cannot write"))?;
            }
            Ok(())
        }
        Proto::Udp => {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, PORT)).map_err(at("cannot bind"))?;
            super::ready();
            loop {
                let (_, from) = socket.recv_from(&mut byte).map_err(at("cannot receive"))?;
                socket.send_to(&byte, from).map_err(at("cannot send"))?;
            }
        }
    }
}

pub(super) fn ask(proto: Proto, to: Ipv4Addr, seconds: u64) -> Result<Answered, String> {
    match proto {
        Proto::Tcp => {
            let mut stream = TcpStream::connect((to, PORT)).map_err(at("cannot connect"))?;
            stream.set_nodelay(true).map_err(at("TCP_NODELAY"))?;
            let mut byte = [0; 1];
            repeat(seconds, |question| {
                stream.write_all(&[question]).map_err(at("cannot write"))?;
                stream.read_exact(&mut byte).map_err(at("no answer"))?;
                Ok(true)
            })
        }
        Proto::Udp => {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).map_err(at("cannot bind"))?;
            socket.connect((to, PORT)).map_err(at("cannot connect"))?;
            socket.set_read_timeout(Some(LOST_AFTER)).map_err(at("SO_RCVTIMEO"))?;
            let mut byte = [0; 1];
            repeat(seconds, |question| {
                socket.send(&[question]).map_err(at("cannot send"))?;
                loop {
                    match socket.recv(&mut byte) {
                        Ok(_) if byte == [question] => return Ok(true),
                        // The late answer to a question that was given up.
                        Ok(_) => {}
                        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                            return Ok(false);
                        }
                        Err(error) => return Err(at("cannot receive")(error)),
                    }
                }
            })
        }
    }
}

/// Asks until the time is over. `transact` is given another byte each time, and tells whether there was an answer.
pub(super) fn repeat(seconds: u64, mut transact: impl FnMut(u8) -> Result<bool, String>) -> Result<Answered, String> {
    let mut question = 0u8;
    let mut next = move || {
        question = question.wrapping_add(1);
        question
    };
    let mut opened = 0;
    for _ in 0..WARM_UP {
        opened += u32::from(transact(next())?);
    }
    if opened == 0 {
        return Err("none of the first questions was answered".into());
    }
    let mut latencies =
        Histogram::<u64>::new_with_max(LONGEST.as_nanos() as u64, 3).map_err(|error| error.to_string())?;
    let (mut answers, mut lost) = (0, 0);
    let begin = Instant::now();
    let end = begin + Duration::from_secs(seconds);
    let mut now = begin;
    while now < end {
        let answered = transact(next())?;
        let after = Instant::now();
        if answered {
            answers += 1;
            latencies.saturating_record((after - now).as_nanos() as u64);
        } else {
            lost += 1;
        }
        now = after;
    }
    let quantile = |quantile| latencies.value_at_quantile(quantile) as f64 / 1e3;
    Ok(Answered {
        answers,
        lost,
        seconds: (now - begin).as_secs_f64(),
        p50_us: quantile(0.5),
        p99_us: quantile(0.99),
        p999_us: quantile(0.999),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_and_losses_are_counted_apart() {
        let mut asked = 0u32;
        let answered = repeat(1, |_| {
            asked += 1;
            Ok(!asked.is_multiple_of(10))
        })
        .expect("answers");
        assert_eq!(answered.answers + answered.lost, u64::from(asked - WARM_UP));
        assert!(answered.answers > answered.lost && answered.lost > 0);
        assert!(answered.p50_us <= answered.p99_us && answered.p99_us <= answered.p999_us);
    }

    #[test]
    fn a_path_that_does_not_answer_is_a_failure() {
        assert!(repeat(1, |_| Ok(false)).is_err());
    }
}
