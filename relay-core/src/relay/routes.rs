//! How a sender's recipients become routes: one for each home shard, segment family and lifetime, so that a message is one item
//! and one record there, however many recipients it has. Nobody is named twice in it, and what names them in a record is bounded.

use super::home::{self, ShardId};
use super::mesh::RouteRecipient;
use crate::address::MailboxAddress;
use crate::store::Family;
use hashbrown::HashMap;
use hashbrown::hash_map::Entry;

/// URLs of the recipients of one route, in bytes. A record must fit into the smallest segment, 4 MiB; some 5000 recipients
/// with URLs as our tools make them do.
const MOST_URL_BYTES: usize = 1 << 20;

/// The recipients of one route.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) shard: ShardId,
    pub(super) family: Family,
    /// How long mail for them is kept if its sender does not say.
    pub(super) lifetime_seconds: Option<u32>,
    pub(super) recipients: Vec<RouteRecipient>,
    url_bytes: usize,
}

/// Those who were named again, by their indexes in the FanoutOpen: first where they were named first, then where again. Ascending.
pub(super) type NamedAgain = Vec<(u16, u16)>;

/// All indexes of `recipients`, which are given by those where they were named first.
pub(super) fn all_indexes(recipients: &[u16], again: &NamedAgain) -> Vec<u16> {
    let mut all = recipients.to_vec();
    if !again.is_empty() {
        for &first in recipients {
            let from = again.partition_point(|(named, _)| *named < first);
            all.extend(
                again[from..].iter().take_while(|(named, _)| *named == first).map(|&(_, index)| index),
            );
        }
        all.sort_unstable();
    }
    all
}

/// Sorts recipients into groups. Who is named again is in none: a message is delivered once.
pub(super) fn group(recipients: Vec<RouteRecipient>, shards: u16) -> (Vec<Group>, NamedAgain) {
    let mut groups: Vec<Group> = Vec::new();
    let mut known: HashMap<MailboxAddress, u16> = HashMap::new();
    let mut again = NamedAgain::new();
    let several = recipients.len() > 1;
    for recipient in recipients {
        if several {
            match known.entry(recipient.address.clone()) {
                Entry::Vacant(entry) => _ = entry.insert(recipient.index),
                Entry::Occupied(entry) => {
                    again.push((*entry.get(), recipient.index));
                    continue;
                }
            }
        }
        let shard = home::home(&recipient.address.account, shards);
        let family = if recipient.address.device.is_some() { Family::Device } else { Family::Identity };
        let (bytes, lifetime_seconds) = (url_bytes(&recipient.address), recipient.lifetime_seconds);
        let open = groups.iter_mut().find(|group| {
            (group.shard, group.family, group.lifetime_seconds) == (shard, family, lifetime_seconds)
                && group.url_bytes + bytes <= MOST_URL_BYTES
        });
        match open {
            Some(group) => {
                group.url_bytes += bytes;
                group.recipients.push(recipient);
            }
            None => {
                let recipients = vec![recipient];
                groups.push(Group { shard, family, lifetime_seconds, recipients, url_bytes: bytes });
            }
        }
    }
    again.sort_unstable();
    (groups, again)
}

fn url_bytes(address: &MailboxAddress) -> usize {
    let MailboxAddress { account, identity, device, resource } = address;
    let device = device.as_ref().map_or(0, |device| device.as_str().len());
    account.as_str().len() + identity.as_str().len() + device + resource.as_str().len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::{AccountUrl, DeviceUrl, IdentityUrl, ResourceUrl};

    fn recipient(index: u16, account: u16, device: Option<&str>, resource: usize) -> RouteRecipient {
        let address = MailboxAddress {
            account: AccountUrl::new(format!("account-{account}")).unwrap(),
            identity: IdentityUrl::new(format!("identity-{account}")).unwrap(),
            device: device.map(|device| DeviceUrl::new(device).unwrap()),
            resource: ResourceUrl::new("r".repeat(resource)).unwrap(),
        };
        RouteRecipient { index, address, quota_bytes: Some(1), lifetime_seconds: None }
    }

    #[test]
    fn there_is_one_group_for_each_home_and_family() {
        let recipients =
            (0..100).flat_map(|n| [recipient(2 * n, n, Some("d"), 1), recipient(2 * n + 1, n, None, 1)]);
        let (groups, again) = group(recipients.collect(), 3);
        assert!(again.is_empty());
        assert_eq!(groups.len(), 6);
        assert_eq!(groups.iter().map(|group| group.recipients.len()).sum::<usize>(), 200);
        for group in groups {
            assert!(group.recipients.iter().all(|it| home::home(&it.address.account, 3) == group.shard));
            assert!(group.recipients.is_sorted_by_key(|it| it.index), "in the order of the FanoutOpen");
        }
    }

    #[test]
    fn who_is_named_twice_is_there_once() {
        let twice = vec![recipient(0, 7, None, 1), recipient(1, 7, Some("d"), 1), recipient(2, 7, None, 1)];
        let (groups, again) = group(twice, 1);
        let indexes: Vec<_> = groups.iter().flat_map(|group| &group.recipients).map(|it| it.index).collect();
        assert_eq!(indexes, [0, 1]);
        assert_eq!(again, [(0, 2)]);
        assert_eq!(all_indexes(&[0, 1], &again), [0, 1, 2]);
        assert_eq!(all_indexes(&[1], &again), [1]);
    }

    #[test]
    fn what_names_the_recipients_of_a_record_is_bounded() {
        let recipients = (0..2500).map(|n| recipient(n, n, None, 1024)).collect();
        let (groups, _) = group(recipients, 1);
        assert_eq!(groups.len(), 3, "2.6 MB of URLs");
        assert!(groups.iter().all(|group| group.url_bytes <= MOST_URL_BYTES));
        assert_eq!(groups.iter().map(|group| group.recipients.len()).sum::<usize>(), 2500);
    }
}
