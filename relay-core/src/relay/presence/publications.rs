//! What the sessions of this shard's connections publish, and what of it the devices' homes know.

use super::dirty::Dirty;
use super::note::{Note, PublicationId};
use crate::address::DeviceUrl;
use crate::presence::Status;
use crate::relay::home::{self, ShardId};
use slab::Slab;

/// One session's word on one device.
#[derive(Debug)]
struct Publication {
    generation: u32,
    device: DeviceUrl,
    /// `None` once the session says nothing any more.
    status: Option<Status>,
    /// What the home was told last; `None` if it knows of nothing.
    told: Option<Status>,
}

/// See the module's head.
#[derive(Debug)]
pub(super) struct Publications {
    shards: u16,
    publications: Slab<Publication>,
    next_generation: u32,
    /// For each home what it may have to be told of.
    untold: Vec<Dirty>,
}

impl Publications {
    pub(super) fn new(shards: u16) -> Self {
        let untold = (0..shards).map(|_| Dirty::default()).collect();
        Self { shards, publications: Slab::new(), next_generation: 0, untold }
    }

    /// A session publishes its first word on a device.
    pub(super) fn begin(&mut self, device: DeviceUrl, status: Status) -> PublicationId {
        let generation = self.next_generation;
        self.next_generation = generation.wrapping_add(1);
        let publication = Publication { generation, device, status: Some(status), told: None };
        let index = self.publications.insert(publication) as u32;
        self.touch(index);
        PublicationId { index, generation }
    }

    /// It publishes another one. The same one again is no news, and yet the latest word: the home is told.
    pub(super) fn change(&mut self, id: PublicationId, status: Status) {
        let publication = &mut self.publications[id.index as usize];
        publication.status = Some(status);
        if publication.told == Some(status) {
            // Known to the home, but not as the latest word: any other value makes it tell again.
            publication.told = Some(Status::Unknown);
        }
        self.touch(id.index);
    }

    /// It says nothing any more.
    pub(super) fn end(&mut self, id: PublicationId) {
        self.publications[id.index as usize].status = None;
        self.touch(id.index);
    }

    /// What there is at present.
    pub(super) fn len(&self) -> usize {
        self.publications.len()
    }

    /// Appends what a home is to be told, up to `most` notes in all.
    pub(super) fn take_notes(&mut self, to: ShardId, most: usize, notes: &mut Vec<Note>) {
        let untold = &mut self.untold[usize::from(to.0)];
        while notes.len() < most
            && let Some(index) = untold.pop()
        {
            let publication = &mut self.publications[index as usize];
            let id = PublicationId { index, generation: publication.generation };
            match publication.status {
                Some(status) if publication.told != Some(status) => {
                    publication.told = Some(status);
                    notes.push(Note::Publish { device: publication.device.clone(), publication: id, status });
                }
                Some(_) => {}
                None => {
                    let Publication { device, told, .. } = self.publications.remove(index as usize);
                    if told.is_some() {
                        notes.push(Note::Withdraw { device, publication: id });
                    }
                }
            }
        }
    }

    /// Whether there may be something to tell a home.
    pub(super) fn has_notes(&self, to: ShardId) -> bool {
        !self.untold[usize::from(to.0)].is_empty()
    }

    fn touch(&mut self, index: u32) {
        let home = home::home_of_device(&self.publications[index as usize].device, self.shards);
        self.untold[usize::from(home.0)].insert(index);
    }
}
