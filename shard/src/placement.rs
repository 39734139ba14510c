//! Which processor each shard runs on: the topology that /sys tells, and the choice from it. Reads a few small files; binds
//! nothing.

use crate::events;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use tuning::{Shards, ShardsPlacement};

/// Why no processors can be chosen.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PlacementError {
    /// A file of /sys is not as expected.
    #[error("{}: \"{text}\" is no list of processors. Name the processors in shards.cores, or set shards.pin = false", .path.display())]
    NotAList {
        /// The file.
        path: PathBuf,
        /// What is in it.
        text: String,
    },
    /// There is one core, and it is to be left to interrupts.
    #[error(
        "shards.leave_first_core leaves no processor: this process may run on {usable} only. Turn it off"
    )]
    NothingLeft {
        /// The processors of the one core.
        usable: String,
    },
    /// The system does not say where this process may run.
    #[error(
        "the processors of this process are unknown: {0}. Name them in shards.cores, or set shards.pin = false"
    )]
    Unknown(String),
}

/// The processors that this process may use: nodes of cores of hardware threads, each ascending.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topology {
    nodes: Vec<Vec<Vec<usize>>>,
}

impl Topology {
    /// Of this machine, as far as this process may use it.
    ///
    /// # Errors
    /// [`PlacementError::Unknown`], [`PlacementError::NotAList`].
    pub fn of_this_machine() -> Result<Self, PlacementError> {
        let allowed = rustix::thread::sched_getaffinity(None)
            .map_err(|error| PlacementError::Unknown(error.to_string()))?;
        let usable = (0..rustix::thread::CpuSet::MAX_CPU).filter(|&cpu| allowed.is_set(cpu)).collect();
        Self::read(Path::new("/sys"), &usable)
    }

    /// From a tree like /sys. What the tree does not say counts as simple: one node, and a core for each processor.
    ///
    /// # Errors
    /// [`PlacementError::NotAList`].
    pub fn read(sys: &Path, usable: &BTreeSet<usize>) -> Result<Self, PlacementError> {
        let mut nodes = Vec::new();
        let mut homeless = usable.clone();
        let node_folder = sys.join("devices/system/node");
        for node in read_list(&node_folder.join("online"))?.unwrap_or_default() {
            let members = read_list(&node_folder.join(format!("node{node}/cpulist")))?.unwrap_or_default();
            nodes.push(members.into_iter().filter(|cpu| homeless.remove(cpu)).collect::<Vec<_>>());
        }
        nodes.push(homeless.into_iter().collect());
        let cores = |cpus: Vec<usize>| cores_of(sys, &cpus);
        let nodes = nodes.into_iter().filter(|cpus| !cpus.is_empty()).map(cores).collect::<Result<_, _>>()?;
        Ok(Self { nodes })
    }

    /// Without its first core, which is that of the lowest processor.
    ///
    /// # Errors
    /// [`PlacementError::NothingLeft`].
    fn without_first_core(mut self) -> Result<Self, PlacementError> {
        let first = self.nodes.iter().flatten().min().cloned().unwrap_or_default();
        self.nodes.iter_mut().for_each(|cores| cores.retain(|core| *core != first));
        self.nodes.retain(|cores| !cores.is_empty());
        if self.nodes.is_empty() {
            let usable: Vec<_> = first.iter().map(usize::to_string).collect();
            return Err(PlacementError::NothingLeft { usable: usable.join(", ") });
        }
        Ok(self)
    }

    /// All processors in the order in which shards get them: of each node first one of every core, and its siblings after them.
    fn order(&self, placement: ShardsPlacement) -> Vec<usize> {
        let nodes: Vec<Vec<usize>> = self.nodes.iter().map(|cores| turns(cores)).collect();
        match placement {
            ShardsPlacement::Packed => nodes.concat(),
            ShardsPlacement::Spread => turns(&nodes),
        }
    }
}

/// Everybody's first, then everybody's second, and so on.
fn turns(lists: &[Vec<usize>]) -> Vec<usize> {
    let longest = lists.iter().map(Vec::len).max().unwrap_or(0);
    (0..longest).flat_map(|turn| lists.iter().filter_map(move |list| list.get(turn).copied())).collect()
}

/// Groups the processors of a node by core.
fn cores_of(sys: &Path, cpus: &[usize]) -> Result<Vec<Vec<usize>>, PlacementError> {
    let mut cores: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for &cpu in cpus {
        let folder = sys.join(format!("devices/system/cpu/cpu{cpu}/topology"));
        let siblings = match read_list(&folder.join("core_cpus_list"))? {
            Some(siblings) => Some(siblings),
            None => read_list(&folder.join("thread_siblings_list"))?,
        };
        let first = siblings.and_then(|siblings| siblings.first().copied()).unwrap_or(cpu);
        cores.entry(first).or_default().push(cpu);
    }
    Ok(cores.into_values().collect())
}

/// The processors in a file such as `0-3,8`; `None` if there is no such file.
fn read_list(path: &Path) -> Result<Option<BTreeSet<usize>>, PlacementError> {
    let Ok(text) = std::fs::read_to_string(path) else { return Ok(None) };
    let not_a_list = || PlacementError::NotAList { path: path.into(), text: text.trim().into() };
    let mut list = BTreeSet::new();
    for range in text.trim().split(',').filter(|range| !range.is_empty()) {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let number = |text: &str| text.parse().ok().filter(|cpu: &usize| *cpu < 1 << 16);
        let (first, last) = number(first).zip(number(last)).ok_or_else(not_a_list)?;
        list.extend(first..=last);
    }
    Ok(Some(list))
}

/// The processor of each shard as the configuration wants it; `None` if shards are not bound to one.
///
/// # Errors
/// [`PlacementError`].
pub fn place(config: &Shards) -> Result<Vec<Option<usize>>, PlacementError> {
    let usable = std::thread::available_parallelism().map_or(1, |usable| usable.get());
    if !config.cores.is_empty() {
        return Ok(config.cores.iter().map(|&core| config.pin.then_some(core)).collect());
    }
    if !config.pin && !config.leave_first_core {
        return Ok(vec![None; if config.count == 0 { usable } else { config.count }]);
    }
    let order = choose(Topology::of_this_machine()?, config, usable)?;
    Ok(order.into_iter().map(|core| config.pin.then_some(core)).collect())
}

/// The processor of each shard. More shards than processors share them in turn.
fn choose(topology: Topology, config: &Shards, usable: usize) -> Result<Vec<usize>, PlacementError> {
    let topology = if config.leave_first_core { topology.without_first_core()? } else { topology };
    let order = topology.order(config.placement);
    // The process may have a quota of fewer processors than it may run on.
    let count = if config.count == 0 { order.len().min(usable) } else { config.count };
    if count > order.len() {
        tracing::warn!(
            event = events::SHARDS_SHARE_PROCESSORS,
            shards = count,
            processors = order.len(),
            "shards share processors: set shards.pin = false, or fewer of them"
        );
    }
    Ok(order.into_iter().cycle().take(count).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use tempfile::TempDir;
    use tuning::Config;

    /// A tree like /sys: nodes of cores of hardware threads.
    fn machine(nodes: &[&[&[usize]]]) -> (TempDir, BTreeSet<usize>) {
        let sys = TempDir::new().unwrap();
        let write = |path: String, cpus: &mut dyn Iterator<Item = usize>| {
            let path = sys.path().join("devices/system").join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            let text: Vec<_> = cpus.map(|cpu| cpu.to_string()).collect();
            fs::write(path, text.join(",") + "\n").unwrap();
        };
        write("node/online".into(), &mut (0..nodes.len()));
        let mut all = BTreeSet::new();
        for (number, cores) in nodes.iter().enumerate() {
            write(format!("node/node{number}/cpulist"), &mut cores.iter().copied().flatten().copied());
            for core in *cores {
                for cpu in *core {
                    all.insert(*cpu);
                    write(format!("cpu/cpu{cpu}/topology/core_cpus_list"), &mut core.iter().copied());
                }
            }
        }
        (sys, all)
    }

    fn chosen(nodes: &[&[&[usize]]], change: impl FnOnce(&mut Shards)) -> Result<Vec<usize>, PlacementError> {
        let (sys, all) = machine(nodes);
        let mut config = Config::new("grooveDNS://h").shards;
        change(&mut config);
        choose(Topology::read(sys.path(), &all).unwrap(), &config, all.len())
    }

    /// Two sockets of two cores with two threads each, numbered as common machines do.
    const TWO_NODES: &[&[&[usize]]] = &[&[&[0, 4], &[1, 5]], &[&[2, 6], &[3, 7]]];

    #[test]
    fn packed_fills_node_by_node_and_cores_before_their_siblings() {
        let packed = |count| {
            chosen(TWO_NODES, |shards| {
                shards.count = count;
                shards.placement = ShardsPlacement::Packed;
            })
        };
        assert_eq!(packed(0).unwrap(), [0, 1, 4, 5, 2, 3, 6, 7]);
        assert_eq!(packed(3).unwrap(), [0, 1, 4]);
    }

    #[test]
    fn spread_takes_nodes_in_turn() {
        let spread = |count| {
            chosen(TWO_NODES, |shards| {
                shards.count = count;
                shards.placement = ShardsPlacement::Spread;
            })
        };
        assert_eq!(spread(0).unwrap(), [0, 2, 1, 3, 4, 6, 5, 7]);
        assert_eq!(spread(2).unwrap(), [0, 2]);
    }

    #[test]
    fn the_first_core_is_left_with_all_its_threads() {
        let left = chosen(TWO_NODES, |shards| shards.leave_first_core = true).unwrap();
        assert_eq!(left, [1, 5, 2, 3, 6, 7]);
        let one = chosen(&[&[&[0, 1]]], |shards| shards.leave_first_core = true).unwrap_err();
        assert_eq!(one, PlacementError::NothingLeft { usable: "0, 1".into() });
    }

    #[test]
    fn more_shards_than_processors_share_them_in_turn() {
        assert_eq!(chosen(&[&[&[0], &[1]]], |shards| shards.count = 5).unwrap(), [0, 1, 0, 1, 0]);
    }

    #[test]
    fn only_usable_processors_count_and_nodes_without_any_do_not() {
        let (sys, _) = machine(TWO_NODES);
        let topology = Topology::read(sys.path(), &BTreeSet::from([3, 6, 7])).unwrap();
        assert_eq!(topology, Topology { nodes: vec![vec![vec![6], vec![3, 7]]] });
    }

    #[test]
    fn a_machine_that_says_nothing_is_one_node_of_single_cores() {
        let nothing = TempDir::new().unwrap();
        let topology = Topology::read(nothing.path(), &BTreeSet::from([1, 2])).unwrap();
        assert_eq!(topology, Topology { nodes: vec![vec![vec![1], vec![2]]] });
        assert_eq!(topology.order(ShardsPlacement::Spread), [1, 2]);
    }

    #[test]
    fn lists_are_numbers_and_ranges_and_anything_else_is_told_with_its_file() {
        let sys = TempDir::new().unwrap();
        let path = sys.path().join("list");
        let cases = [("0-2,5\n", Some(vec![0, 1, 2, 5])), ("7", Some(vec![7])), ("\n", Some(vec![]))];
        for (text, expected) in cases {
            fs::write(&path, text).unwrap();
            assert_eq!(read_list(&path).unwrap(), expected.map(BTreeSet::from_iter), "{text:?}");
        }
        assert_eq!(read_list(&sys.path().join("missing")), Ok(None));
        for text in ["a", "1-", "-", "0-99999999", "1;2"] {
            fs::write(&path, text).unwrap();
            let error = read_list(&path).unwrap_err();
            assert_eq!(error, PlacementError::NotAList { path: path.clone(), text: text.into() });
        }
    }

    #[test]
    fn this_machine_has_a_processor() {
        assert!(!Topology::of_this_machine().unwrap().order(ShardsPlacement::Packed).is_empty());
    }
}
