//! Who bears which token.

use sha2::{Digest, Sha256};
use std::{
    collections::{HashMap, hash_map::Entry},
    fmt,
};
use subtle::ConstantTimeEq;
use vibra_model::Role;

/// Bearer tokens with their roles. The tokens themselves are not kept, only their SHA-256; neither is ever shown.
///
/// The first bytes of a guess's digest lead to the one token that it could be, in a time that does not depend on how
/// many there are; nobody can steer them. The whole digests are then compared in constant time, so how long it takes
/// tells nothing about how much of a guess is right. Against guessing itself only the token's own randomness helps: make
/// it of 16 random bytes or more.
#[derive(Clone, Default)]
pub struct Tokens(HashMap<Lead, (Digest256, Role)>);

type Digest256 = [u8; 32];
/// The first half of a digest: two tokens that share it do not occur.
type Lead = [u8; 16];

/// Why a text is no token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// HTTP could not carry it.
    #[error("a token has 1 to 1024 visible ASCII characters: no spaces, no line ends")]
    NotVisible,
    /// It stands for somebody else.
    #[error("the same token is given twice: make one for each bearer")]
    Twice,
}

impl Tokens {
    /// No tokens.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether nobody has a token.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds a token.
    ///
    /// # Errors
    /// [`TokenError`]; it does not repeat the token.
    pub fn insert(&mut self, token: &str, role: Role) -> Result<(), TokenError> {
        if !(1..=1024).contains(&token.len()) || !token.bytes().all(|c| c.is_ascii_graphic()) {
            return Err(TokenError::NotVisible);
        }
        let digest = digest(token.as_bytes());
        match self.0.entry(lead(&digest)) {
            Entry::Occupied(_) => Err(TokenError::Twice),
            Entry::Vacant(free) => {
                free.insert((digest, role));
                Ok(())
            }
        }
    }

    /// The role of the bearer of `token`.
    pub(crate) fn role(&self, token: &[u8]) -> Option<&Role> {
        let told = digest(token);
        let (known, role) = self.0.get(&lead(&told))?;
        bool::from(known.ct_eq(&told)).then_some(role)
    }
}

fn digest(token: &[u8]) -> Digest256 {
    Sha256::digest(token).into()
}

fn lead(digest: &Digest256) -> Lead {
    std::array::from_fn(|i| digest[i])
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.values().map(|(_, role)| role)).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens() -> Tokens {
        let mut tokens = Tokens::new();
        tokens.insert("first-secret", Role::Operator).unwrap();
        tokens.insert("second-secret", Role::Host("h1".parse().unwrap())).unwrap();
        tokens.insert("third-secret", Role::Reader).unwrap();
        tokens
    }

    #[test]
    fn a_token_has_its_own_role_and_others_have_none() {
        let tokens = tokens();
        assert_eq!(tokens.role(b"first-secret"), Some(&Role::Operator));
        assert_eq!(tokens.role(b"second-secret"), Some(&Role::Host("h1".parse().unwrap())));
        assert_eq!(tokens.role(b"third-secret"), Some(&Role::Reader));
        for wrong in ["", "first", "first-secret ", "First-secret", "first-secretx"] {
            assert_eq!(tokens.role(wrong.as_bytes()), None, "{wrong:?}");
        }
    }

    #[test]
    fn what_is_no_token_is_refused() {
        let mut tokens = tokens();
        for bad in ["", "a b", "a\n", "ä", &"x".repeat(1025)] {
            assert_eq!(tokens.insert(bad, Role::Reader), Err(TokenError::NotVisible), "{bad:?}");
        }
        assert_eq!(tokens.insert("third-secret", Role::Operator), Err(TokenError::Twice));
    }

    #[test]
    fn debug_shows_roles_alone() {
        let shown = format!("{:?}", tokens());
        assert!(shown.contains("Operator") && !shown.contains("secret"), "{shown}");
    }
}
