//! The numbers of what this crate says in the log, in the range of the database (relay-product-operations sec. 8). What each
//! means and asks for is in the relay's table of events.

/// An unfinished segment file stays behind.
pub const SEGMENT_LEFT_BEHIND: u16 = 3101;
/// A record of the user database counts as missing.
pub const USER_RECORD_DAMAGED: u16 = 3102;
/// A segment header is damaged; its records are read all the same.
pub const SEGMENT_HEADER_DAMAGED: u16 = 3103;
/// The manifest is missing and was rebuilt from a segment.
pub const MANIFEST_REBUILT: u16 = 3104;
/// Segments that nothing needs could not be given up.
pub const SEGMENTS_NOT_GIVEN_UP: u16 = 3105;
/// A segment file that nothing needs could not be removed.
pub const SEGMENT_NOT_REMOVED: u16 = 3106;
/// Re-homing had been interrupted by the end of the process, and is finished.
pub const REHOMING_FINISHED: u16 = 3107;
/// Stored mail has new homes.
pub const REHOMED: u16 = 3108;
/// The log that is re-homed is damaged.
pub const REHOMED_LOG_DAMAGED: u16 = 3109;
/// Re-homing goes on.
pub const REHOMING: u16 = 3110;
/// A stored message cannot be re-homed.
pub const NOT_REHOMED: u16 = 3111;
/// An old log with unreadable mail is kept.
pub const OLD_LOG_KEPT: u16 = 3112;
/// A segment file that nothing needs keeps its space.
pub const SEGMENT_KEEPS_SPACE: u16 = 3113;
/// The user database cannot be read.
pub const USERS_UNREADABLE: u16 = 3114;
/// The state of the users that a management server lists is damaged.
pub const LISTING_DAMAGED: u16 = 3120;
