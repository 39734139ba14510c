//! What is fuzzed. A new target is a file here with `seeds` and `run`, and a line in the table.

mod http;
mod presence;
mod security;
mod segment;
mod spmr;
mod sstp;
mod toml;

/// One thing that takes bytes from outside.
pub(crate) struct Target {
    pub(crate) name: &'static str,
    /// Right inputs to begin with; at least one.
    pub(crate) seeds: fn() -> Vec<Vec<u8>>,
    /// Takes one input; a panic is a find.
    pub(crate) run: fn(&[u8]),
}

pub(crate) const TARGETS: &[Target] = &[
    Target { name: "segment", seeds: segment::seeds, run: segment::run },
    Target { name: "sstp", seeds: sstp::seeds, run: sstp::run },
    Target { name: "security", seeds: security::seeds, run: security::run },
    Target { name: "http", seeds: http::seeds, run: http::run },
    Target { name: "spmr", seeds: spmr::seeds, run: spmr::run },
    Target { name: "presence", seeds: presence::seeds, run: presence::run },
    Target { name: "toml", seeds: toml::seeds, run: toml::run },
];
