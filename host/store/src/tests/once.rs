//! What counts once.

use super::*;

#[test]
fn what_counts_once_counts_once_also_when_room_is_short() {
    let store = Store::in_memory().unwrap();
    let use_it = |id: &str, now| store.use_once(Once::Nonce, id, now, now + 10, 2).unwrap();
    assert_eq!(use_it("x", 0), Used::First);
    assert_eq!(use_it("x", 9), Used::Again);
    assert_eq!(use_it("y", 5), Used::First);
    assert_eq!(use_it("z", 9), Used::Full);
    // At 10 the first may be forgotten, which makes room.
    assert_eq!(use_it("z", 10), Used::First);
    assert_eq!(use_it("y", 14), Used::Again);
}
