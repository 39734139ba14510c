//! SSTP
