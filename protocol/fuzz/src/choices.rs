/// A stream of decisions: pseudo-random from a seed, or as given and then at its end.
#[derive(Debug)]
pub enum Choices<'a> {
    /// SplitMix64, and how many decisions are left.
    Seed {
        /// The generator's state.
        state: u64,
        /// Decisions left.
        left: u32,
    },
    /// The bytes that decide.
    Bytes(&'a [u8]),
}

impl<'a> Choices<'a> {
    /// `steps` decisions from `seed`.
    #[must_use]
    pub fn from_seed(seed: u64, steps: u32) -> Self {
        Self::Seed {
            state: seed,
            left: steps,
        }
    }

    /// As many decisions as there are bytes.
    #[must_use]
    pub fn from_bytes(bytes: &'a [u8]) -> Self {
        Self::Bytes(bytes)
    }

    /// A decision among `of`; the first where there is nothing left to decide.
    pub fn pick(&mut self, of: usize) -> usize {
        self.next().map_or(0, |byte| usize::from(byte) % of.max(1))
    }
}

impl Iterator for Choices<'_> {
    type Item = u8;

    fn next(&mut self) -> Option<u8> {
        match self {
            Self::Seed { left: 0, .. } => None,
            Self::Seed { state, left } => {
                *left -= 1;
                *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
                let mut mixed = *state;
                mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
                Some((mixed ^ (mixed >> 31)).to_le_bytes()[0])
            }
            Self::Bytes(bytes) => {
                let (first, rest) = bytes.split_first()?;
                *bytes = rest;
                Some(*first)
            }
        }
    }
}
