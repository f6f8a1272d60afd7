use std::panic::Location;

use super::super::patience::Patience;
use super::{Core, INLINE, Message, Refused, Wait};
use crate::time::Deadline;

#[test]
fn a_put_that_finds_room_learns_nothing_of_waiting() -> Result<(), Refused> {
    let queue = Core::new(Some(1), INLINE, Location::caller())?;
    let untaught = || format!("{:?}", [Patience::default(), Patience::default()]);
    for len in [1, INLINE + 1] {
        for _ in 0..10 {
            queue.put(&vec![7; len], Wait::Until(Deadline::NEVER))?;
            queue.get(Wait::Not, &mut Message::default())?;
        }
        assert_eq!(format!("{:?}", queue.patience), untaught(), "{len} bytes");
    }
    queue.put(&[7; INLINE + 1], Wait::Not)?;
    let full = queue.put(&[7; INLINE + 1], Wait::Until(Deadline::after(std::time::Duration::ZERO)));
    assert!(matches!(full, Err(Refused::TimedOut)));
    assert_ne!(format!("{:?}", queue.patience), untaught(), "it waited");
    Ok(())
}
