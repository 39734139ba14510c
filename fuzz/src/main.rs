//! The fuzzer: feeds every target with mutations of its seeds and of what was found before, and keeps what panics.
#![forbid(unsafe_code)]

mod mutate;
mod targets;

use mutate::Dice;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use targets::{TARGETS, Target};

struct Arguments {
    target: String,
    runs: u64,
    seconds: Option<u64>,
    seed: u64,
    input: Option<PathBuf>,
}

const USAGE: &str = "usage: furrow-fuzz all|TARGET [--runs N | --seconds N] [--seed N] [--input FILE]";

fn arguments() -> Option<Arguments> {
    let mut words = std::env::args().skip(1);
    let mut arguments =
        Arguments { target: words.next()?, runs: 20_000, seconds: None, seed: 1, input: None };
    while let Some(word) = words.next() {
        let value = words.next()?;
        match word.as_str() {
            "--seconds" => arguments.seconds = Some(value.parse().ok()?),
            "--runs" => arguments.runs = value.parse().ok()?,
            "--seed" => arguments.seed = value.parse().ok()?,
            "--input" => arguments.input = Some(value.into()),
            _ => return None,
        }
    }
    Some(arguments)
}

fn main() -> ExitCode {
    let Some(arguments) = arguments() else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let chosen: Vec<&Target> =
        TARGETS.iter().filter(|target| ["all", target.name].contains(&arguments.target.as_str())).collect();
    if chosen.is_empty() {
        let names: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
        eprintln!("no such target; there are {}", names.join(", "));
        return ExitCode::from(2);
    }
    let mut clean = true;
    for target in chosen {
        clean &= match &arguments.input {
            Some(input) => run_file(target, input),
            None => fuzz(target, &arguments),
        };
    }
    if clean { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run_file(target: &Target, input: &Path) -> bool {
    match std::fs::read(input) {
        Ok(data) => survives(target, &data),
        Err(error) => {
            eprintln!("{}: {error}", input.display());
            false
        }
    }
}

fn fuzz(target: &Target, arguments: &Arguments) -> bool {
    let seed = arguments.seed;
    let mut corpus = (target.seeds)();
    corpus.extend(kept(target.name));
    let mut dice = Dice::new(seed);
    let begun = std::time::Instant::now();
    let goes_on = |runs: u64| match arguments.seconds {
        Some(seconds) => begun.elapsed().as_secs() < seconds,
        None => runs < arguments.runs,
    };
    if !corpus.iter().all(|data| survives(target, data)) {
        return false;
    }
    let mut runs = 0;
    while goes_on(runs) {
        runs += 1;
        if !survives(target, &mutate::mutated(&corpus, &mut dice)) {
            return false;
        }
    }
    println!("{}: {runs} runs in {:.1} s, seed {seed}, no finds", target.name, begun.elapsed().as_secs_f64());
    true
}

fn survives(target: &Target, data: &[u8]) -> bool {
    if catch_unwind(AssertUnwindSafe(|| (target.run)(data))).is_ok() {
        return true;
    }
    let name = format!("{}-{:08x}", target.name, crc32c::crc32c(data));
    let path = folder("found").join(name);
    let written = std::fs::create_dir_all(folder("found")).and_then(|()| std::fs::write(&path, data));
    match written {
        Ok(()) => eprintln!("{}: a find, kept as {}", target.name, path.display()),
        Err(error) => eprintln!("{}: a find, and {error}", target.name),
    }
    false
}

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// The inputs that were kept for a target.
fn kept(target: &str) -> Vec<Vec<u8>> {
    let entries = std::fs::read_dir(folder("corpus").join(target)).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    paths.iter().filter_map(|path| std::fs::read(path).ok()).collect()
}
