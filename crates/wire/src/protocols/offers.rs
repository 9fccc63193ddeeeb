//! What back ends of a protocol were found to offer, so that clients can be promised it.

use std::num::NonZeroU64;

use super::Protocol;

/// Which of a protocol's [`Protocol::learnt`] capabilities there are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Offers {
    /// One bit for each, in the table's order.
    bits: u64,
    /// The number that stands with one of them, and the place of its bit: SMTP's SIZE, in bytes.
    number: Option<(usize, NonZeroU64)>,
}

impl Offers {
    /// None of them, as long as nothing is known.
    pub const NONE: Self = Self { bits: 0, number: None };

    /// Those that stand in a back end's list, words divided by spaces; a number stands as `NAME=NUMBER`.
    pub fn of(protocol: &Protocol, list: &str) -> Self {
        let mut offers = Self::NONE;
        for word in list.split(' ') {
            let (word, number) = word.split_once('=').unwrap_or((word, ""));
            let Some(at) = protocol.learnt.iter().position(|name| word.eq_ignore_ascii_case(name)) else { continue };
            offers.bits |= 1 << at;
            offers.number = number.parse().ok().map(|number| (at, number)).or(offers.number);
        }
        offers
    }

    /// What both have: of their numbers the smaller one, since no number is no limit.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let number = match (self.number, other.number) {
            (Some((at, one)), Some((_, other))) => Some((at, one.min(other))),
            (one, other) => one.or(other),
        };
        self.only(other.bits, number)
    }

    /// Those that are among these, with the number if its capability is.
    fn only(self, bits: u64, number: Option<(usize, NonZeroU64)>) -> Self {
        let bits = self.bits & bits;
        Self { bits, number: number.filter(|(at, _)| bits & (1 << at) != 0) }
    }

    /// What is left without these.
    #[must_use]
    pub(crate) fn without(self, protocol: &Protocol, names: &[&str]) -> Self {
        let bits = protocol.learnt.iter().enumerate().filter(|(_, name)| names.contains(name)).map(|(n, _)| 1 << n);
        self.only(!bits.sum::<u64>(), self.number)
    }

    /// Their names, in the table's order.
    pub fn names(self, protocol: &'static Protocol) -> impl Iterator<Item = &'static str> {
        protocol.learnt.iter().enumerate().filter(move |(n, _)| self.bits & (1 << n) != 0).map(|(_, name)| *name)
    }

    /// Whether this is one of them.
    pub(crate) fn has(self, protocol: &'static Protocol, name: &str) -> bool {
        self.names(protocol).any(|offered| offered == name)
    }

    /// The number that stands with one of them.
    pub(crate) fn number(self) -> Option<NonZeroU64> {
        self.number.map(|(_, number)| number)
    }
}

#[cfg(test)]
mod tests {
    use super::super::PROTOCOLS;
    use super::*;

    #[test]
    fn a_number_goes_with_its_capability() {
        let smtp = PROTOCOLS.iter().find(|protocol| protocol.name == "smtp").expect("a protocol");
        let number = |of: &[&str]| {
            let offers = of.iter().map(|list| Offers::of(smtp, list)).reduce(Offers::and);
            offers.and_then(Offers::number).map(NonZeroU64::get)
        };
        assert_eq!(number(&["SIZE=1000", "DSN SIZE=500"]), Some(500));
        assert_eq!(number(&["SIZE=1000", "SIZE"]), Some(1000), "no number is no limit");
        assert_eq!(number(&["SIZE=1000", "DSN"]), None, "it is not offered, and so no limit of ours");
        assert_eq!(Offers::of(smtp, "SIZE=1000 DSN").without(smtp, &["SIZE"]), Offers::of(smtp, "DSN"));
    }
}
