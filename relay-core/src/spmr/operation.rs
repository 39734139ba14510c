//! The six operations by name (management-soap-spmr sec. 1, seen).

use std::fmt;

macro_rules! operations {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $response:literal;)*) => {
        /// What a management server may ask for.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Operation {
            $($(#[$doc])* $variant,)*
        }

        impl Operation {
            /// Every operation.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Its name: the element of its request, its Method, and the root of its plaintext.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }

            /// The element of its response, and the root of its response's plaintext (ours, wire-profile sec. 6).
            pub fn response_name(self) -> &'static str {
                match self {
                    $(Self::$variant => $response,)*
                }
            }

            /// The operation of this name.
            pub fn from_name(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|operation| operation.name() == name)
            }
        }
    };
}

operations! {
    /// Hands the relay the shared key.
    Registration = "Registration", "RegistrationResponse";
    /// Puts users into the relay's user database.
    UserAdd = "userAdd", "userAddResponse";
    /// Switches the relay's service on or off for users.
    AccountModify = "accountModify", "accountModifyResponse";
    /// Throws away what is stored for users, who stay.
    UserPurge = "userPurge", "userPurgeResponse";
    /// Changes the defaults of the service.
    RelayDefault = "RelayDefault", "RelayDefaultResponse";
    /// Makes the relay inactive or active.
    RelayQuiescent = "RelayQuiescent", "RelayQuiescentResponse";
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_exact_and_case_sensitive() {
        let names: Vec<_> = Operation::ALL.iter().map(|operation| operation.name()).collect();
        let expected =
            ["Registration", "userAdd", "accountModify", "userPurge", "RelayDefault", "RelayQuiescent"];
        assert_eq!(names, expected);
        for &operation in Operation::ALL {
            assert_eq!(Operation::from_name(operation.name()), Some(operation));
            assert_eq!(operation.response_name(), format!("{operation}Response"));
        }
        assert_eq!(Operation::from_name("useradd"), None);
    }
}
