//! Child processes that die with the run: when their handle is dropped, when the run panics, and when it is interrupted.

use rustix::process::{Pid, Signal, kill_process};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::io;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus};
use std::sync::Mutex;

/// Children that run, and directories to remove, should the run be interrupted.
static RUNNING: Mutex<Vec<Pid>> = Mutex::new(Vec::new());
static DIRECTORIES: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// Sees to it that an interruption leaves no process and no file.
///
/// # Errors
/// The system has no thread or signal handler to spare.
pub(crate) fn guard() -> io::Result<()> {
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM, SIGHUP])?;
    std::thread::Builder::new().name("guard".into()).spawn(move || {
        if signals.forever().next().is_some() {
            for &pid in RUNNING.lock().iter().flat_map(|pids| pids.iter()) {
                // It may have ended already.
                let _ = kill_process(pid, Signal::KILL);
            }
            for path in DIRECTORIES.lock().iter().flat_map(|paths| paths.iter()) {
                // What cannot be removed stays in the temporary directory.
                let _ = std::fs::remove_dir_all(path);
            }
            std::process::exit(130);
        }
    })?;
    Ok(())
}

/// A directory that goes with its handle, or with an interruption.
///
/// # Errors
/// What the system says.
pub(crate) fn temporary_directory(parent: &std::path::Path) -> io::Result<tempfile::TempDir> {
    let made = tempfile::Builder::new().prefix("relay-bench-").tempdir_in(parent)?;
    if let Ok(mut paths) = DIRECTORIES.lock() {
        paths.push(made.path().to_owned());
    }
    Ok(made)
}

/// A running child.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
}

impl Running {
    /// Starts `command`.
    ///
    /// # Errors
    /// What the system says; in particular that there is no such program.
    pub(crate) fn start(command: &mut Command) -> io::Result<Self> {
        let child = command.spawn()?;
        if let Ok(mut running) = RUNNING.lock() {
            running.push(Pid::from_child(&child));
        }
        Ok(Self { child })
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// The standard output, if it was piped and not yet taken.
    pub(crate) fn take_output(&mut self) -> Option<std::process::ChildStdout> {
        self.child.stdout.take()
    }

    /// Whether it has ended.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Kills it (SIGKILL) and waits for its end.
    pub(crate) fn kill(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.forget();
    }

    fn forget(&self) {
        let pid = Pid::from_child(&self.child);
        if let Ok(mut running) = RUNNING.lock() {
            running.retain(|&other| other != pid);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.ended().is_none() {
            self.kill();
        }
        self.forget();
    }
}
