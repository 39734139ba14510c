//! What a shard counts and has, in one table: the field, the name of its metric, and what it means.
//!
//! Names follow the conventions of Prometheus: base units, `_total` on what only grows, labels for what adds up.

use serde::{Deserialize, Serialize};

/// Whether a metric only grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// It only grows while the relay runs.
    Counter,
    /// It goes up and down.
    Gauge,
}

/// One number of a family.
#[derive(Clone, Copy, Debug)]
pub struct Member {
    /// The label and value that tell it from the others of its family, if there are others.
    pub label: Option<(&'static str, &'static str)>,
    /// Its value.
    pub value: fn(&ShardCounters) -> u64,
}

/// Numbers with one name.
#[derive(Clone, Copy, Debug)]
pub struct Family {
    /// The name of the metric.
    pub name: &'static str,
    /// Whether it only grows.
    pub kind: MetricKind,
    /// What it means.
    pub help: &'static str,
    /// Its numbers; more than one differ in a label.
    pub members: &'static [Member],
}

macro_rules! counters {
    (@label) => { None };
    (@label $label:literal $value:literal) => { Some(($label, $value)) };
    ($(
        $name:literal $kind:ident $help:literal {
            $( $field:ident $([$label:literal = $value:literal])? ),+
        }
    )+) => {
        /// Everything that a shard counts (since its start) and has (now).
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(default)]
        pub struct ShardCounters {
            $($(
                #[doc = $help]
                $(#[doc = concat!("Here: ", $label, " ", $value, ".")])?
                pub $field: u64,
            )+)+
        }

        impl ShardCounters {
            /// How many numbers there are.
            pub const COUNT: usize = [$($(stringify!($field)),+),+].len();

            /// All numbers, in the order of the table.
            pub fn values(&self) -> [u64; Self::COUNT] {
                [$($(self.$field),+),+]
            }

            /// The numbers that [`ShardCounters::values`] gave.
            pub fn from_values(values: [u64; Self::COUNT]) -> Self {
                let [$($($field),+),+] = values;
                Self { $($($field),+),+ }
            }
        }

        /// The metrics that a shard's numbers become.
        pub const COUNTER_FAMILIES: &[Family] = &[$(
            Family {
                name: $name,
                kind: MetricKind::$kind,
                help: $help,
                members: &[$(Member {
                    label: counters!(@label $($label $value)?),
                    value: |counters| counters.$field,
                }),+],
            }
        ),+];
    };
}

counters! {
    "furrow_connections" Gauge "Connections that are open." { connections }
    "furrow_connections_half_open" Gauge "Open connections whose device has not proven its key." { half_open }
    "furrow_devices" Gauge "Devices with an authenticated connection." { devices }
    "furrow_connections_accepted_total" Counter "Connections taken, those that another shard handed over included." {
        connections_accepted
    }
    "furrow_connections_handed_over_total" Counter "Connections handed to the shard that is their home." {
        connections_handed_over
    }
    "furrow_connections_refused_total" Counter "Connections refused or dropped, by reason." {
        refused_turned_away["reason" = "address_limit"],
        refused_pushed_out["reason" = "shard_limit"],
        refused_put_off["reason" = "failures"],
        refused_newcomers["reason" = "not_taking"]
    }
    "furrow_authentications_total" Counter "Proofs of a key that were right." {
        authenticated_devices["kind" = "device"],
        authenticated_accounts["kind" = "account"]
    }
    "furrow_security_failures_total" Counter "Authentications and registrations that failed." { security_failures }
    "furrow_registrations_total" Counter "Registrations by their outcome; those that failed are security failures." {
        registrations_accepted["outcome" = "accepted"],
        registrations_busy["outcome" = "busy"]
    }
    "furrow_received_bytes_total" Counter "Bytes received on connections, TLS excluded." { received_bytes }
    "furrow_sent_bytes_total" Counter "Bytes sent on connections, TLS excluded." { sent_bytes }
    "furrow_messages_deposited_total" Counter "Messages that came for recipients at home on the shard." { deposited }
    "furrow_messages_completed_total" Counter "Messages that every recipient has or that are durable." { completed }
    "furrow_messages_delivered_total" Counter "Messages acknowledged by a recipient." { delivered }
    "furrow_messages_dropped_total" Counter "Messages that a recipient will not get, by reason." {
        expired["reason" = "expired"],
        dropped_abandoned["reason" = "abandoned"],
        dropped_by_order["reason" = "order"],
        unreadable["reason" = "unreadable"]
    }
    "furrow_messages_refused_total" Counter "Messages that were not taken, for a recipient or at all, by reason." {
        over_quota["reason" = "quota"],
        refused_deposits["reason" = "not_taking"]
    }
    "furrow_deposited_bytes_total" Counter "Payload bytes that came for recipients at home on the shard." {
        deposited_bytes
    }
    "furrow_delivered_bytes_total" Counter "Payload bytes of messages acknowledged by a recipient." { delivered_bytes }
    "furrow_sender_stops_total" Counter "Times that a connection was told to stop sending." { sender_stops }
    "furrow_messages" Gauge "Messages that a recipient has not acknowledged." { messages }
    "furrow_mailboxes" Gauge "Mailboxes with mail or an open session to them." { mailboxes }
    "furrow_messages_incomplete" Gauge "Messages received on the shard's connections and not completed." { incomplete }
    "furrow_in_flight_bytes" Gauge "Payload bytes of incomplete messages." { in_flight_bytes }
    "furrow_delivery_sessions" Gauge "Sessions on which mail is delivered." { delivery_sessions }
    "furrow_log_queue_records" Gauge "Records that wait for the log." { log_queue }
    "furrow_log_parts_total" Counter "Parts of messages by what became of them." {
        parts_stored["outcome" = "stored"],
        parts_cancelled["outcome" = "delivered_first"]
    }
    "furrow_log_batches_total" Counter "Batches made durable." { log_batches }
    "furrow_log_records_total" Counter "Records made durable." { log_records }
    "furrow_log_written_bytes_total" Counter "Bytes written to the log, padding included." { log_written_bytes }
    "furrow_log_syncs_total" Counter "Times that the log was made durable." { log_syncs }
    "furrow_log_failures_total" Counter "Batches that could not be made durable and were tried again." { log_failures }
    "furrow_log_emptied_segments_total" Counter "Segments emptied by moving what little was live in them." {
        log_emptied_segments
    }
    "furrow_log_segments" Gauge "Files of the log, by state." {
        log_segments["state" = "used"],
        log_free_segments["state" = "free"]
    }
    "furrow_log_bytes" Gauge "Bytes of records in the log, by whether somebody still waits for them." {
        log_live_bytes["state" = "live"],
        log_dead_bytes["state" = "dead"]
    }
    "furrow_taking" Gauge "Whether the shard takes these in: 1 if so." {
        taking_connections["what" = "connections"],
        taking_deposits["what" = "deposits"]
    }
    "furrow_draining" Gauge "Whether the shard is out of service or shutting down: 1 if so." { draining }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn values_come_back_in_their_fields() {
        let values = std::array::from_fn(|index| index as u64 + 1);
        let counters = ShardCounters::from_values(values);
        assert_eq!(counters.values(), values);
        let members: Vec<u64> = COUNTER_FAMILIES
            .iter()
            .flat_map(|family| family.members)
            .map(|member| (member.value)(&counters))
            .collect();
        assert_eq!(members, values);
    }

    #[test]
    fn names_follow_the_conventions() {
        let mut names = BTreeSet::new();
        for family in COUNTER_FAMILIES {
            let name = family.name;
            assert!(names.insert(name), "{name} is there twice");
            assert!(name.starts_with("furrow_"), "{name}");
            assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{name}");
            assert_eq!(name.ends_with("_total"), family.kind == MetricKind::Counter, "{name}");
            assert!(family.help.ends_with('.'), "{name}");
            let labels: BTreeSet<_> = family.members.iter().map(|member| member.label).collect();
            assert_eq!(labels.len(), family.members.len(), "{name}: two numbers without a difference");
            assert_eq!(labels.contains(&None), family.members.len() == 1, "{name}");
        }
    }

    #[test]
    fn numbers_that_a_newer_relay_has_or_an_older_one_lacks_do_not_matter() {
        let counters: ShardCounters = serde_json::from_str(r#"{"connections":7,"of_tomorrow":1}"#).unwrap();
        assert_eq!(counters, ShardCounters { connections: 7, ..ShardCounters::default() });
    }
}
