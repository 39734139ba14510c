//! `presence`: a crowd that comes online within a moment, each of it watched by many of the others.

use super::traffic::describe_relay;
use crate::clock;
use crate::failure::Failure;
use crate::holder::{connect_from, source};
use crate::link::{Epoll, Link, Ready};
use crate::load::LoadError;
use crate::population::{User, make_keys};
use crate::proc_stat::{Usage, descriptor_limit};
use crate::relay_process::{RelayOptions, RelayProcess};
use crate::report::{Report, thousands};
use crate::sstp_wire::{Recipients, Role, SstpWire};
use crate::tally::Tally;
use crate::wire::{Wire, Witness};
use bytes::{Bytes, BytesMut};
use relay_core::address::DeviceUrl;
use relay_core::directory::Profile;
use relay_core::presence::{Decoder, Item, Message, Status};
use relay_core::security::ClientCredentials;
use std::sync::Arc;
use std::time::Duration;

/// Handshakes under way at the same time.
const CONCURRENT: usize = 64;
/// How long nothing may happen while something is awaited.
const PATIENCE: Duration = Duration::from_secs(20);
/// Descriptors that both sides need beside their connections.
const SPARE_DESCRIPTORS: u64 = 300;

/// When a crowd comes online at once, how soon does everybody know, and in how many messages?
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Presence {
    /// Devices, each on a connection of its own
    #[arg(long, default_value_t = 10_000)]
    pub(crate) devices: u32,
    /// Subscribers of each device; each device watches as many
    #[arg(long, default_value_t = 100)]
    pub(crate) subscribers: u32,
    /// Seconds within which all come online
    #[arg(long, default_value_t = 1.0)]
    pub(crate) within: f64,
    #[command(flatten)]
    pub(crate) relay: RelayOptions,
}

/// Runs it.
///
/// # Errors
/// [`Failure`]; also if somebody is not told, or told something else.
pub(crate) fn run(options: &Presence) -> Result<Report, Failure> {
    check(options)?;
    let keys = Arc::new(make_keys(Profile::Modern));
    let relay = RelayProcess::start(&options.relay, options.devices, keys.clone())?;
    let mut report = Report::new("presence");
    report.setting("devices", options.devices);
    report.setting("subscribers", options.subscribers);
    report.setting("within", format!("{} s", options.within));
    describe_relay(&mut report, &options.relay);

    let mut crowd = Crowd::new(options)?;
    crowd.connect(&relay, &keys)?;
    let connected = relay.usage();
    let pairs = u64::from(options.devices) * u64::from(options.subscribers);
    let began = clock::now();
    crowd.subscribe()?;
    crowd.until_told(pairs, Status::Offline)?;
    let subscribed = relay.usage();
    let each = subscribed.resident.saturating_sub(connected.resident) as f64 / pairs as f64;
    report.line(format!(
        "{} subscriptions made and answered in {:.2} s; each costs {each:.0} bytes of the relay's memory",
        thousands(pairs as f64),
        (clock::now() - began) as f64 / 1e9,
    ));
    report.result("subscriptions", pairs);
    report.result("bytes_per_subscription", each);

    let start = clock::now();
    crowd.come_online()?;
    crowd.until_told(pairs, Status::Online)?;
    describe(&mut report, options, &crowd, start, &subscribed, &relay.usage());
    Ok(report)
}

fn check(options: &Presence) -> Result<(), Failure> {
    if options.subscribers == 0 || options.subscribers >= options.devices {
        return Err(Failure::Setting("--subscribers must be at least 1, and below --devices".into()));
    }
    if !(0.0..=3600.0).contains(&options.within) {
        return Err(Failure::Setting("--within must be from 0 to 3600".into()));
    }
    let most = descriptor_limit(std::process::id()).unwrap_or(1024).saturating_sub(SPARE_DESCRIPTORS);
    if u64::from(options.devices) > most {
        let advice = format!("--devices can be {most} here: there are no more descriptors (ulimit -n)");
        return Err(Failure::Setting(advice));
    }
    Ok(())
}

fn describe(
    report: &mut Report,
    options: &Presence,
    crowd: &Crowd,
    start: u64,
    before: &Usage,
    after: &Usage,
) {
    let heard = &crowd.heard;
    let seconds = (heard.last - start) as f64 / 1e9;
    let rate = heard.statuses as f64 / seconds;
    let each = heard.notifies as f64 / f64::from(options.devices);
    let latency = heard.tally.delivery_latency();
    let cpu = after.cpu() - before.cpu();
    report.line(format!(
        "{} notifications/s: {} in {seconds:.2} s, in {} messages",
        thousands(rate),
        thousands(heard.statuses as f64),
        thousands(heard.notifies as f64),
    ));
    report.line(format!(
        "{each:.1} messages for each subscriber, with {:.1} statuses in each",
        heard.statuses as f64 / heard.notifies.max(1) as f64
    ));
    report.line(format!(
        "from publishing to being told: p50 {:.0} ms, p99 {:.0} ms, p99.9 {:.0} ms",
        latency.p50_us / 1e3,
        latency.p99_us / 1e3,
        latency.p999_us / 1e3
    ));
    report.line(format!(
        "relay: {:.2} CPU s, {:.2} us for each status",
        cpu,
        cpu * 1e6 / heard.statuses as f64
    ));
    report.result("notifications_per_second", rate);
    report.result("statuses", heard.statuses);
    report.result("messages_per_subscriber", each);
    report.result("publish_to_notify", latency);
    report.result("relay_cpu_seconds", cpu);
    report.result("relay_resident_bytes", after.resident);
}

/// What the crowd has heard since the beginning of a phase.
#[derive(Default)]
struct Heard {
    statuses: u64,
    notifies: u64,
    /// When the last status came.
    last: u64,
    tally: Tally,
}

/// Everybody, and what they have heard.
struct Crowd {
    options: Presence,
    links: Vec<(Link, SstpWire, Decoder)>,
    epoll: Epoll,
    ready: Vec<Ready>,
    scratch: Vec<u8>,
    /// When each device has published.
    published: Vec<u64>,
    heard: Heard,
}

/// One connection's ears.
struct Ears<'a> {
    decoder: &'a mut Decoder,
    heard: &'a mut Heard,
    published: &'a [u64],
    expected: Status,
    now: u64,
    wrong: &'a mut Option<String>,
}

impl Witness for Ears<'_> {
    fn acknowledged(&mut self, _count: u64) {}

    fn begin(&mut self) {
        self.heard.notifies += 1;
    }

    fn piece(&mut self, bytes: &[u8]) {
        self.decoder.push(Bytes::copy_from_slice(bytes));
        loop {
            match self.decoder.poll() {
                Ok(None) => return,
                Ok(Some(Item::Notify(status, device))) if status == self.expected => {
                    self.heard.statuses += 1;
                    self.heard.last = self.now;
                    if let Some(published) = number(&device).and_then(|number| self.published.get(number)) {
                        self.heard.tally.delivery(self.now - published);
                    }
                }
                other => {
                    *self.wrong = Some(format!("a Notify said {other:?} instead of {}", self.expected));
                    return;
                }
            }
        }
    }

    fn end(&mut self) {}
}

/// The number of the user whose device it is.
fn number(device: &DeviceUrl) -> Option<usize> {
    device.as_str().rsplit('/').next()?.parse().ok()
}

impl Crowd {
    fn new(options: &Presence) -> Result<Self, Failure> {
        Ok(Self {
            options: options.clone(),
            links: Vec::new(),
            epoll: Epoll::new().map_err(LoadError::from)?,
            ready: Vec::new(),
            scratch: Vec::new(),
            published: Vec::new(),
            heard: Heard::default(),
        })
    }

    fn connect(&mut self, relay: &RelayProcess, keys: &Arc<ClientCredentials>) -> Result<(), Failure> {
        let (mut ready, mut last) = (0, clock::now());
        while ready < self.options.devices as usize {
            while self.links.len() < self.options.devices as usize && self.links.len() - ready < CONCURRENT {
                self.open(relay, keys).map_err(LoadError::from)?;
            }
            let ended = self.turn(Duration::from_millis(50), Status::Unknown)?;
            ready += ended;
            if ended > 0 {
                last = clock::now();
            }
            in_time(last, "a handshake was not answered")?;
        }
        Ok(())
    }

    fn open(&mut self, relay: &RelayProcess, keys: &Arc<ClientCredentials>) -> std::io::Result<()> {
        let token = self.links.len();
        let mut link = connect_from(relay.address(), source(token as u32))?;
        let user = User::new(token as u32);
        let role = Role { user, keys: keys.clone(), collects: false, recipients: Recipients::Presence };
        let mut wire = SstpWire::new(role);
        self.epoll.add(&link, token)?;
        wire.greet(&mut link.out);
        link.flush(&self.epoll, token)?;
        self.links.push((link, wire, Decoder::default()));
        Ok(())
    }

    /// Each device subscribes to those behind it.
    fn subscribe(&mut self) -> Result<(), Failure> {
        self.heard = Heard::default();
        let (devices, subscribers) = (self.options.devices, self.options.subscribers);
        for token in 0..devices {
            let watched = (1..=subscribers).map(|step| User::new((token + step) % devices).device);
            self.say(token as usize, &Message::Subscribe(watched.collect()))?;
            self.turn(Duration::ZERO, Status::Offline)?;
        }
        Ok(())
    }

    /// Each device publishes when its time has come.
    fn come_online(&mut self) -> Result<(), Failure> {
        (self.heard, self.published) = (Heard::default(), vec![u64::MAX; self.options.devices as usize]);
        let message = Message::Publish { status: Status::Online, devices: Vec::new() };
        let span = clock::nanoseconds(Duration::from_secs_f64(self.options.within));
        let start = clock::now();
        let devices = u64::from(self.options.devices);
        for token in 0..devices {
            let due = start + span * token / devices;
            while clock::now() < due {
                self.turn(Duration::from_nanos(due.saturating_sub(clock::now())), Status::Online)?;
            }
            self.published[token as usize] = clock::now();
            self.say(token as usize, &message)?;
        }
        Ok(())
    }

    fn say(&mut self, token: usize, message: &Message) -> Result<(), Failure> {
        let mut body = BytesMut::new();
        message.encode(&mut body);
        let (link, wire, _) = &mut self.links[token];
        wire.put(&body, false, &mut link.out);
        Ok(link.flush(&self.epoll, token).map_err(LoadError::from)?)
    }

    /// Until so many statuses have been told, all of them `expected`.
    fn until_told(&mut self, count: u64, expected: Status) -> Result<(), Failure> {
        let mut last = clock::now();
        while self.heard.statuses < count {
            self.turn(Duration::from_millis(50), expected)?;
            last = last.max(self.heard.last);
            in_time(last, "not every subscriber was told")?;
        }
        Ok(())
    }

    /// Takes in what has come; gives the number of handshakes that ended.
    fn turn(&mut self, patience: Duration, expected: Status) -> Result<usize, Failure> {
        self.epoll.wait(patience, &mut self.ready).map_err(LoadError::from)?;
        let (mut ended, mut wrong) = (0, None);
        for event in std::mem::take(&mut self.ready) {
            let (link, wire, decoder) = &mut self.links[event.token];
            let was_ready = wire.is_ready();
            let (heard, published, now) = (&mut self.heard, &self.published, clock::now());
            let mut ears = Ears { decoder, heard, published, expected, now, wrong: &mut wrong };
            let open = link.receive(&mut self.scratch, |input, out| {
                wire.take(input, out, &mut ears).map_err(|error| LoadError::Wire { end: event.token, error })
            })?;
            if !open {
                return Err(LoadError::Closed(event.token).into());
            }
            let flushed = match event.writable {
                true => link.unblock(&self.epoll, event.token),
                false => link.flush(&self.epoll, event.token),
            };
            flushed.map_err(LoadError::from)?;
            ended += usize::from(wire.is_ready() && !was_ready);
        }
        wrong.map_or(Ok(ended), |wrong| Err(Failure::Wrong(wrong)))
    }
}

fn in_time(last: u64, what: &str) -> Result<(), Failure> {
    if clock::now() - last > clock::nanoseconds(PATIENCE) {
        return Err(LoadError::TooSlow(what.into()).into());
    }
    Ok(())
}
