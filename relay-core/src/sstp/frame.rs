//! Cutting a byte stream into commands. A command that lies within one received buffer is a slice of it; only the one
//! that a buffer ends inside is copied. At most one unfinished command is held, and its announced length is checked
//! before a byte of it is stored.

use super::command::{CommandId, DecodeError};
use super::profile::PREFIX_BYTES;
use bytes::{Buf, Bytes, BytesMut};

/// The unread input of one connection.
#[derive(Debug, Default)]
pub struct FrameReader {
    /// The beginning of a command whose end has not arrived.
    partial: BytesMut,
    /// What was received behind it.
    input: Bytes,
}

impl FrameReader {
    /// Takes received bytes. All commands of earlier input must have been taken with [`FrameReader::next_frame`].
    pub fn push(&mut self, received: Bytes) {
        if self.input.is_empty() {
            self.input = received;
        } else {
            let mut joined = BytesMut::with_capacity(self.input.len() + received.len());
            joined.extend_from_slice(&self.input);
            joined.extend_from_slice(&received);
            self.input = joined.freeze();
        }
    }

    /// The next whole command; `None` until more arrives.
    ///
    /// # Errors
    /// [`DecodeError::UnknownCommand`] and [`DecodeError::Length`], as soon as the prefix shows them.
    pub fn next_frame(&mut self) -> Result<Option<Bytes>, DecodeError> {
        if !self.partial.is_empty() {
            return self.next_from_partial();
        }
        let Some(length) = announced_length(&self.input)? else {
            return Ok(self.keep_rest());
        };
        if self.input.len() < length {
            return Ok(self.keep_rest());
        }
        Ok(Some(self.input.split_to(length)))
    }

    /// The input from the next command on, if that command does not begin in an earlier buffer.
    pub fn unread(&self) -> &Bytes {
        static NOTHING: Bytes = Bytes::new();
        if self.partial.is_empty() { &self.input } else { &NOTHING }
    }

    /// Takes `bytes` of [`FrameReader::unread`], whole commands that the caller has read there.
    pub fn skip(&mut self, bytes: usize) {
        self.input.advance(bytes);
        if self.input.is_empty() {
            // Else an idle connection would hold the buffer that its last bytes came in.
            self.input = Bytes::new();
        }
    }

    /// Everything that has been received and not yet taken, joined.
    pub fn into_rest(self) -> Bytes {
        if self.partial.is_empty() {
            return self.input;
        }
        let mut rest = self.partial;
        rest.extend_from_slice(&self.input);
        rest.freeze()
    }

    /// Bytes held for the unfinished command.
    pub fn held_bytes(&self) -> usize {
        self.partial.len() + self.input.len()
    }

    fn keep_rest(&mut self) -> Option<Bytes> {
        if !self.input.is_empty() {
            self.partial.extend_from_slice(&self.input);
            self.input = Bytes::new();
        }
        None
    }

    fn next_from_partial(&mut self) -> Result<Option<Bytes>, DecodeError> {
        self.take_up_to(PREFIX_BYTES);
        let Some(length) = announced_length(&self.partial)? else {
            return Ok(None);
        };
        self.take_up_to(length);
        if self.partial.len() < length {
            return Ok(None);
        }
        Ok(Some(std::mem::take(&mut self.partial).freeze()))
    }

    /// Moves input behind the partial command until that has `length` bytes.
    fn take_up_to(&mut self, length: usize) {
        let missing = length.saturating_sub(self.partial.len()).min(self.input.len());
        self.partial.extend_from_slice(&self.input[..missing]);
        self.input.advance(missing);
    }
}

/// CommandLength of the command that `bytes` begin with, checked against the limits of its command; `None` if the
/// prefix is not complete.
fn announced_length(bytes: &[u8]) -> Result<Option<usize>, DecodeError> {
    let Some(&first) = bytes.first() else {
        return Ok(None);
    };
    let command = CommandId::from_byte(first)?;
    let Some(length) = bytes.get(1..PREFIX_BYTES) else {
        return Ok(None);
    };
    let length = usize::from(u16::from_le_bytes([length[0], length[1]]));
    let (least, most) = command.length_limits();
    if (least..=most).contains(&length) {
        Ok(Some(length))
    } else {
        Err(DecodeError::Length { command, length })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(chunks: &[&[u8]]) -> Result<Vec<Vec<u8>>, DecodeError> {
        let mut reader = FrameReader::default();
        let mut found = Vec::new();
        for chunk in chunks {
            reader.push(Bytes::copy_from_slice(chunk));
            while let Some(frame) = reader.next_frame()? {
                found.push(frame.to_vec());
            }
        }
        Ok(found)
    }

    #[test]
    fn commands_are_cut_alike_however_the_bytes_arrive() {
        let stream =
            [&[0x10, 7, 0, 3, 0, 0, 0][..], &[0x0e, 12, 0, 1, 0, 0, 0, b'h', b'e', b'l', b'l', b'o']]
                .concat();
        let whole = frames(&[&stream]).unwrap();
        assert_eq!(whole.len(), 2);
        for cut in 0..=stream.len() {
            for second in cut..=stream.len() {
                let pieces = [&stream[..cut], &stream[cut..second], &stream[second..]];
                assert_eq!(frames(&pieces).unwrap(), whole, "cut at {cut} and {second}");
            }
        }
    }

    #[test]
    fn a_command_within_one_buffer_is_not_copied() {
        let buffer = Bytes::from(vec![0x10, 7, 0, 3, 0, 0, 0, 0x10, 7, 0, 4, 0, 0, 0]);
        let mut reader = FrameReader::default();
        reader.push(buffer.clone());
        let first = reader.next_frame().unwrap().unwrap();
        let second = reader.next_frame().unwrap().unwrap();
        assert_eq!(first.as_ptr(), buffer.as_ptr());
        assert_eq!(second.as_ptr(), buffer[7..].as_ptr());
    }

    #[test]
    fn a_bad_length_is_refused_from_the_prefix_alone() {
        assert_eq!(
            frames(&[&[0x11, 9, 0]]),
            Err(DecodeError::Length { command: CommandId::Close, length: 9 })
        );
        assert_eq!(
            frames(&[&[0x0e, 8], &[8]]),
            Err(DecodeError::Length { command: CommandId::Data, length: 0x0808 })
        );
        assert_eq!(frames(&[&[0x13]]), Err(DecodeError::UnknownCommand(0x13)));
        assert_eq!(frames(&[&[0]]), Err(DecodeError::UnknownCommand(0)));
    }

    #[test]
    fn the_rest_is_what_was_not_taken() {
        let mut reader = FrameReader::default();
        reader.push(Bytes::from_static(&[0x10, 7]));
        assert_eq!(reader.next_frame(), Ok(None));
        reader.push(Bytes::from_static(&[0, 1, 0, 0, 0, 0x10]));
        assert_eq!(reader.held_bytes(), 8);
        assert_eq!(&reader.into_rest()[..], &[0x10, 7, 0, 1, 0, 0, 0, 0x10]);
    }
}
