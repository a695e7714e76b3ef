//! Resample ablation: which token's activation comes in the place of which.

use std::collections::BTreeMap;

use monosema_core::Seed;
use rand::Rng;

use crate::positions::Token;

/// Activations are drawn from so many tokens of the text.
const POOL: usize = 4096;

/// Activations of a uniformly random sample of a text's counted tokens.
///
/// The sample is of the tokens whose hashes are smallest, and a hash of a token says which of them comes in its place: neither
/// depends on how the text was batched, nor on the dictionary.
pub(crate) struct Pool {
    sample_key: u64,
    draw_key: u64,
    rows: BTreeMap<(u64, Token), Vec<f32>>,
}

impl Pool {
    /// Of no tokens yet.
    pub(crate) fn new(seed: Seed) -> Self {
        let mut random = seed.stream("resample");
        Self { sample_key: random.random(), draw_key: random.random(), rows: BTreeMap::new() }
    }

    /// Takes note of a token and its activation.
    pub(crate) fn add(&mut self, token: Token, x: &[f32]) {
        let key = (hash(self.sample_key, token), token);
        if self.rows.len() < POOL {
            self.rows.insert(key, x.to_vec());
        } else if self.rows.last_key_value().is_some_and(|(last, _)| key < *last) {
            self.rows.pop_last();
            self.rows.insert(key, x.to_vec());
        }
    }

    /// The sample, drawn.
    pub(crate) fn finish(self) -> Resample {
        let (tokens, rows) = self.rows.into_iter().map(|((_, token), row)| (token, row)).unzip();
        Resample { key: self.draw_key, tokens, rows }
    }
}

/// A [`Pool`] of one token at least, to draw from.
pub(crate) struct Resample {
    key: u64,
    tokens: Vec<Token>,
    rows: Vec<Vec<f32>>,
}

impl Resample {
    /// The activation that comes in the place of a token's: always the same, and another token's, unless there is no other.
    pub(crate) fn of(&self, token: Token) -> &[f32] {
        let n = self.tokens.len() as u64;
        let drawn = (hash(self.key, token) % n) as usize;
        let drawn = if self.tokens[drawn] == token { (drawn + 1) % self.tokens.len() } else { drawn };
        &self.rows[drawn]
    }
}

/// SplitMix64's finaliser (Steele, Lea and Flood 2014) over the parts of a token's name.
fn hash(key: u64, token: Token) -> u64 {
    [token.document, token.place].into_iter().fold(key, |hash, part| mix(hash ^ mix(part)))
}

fn mix(z: u64) -> u64 {
    let z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(i: u64) -> Token {
        Token { document: i / 10, place: i % 10, position: 0 }
    }

    fn pool(tokens: impl IntoIterator<Item = u64>) -> Resample {
        let mut pool = Pool::new(Seed(7));
        tokens.into_iter().for_each(|i| pool.add(token(i), &[i as f32]));
        pool.finish()
    }

    #[test]
    fn no_token_comes_in_its_own_place_and_every_one_comes_about_as_often() {
        let n = 1000;
        let pool = pool(0..n);
        let mut times = vec![0_u32; n as usize];
        for i in 0..n {
            let drawn = pool.of(token(i))[0] as usize;
            assert_ne!(drawn as u64, i);
            times[drawn] += 1;
        }
        // Poisson of mean 1: a share of 1/e = 0.368 is never drawn, and hardly one more than 7 times.
        let never = times.iter().filter(|&&n| n == 0).count();
        assert!((300..440).contains(&never) && times.iter().all(|&n| n < 8), "{never}");
    }

    #[test]
    fn the_sample_depends_on_no_order_and_is_of_the_whole_text() {
        let n = 3 * POOL as u64;
        let (forwards, backwards) = (pool(0..n), pool((0..n).rev()));
        assert_eq!((forwards.tokens.len(), &forwards.tokens), (POOL, &backwards.tokens));
        let mean = forwards.rows.iter().map(|row| f64::from(row[0])).sum::<f64>() / POOL as f64 / n as f64;
        // Of n/3 of n: its standard deviation is 0.0037.
        assert!((mean - 0.5).abs() < 0.02, "{mean}");
        assert_eq!(forwards.of(token(5)), backwards.of(token(5)));
    }

    #[test]
    fn one_token_alone_stays() {
        assert_eq!(pool([3]).of(token(3)), [3.0]);
    }
}
