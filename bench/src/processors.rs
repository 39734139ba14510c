//! Who runs on which processor of this machine, where it is the relay's part that is measured: it has processors to itself, as it
//! would have a machine to itself, and whoever stands for people and for trouble shares the one that is left. There trouble
//! gets what people leave.

use crate::failure::Failure;
use crate::report::Report;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use thread_priority::{NormalThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy};

/// The processors that this process may use, divided.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Processors {
    relay: CpuSet,
    others: CpuSet,
}

impl Processors {
    /// The last one is for the others. On a machine with one processor all share it.
    ///
    /// # Errors
    /// The system does not say which there are.
    pub(crate) fn divide() -> Result<Self, Failure> {
        let mut relay =
            sched_getaffinity(None).map_err(|error| Failure::system("processors")(error.into()))?;
        let mut others = relay;
        if let Some(last) = (0..CpuSet::MAX_CPU).rev().find(|&cpu| relay.is_set(cpu))
            && relay.count() > 1
        {
            relay.unset(last);
            others = CpuSet::new();
            others.set(last);
        }
        Ok(Self { relay, others })
    }

    /// Starts relays on their processors, and leaves this thread, with those that it will start, on the others'.
    ///
    /// # Errors
    /// Those of `start`; also if the system refuses.
    pub(crate) fn start<T>(&self, start: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
        let run_on =
            |set| sched_setaffinity(None, set).map_err(|error| Failure::system("processors")(error.into()));
        run_on(&self.relay)?;
        let started = start();
        run_on(&self.others)?;
        started
    }

    /// Writes who runs where into a report.
    pub(crate) fn describe(&self, report: &mut Report, trouble: &str) {
        let list = |set: &CpuSet| {
            let cpus = (0..CpuSet::MAX_CPU).filter(|&cpu| set.is_set(cpu)).map(|cpu| cpu.to_string());
            cpus.collect::<Vec<_>>().join(",")
        };
        report.setting(
            "processors",
            format!("relay {}; people and {trouble} {}", list(&self.relay), list(&self.others)),
        );
    }
}

/// This thread is trouble: it runs when nobody else wants to (SCHED_IDLE).
///
/// # Errors
/// The system refuses.
pub(crate) fn stand_back() -> std::io::Result<()> {
    let idle = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle);
    let this = thread_priority::thread_native_id();
    thread_priority::set_thread_priority_and_policy(this, ThreadPriority::Min, idle)
        .map_err(|error| std::io::Error::other(error.to_string()))
}
