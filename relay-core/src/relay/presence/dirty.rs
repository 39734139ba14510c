//! Things that have changed and are to be looked at: each once, in the order in which they changed.

use std::collections::VecDeque;

/// A queue of slab indexes that holds each at most once, so that it never grows beyond the slab.
#[derive(Debug, Default)]
pub(super) struct Dirty {
    queue: VecDeque<u32>,
    queued: Vec<bool>,
}

impl Dirty {
    /// Puts an index behind the others, unless it is in the queue already.
    pub(super) fn insert(&mut self, index: u32) {
        let place = index as usize;
        if self.queued.len() <= place {
            self.queued.resize(place + 1, false);
        }
        if !std::mem::replace(&mut self.queued[place], true) {
            self.queue.push_back(index);
        }
    }

    /// Takes the index that has waited longest.
    pub(super) fn pop(&mut self) -> Option<u32> {
        let index = self.queue.pop_front()?;
        self.queued[index as usize] = false;
        Some(index)
    }

    /// Whether nothing has changed.
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_index_waits_once_in_its_first_place() {
        let mut dirty = Dirty::default();
        for index in [7, 3, 7, 0, 3] {
            dirty.insert(index);
        }
        assert_eq!(dirty.pop(), Some(7));
        dirty.insert(7);
        assert_eq!(std::iter::from_fn(|| dirty.pop()).collect::<Vec<_>>(), [3, 0, 7]);
        assert!(dirty.is_empty());
    }
}
