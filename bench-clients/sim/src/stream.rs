//! Randomness, one stream an entity.

use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};

/// The random numbers of one entity: the same for the same seed and number, and independent of all other entities'.
pub fn stream(seed: u64, entity: u64) -> ChaCha8Rng {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    random.set_stream(entity);
    random
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_chacha::rand_core::Rng;

    #[test]
    fn each_entity_has_its_own_luck() {
        let first = |seed, entity| stream(seed, entity).next_u64();
        assert_eq!(first(1, 1), first(1, 1));
        assert_ne!(first(1, 1), first(1, 2));
        assert_ne!(first(1, 1), first(2, 1));
    }
}
