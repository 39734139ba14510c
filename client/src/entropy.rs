//! Randomness from the system's generator.

use relay_core::time::Entropy;
use ring::rand::{SecureRandom, SystemRandom};

/// The system's generator as an [`Entropy`].
#[derive(Debug)]
pub struct SystemEntropy(SystemRandom);

impl Default for SystemEntropy {
    fn default() -> Self {
        Self(SystemRandom::new())
    }
}

impl Entropy for SystemEntropy {
    fn fill(&mut self, buffer: &mut [u8]) {
        self.0.fill(buffer).expect("the system gives random bytes");
    }
}
