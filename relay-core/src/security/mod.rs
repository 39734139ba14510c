//! SSTP Security
