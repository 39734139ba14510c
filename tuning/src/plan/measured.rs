//! What was measured, in one table, each figure with its source; and how a report of `relay-bench` replaces some of them. Computes
//! nothing but the ratio of two numbers of a report.

use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// One figure.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Figure {
    /// What it is, with its unit.
    pub(crate) what: &'static str,
    pub(crate) value: f64,
    /// Where it comes from.
    pub(crate) source: String,
}

macro_rules! figures {
    ($($(#[$doc:meta])* $name:ident: $what:literal = $value:expr, $source:literal;)*) => {
        /// All figures.
        #[derive(Clone, Debug, Serialize)]
        pub(crate) struct Measured {
            $($(#[$doc])* pub(crate) $name: Figure,)*
        }

        impl Measured {
            /// The figures of bench/RESULTS.md, and of the storage format where nothing has to be measured.
            pub(crate) fn ours() -> Self {
                Self { $($name: Figure { what: $what, value: $value, source: $source.into() },)* }
            }

            /// Each of them, in order.
            pub(crate) fn all(&self) -> Vec<&Figure> {
                vec![$(&self.$name,)*]
            }
        }
    };
}

figures! {
    online_us: "relay's CPU microseconds for a 100-byte message to one recipient who is online, acknowledged" = 1.42e6 / 2_792_338.0,
        "RESULTS.md, beside the peers, online 100 B: CPU by messages";
    fanout_us: "relay's CPU microseconds for each further recipient of a message" = 1.11e6 / 4_191_878.0,
        "RESULTS.md, beside the peers, fanout 1 to 100: CPU by deliveries";
    stored_us: "relay's CPU microseconds to store a 100-byte message durably" = 1.42e6 / 1_238_970.0,
        "RESULTS.md, beside the peers, durable 100 B: CPU by messages";
    stored_4k_us: "the same for 4 KiB" = 0.94e6 / 162_214.0,
        "RESULTS.md, beside the peers, durable 4 KiB: CPU by messages";
    collected_us: "relay's CPU microseconds to deliver a stored message" = 1.7,
        "RESULTS.md, run drain --shards 1";
    connect_us: "relay's CPU microseconds for a connection that comes and authenticates" = 155.0,
        "RESULTS.md, run connections --count 60000 (116 us by run auth)";
    idle_us: "relay's CPU microseconds a second for an idle connection with a keep-alive of 45 s" = 0.068e6 / 19_700.0,
        "RESULTS.md, run connections --max: idle CPU by connections";
    connection_bytes: "relay's memory for an idle connection, in bytes" = 4800.0,
        "RESULTS.md, run connections --max";
    kernel_bytes: "kernel's memory for the relay's end of it, in bytes" = 8900.0 / 2.0,
        "RESULTS.md, run connections --max: half of both ends";
    shard_bytes: "memory of a shard that does nothing, in bytes" = 60e6,
        "RESULTS.md, run drain --restart: resident before the first message";
    user_bytes: "memory for a listed user, in bytes" = 285.0 * 1048576.0 / 1e6,
        "INSTALL.md, a million users";
    user_disk_bytes: "disk for a listed user, in bytes" = 326.0,
        "INSTALL.md, a million users";
    waiting_bytes: "memory for a message that waits, in bytes (most of it at the start, while the log is read)" = 950.0,
        "RESULTS.md, run drain --restart: most resident by messages";
    record_bytes: "disk for a stored message beyond its payload, and for its deletion, in bytes" = 400.0,
        "storage/FORMAT.md with URLs of 60 characters: 32 + 290 and 32 + 48";
}

/// Why a file of figures cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReportError {
    #[error("{}: {error}", .path.display())]
    Unreadable { path: PathBuf, error: std::io::Error },
    #[error("{}: not the results.json of `relay-bench report`: {error}", .path.display())]
    Form { path: PathBuf, error: serde_json::Error },
    #[error("{}: a report of format {found}, and this program knows {FORMAT}", .path.display())]
    Format { path: PathBuf, found: u32 },
    #[error("{}: the report has no figure of Furrow that a plan needs", .path.display())]
    Nothing { path: PathBuf },
}

/// The shape of the file that is understood (bench, page::results).
const FORMAT: u32 = 1;
/// What the relay is called there.
const FURROW: &str = "Furrow";

#[derive(Deserialize)]
struct Report {
    format: u32,
    made: String,
    machine: String,
    comparison: Vec<Entry>,
    memory: Vec<Held>,
}

#[derive(Deserialize)]
struct Entry {
    workload: String,
    system: String,
    per_second: Option<f64>,
    server_cpu: Option<f64>,
}

#[derive(Deserialize)]
struct Held {
    connections: f64,
    process_bytes_per_connection: f64,
    kernel_bytes_per_connection_both_ends: f64,
    idle_cpu: f64,
}

impl Measured {
    /// Takes what a report has in place of what is here.
    pub(crate) fn take_report(&mut self, path: &Path) -> Result<(), ReportError> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| ReportError::Unreadable { path: path.into(), error })?;
        let report: Report =
            serde_json::from_str(&text).map_err(|error| ReportError::Form { path: path.into(), error })?;
        if report.format != FORMAT {
            return Err(ReportError::Format { path: path.into(), found: report.format });
        }
        if self.take(&report) == 0 {
            return Err(ReportError::Nothing { path: path.into() });
        }
        Ok(())
    }

    /// How many figures were taken.
    fn take(&mut self, report: &Report) -> usize {
        let source = format!("report of {}, {}", report.made, report.machine);
        let mut taken = 0;
        let mut put = |figure: &mut Figure, value: f64| {
            if value.is_finite() && value > 0.0 {
                (figure.value, figure.source) = (value, source.clone());
                taken += 1;
            }
        };
        for entry in report.comparison.iter().filter(|entry| entry.system == FURROW) {
            let (Some(rate), Some(cpu)) = (entry.per_second, entry.server_cpu) else { continue };
            let each = cpu * 1e6 / rate;
            match entry.workload.as_str() {
                "online 100 B" => put(&mut self.online_us, each),
                "fanout 1 to 100, 100 B" => put(&mut self.fanout_us, each),
                "durable 100 B" => put(&mut self.stored_us, each),
                "durable 4 KiB" => put(&mut self.stored_4k_us, each),
                _ => {}
            }
        }
        // The more connections, the less of what the process has anyway is taken for theirs.
        let most = report.memory.iter().max_by(|a, b| a.connections.total_cmp(&b.connections));
        if let Some(held) = most {
            put(&mut self.connection_bytes, held.process_bytes_per_connection);
            put(&mut self.kernel_bytes, held.kernel_bytes_per_connection_both_ends / 2.0);
            put(&mut self.idle_us, held.idle_cpu * 1e6 / held.connections);
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPORT: &str = r#"{"format": 1, "made": "today", "machine": "big", "comparison": [
        {"workload": "online 100 B", "system": "Furrow", "per_second": 1e6, "server_cpu": 0.5},
        {"workload": "online 100 B", "system": "NATS core", "per_second": 1e6, "server_cpu": 0.1},
        {"workload": "durable 100 B", "system": "Furrow", "per_second": null, "server_cpu": null}
    ], "memory": [
        {"connections": 9, "process_bytes_per_connection": 9e9, "kernel_bytes_per_connection_both_ends": 1.0, "idle_cpu": 0.0},
        {"connections": 1000, "process_bytes_per_connection": 4000.0, "kernel_bytes_per_connection_both_ends": 8000.0,
         "idle_cpu": 0.004}
    ]}"#;

    #[test]
    fn a_report_replaces_what_it_has_and_says_so() {
        let mut measured = Measured::ours();
        let report: Report = serde_json::from_str(REPORT).unwrap();
        assert_eq!(measured.take(&report), 4);
        let found =
            [&measured.online_us, &measured.connection_bytes, &measured.kernel_bytes, &measured.idle_us];
        assert_eq!(found.map(|figure| figure.value), [0.5, 4000.0, 4000.0, 4.0]);
        assert!(found.iter().all(|figure| figure.source == "report of today, big"));
        assert_eq!(measured.stored_us, Measured::ours().stored_us);
    }

    #[test]
    fn a_report_without_a_figure_of_the_relay_is_refused_with_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("results.json");
        let refused = |text: &str| {
            std::fs::write(&path, text).unwrap();
            Measured::ours().take_report(&path).unwrap_err().to_string()
        };
        let empty = r#"{"format": 1, "made": "", "machine": "", "comparison": [], "memory": []}"#;
        assert!(
            refused(empty).ends_with("results.json: the report has no figure of Furrow that a plan needs")
        );
        assert!(refused(&empty.replace('1', "2")).contains("a report of format 2, and this program knows 1"));
        assert!(refused("{}").contains("not the results.json of `relay-bench report`: missing field"));
        assert!(Measured::ours().take_report(folder.path()).unwrap_err().to_string().contains("directory"));
    }
}
