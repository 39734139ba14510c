//! Blind mutations of byte strings, by a sequence of numbers that a seed repeats.

/// No input grows beyond this.
const MOST_BYTES: usize = 256 * 1024;

/// Numbers that look random.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below `bound`, which is not 0.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % bound
    }
}

/// One of the corpus, changed in a few places.
pub(crate) fn mutated(corpus: &[Vec<u8>], dice: &mut Dice) -> Vec<u8> {
    let mut data = corpus[dice.below(corpus.len())].clone();
    for _ in 0..=dice.below(4) {
        mutate(&mut data, corpus, dice);
    }
    data.truncate(MOST_BYTES);
    data
}

fn mutate(data: &mut Vec<u8>, corpus: &[Vec<u8>], dice: &mut Dice) {
    const NUMBERS: [u32; 9] = [0, 1, 0x7f, 0xff, 0x7fff, 0xffff, 0x7fff_ffff, 0x8000_0000, u32::MAX];
    let at = dice.below(data.len() + 1);
    let rest = data.len() - at;
    match dice.below(7) {
        0 if rest > 0 => data[at] ^= 1 << dice.below(8),
        1 if rest > 0 => data[at] = dice.below(256) as u8,
        2 => {
            let bytes = NUMBERS[dice.below(NUMBERS.len())].to_le_bytes();
            let width = rest.min(1 << dice.below(3));
            data[at..at + width].copy_from_slice(&bytes[..width]);
        }
        3 if rest > 0 => {
            data.drain(at..at + 1 + dice.below(rest.min(64)));
        }
        4 => {
            let other = &corpus[dice.below(corpus.len())];
            let from = dice.below(other.len() + 1);
            let length = dice.below(other.len() - from + 1).min(4096);
            data.splice(at..at, other[from..from + length].iter().copied());
        }
        5 if rest > 0 => {
            let piece: Vec<u8> = data[at..at + 1 + dice.below(rest.min(256))].to_vec();
            data.splice(at..at, piece);
        }
        _ => data.truncate(at),
    }
}
