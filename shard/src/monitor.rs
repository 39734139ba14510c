//! What follows from how much of the machine is used (relay-product-operations 7.1): levels with hysteresis, and what to take
//! in. Pure: somebody else measures and acts.

use relay_core::relay::Intake;
use std::fmt;
use tuning::Monitor as Settings;

/// What is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    /// The disk of the data folder, in bytes.
    Disk,
    /// Memory, in bytes.
    Memory,
    /// File descriptors.
    Descriptors,
    /// Connections.
    Connections,
}

impl Resource {
    /// All of them; the order of every table here.
    pub const ALL: [Resource; 4] =
        [Resource::Disk, Resource::Memory, Resource::Descriptors, Resource::Connections];

    /// Its name for operators.
    pub fn name(self) -> &'static str {
        match self {
            Resource::Disk => "disk",
            Resource::Memory => "memory",
            Resource::Descriptors => "descriptors",
            Resource::Connections => "connections",
        }
    }
}

/// How it is about a resource.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// There is enough.
    #[default]
    Ok,
    /// Somebody should look.
    Warning,
    /// The relay saves it.
    Critical,
}

impl Level {
    /// Its name for operators.
    pub fn name(self) -> &'static str {
        match self {
            Level::Ok => "ok",
            Level::Warning => "warning",
            Level::Critical => "critical",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How much of a resource is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// In use.
    pub used: u64,
    /// All there is.
    pub limit: u64,
}

impl Usage {
    /// Whether at least so many percent are used; everything is if there is nothing.
    fn reaches(self, percent: usize) -> bool {
        u128::from(self.used) * 100 >= u128::from(self.limit) * percent as u128
    }
}

/// When a resource is at which level, in percent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thresholds {
    /// From here on, a warning.
    pub warning: usize,
    /// From here on, critical.
    pub critical: usize,
    /// So much lower a level ends.
    pub hysteresis: usize,
}

impl Thresholds {
    /// The level after `before`: it rises at once, and falls when the use is below the threshold by the hysteresis.
    pub fn judge(&self, before: Level, usage: Usage) -> Level {
        let holds = |level: Level, threshold: usize| {
            let slack = if before >= level { self.hysteresis } else { 0 };
            usage.reaches(threshold.saturating_sub(slack))
        };
        if holds(Level::Critical, self.critical) {
            Level::Critical
        } else if holds(Level::Warning, self.warning) {
            Level::Warning
        } else {
            Level::Ok
        }
    }
}

/// A level that has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// Of what.
    pub resource: Resource,
    /// What it was.
    pub before: Level,
    /// What it is.
    pub after: Level,
    /// Why.
    pub usage: Usage,
}

/// The levels of all resources.
#[derive(Clone, Debug)]
pub struct Monitor {
    thresholds: [Thresholds; 4],
    levels: [Level; 4],
    usage: [Usage; 4],
}

impl Monitor {
    /// All is well so far.
    pub fn new(settings: &Settings) -> Self {
        let hysteresis = settings.hysteresis_percent;
        let thresholds = Resource::ALL.map(|resource| {
            let (warning, critical) = match resource {
                Resource::Disk => (settings.disk_warning_percent, settings.disk_critical_percent),
                Resource::Memory => (settings.memory_warning_percent, settings.memory_critical_percent),
                Resource::Descriptors => {
                    (settings.descriptors_warning_percent, settings.descriptors_critical_percent)
                }
                Resource::Connections => {
                    (settings.connections_warning_percent, settings.connections_critical_percent)
                }
            };
            Thresholds { warning, critical, hysteresis }
        });
        Self { thresholds, levels: [Level::Ok; 4], usage: [Usage::default(); 4] }
    }

    /// Takes what was measured, in the order of [`Resource::ALL`]; the level of what could not be measured stays. Tells which
    /// levels have changed.
    pub fn observe(&mut self, measured: [Option<Usage>; 4]) -> Vec<Change> {
        let mut changes = Vec::new();
        for (place, resource) in Resource::ALL.into_iter().enumerate() {
            let Some(usage) = measured[place] else { continue };
            self.usage[place] = usage;
            let before = self.levels[place];
            let after = self.thresholds[place].judge(before, usage);
            self.levels[place] = after;
            if before != after {
                changes.push(Change { resource, before, after, usage });
            }
        }
        changes
    }

    /// What the relay is to take in: no messages while the disk is critical, no connections while anything else is.
    pub fn intake(&self) -> Intake {
        let critical = |resource: Resource| self.level(resource) == Level::Critical;
        let others = [Resource::Memory, Resource::Descriptors, Resource::Connections];
        Intake { deposits: !critical(Resource::Disk), newcomers: !others.into_iter().any(critical) }
    }

    fn level(&self, resource: Resource) -> Level {
        self.levels[resource as usize]
    }

    /// Every resource with its level and use.
    pub fn levels(&self) -> impl Iterator<Item = (Resource, Level, Usage)> + '_ {
        Resource::ALL.into_iter().map(|resource| {
            let place = resource as usize;
            (resource, self.levels[place], self.usage[place])
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Level::{Critical, Ok, Warning};
    use proptest::prelude::*;

    const THRESHOLDS: Thresholds = Thresholds { warning: 80, critical: 95, hysteresis: 3 };

    fn percent(used: u64) -> Usage {
        Usage { used, limit: 100 }
    }

    #[test]
    fn a_level_rises_at_its_threshold_and_falls_below_it_by_the_hysteresis() {
        let table = [
            (Ok, 79, Ok),
            (Ok, 80, Warning),
            (Ok, 95, Critical),
            (Warning, 94, Warning),
            (Warning, 95, Critical),
            (Warning, 77, Warning),
            (Warning, 76, Ok),
            (Critical, 92, Critical),
            (Critical, 91, Warning),
            (Critical, 77, Warning),
            (Critical, 76, Ok),
            (Critical, 0, Ok),
        ];
        for (before, used, after) in table {
            assert_eq!(THRESHOLDS.judge(before, percent(used)), after, "{before} at {used} %");
        }
    }

    #[test]
    fn what_there_is_none_of_is_used_up_and_the_largest_disk_is_counted_right() {
        assert_eq!(THRESHOLDS.judge(Ok, Usage { used: 0, limit: 0 }), Critical);
        assert_eq!(THRESHOLDS.judge(Ok, Usage { used: u64::MAX / 2, limit: u64::MAX }), Ok);
        assert_eq!(THRESHOLDS.judge(Ok, Usage { used: u64::MAX, limit: u64::MAX }), Critical);
    }

    fn monitor() -> Monitor {
        Monitor::new(&tuning::Config::new("x").monitor)
    }

    #[test]
    fn a_full_disk_stops_messages_and_anything_else_stops_connections() {
        let table = [
            (Resource::Disk, Intake { deposits: false, newcomers: true }),
            (Resource::Memory, Intake { deposits: true, newcomers: false }),
            (Resource::Descriptors, Intake { deposits: true, newcomers: false }),
            (Resource::Connections, Intake { deposits: true, newcomers: false }),
        ];
        for (resource, intake) in table {
            let mut monitor = monitor();
            let all_but = |used: u64| {
                Resource::ALL.map(|other| Some(percent(if other == resource { used } else { 1 })))
            };
            assert_eq!(monitor.observe(all_but(1)), []);
            assert_eq!(monitor.intake(), Intake::OPEN);
            let changes = monitor.observe(all_but(100));
            assert_eq!(changes, [Change { resource, before: Ok, after: Critical, usage: percent(100) }]);
            assert_eq!(monitor.intake(), intake, "{resource:?}");
            assert_eq!(monitor.observe(all_but(100)), [], "said once");
            assert_eq!(monitor.observe(all_but(1)).len(), 1);
            assert_eq!(monitor.intake(), Intake::OPEN, "{resource:?}: by itself");
        }
    }

    #[test]
    fn a_warning_stops_nothing() {
        let mut monitor = monitor();
        assert_eq!(monitor.observe([Some(percent(85)); 4]).len(), 4);
        assert_eq!(monitor.intake(), Intake::OPEN);
    }

    #[test]
    fn what_cannot_be_measured_stays_as_it_was() {
        let mut monitor = monitor();
        monitor.observe([Some(percent(100)), None, None, None]);
        assert_eq!(monitor.observe([None; 4]), []);
        assert!(!monitor.intake().deposits);
    }

    proptest! {
        #[test]
        fn more_use_never_means_a_lower_level(
            before in prop::sample::select(&[Ok, Warning, Critical][..]),
            low in 0u64..=100,
            more in 0u64..=100,
        ) {
            prop_assert!(THRESHOLDS.judge(before, percent(low)) <= THRESHOLDS.judge(before, percent(low + more)));
        }

        #[test]
        fn a_level_does_not_change_twice_for_one_use(
            before in prop::sample::select(&[Ok, Warning, Critical][..]),
            used in 0u64..=120,
        ) {
            let after = THRESHOLDS.judge(before, percent(used));
            prop_assert_eq!(THRESHOLDS.judge(after, percent(used)), after);
        }
    }
}
