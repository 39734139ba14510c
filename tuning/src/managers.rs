//! The table of management servers in the configuration: a name and a public key each.

use crate::error::Cause;
use crate::kind::{Fault, Item, Kind, quoted, wrong_type};
use relay_core::spmr::{MAX_SERVER_NAME_BYTES, ManagerPublicKey};
use std::collections::BTreeMap;

/// The most management servers of one relay; the product has one.
const MAX_SERVERS: usize = 64;

/// A table of names and keys.
pub(crate) struct Servers;

impl Kind for Servers {
    type Value = BTreeMap<String, ManagerPublicKey>;

    fn read(&self, item: &Item<'_>, faults: &mut Vec<Fault>) -> Option<Self::Value> {
        let Some(table) = item.get_ref().as_table() else { return wrong_type(self, item, faults) };
        let before = faults.len();
        let mut servers = BTreeMap::new();
        for (name, key) in table {
            let (text, at) = (name.get_ref().as_ref(), name.span());
            if !(1..=MAX_SERVER_NAME_BYTES).contains(&text.len()) || text.chars().any(char::is_control) {
                faults.push(Fault { at, cause: Cause::NotAServerName });
                continue;
            }
            match key.get_ref().as_str().map(str::parse) {
                Some(Ok(key)) => {
                    servers.insert(text.to_owned(), key);
                }
                _ => faults.push(Fault { at: key.span(), cause: Cause::NotAManagerKey(quoted(text)) }),
            }
        }
        if servers.len() > MAX_SERVERS {
            faults.push(Fault { at: item.span(), cause: Cause::TooManyServers(MAX_SERVERS) });
        }
        (faults.len() == before).then_some(servers)
    }

    fn write(&self, value: &Self::Value) -> String {
        let servers: Vec<String> = value
            .iter()
            .map(|(name, key)| format!("{} = {}", quoted(name), quoted(&key.to_string())))
            .collect();
        if servers.is_empty() { "{}".into() } else { format!("{{ {} }}", servers.join(", ")) }
    }

    fn describe(&self) -> String {
        format!("a table of at most {MAX_SERVERS} names, each with a key \"ed25519:...\" or \"rsa:...\"")
    }
}
