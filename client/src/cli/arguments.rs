//! The arguments of `sstp` and their help.

use super::failure::Failure;
use clap::{Args, Parser, Subcommand, ValueEnum};
use client::{Carrier, DeviceUrl, IdentityUrl, ResourceUrl, SecurityProfile, Status};
use std::path::PathBuf;
use std::time::Duration;

const EXAMPLES: &str = "\
Examples:
  sstp init --relay relay.toml         make keys for a relay
  sstp register                        tell the relay about them; prints your identity
  sstp send --to IDENTITY report.pdf   send a file
  echo hello | sstp send --to IDENTITY send what comes on standard input
  sstp receive --out inbox             collect what waits into files
  sstp receive --follow --json         print messages as they come
  sstp presence watch DEVICE...        see who is online
  sstp --carrier polling receive       as if nothing but HTTP came through

Exit codes: 0 done, 1 failure, 2 wrong arguments, 3 the relay was not reached or did not answer in time,
4 the relay refused.";

const INIT_HELP: &str = "\
Examples:
  sstp init --relay relay.toml
  sstp --dir ~/second init --relay relay.toml
  sstp init --relay relay.toml --tls relay.example.com:2493 --tls-ca ca.pem

The relay identity file comes from whoever runs the relay (relayd init writes it). Compare the fingerprint that is
printed with the one that the relay's operator tells you.";

const REGISTER_HELP: &str = "\
Examples:
  sstp register
  sstp register --token 8c1f...                    where the operator gave you a token
  sstp register --identity grooveIdentity://...@   an identity that was listed for you";

const SEND_HELP: &str = "\
Examples:
  sstp send --to IDENTITY report.pdf
  tar c photos | sstp send --to IDENTITY --user-ref photos.tar
  sstp send --to IDENTITY --device dpp://relay.example/... notes.txt
  sstp send --to ALICE --to BOB minutes.txt        one transfer, two recipients
  sstp send --to CAROL --at grooveDNS://other.example notes.txt    a user of another relay

Ends with exit code 0 only when the relay has acknowledged the message.";

const RECEIVE_HELP: &str = "\
Examples:
  sstp receive --stdout                print what waits, then stop
  sstp receive --count 1 --timeout 60  wait up to a minute for one message
  sstp receive --out inbox --follow    collect until interrupted

A message is acknowledged once its body is safely written. One that arrives twice is written twice: delivery is at
least once.";

const PRESENCE_HELP: &str = "\
Examples:
  sstp presence watch dpp://relay.example/...       a table that stays up to date, until interrupted
  sstp presence watch --once --json DEVICE DEVICE   the statuses of this moment, for programs
  sstp presence watch --with ~/work DEVICE ...      devices of the relay of another client directory as well
  sstp presence set online                          be online until interrupted
  sstp presence set away --for 600

A device is shown by its own relay, the one in its URL. Its status lasts as long as a connection publishes it.";

/// Send and receive messages through a Furrow relay.
#[derive(Debug, Parser)]
#[command(name = "sstp", version, after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// Where your keys are [default: $FURROW_DIR, else $XDG_CONFIG_HOME/furrow, else ~/.config/furrow].
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
    /// The only way to the relay to be used: direct, tunnel, connect, socks, long-lived, keep-alive or polling [default:
    /// the best that works].
    #[arg(long, global = true, value_name = "CARRIER")]
    pub(crate) carrier: Option<Carrier>,
    /// Print one JSON object on each line.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Say on standard error what happens; twice for more.
    #[arg(long, short, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make keys for a new device and account.
    #[command(after_help = INIT_HELP)]
    Init(Init),
    /// Register device, account and identities with the relay.
    #[command(after_help = REGISTER_HELP)]
    Register(Register),
    /// Send a file or standard input.
    #[command(after_help = SEND_HELP)]
    Send(Send),
    /// Receive messages.
    #[command(after_help = RECEIVE_HELP)]
    Receive(Receive),
    /// See who is online, and be seen.
    #[command(after_help = PRESENCE_HELP)]
    Presence {
        #[command(subcommand)]
        command: PresenceCommand,
    },
    /// Print your names and your relay.
    Whoami,
    /// Write the manual pages and the completions of shells.
    Manual(manual::Manual),
}

#[derive(Debug, Args)]
pub(crate) struct Init {
    /// The relay identity file.
    #[arg(long, value_name = "FILE")]
    pub(crate) relay: PathBuf,
    /// The security profile of the keys.
    #[arg(long, value_enum, default_value_t = Profile::Modern)]
    pub(crate) profile: Profile,
    /// Connect by TLS only, to this address.
    #[arg(long, value_name = "HOST:PORT", requires = "tls_ca")]
    pub(crate) tls: Option<String>,
    /// The certificates to trust for TLS, in PEM form: the relay's own, or those of who issued it.
    #[arg(long, value_name = "FILE", requires = "tls")]
    pub(crate) tls_ca: Option<PathBuf>,
    /// The name in the relay's certificate, if it is not the host of --tls.
    #[arg(long, value_name = "NAME", requires = "tls")]
    pub(crate) tls_name: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Profile {
    /// X25519, Ed25519, HMAC-SHA256.
    Modern,
    /// The algorithms of the published protocol, for relays that know no others.
    Legacy,
}

impl From<Profile> for SecurityProfile {
    fn from(profile: Profile) -> SecurityProfile {
        match profile {
            Profile::Modern => SecurityProfile::Modern,
            Profile::Legacy => SecurityProfile::Legacy,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct Register {
    /// The pre-authentication token, if the relay asks for one.
    #[arg(long, value_name = "TOKEN")]
    pub(crate) token: Option<String>,
    /// The same from a file, which other users of this machine do not see.
    #[arg(long, value_name = "FILE", conflicts_with = "token")]
    pub(crate) token_file: Option<PathBuf>,
    /// An identity to register; may be given several times. Without it the known ones, or a new one.
    #[arg(long, value_name = "URL")]
    pub(crate) identity: Vec<IdentityUrl>,
    /// The account's keys were copied from another device that is registered already.
    #[arg(long)]
    pub(crate) on_new_device: bool,
    /// Seconds to wait for the relay.
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    pub(crate) timeout: Duration,
}

#[derive(Debug, Args)]
pub(crate) struct Send {
    /// The recipient; several times for several.
    #[arg(long, value_name = "IDENTITY", required = true)]
    pub(crate) to: Vec<IdentityUrl>,
    /// The relay of the recipients, if it is not yours; or one for each --to, in the same order.
    #[arg(long, value_name = "RELAY_URL")]
    pub(crate) at: Vec<DeviceUrl>,
    /// Only on this device of the recipient.
    #[arg(long, value_name = "URL")]
    pub(crate) device: Option<DeviceUrl>,
    /// The recipient's component that is to get it.
    #[arg(long, value_name = "URL", default_value = "furrow.mail")]
    pub(crate) resource: ResourceUrl,
    /// A note that travels with the message, for example a file name.
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(crate) user_ref: String,
    /// Seconds after which it is no longer worth delivering.
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) lifetime: Option<Duration>,
    /// Not for recipients that are offline.
    #[arg(long)]
    pub(crate) only_if_online: bool,
    /// Seconds without progress after which to give up.
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = seconds)]
    pub(crate) timeout: Duration,
    /// What to send; - or nothing for standard input.
    #[arg(value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Receive {
    /// Write each body into a file of its own in this directory.
    #[arg(long, value_name = "DIR", conflicts_with = "stdout")]
    pub(crate) out: Option<PathBuf>,
    /// Write the bodies to standard output, one behind the other; this is the default.
    #[arg(long)]
    pub(crate) stdout: bool,
    /// Go on until interrupted.
    #[arg(long, conflicts_with_all = ["count", "timeout"])]
    pub(crate) follow: bool,
    /// Stop after so many messages; fewer are a failure.
    #[arg(long, value_name = "N")]
    pub(crate) count: Option<u64>,
    /// Seconds without a message after which to stop.
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = seconds)]
    pub(crate) timeout: Duration,
}

#[derive(Debug, Subcommand)]
pub(crate) enum PresenceCommand {
    /// Show the status of devices, now and whenever it changes.
    #[command(after_help = PRESENCE_HELP)]
    Watch(PresenceWatch),
    /// Publish the status of this device, until interrupted.
    #[command(after_help = PRESENCE_HELP)]
    Set(PresenceSet),
}

#[derive(Debug, Args)]
pub(crate) struct PresenceWatch {
    /// The devices.
    #[arg(value_name = "DEVICE", required = true)]
    pub(crate) devices: Vec<DeviceUrl>,
    /// The directory of a client of another relay; several times for several. Each device is asked about at the relay that its
    /// URL names, and otherwise at yours.
    #[arg(long, value_name = "DIR")]
    pub(crate) with: Vec<PathBuf>,
    /// Print each status once and stop.
    #[arg(long)]
    pub(crate) once: bool,
    /// With --once: seconds after which devices that are still unknown are a failure.
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds, requires = "once")]
    pub(crate) timeout: Duration,
}

#[derive(Debug, Args)]
pub(crate) struct PresenceSet {
    /// online, away or offline.
    #[arg(value_name = "STATUS", value_parser = publishable)]
    pub(crate) status: Status,
    /// Seconds after which to stop.
    #[arg(long = "for", value_name = "SECONDS", value_parser = seconds)]
    pub(crate) time: Option<Duration>,
    /// Seconds to wait for the relay.
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    pub(crate) timeout: Duration,
}

fn publishable(text: &str) -> Result<Status, String> {
    let status = text.parse().ok().filter(|status| *status != Status::Unknown);
    status.ok_or_else(|| format!("{text} cannot be published; there are online, away and offline"))
}

fn seconds(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text} is not a number of seconds from 0.001 to a year");
    let seconds: f64 = text.parse().map_err(|_| wrong())?;
    if (0.001..=366.0 * 86400.0).contains(&seconds) {
        Ok(Duration::from_secs_f64(seconds))
    } else {
        Err(wrong())
    }
}

/// The directory with the client's keys.
pub(crate) fn client_directory(given: Option<PathBuf>) -> Result<PathBuf, Failure> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    given
        .or_else(|| variable("FURROW_DIR"))
        .or_else(|| variable("XDG_CONFIG_HOME").map(|config| config.join("furrow")))
        .or_else(|| variable("HOME").map(|home| home.join(".config/furrow")))
        .ok_or_else(|| Failure::Usage("no home directory; say with --dir where your keys are to be".into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;
    use clap::error::ErrorKind;

    fn parse(line: &str) -> Result<Arguments, ErrorKind> {
        Arguments::try_parse_from(line.split(' ')).map_err(|error| error.kind())
    }

    fn refused(line: &str) -> ErrorKind {
        parse(line).unwrap_err()
    }

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn every_subcommand_with_arguments_to_learn_teaches_by_example() {
        for subcommand in Arguments::command().get_subcommands() {
            let help = subcommand.get_after_help().map(ToString::to_string).unwrap_or_default();
            let plain = ["whoami", "manual"].contains(&subcommand.get_name());
            assert!(help.contains("sstp ") || plain, "{}", subcommand.get_name());
        }
    }

    #[test]
    fn send_takes_recipients_options_and_a_file() {
        let line =
            "sstp --json send --to grooveIdentity://a@ --to grooveIdentity://b@ --lifetime 60 notes.txt";
        let arguments = parse(line).unwrap();
        assert!(arguments.json);
        let Command::Send(send) = arguments.command else { panic!() };
        assert_eq!(send.to.len(), 2);
        assert_eq!(send.resource.as_str(), "furrow.mail");
        assert_eq!(send.lifetime, Some(Duration::from_secs(60)));
        assert_eq!(send.timeout, Duration::from_secs(60));
        assert_eq!(send.file, Some("notes.txt".into()));
    }

    #[test]
    fn send_names_the_relay_of_its_recipients() {
        let arguments = parse("sstp send --to grooveIdentity://a@ --at grooveDNS://other").unwrap();
        let Command::Send(send) = arguments.command else { panic!() };
        assert_eq!(send.at, [DeviceUrl::new("grooveDNS://other").unwrap()]);
    }

    #[test]
    fn global_options_may_stand_behind_the_command() {
        let arguments = parse("sstp whoami --dir /tmp/x --json -vv").unwrap();
        assert_eq!((arguments.dir, arguments.json, arguments.verbose), (Some("/tmp/x".into()), true, 2));
    }

    #[test]
    fn presence_takes_devices_and_statuses() {
        let arguments = parse("sstp presence watch --with /a --with /b dpp://h/1 dpp://h/2").unwrap();
        let Command::Presence { command: PresenceCommand::Watch(watch) } = arguments.command else {
            panic!()
        };
        assert_eq!((watch.devices.len(), watch.with.len(), watch.once), (2, 2, false));
        let arguments = parse("sstp presence set away --for 5").unwrap();
        let Command::Presence { command: PresenceCommand::Set(set) } = arguments.command else { panic!() };
        assert_eq!((set.status, set.time), (Status::Away, Some(Duration::from_secs(5))));
        assert_eq!(refused("sstp presence set unknown"), ErrorKind::ValueValidation);
        assert_eq!(refused("sstp presence set"), ErrorKind::MissingRequiredArgument);
        assert_eq!(refused("sstp presence watch"), ErrorKind::MissingRequiredArgument);
        assert_eq!(refused("sstp presence watch --timeout 5 dpp://h/1"), ErrorKind::MissingRequiredArgument);
    }

    #[test]
    fn wrong_lines_are_refused() {
        assert_eq!(refused("sstp"), ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand);
        assert_eq!(refused("sstp init"), ErrorKind::MissingRequiredArgument);
        assert_eq!(refused("sstp send file"), ErrorKind::MissingRequiredArgument);
        assert_eq!(refused("sstp init --relay r --profile other"), ErrorKind::InvalidValue);
        assert_eq!(refused("sstp register --token a --token-file b"), ErrorKind::ArgumentConflict);
        assert_eq!(refused("sstp receive --out a --stdout"), ErrorKind::ArgumentConflict);
        assert_eq!(refused("sstp receive --follow --count 1"), ErrorKind::ArgumentConflict);
        for value in ["", "-1", "0", "NaN", "inf", "1e30", "soon"] {
            let line = ["sstp", "receive", &format!("--timeout={value}")];
            let kind = Arguments::try_parse_from(line).unwrap_err().kind();
            assert_eq!(kind, ErrorKind::ValueValidation, "{value}");
        }
        assert_eq!(
            Arguments::try_parse_from(["sstp", "send", "--to", "a b"]).unwrap_err().kind(),
            ErrorKind::ValueValidation
        );
    }

    #[test]
    fn a_given_directory_wins() {
        assert_eq!(client_directory(Some("/x".into())).unwrap(), PathBuf::from("/x"));
    }
}
