//! The system's random generator as the relay's source of randomness.

use relay_core::time::Entropy;
use ring::rand::{SecureRandom, SystemRandom};

/// See the module's head.
#[derive(Debug)]
pub struct SystemEntropy(SystemRandom);

impl Default for SystemEntropy {
    fn default() -> Self {
        Self(SystemRandom::new())
    }
}

impl Entropy for SystemEntropy {
    fn fill(&mut self, buffer: &mut [u8]) {
        self.0.fill(buffer).expect("the kernel's random generator does not fail once it is seeded");
    }
}
