//! The enumerations of SSTP (sstp-messages sec. 5). A number that is not in the tables is kept as `Other`, so
//! that it can be logged; what it then means is said at each type.

macro_rules! code {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $value:literal,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[$doc])* $variant,)*
            /// A number that the tables do not list.
            Other(u8),
        }

        impl $name {
            /// Every listed value.
            pub const LISTED: &'static [$name] = &[$($name::$variant,)*];
        }

        impl From<u8> for $name {
            fn from(value: u8) -> Self {
                match value {
                    $($value => Self::$variant,)*
                    other => Self::Other(other),
                }
            }
        }

        impl From<$name> for u8 {
            fn from(code: $name) -> u8 {
                match code {
                    $($name::$variant => $value,)*
                    $name::Other(other) => other,
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                match self {
                    $($name::$variant => write!(f, concat!(stringify!($variant), " ({:#04x})"), $value),)*
                    $name::Other(other) => write!(f, "unlisted code {other:#04x}"),
                }
            }
        }
    };
}

code! {
    /// ConnectResponse.ResponseId (sstp-messages 5.1). An unlisted value is a refusal.
    ConnectResponseId {
        /// Accepted.
        Ok = 0x00,
        /// TargetDeviceURL is none of the receiver's own URLs.
        WrongDevice = 0x01,
        /// Not now; RetryTime says when.
        TryLater = 0x02,
        /// The sender's major version is higher, and the receiver will learn it.
        WillUpgrade = 0x03,
        /// The sender's major version is higher, and the receiver will not learn it.
        WontUpgrade = 0x04,
        /// The sender's version is too low.
        NewVersionRequired = 0x05,
        /// The security token failed.
        AuthenticationFailed = 0x06,
        /// A source device is locked out.
        ConnectRejected = 0x09,
    }
}

code! {
    /// ReasonId of Close and of ConnectClose, which draw on one space of numbers (sstp-messages 5.2, 5.5).
    /// An unlisted value means NoReason.
    CloseReason {
        /// Default.
        NoReason = 0x00,
        /// The sender pauses; ReturnTime says for how long (ConnectClose).
        Resting = 0x01,
        /// Nothing happened for too long.
        Idle = 0x02,
        /// A malformed or out-of-state command.
        ProtocolError = 0x03,
        /// The device did not prove itself.
        DeviceAuthenticationFailed = 0x04,
        /// The account of an earlier Attach did not prove itself.
        UserAuthenticationFailed = 0x05,
        /// The challenge of an AttachResponse was not answered correctly.
        StaleAttachAuthenticate = 0x07,
        /// The recipient's mailbox is full.
        QuotaWouldBeExceeded = 0x0b,
        /// Too many connections of one device (ConnectClose).
        CrossedConnections = 0x0c,
        /// Something unexpected at the sender.
        InternalError = 0x0d,
        /// A command for an unknown session, a duplicate session, or a session before the connection (ConnectClose).
        TooManyUnknownSessionCmds = 0x0f,
        /// No recipient of the fanout session is left.
        EmptySession = 0x15,
    }
}

code! {
    /// OpenResponse.ResponseId (sstp-messages 5.3). An unlisted value is a refusal.
    OpenResponseId {
        /// The session is open, or may send again.
        Ok = 0x00,
        /// There is no such resource here.
        NoResource = 0x04,
        /// The address is not known.
        Unknown = 0x05,
        /// Multi-drop is not supported, and an entry asks for it.
        NoFanoutEntries = 0x08,
        /// The session is open, but the sender must hold.
        OkStopSending = 0x0b,
        /// Single-hop is not supported, and an entry asks for it.
        FanoutNotSupported = 0x0c,
    }
}

code! {
    /// SessionStatus.StatusId (sstp-messages 5.4).
    StatusId {
        /// The name of the remote relay does not resolve.
        DnsLookupFailed = 0x01,
        /// The remote relay cannot be reached.
        HostNotReachable = 0x02,
        /// The link to the remote relay broke.
        ConnectionClosed = 0x03,
        /// The recipient's mailbox is full.
        QuotaWouldBeExceeded = 0x04,
        /// Storing for the recipient is no longer allowed.
        LockedOut = 0x05,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_survives_the_wire() {
        for byte in 0..=u8::MAX {
            assert_eq!(u8::from(ConnectResponseId::from(byte)), byte);
            assert_eq!(u8::from(CloseReason::from(byte)), byte);
            assert_eq!(u8::from(OpenResponseId::from(byte)), byte);
            assert_eq!(u8::from(StatusId::from(byte)), byte);
        }
    }

    #[test]
    fn listed_codes_have_the_numbers_of_the_tables() {
        let numbers = |codes: &[CloseReason]| codes.iter().map(|&code| u8::from(code)).collect::<Vec<_>>();
        assert_eq!(
            numbers(CloseReason::LISTED),
            [0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x07, 0x0b, 0x0c, 0x0d, 0x0f, 0x15]
        );
        assert_eq!(u8::from(ConnectResponseId::ConnectRejected), 0x09);
        assert_eq!(u8::from(OpenResponseId::OkStopSending), 0x0b);
        assert_eq!(u8::from(StatusId::LockedOut), 0x05);
    }
}
