//! `report`: the measurements on one page. Says what is measured and where the files go; measuring and drawing are beside it.

mod gather;
mod html;
mod markdown;
mod plot;
mod results;
mod scale;
mod tables;

use crate::compare::Compare;
use crate::failure::Failure;
use results::{FORMAT, Results};
use std::path::{Path, PathBuf};

/// Options of `report`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Publish {
    /// Where results.json, report.html and report.md go
    #[arg(long, value_name = "DIR", default_value = "bench-report")]
    out: PathBuf,
    /// Draw a results.json that was saved, without measuring
    #[arg(long, value_name = "FILE", conflicts_with_all = ["quick", "seconds", "rounds", "only"])]
    from: Option<PathBuf>,
    #[command(flatten)]
    measuring: Compare,
}

/// Measures or reads, and writes the files.
///
/// # Errors
/// [`Failure`] of the files; what could not be measured is said on the page.
pub(crate) fn run(options: &Publish) -> Result<(), Failure> {
    // Known before minutes of measuring, and not after.
    std::fs::create_dir_all(&options.out).map_err(Failure::system(options.out.display().to_string()))?;
    let results = match &options.from {
        Some(path) => read(path)?,
        None => {
            let results = gather::gather(&options.measuring, command());
            let text = serde_json::to_string_pretty(&results).expect("numbers and texts have a JSON form");
            save(&options.out, "results.json", &text)?;
            results
        }
    };
    let sections = tables::sections(&results);
    save(&options.out, "report.html", &html::write(&results, &sections))?;
    save(&options.out, "report.md", &markdown::write(&results, &sections))
}

/// The command that was given, without where the program lies.
fn command() -> String {
    let given: Vec<String> = std::env::args().skip(1).collect();
    format!("relay-bench {}", given.join(" "))
}

fn read(path: &Path) -> Result<Results, Failure> {
    let name = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(Failure::system(&name))?;
    let results: Results =
        serde_json::from_str(&text).map_err(|error| Failure::Setting(format!("{name}: {error}")))?;
    if results.format != FORMAT {
        return Err(Failure::Setting(format!(
            "{name} has format {}; this relay-bench reads {FORMAT}: measure again",
            results.format
        )));
    }
    Ok(results)
}

fn save(directory: &Path, name: &str, text: &str) -> Result<(), Failure> {
    let path = directory.join(name);
    std::fs::write(&path, text).map_err(Failure::system(path.display().to_string()))?;
    println!("{}", path.display());
    Ok(())
}

#[cfg(test)]
mod tests;
