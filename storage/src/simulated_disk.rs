//! A disk in memory that does to a log what disks do: until it is told to make something durable, it may lose any sector
//! that was written and any name that was given, each by itself; it refuses, fills up, stalls and flips bits when a test
//! says so. After a failed sync, what was not durable may still become so or not, but no later sync makes it so.

use crate::disk::{Disk, DiskFile, ReadBlocks};
use futures_lite::future::yield_now;
use rkyv::util::AlignedVec;
use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// What a disk writes wholly or not at all.
const SECTOR: usize = 512;

/// What a log asked of the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Read,
    Write,
    Sync,
    Create,
    Rename,
    Cut,
    Remove,
    SyncDirectory,
}

/// One file, whatever its name is.
#[derive(Clone, Debug)]
struct Inode {
    /// What a reader sees.
    current: Rc<Vec<u8>>,
    /// What is there after a crash in any case.
    durable: Rc<Vec<u8>>,
    /// The operation that gave it its size, unless that is durable.
    sized_by: Option<u64>,
    /// Sectors that were written and not made durable: the operation, where, and what.
    unsynced: Vec<(u64, usize, Rc<[u8]>)>,
    /// The same, after a failed sync.
    doubtful: Vec<(u64, usize, Rc<[u8]>)>,
    /// Its durable name, and those since, each with the operation that gave it.
    names: Vec<(u64, Option<PathBuf>)>,
}

impl Inode {
    fn name(&self) -> Option<&PathBuf> {
        self.names.last().and_then(|(_, name)| name.as_ref())
    }

    /// The parts of it that a crash may take, as (operation, part).
    fn units(&self) -> impl Iterator<Item = (u64, usize)> + '_ {
        let sectors = self.doubtful.iter().chain(&self.unsynced).map(|(by, at, _)| (*by, 1 + at / SECTOR));
        let names = self.names[1..].iter().map(|(by, _)| (*by, 0));
        sectors.chain(names).chain(self.sized_by.map(|by| (by, usize::MAX)))
    }

    /// What is left of it if only the units in `kept` survive; `None` if it has no name then.
    fn after_crash(&self, kept: &BTreeSet<(u64, usize)>) -> Option<Inode> {
        let survives = |(by, _): &&(u64, Option<PathBuf>)| *by == 0 || kept.contains(&(*by, 0));
        let name = self.names.iter().rev().find(survives)?.1.clone()?;
        let mut content = self.durable.to_vec();
        for (by, at, sector) in self.doubtful.iter().chain(&self.unsynced) {
            if kept.contains(&(*by, 1 + at / SECTOR)) {
                content[*at..*at + sector.len()].copy_from_slice(sector);
            }
        }
        if self.sized_by.is_some_and(|by| !kept.contains(&(by, usize::MAX))) {
            content.clear();
        }
        let content = Rc::new(content);
        Some(Inode {
            current: content.clone(),
            durable: content,
            sized_by: None,
            unsynced: Vec::new(),
            doubtful: Vec::new(),
            names: vec![(0, Some(name))],
        })
    }
}

/// All that is on a disk at one moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct World {
    inodes: Vec<Inode>,
    directories: BTreeSet<PathBuf>,
}

/// Which of the things that a crash may take survive it: the one that was done as the `index`th of `count`.
pub(crate) type Survival<'a> = &'a dyn Fn(usize, usize) -> bool;

impl World {
    /// How many things a crash now may take or leave.
    pub(crate) fn at_stake(&self) -> usize {
        self.inodes.iter().flat_map(Inode::units).collect::<BTreeSet<_>>().len()
    }

    /// What is there after a crash.
    pub(crate) fn after_crash(&self, survives: Survival<'_>) -> World {
        let units: BTreeSet<_> = self.inodes.iter().flat_map(Inode::units).collect();
        let count = units.len();
        let kept = units.into_iter().enumerate();
        let kept = kept.filter(|(index, _)| survives(*index, count)).map(|(_, unit)| unit).collect();
        World {
            inodes: self.inodes.iter().filter_map(|inode| inode.after_crash(&kept)).collect(),
            directories: self.directories.clone(),
        }
    }
}

/// Decides whether an operation on a path fails.
type Fault = Box<dyn FnMut(Operation, &Path) -> Option<io::ErrorKind>>;

#[derive(Default)]
struct State {
    world: World,
    operations: u64,
    fault: Option<Fault>,
    stalled: Option<Operation>,
    /// Whether operations let others go on in between, by a sequence of which this is the state.
    restless: Option<u64>,
    /// What was on the disk after each change, with the mark that the test had set then.
    recorded: Option<Vec<(World, usize)>>,
    mark: usize,
}

/// See the module's head. Clones are the same disk.
#[derive(Clone, Default)]
pub(crate) struct SimulatedDisk {
    state: Rc<RefCell<State>>,
    locked: Rc<Cell<bool>>,
}

impl fmt::Debug for SimulatedDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SimulatedDisk")
    }
}

impl SimulatedDisk {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// A disk that holds this.
    pub(crate) fn holding(world: World) -> Self {
        let disk = Self::new();
        disk.state.borrow_mut().world = world;
        disk
    }

    /// What is on it now.
    pub(crate) fn world(&self) -> World {
        self.state.borrow().world.clone()
    }

    /// From now on asks `fault` of every operation whether it fails.
    pub(crate) fn set_fault(&self, fault: impl FnMut(Operation, &Path) -> Option<io::ErrorKind> + 'static) {
        self.state.borrow_mut().fault = Some(Box::new(fault));
    }

    /// No operation fails any more.
    pub(crate) fn heal(&self) {
        self.state.borrow_mut().fault = None;
    }

    /// Operations of this kind do not end until the next call.
    pub(crate) fn stall(&self, operation: Option<Operation>) {
        self.state.borrow_mut().stalled = operation;
    }

    /// Lets others go on between the operations, differently for each seed.
    pub(crate) fn be_restless(&self, seed: u64) {
        self.state.borrow_mut().restless = Some(seed);
    }

    /// Remembers what is on the disk after each change from now on.
    pub(crate) fn record(&self) {
        self.state.borrow_mut().recorded = Some(Vec::new());
    }

    /// The mark of what is recorded from now on.
    pub(crate) fn set_mark(&self, mark: usize) {
        self.state.borrow_mut().mark = mark;
    }

    /// What was recorded.
    pub(crate) fn recorded(&self) -> Vec<(World, usize)> {
        self.state.borrow_mut().recorded.take().unwrap_or_default()
    }

    /// Operations so far.
    pub(crate) fn operations(&self) -> u64 {
        self.state.borrow().operations
    }

    /// The paths of all files, in order.
    pub(crate) fn paths(&self) -> Vec<PathBuf> {
        let mut paths: Vec<_> =
            self.state.borrow().world.inodes.iter().filter_map(|inode| inode.name().cloned()).collect();
        paths.sort();
        paths
    }

    /// What a file holds.
    pub(crate) fn content(&self, path: &Path) -> Option<Vec<u8>> {
        let state = self.state.borrow();
        let index = state.find(path)?;
        Some(state.world.inodes[index].current.to_vec())
    }

    /// Changes a byte of a file behind the back of whoever wrote it.
    pub(crate) fn flip(&self, path: &Path, offset: usize, bits: u8) {
        let mut state = self.state.borrow_mut();
        let index = state.find(path).expect("the test names a file that is there");
        let inode = &mut state.world.inodes[index];
        Rc::make_mut(&mut inode.current)[offset] ^= bits;
        Rc::make_mut(&mut inode.durable)[offset] ^= bits;
    }

    /// Takes a file away as an operator might.
    pub(crate) fn lose(&self, path: &Path) {
        let mut state = self.state.borrow_mut();
        let index = state.find(path).expect("the test names a file that is there");
        state.world.inodes.remove(index);
    }

    /// Counts an operation, and fails it if the test says so.
    async fn begin(&self, operation: Operation, path: &Path) -> io::Result<u64> {
        let yields = {
            let mut state = self.state.borrow_mut();
            state.operations += 1;
            state.restless.as_mut().map_or(0, |seed| {
                *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (*seed >> 33) % 4
            })
        };
        for _ in 0..yields {
            yield_now().await;
        }
        while self.state.borrow().stalled == Some(operation) {
            yield_now().await;
        }
        let mut state = self.state.borrow_mut();
        let failure = state.fault.as_mut().and_then(|fault| fault(operation, path));
        match failure {
            Some(kind) => Err(kind.into()),
            None => Ok(state.operations),
        }
    }

    /// Something has changed.
    fn changed(&self) {
        let state = &mut *self.state.borrow_mut();
        if let Some(recorded) = &mut state.recorded {
            recorded.push((state.world.clone(), state.mark));
        }
    }

    fn inode<T>(&self, index: usize, work: impl FnOnce(&mut Inode) -> T) -> T {
        work(&mut self.state.borrow_mut().world.inodes[index])
    }

    fn add_file(&self, by: u64, path: &Path, content: Vec<u8>) -> usize {
        let mut state = self.state.borrow_mut();
        state.give_up_name(by, path);
        let content = Rc::new(content);
        state.world.inodes.push(Inode {
            current: content.clone(),
            durable: content,
            sized_by: Some(by),
            unsynced: Vec::new(),
            doubtful: Vec::new(),
            names: vec![(0, None), (by, Some(path.to_owned()))],
        });
        state.world.inodes.len() - 1
    }

    fn write(&self, by: u64, index: usize, offset: usize, bytes: &[u8]) {
        self.inode(index, |inode| {
            let current = Rc::make_mut(&mut inode.current);
            current[offset..offset + bytes.len()].copy_from_slice(bytes);
            let sectors = bytes.chunks(SECTOR).enumerate();
            inode.unsynced.extend(sectors.map(|(at, sector)| (by, offset + at * SECTOR, sector.into())));
        });
    }

    async fn sync(&self, index: usize, path: &Path) -> io::Result<()> {
        let begun = self.begin(Operation::Sync, path).await;
        self.inode(index, |inode| {
            if begun.is_err() {
                let unsynced = std::mem::take(&mut inode.unsynced);
                inode.doubtful.extend(unsynced);
                return;
            }
            let durable = Rc::make_mut(&mut inode.durable);
            for (_, at, sector) in inode.unsynced.drain(..) {
                durable[at..at + sector.len()].copy_from_slice(&sector);
                // What is written over is decided.
                inode.doubtful.retain(|(_, doubtful, _)| *doubtful != at);
            }
            inode.sized_by = None;
        });
        self.changed();
        begun.map(drop)
    }

    async fn rename_file(&self, index: usize, from: &Path, to: &Path) -> io::Result<()> {
        let by = self.begin(Operation::Rename, from).await?;
        {
            let mut state = self.state.borrow_mut();
            if state.world.inodes[index].name() != Some(&to.to_owned()) {
                state.give_up_name(by, to);
                state.world.inodes[index].names.push((by, Some(to.to_owned())));
            }
        }
        self.changed();
        Ok(())
    }
}

impl State {
    fn find(&self, path: &Path) -> Option<usize> {
        self.world.inodes.iter().position(|inode| inode.name().is_some_and(|name| name == path))
    }

    /// Whoever has the name loses it by that operation.
    fn give_up_name(&mut self, by: u64, path: &Path) {
        if let Some(former) = self.find(path) {
            self.world.inodes[former].names.push((by, None));
        }
    }
}

/// Gives the lock back when it goes.
#[derive(Debug)]
pub(crate) struct SimulatedLock(Rc<Cell<bool>>);

impl Drop for SimulatedLock {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

/// An open file.
#[derive(Clone, Debug)]
pub(crate) struct SimulatedFile {
    disk: SimulatedDisk,
    index: usize,
    size: u64,
}

/// Bytes that were read.
#[derive(Clone, Debug, Default)]
pub(crate) struct SimulatedData(Rc<AlignedVec>);

impl Deref for SimulatedData {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl Disk for SimulatedDisk {
    type File = SimulatedFile;
    type Lock = SimulatedLock;

    async fn create_directory(&self, path: &Path) -> io::Result<()> {
        self.state.borrow_mut().world.directories.insert(path.to_owned());
        Ok(())
    }

    async fn lock(&self, _path: &Path) -> io::Result<Option<SimulatedLock>> {
        Ok((!self.locked.replace(true)).then(|| SimulatedLock(self.locked.clone())))
    }

    async fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        let below = |path: PathBuf| Some(path.strip_prefix(directory).ok()?.to_str()?.to_owned());
        Ok(self.paths().into_iter().filter_map(below).collect())
    }

    async fn open(&self, path: &Path) -> io::Result<SimulatedFile> {
        let state = self.state.borrow();
        let index = state.find(path).ok_or(io::ErrorKind::NotFound)?;
        let size = state.world.inodes[index].current.len() as u64;
        Ok(SimulatedFile { disk: self.clone(), index, size })
    }

    async fn create(&self, path: &Path, size: u64) -> io::Result<SimulatedFile> {
        let by = self.begin(Operation::Create, path).await?;
        let index = self.add_file(by, path, vec![0; size as usize]);
        self.changed();
        Ok(SimulatedFile { disk: self.clone(), index, size })
    }

    async fn read_small(&self, path: &Path, most: u64) -> io::Result<Option<Vec<u8>>> {
        self.begin(Operation::Read, path).await?;
        let content = self.content(path);
        Ok(content.map(|content| content[..content.len().min(most as usize)].to_vec()))
    }

    async fn write_small(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        let by = self.begin(Operation::Create, path).await?;
        let index = self.add_file(by, path, vec![0; content.len()]);
        self.write(by, index, 0, content);
        self.changed();
        self.sync(index, path).await
    }

    async fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let index = self.state.borrow().find(from).ok_or(io::ErrorKind::NotFound)?;
        self.rename_file(index, from, to).await
    }

    async fn sync_directory(&self, path: &Path) -> io::Result<()> {
        self.begin(Operation::SyncDirectory, path).await?;
        for inode in &mut self.state.borrow_mut().world.inodes {
            let last = inode.names.pop().expect("every file has had a name");
            inode.names = vec![(0, last.1)];
        }
        self.changed();
        Ok(())
    }
}

impl ReadBlocks for SimulatedFile {
    type Data = SimulatedData;

    fn size(&self) -> u64 {
        self.size
    }

    fn path(&self) -> PathBuf {
        self.disk.inode(self.index, |inode| inode.name().cloned().unwrap_or_default())
    }

    async fn read(&self, offset: u64, length: usize) -> io::Result<SimulatedData> {
        assert!(offset.is_multiple_of(4096), "direct I/O is aligned");
        self.disk.begin(Operation::Read, &self.path()).await?;
        let content = self.disk.inode(self.index, |inode| inode.current.clone());
        let start = (offset as usize).min(content.len());
        let mut data = AlignedVec::new();
        data.extend_from_slice(&content[start..(start + length).min(content.len())]);
        Ok(SimulatedData(Rc::new(data)))
    }
}

impl DiskFile for SimulatedFile {
    type Buffer = Vec<u8>;

    fn buffer(&self, bytes: usize) -> Vec<u8> {
        vec![0xa5; bytes]
    }

    async fn write(&self, buffer: Vec<u8>, offset: u64) -> io::Result<()> {
        assert!(offset.is_multiple_of(4096) && buffer.len().is_multiple_of(4096), "direct I/O is aligned");
        let begun = self.disk.begin(Operation::Write, &self.path()).await;
        // A failed write may have written a part, and nobody knows which.
        let by = self.disk.operations();
        self.disk.write(by, self.index, offset as usize, &buffer);
        self.disk.changed();
        begun.map(drop)
    }

    async fn sync(&self) -> io::Result<()> {
        self.disk.sync(self.index, &self.path()).await
    }

    async fn rename(&self, path: &Path) -> io::Result<()> {
        self.disk.rename_file(self.index, &self.path(), path).await
    }

    /// Nobody reads it any more, so that it does not matter which of its sectors would survive.
    async fn cut(&self) -> io::Result<()> {
        self.disk.begin(Operation::Cut, &self.path()).await?;
        self.disk.inode(self.index, |inode| {
            inode.current = Rc::default();
            inode.durable = Rc::default();
            inode.unsynced.clear();
            inode.doubtful.clear();
        });
        self.disk.changed();
        Ok(())
    }

    async fn remove(&self) -> io::Result<()> {
        let by = self.disk.begin(Operation::Remove, &self.path()).await?;
        self.disk.inode(self.index, |inode| inode.names.push((by, None)));
        self.disk.changed();
        Ok(())
    }

    async fn close(self) -> io::Result<()> {
        Ok(())
    }
}
