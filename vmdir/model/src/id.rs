//! Identifiers and counters, each a type of its own.

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr, sync::Arc};

/// Why a text is no identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no id: use 1 to 63 letters, digits, '-', '_' or '.', beginning with a letter or digit")]
pub struct IdError {
    text: String,
}

fn is_id(text: &str) -> bool {
    let plain = |c: u8| c.is_ascii_alphanumeric();
    (1..=63).contains(&text.len())
        && plain(text.as_bytes()[0])
        && text.bytes().all(|c| plain(c) || matches!(c, b'-' | b'_' | b'.'))
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                if is_id(text) { Ok(Self(text.into())) } else { Err(IdError { text: text.to_owned() }) }
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(text: String) -> Result<Self, IdError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0.as_ref().to_owned()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }
    };
}

id! {
    /// One who bought resources and owns VMs.
    CustomerId
}
id! {
    /// A virtual machine.
    VmId
}
id! {
    /// A physical machine that hosts VMs.
    HostId
}
id! {
    /// Hosts whose agents can take over one another's VMs.
    PoolId
}

macro_rules! counter {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl $name {
            /// The one after this.
            #[must_use]
            pub fn next(self) -> Self {
                Self(self.0 + 1)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

counter! {
    /// How many commits the directory has made; 0 is the empty directory.
    Revision
}
counter! {
    /// How often the desired allocation of one VM has changed.
    Generation
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_short_plain_names() {
        for good in ["a", "vm-1", "web_2.example", "9"] {
            assert_eq!(good.parse::<VmId>().unwrap().as_str(), good);
        }
        for bad in ["", "-a", "a b", "a/b", "ä", &"x".repeat(64)] {
            assert!(bad.parse::<VmId>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn json_refuses_what_is_no_id() {
        assert!(serde_json::from_str::<VmId>("\"a/b\"").is_err());
        assert_eq!(serde_json::from_str::<VmId>("\"a\"").unwrap(), "a".parse().unwrap());
    }
}
