//! The configuration file.

/// The default file, and a short one.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let short = "relay.url = ['x']\n[limits]\nmessage_bytes = '1 GiB'\n[timers]\nidle = '5 min'\n";
    vec![tuning::default_toml("grooveDNS://relay.example.com").into_bytes(), short.into()]
}

/// Whatever is wrong with it is said.
pub(crate) fn run(data: &[u8]) {
    if let Err(errors) = tuning::Config::parse(&String::from_utf8_lossy(data), "fuzz.toml") {
        assert!(!errors.to_string().is_empty());
    }
}
