//! Rendezvous hashing with weights: everybody who knows the same names draws the same one for the same user, and when
//! one comes or goes, only users who move to it or from it change theirs.

use sha2::{Digest as _, Sha256};

/// What `name` draws for `user`: the highest wins. A weight of 0 never does.
pub(crate) fn score(user: &str, name: &str, weight: u32) -> f64 {
    let digest = Sha256::new().chain_update(user).chain_update([0]).chain_update(name).finalize();
    let mut first = [0; 4];
    first.copy_from_slice(&digest[..4]);
    // Within (0, 1), so that the logarithm is finite and not 0.
    let drawn = (f64::from(u32::from_be_bytes(first)) + 0.5) / (f64::from(u32::MAX) + 1.0);
    -f64::from(weight) / drawn.ln()
}
