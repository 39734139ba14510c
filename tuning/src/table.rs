//! The macro that turns one description of the keys into structs, a table of keys and a reader.
//!
//! Owns no key itself: those are in `keys`.

use crate::keys::Config;

/// What a key has when the file does not set it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preset {
    /// This value, in TOML.
    Default(&'static str),
    /// Nothing: the key has to be set, for example to this value, in TOML.
    Required(&'static str),
}

impl Preset {
    /// The default, or the example of a required key, in TOML.
    pub fn text(self) -> &'static str {
        match self {
            Preset::Default(text) | Preset::Required(text) => text,
        }
    }
}

/// One key of the configuration, as the reference describes it.
#[derive(Clone, Copy)]
pub struct Key {
    /// The section it stands in.
    pub section: &'static str,
    /// Its name in the section.
    pub name: &'static str,
    /// Both, as in `limits.message_bytes`.
    pub path: &'static str,
    /// What it has when it is not set.
    pub preset: Preset,
    pub(crate) doc: &'static [&'static str],
    pub(crate) describe: fn() -> String,
    /// Whether a running relay obeys a change of it without a restart.
    pub live: bool,
    pub(crate) write: fn(&Config) -> String,
    pub(crate) copy: fn(&Config, &mut Config),
}

impl Key {
    /// The name with its section: `limits.message_bytes`.
    pub fn full_name(&self) -> String {
        format!("{}.{}", self.section, self.name)
    }

    /// What the key means, in lines.
    pub fn doc(&self) -> impl Iterator<Item = &'static str> + use<> {
        self.doc.iter().map(|line| line.trim())
    }

    /// What values are right.
    pub fn describe(&self) -> String {
        (self.describe)()
    }
}

/// One section of the configuration, with its keys in the order of the reference.
#[derive(Clone, Copy)]
pub struct Section {
    /// Its name.
    pub name: &'static str,
    /// Its keys.
    pub keys: &'static [Key],
    pub(crate) doc: &'static [&'static str],
}

impl Section {
    /// What the section is about, in lines.
    pub fn doc(&self) -> impl Iterator<Item = &'static str> + use<> {
        self.doc.iter().map(|line| line.trim())
    }
}

/// Declares sections as structs of public fields, `Config` as the struct of all sections, `SECTIONS` as the table that
/// describes them, and `Config::read`. The doc comment of a field is the key's entry in the reference; `@live` behind its
/// default says that a running relay obeys a change of it.
macro_rules! settings {
    (@preset required, $example:tt) => { Preset::Required(stringify!($example)) };
    (@live live) => { true };
    (@live) => { false };
    (@preset $default:tt) => { Preset::Default(stringify!($default)) };
    ($(
        $(#[doc = $section_doc:literal])+
        $section:ident: $Section:ident {
            $(
                $(#[doc = $doc:literal])+
                $field:ident: $Field:ty as $kind:expr => $preset:tt $(, $example:tt)? $(@$live:ident)?
            );+ $(;)?
        }
    )+) => {
        /// The relay's configuration: every key of the file with its value, read and checked.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct Config {
            $( $(#[doc = $section_doc])+ pub $section: $Section, )+
        }

        $(
            $(#[doc = $section_doc])+
            #[derive(Clone, Debug, PartialEq, Eq)]
            pub struct $Section {
                $( $(#[doc = $doc])+ pub $field: $Field, )+
            }
        )+

        /// Every section and key that the relay obeys, in the order of the reference.
        pub const SECTIONS: &[Section] = &[ $( Section {
            name: stringify!($section),
            doc: &[$($section_doc),+],
            keys: &[ $( Key {
                section: stringify!($section),
                name: stringify!($field),
                path: concat!(stringify!($section), ".", stringify!($field)),
                preset: settings!(@preset $preset $(, $example)?),
                doc: &[$($doc),+],
                describe: || $kind.describe(),
                live: settings!(@live $($live)?),
                write: |config| $kind.write(&config.$section.$field),
                copy: |from, to| to.$section.$field = from.$section.$field.clone(),
            } ),+ ],
        } ),+ ];

        impl Config {
            /// Takes every key from `reader`, which keeps what is wrong.
            pub(crate) fn read(reader: &mut Reader<'_>) -> Self {
                Self { $( $section: $Section { $(
                    $field: reader.take(
                        stringify!($section),
                        stringify!($field),
                        settings!(@preset $preset $(, $example)?),
                        &$kind,
                    ),
                )+ }, )+ }
            }
        }
    };
}

/// Declares an enumeration with a word for each value; the doc comment of a value is its meaning in the reference.
macro_rules! choices {
    ($(#[$meta:meta])* $Name:ident { $( #[doc = $doc:literal] $Value:ident = $word:literal ),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $Name {
            $( #[doc = $doc] $Value, )+
        }

        impl $Name {
            /// The word for it in the file.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $( Self::$Value => $word, )+
                }
            }
        }

        impl std::fmt::Display for $Name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl Choice for $Name {
            const CHOICES: &'static [(Self, &'static str, &'static str)] =
                &[ $( (Self::$Value, $word, $doc.trim_ascii()) ),+ ];
        }
    };
}

pub(crate) use {choices, settings};
