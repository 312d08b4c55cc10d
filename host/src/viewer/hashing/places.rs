//! Who waits for a hash, and whose turn is next.
//!
//! A pure table of at most [`PLACES`] and [`PLACES_OF_KNOWN`] entries, so that looking through all
//! of it costs nothing beside a hash. Those who are known and all others are apart: neither takes a
//! place of the other, and they have every second turn each. Within them turns are shared out by
//! rounds (start-time fair queueing): a source that has one entry waiting gets its next in a later
//! round, so that one with eight is eight times as slow as one with one.

use std::net::IpAddr;

use tokio::sync::oneshot;

/// Hashes that may wait or be under way: of all who are not known, of those who are, and of one
/// source.
const PLACES: usize = 64;
const PLACES_OF_KNOWN: usize = 32;
const PLACES_PER_SOURCE: usize = 8;

/// See the module.
#[derive(Debug)]
pub(super) struct Places {
    entries: Vec<Entry>,
    /// Turns that there are at once.
    turns: usize,
    last_number: u64,
    /// That of whoever had the last turn.
    round: u64,
    /// Whether the next turn is for one who is known.
    is_turn_of_known: bool,
}

#[derive(Debug)]
struct Entry {
    number: u64,
    source: IpAddr,
    is_known: bool,
    round: u64,
    /// None once it is under way.
    turn: Option<oneshot::Sender<()>>,
}

impl Entry {
    fn waits(&self) -> bool {
        self.turn.is_some()
    }
}

impl Places {
    pub(super) fn new(turns: usize) -> Self {
        Self {
            entries: Vec::with_capacity(PLACES + PLACES_OF_KNOWN),
            turns,
            last_number: 0,
            round: 0,
            is_turn_of_known: true,
        }
    }

    /// A place, and what tells when it is its turn. It is dropped where the place is lost. Who is
    /// known and finds none among his like is one of the others.
    pub(super) fn enter(
        &mut self,
        source: IpAddr,
        is_known: bool,
    ) -> Option<(u64, oneshot::Receiver<()>)> {
        let own = self.entries.iter().filter(|entry| entry.source == source);
        if own.clone().count() >= PLACES_PER_SOURCE {
            return None;
        }
        let round = own.map(|entry| entry.round + 1).max().unwrap_or(0);
        let is_known = is_known && self.make_room(source, true);
        if !is_known && !self.make_room(source, false) {
            return None;
        }
        self.last_number += 1;
        let (turn, told) = oneshot::channel();
        self.entries.push(Entry {
            number: self.last_number,
            source,
            is_known,
            round: round.max(self.round),
            turn: Some(turn),
        });
        self.give_turns();
        Some((self.last_number, told))
    }

    /// Whether or not it had its turn.
    pub(super) fn leave(&mut self, number: u64) {
        self.entries.retain(|entry| entry.number != number);
        self.give_turns();
    }

    pub(super) fn under_way(&self) -> usize {
        self.entries.iter().filter(|entry| !entry.waits()).count()
    }

    /// Whether there is a place for a newcomer; the latest entry of the source with the most is
    /// pushed out for it, where that has more than the newcomer's would have then.
    fn make_room(&mut self, newcomer: IpAddr, is_known: bool) -> bool {
        let bound = if is_known { PLACES_OF_KNOWN } else { PLACES };
        let alike = || {
            let entries = self.entries.iter().enumerate();
            entries.filter(move |(_, entry)| entry.is_known == is_known)
        };
        if alike().count() < bound {
            return true;
        }
        let waiting = || alike().filter(|(_, entry)| entry.waits());
        let of = |source| {
            waiting()
                .filter(|(_, entry)| entry.source == source)
                .count()
        };
        let least = of(newcomer) + 2;
        let pushed_out = waiting()
            .map(|(index, entry)| (of(entry.source), entry.number, index))
            .filter(|(most, ..)| *most >= least)
            .max();
        let Some((.., index)) = pushed_out else {
            return false;
        };
        self.entries.swap_remove(index);
        true
    }

    fn give_turns(&mut self) {
        while self.under_way() < self.turns {
            let of_known = self.next(Some(self.is_turn_of_known));
            let Some(index) = of_known.or_else(|| self.next(None)) else {
                return;
            };
            let entry = &mut self.entries[index];
            self.round = self.round.max(entry.round);
            self.is_turn_of_known = !self.is_turn_of_known;
            // Whoever has just gone leaves, and gives the turn back.
            let _ = entry.turn.take().map(|turn| turn.send(()));
        }
    }

    fn next(&self, is_known: Option<bool>) -> Option<usize> {
        let wanted = |entry: &Entry| is_known.is_none_or(|known| known == entry.is_known);
        let waiting = self.entries.iter().enumerate();
        waiting
            .filter(|(_, entry)| entry.waits() && wanted(entry))
            .min_by_key(|(_, entry)| (entry.round, entry.number))
            .map(|(index, _)| index)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

    use super::*;

    type Held = (u64, oneshot::Receiver<()>);

    fn source(number: usize) -> IpAddr {
        IpAddr::from([192, 0, 2, u8::try_from(number).unwrap()])
    }

    /// Sources of a range, each with as many places as it gets.
    fn flood(places: &mut Places, sources: std::ops::Range<usize>) -> Vec<Held> {
        let mut held = Vec::new();
        for number in sources {
            while let Some(one) = places.enter(source(number), false) {
                held.push(one);
            }
        }
        held
    }

    fn lost(places: &Places, held: &[Held]) -> usize {
        let has_place = |number: u64| places.entries.iter().any(|entry| entry.number == number);
        held.iter()
            .filter(|(number, _)| !has_place(*number))
            .count()
    }

    /// Whose turn it was.
    fn finish(places: &mut Places) -> IpAddr {
        let mut entries = places.entries.iter();
        let entry = entries.find(|entry| !entry.waits()).unwrap();
        let (number, source) = (entry.number, entry.source);
        places.leave(number);
        source
    }

    #[test]
    fn one_source_has_its_share_and_no_more() {
        let mut places = Places::new(1);
        let held = flood(&mut places, 0..1);
        assert_eq!(held.len(), PLACES_PER_SOURCE);
        assert!(places.enter(source(1), false).is_some());
    }

    #[test]
    fn a_newcomer_pushes_out_the_latest_of_who_has_most() {
        let mut places = Places::new(1);
        let held = flood(&mut places, 0..8);
        assert_eq!(held.len(), PLACES);
        let newcomers: Vec<Held> = (100..120)
            .map(|number| places.enter(source(number), false).unwrap())
            .collect();
        assert_eq!(lost(&places, &held), 20);
        assert_eq!(lost(&places, &newcomers), 0);
        assert_eq!(places.entries.len(), PLACES);
        // Nobody lost all of his.
        for number in 0..8 {
            let own = places.entries.iter().filter(|e| e.source == source(number));
            assert!(own.count() >= 5);
        }
    }

    #[test]
    fn who_lost_his_place_is_told() {
        let mut places = Places::new(1);
        let mut held = flood(&mut places, 0..8);
        let _newcomer = places.enter(source(100), false).unwrap();
        let told = |one: &mut Held| one.1.try_recv() == Err(oneshot::error::TryRecvError::Closed);
        assert_eq!(
            held.iter_mut()
                .filter_map(|one| told(one).then_some(()))
                .count(),
            1
        );
    }

    #[test]
    fn who_is_known_finds_a_place_where_all_others_have_one_each() {
        let mut places = Places::new(1);
        let held: Vec<Held> = (0..PLACES)
            .map(|number| places.enter(source(number), false).unwrap())
            .collect();
        assert!(places.enter(source(200), false).is_none());
        let known: Vec<Held> = (100..100 + PLACES_OF_KNOWN)
            .map(|number| places.enter(source(number), true).unwrap())
            .collect();
        assert_eq!((lost(&places, &held), lost(&places, &known)), (0, 0));
        assert!(places.enter(source(201), true).is_none());
    }

    /// Whoever has a login may be known from as many addresses as he has.
    #[test]
    fn who_is_known_keeps_no_newcomer_out() {
        let mut places = Places::new(1);
        let known: Vec<Held> = (0..8)
            .flat_map(|number| std::iter::repeat_n(source(number), PLACES_PER_SOURCE))
            .filter_map(|source| places.enter(source, true))
            .collect();
        assert!(known.len() >= PLACES_OF_KNOWN);
        let newcomers: Vec<Held> = (100..120)
            .map(|number| places.enter(source(number), false).unwrap())
            .collect();
        assert_eq!(lost(&places, &newcomers), 0);
    }

    #[test]
    fn each_source_gets_its_turn_before_another_gets_its_second() {
        let mut places = Places::new(1);
        let _held = flood(&mut places, 0..1);
        let _late = places.enter(source(1), false).unwrap();
        assert_eq!(finish(&mut places), source(0));
        assert_eq!(finish(&mut places), source(1), "seven others came before");
        assert_eq!(finish(&mut places), source(0));
    }

    #[test]
    fn who_is_known_gets_every_second_turn() {
        let mut places = Places::new(1);
        let _held = flood(&mut places, 0..8);
        let _known = [100, 101].map(|number| places.enter(source(number), true).unwrap());
        let turns: Vec<bool> = (0..5)
            .map(|_| [source(100), source(101)].contains(&finish(&mut places)))
            .collect();
        assert_eq!(turns, [false, false, true, false, true]);
    }

    #[test]
    fn who_goes_gives_the_turn_back() {
        let mut places = Places::new(1);
        let (first, turn) = places.enter(source(0), false).unwrap();
        drop(turn);
        let (_, mut next) = places.enter(source(1), false).unwrap();
        assert!(next.try_recv().is_err());
        places.leave(first);
        assert_eq!(next.try_recv(), Ok(()));
        assert_eq!(places.under_way(), 1);
    }
}
