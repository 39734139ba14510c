//! A table of things that are named by small numbers, in blocks that never move. A vector that doubles copies all that is in it:
//! a mailroom of a million messages stood still for 0.2 s each time, and everybody's mail with it.

use slab::Slab;
use std::ops::{Index, IndexMut};

/// Places in a block, as a power of two. Small enough to be allocated without notice, large enough that blocks are few.
const BLOCK_BITS: u32 = 10;
const BLOCK: usize = 1 << BLOCK_BITS;
/// Places in the first block when it is begun, since most tables stay small.
const FIRST: usize = 16;

/// See the module's head. A number is used again once what it named is gone.
#[derive(Debug)]
pub(super) struct Table<T> {
    /// None has more than [`BLOCK`] entries.
    blocks: Vec<Slab<T>>,
    /// Blocks with a free place.
    open: Vec<u32>,
    len: usize,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Table<T> {
    pub(super) const fn new() -> Self {
        Self { blocks: Vec::new(), open: Vec::new(), len: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Above every number that has ever been given.
    pub(super) fn end(&self) -> usize {
        let before = self.blocks.len().saturating_sub(1) << BLOCK_BITS;
        before + self.blocks.last().map_or(0, Slab::capacity)
    }

    /// Adds what `make` makes of its number.
    #[inline]
    pub(super) fn insert_with(&mut self, make: impl FnOnce(usize) -> T) -> usize {
        let block = match self.open.last() {
            Some(&block) => block as usize,
            None => self.begin_block(),
        };
        let slab = &mut self.blocks[block];
        let entry = slab.vacant_entry();
        let key = block << BLOCK_BITS | entry.key();
        entry.insert(make(key));
        if slab.len() == BLOCK {
            self.open.pop();
        }
        self.len += 1;
        key
    }

    #[inline]
    pub(super) fn insert(&mut self, value: T) -> usize {
        self.insert_with(|_| value)
    }

    #[cold]
    fn begin_block(&mut self) -> usize {
        let block = self.blocks.len();
        let places = if block == 0 { FIRST } else { BLOCK };
        self.blocks.push(Slab::with_capacity(places));
        self.open.push(block as u32);
        block
    }

    /// # Panics
    /// If nothing has the number.
    #[inline]
    pub(super) fn remove(&mut self, key: usize) -> T {
        let slab = &mut self.blocks[key >> BLOCK_BITS];
        if slab.len() == BLOCK {
            self.open.push((key >> BLOCK_BITS) as u32);
        }
        let value = slab.remove(key & (BLOCK - 1));
        self.len -= 1;
        value
    }

    #[inline]
    pub(super) fn get(&self, key: usize) -> Option<&T> {
        self.blocks.get(key >> BLOCK_BITS)?.get(key & (BLOCK - 1))
    }

    #[inline]
    pub(super) fn get_mut(&mut self, key: usize) -> Option<&mut T> {
        self.blocks.get_mut(key >> BLOCK_BITS)?.get_mut(key & (BLOCK - 1))
    }

    pub(super) fn contains(&self, key: usize) -> bool {
        self.get(key).is_some()
    }

    /// All there is, by number.
    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, &T)> {
        self.blocks.iter().enumerate().flat_map(|(block, slab)| {
            slab.iter().map(move |(place, value)| (block << BLOCK_BITS | place, value))
        })
    }
}

impl<T> Index<usize> for Table<T> {
    type Output = T;

    #[inline]
    fn index(&self, key: usize) -> &T {
        &self.blocks[key >> BLOCK_BITS][key & (BLOCK - 1)]
    }
}

impl<T> IndexMut<usize> for Table<T> {
    #[inline]
    fn index_mut(&mut self, key: usize) -> &mut T {
        &mut self.blocks[key >> BLOCK_BITS][key & (BLOCK - 1)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    #[test]
    fn what_is_in_a_full_block_never_moves() {
        let mut table = Table::new();
        (0..2 * BLOCK).for_each(|number| assert_eq!(table.insert(number), number));
        let before = std::ptr::from_ref(&table[BLOCK - 1]);
        (0..10 * BLOCK).for_each(|_| _ = table.insert(0));
        assert_eq!(std::ptr::from_ref(&table[BLOCK - 1]), before);
        assert_eq!(table.remove(3), 3);
        assert_eq!(table.remove(BLOCK + 7), BLOCK + 7);
        assert_eq!((table.get(3), table.contains(BLOCK + 7)), (None, false));
        let mut again = [table.insert_with(|key| key), table.insert_with(|key| key)];
        again.sort_unstable();
        assert_eq!(again, [3, BLOCK + 7], "free places are used before a block is begun");
    }

    proptest! {
        #[test]
        fn a_table_is_a_map_that_chooses_its_keys(orders in prop::collection::vec((any::<bool>(), any::<u16>()), 0..4000)) {
            let (mut table, mut map) = (Table::new(), BTreeMap::new());
            for (insert, number) in orders {
                if insert || map.is_empty() {
                    let key = table.insert(number);
                    prop_assert_eq!(map.insert(key, number), None);
                } else {
                    let key = *map.keys().nth(usize::from(number) % map.len()).unwrap();
                    table[key] ^= 1;
                    prop_assert_eq!(table.remove(key), map.remove(&key).unwrap() ^ 1);
                }
                prop_assert_eq!(table.len(), map.len());
            }
            prop_assert!(table.iter().map(|(key, value)| (key, *value)).eq(map.into_iter()));
        }
    }
}
