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
    seed: u64,
    input: Option<PathBuf>,
}

const USAGE: &str = "usage: furrow-fuzz all|TARGET [--runs N] [--seed N] [--input FILE]";

fn arguments() -> Option<Arguments> {
    let mut words = std::env::args().skip(1);
    let mut arguments = Arguments { target: words.next()?, runs: 20_000, seed: 1, input: None };
    while let Some(word) = words.next() {
        let value = words.next()?;
        match word.as_str() {
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
            None => fuzz(target, arguments.runs, arguments.seed),
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

fn fuzz(target: &Target, runs: u64, seed: u64) -> bool {
    let mut corpus = (target.seeds)();
    corpus.extend(kept(target.name));
    let mut dice = Dice::new(seed);
    let begun = std::time::Instant::now();
    let whole = corpus.clone().into_iter();
    let mutated = (0..runs).map(|_| mutate::mutated(&corpus, &mut dice));
    for data in whole.chain(mutated) {
        if !survives(target, &data) {
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
