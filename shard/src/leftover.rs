//! Running on what the machine has left (SCHED_IDLE): whoever wakes up takes the processor at once, where the usual policy would
//! let such work have its slice of some milliseconds.

use crate::events;
use thread_priority::{NormalThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy};

/// From here on anything else that wants to run goes before this thread, and before those that it begins. A system that
/// refuses is told of in the log.
pub(crate) fn give_way() {
    let idle = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle);
    let this = thread_priority::thread_native_id();
    if let Err(error) = thread_priority::set_thread_priority_and_policy(this, ThreadPriority::Min, idle) {
        tracing::debug!(
            event = events::USUAL_PRIORITY,
            ?error,
            "user records are written at the usual priority"
        );
    }
}

/// Does something on a thread that gives way, and waits for it: so that threads which a library begins meanwhile give way too.
///
/// # Panics
/// If `work` does.
pub(crate) fn giving_way<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            give_way();
            work()
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
