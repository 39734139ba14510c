//! A chain of refcounted slices: how payload travels, never assembled. Most messages are one slice, which needs no allocation
//! and one reference count; a longer chain is shared as a whole, so that a copy of it is one reference count as well.

use bytes::Bytes;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

/// See the module's head. It reads as a slice of its pieces, none of them empty.
#[derive(Clone)]
pub struct Chain(Pieces);

#[derive(Clone)]
enum Pieces {
    /// One piece, or none if it is empty.
    One(Bytes),
    Many(Arc<Vec<Bytes>>),
}

impl Chain {
    /// No payload.
    pub const fn new() -> Self {
        Self(Pieces::One(Bytes::new()))
    }

    /// Appends a piece; an empty one changes nothing.
    pub fn push(&mut self, piece: Bytes) {
        if piece.is_empty() {
            return;
        }
        match &mut self.0 {
            Pieces::One(first) if first.is_empty() => *first = piece,
            Pieces::One(first) => {
                self.0 = Pieces::Many(Arc::new(vec![std::mem::take(first), piece]));
            }
            Pieces::Many(pieces) => Arc::make_mut(pieces).push(piece),
        }
    }
}

impl Default for Chain {
    fn default() -> Self {
        Self::new()
    }
}

impl Deref for Chain {
    type Target = [Bytes];

    fn deref(&self) -> &[Bytes] {
        match &self.0 {
            Pieces::One(piece) if piece.is_empty() => &[],
            Pieces::One(piece) => std::slice::from_ref(piece),
            Pieces::Many(pieces) => pieces,
        }
    }
}

impl From<Bytes> for Chain {
    fn from(piece: Bytes) -> Self {
        Self(Pieces::One(piece))
    }
}

impl FromIterator<Bytes> for Chain {
    fn from_iter<I: IntoIterator<Item = Bytes>>(pieces: I) -> Self {
        let mut chain = Self::new();
        pieces.into_iter().for_each(|piece| chain.push(piece));
        chain
    }
}

impl<'a> IntoIterator for &'a Chain {
    type Item = &'a Bytes;
    type IntoIter = std::slice::Iter<'a, Bytes>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl PartialEq for Chain {
    fn eq(&self, other: &Self) -> bool {
        self[..] == other[..]
    }
}

impl Eq for Chain {}

impl fmt::Debug for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_stay_in_order_and_empty_ones_do_not_count() {
        let pieces = ["a", "bc", "d"].map(|piece: &'static str| Bytes::from_static(piece.as_bytes()));
        let mut chain = Chain::new();
        assert!(chain.is_empty());
        for (count, piece) in (1..).zip(&pieces) {
            chain.push(Bytes::new());
            chain.push(piece.clone());
            assert_eq!(chain[..], pieces[..count]);
        }
        assert_eq!(chain, Chain::from_iter(pieces));
        assert_eq!(Chain::from(Bytes::new()), Chain::new());
    }

    #[test]
    fn a_copy_does_not_grow_with_its_original() {
        let mut chain =
            Chain::from_iter(["a", "b"].map(|piece: &'static str| Bytes::from_static(piece.as_bytes())));
        let copy = chain.clone();
        chain.push(Bytes::from_static(b"c"));
        assert_eq!((copy.len(), chain.len()), (2, 3));
    }
}
