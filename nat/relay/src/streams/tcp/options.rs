//! TCP options: those that the engine understands, out of any that may come.

/// The options of one segment. Unknown ones are passed over.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Options {
    pub mss: Option<u16>,
    pub window_scale: Option<u8>,
    /// Value and echo reply.
    pub timestamp: Option<(u32, u32)>,
}

impl Options {
    /// Reads the options behind a TCP header. `None` if a length is 0, 1 or runs past the end.
    pub(crate) fn parse(mut bytes: &[u8]) -> Option<Options> {
        let mut options = Options::default();
        while let [kind, rest @ ..] = bytes {
            match kind {
                0 => break,
                1 => bytes = rest,
                _ => {
                    let len = usize::from(*rest.first()?);
                    if len < 2 {
                        return None;
                    }
                    let body = bytes.get(2..len)?;
                    match (kind, body) {
                        (2, [a, b]) => options.mss = Some(u16::from_be_bytes([*a, *b])),
                        (3, [shift]) => options.window_scale = Some(*shift),
                        (8, [a, b, c, d, e, f, g, h]) => {
                            let value = u32::from_be_bytes([*a, *b, *c, *d]);
                            options.timestamp = Some((value, u32::from_be_bytes([*e, *f, *g, *h])));
                        }
                        _ => {}
                    }
                    bytes = bytes.get(len..)?;
                }
            }
        }
        Some(options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tr_8_known_options_are_found_among_unknown_ones() {
        let bytes = [2, 4, 5, 180, 1, 3, 3, 7, 30, 4, 9, 9, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2, 34, 2, 0, 99];
        let expected = Options { mss: Some(1460), window_scale: Some(7), timestamp: Some((1, 2)) };
        assert_eq!(Options::parse(&bytes), Some(expected));
        assert_eq!(Options::parse(&[]), Some(Options::default()));
    }

    #[test]
    fn tr_8_lying_lengths_are_refused() {
        for bytes in [&[2u8, 0][..], &[2, 1], &[2, 5, 1, 1], &[8], &[3, 3], &[1, 1, 254, 200]] {
            assert_eq!(Options::parse(bytes), None, "{bytes:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn tr_8_any_option_bytes_end(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..41)) {
            let _ = Options::parse(&bytes);
        }
    }
}
