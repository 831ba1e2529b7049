//! Terminal sizes: JSON objects, one after the other.

use serde::Deserialize;

/// More bytes than this without a whole object are no sizes.
const PENDING_BYTES_MAX: usize = 4096;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Size {
    #[serde(default)]
    pub width: u16,
    #[serde(default)]
    pub height: u16,
}

#[derive(Default)]
pub struct SizeDecoder {
    pending: Vec<u8>,
    broken: bool,
}

impl SizeDecoder {
    /// The last complete size in what has come so far. After nonsense nothing more is understood.
    pub fn push(&mut self, bytes: &[u8]) -> Option<Size> {
        if self.broken {
            return None;
        }
        self.pending.extend_from_slice(bytes);
        let mut values = serde_json::Deserializer::from_slice(&self.pending).into_iter::<Size>();
        let mut last = None;
        for value in values.by_ref() {
            match value {
                Ok(size) => last = Some(size),
                Err(error) => {
                    self.broken = !error.is_eof();
                    break;
                }
            }
        }
        let read = values.byte_offset();
        self.pending.drain(..read);
        self.broken |= self.pending.len() > PENDING_BYTES_MAX;
        if self.broken {
            self.pending = Vec::new();
        }
        last
    }
}

#[cfg(test)]
mod tests {
    use super::{Size, SizeDecoder};

    #[test]
    fn sizes_come_in_pieces_and_several_at_once() {
        let mut decoder = SizeDecoder::default();
        assert_eq!(decoder.push(b"{\"Width\":80,"), None);
        assert_eq!(decoder.push(b"\"Height\":24}\n"), Some(Size { width: 80, height: 24 }));
        let two = b"{\"Width\":1,\"Height\":2}{\"Width\":3,\"Height\":4}{";
        assert_eq!(decoder.push(two), Some(Size { width: 3, height: 4 }));
        assert_eq!(decoder.push(b"\"Width\":5,\"Height\":6}"), Some(Size { width: 5, height: 6 }));
    }

    #[test]
    fn nonsense_ends_it() {
        let mut decoder = SizeDecoder::default();
        assert_eq!(decoder.push(b"nonsense"), None);
        assert_eq!(decoder.push(b"{\"Width\":1,\"Height\":2}"), None);
        let mut decoder = SizeDecoder::default();
        decoder.push(&[b' '; 5000]);
        decoder.push(b"{\"Width\":");
        assert!(decoder.pending.len() <= super::PENDING_BYTES_MAX);
    }
}
