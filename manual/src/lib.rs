//! Manual pages and the completions of shells, made from the command line that a program parses, so that they cannot say
//! anything else.
//!
//! Owns where the files lie below a folder such as `/usr/share`. It knows no program.
#![forbid(unsafe_code)]

use clap::Command;
use clap_complete::Shell;
use std::fs::create_dir_all;
use std::io;
use std::path::{Path, PathBuf};

/// The command that programs offer for this.
#[derive(Debug, clap::Args)]
pub struct Manual {
    /// Where manual pages and completions of the system lie.
    #[arg(value_name = "DIR", default_value = "/usr/local/share")]
    pub directory: PathBuf,
}

impl Manual {
    /// Writes the manual pages of `command` and of its subcommands, and completions for bash, zsh and fish, where each
    /// looks for them below the folder. Files that are there are replaced.
    ///
    /// # Errors
    /// What the system says of a folder or file.
    pub fn write(&self, mut command: Command) -> io::Result<()> {
        // `help` explains itself; pages about it would be as many again as all others.
        let mut pages = command.clone().disable_help_subcommand(true);
        // Otherwise only the first level of subcommands knows its whole name.
        pages.build();
        command.build();
        clap_mangen::generate_to(pages, folder(&self.directory, "man/man1")?)?;
        let name = command.get_name().to_owned();
        for (shell, place) in [
            (Shell::Bash, "bash-completion/completions"),
            (Shell::Zsh, "zsh/vendor-completions"),
            (Shell::Fish, "fish/vendor_completions.d"),
        ] {
            clap_complete::generate_to(shell, &mut command, &name, folder(&self.directory, place)?)?;
        }
        Ok(())
    }
}

fn folder(below: &Path, place: &str) -> io::Result<PathBuf> {
    let folder = below.join(place);
    create_dir_all(&folder)?;
    Ok(folder)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;
    use clap::Arg;

    #[test]
    fn pages_and_completions_lie_where_the_system_looks() {
        let directory = tempfile::tempdir().unwrap();
        let inner = Command::new("inner").about("goes in").arg(Arg::new("deep").long("deep"));
        let command = Command::new("outer").about("comes out").subcommand(inner);
        let manual = Manual { directory: directory.path().join("share") };
        manual.write(command).unwrap();
        let read = |path: &str| std::fs::read_to_string(manual.directory.join(path)).unwrap();
        assert!(read("man/man1/outer.1").contains("comes out"));
        assert!(read("man/man1/outer-inner.1").contains("deep"));
        assert!(!manual.directory.join("man/man1/outer-help.1").exists());
        assert!(read("bash-completion/completions/outer.bash").contains("--deep"));
        assert!(read("zsh/vendor-completions/_outer").contains("--deep"));
        assert!(read("fish/vendor_completions.d/outer.fish").contains("deep"));
    }
}
