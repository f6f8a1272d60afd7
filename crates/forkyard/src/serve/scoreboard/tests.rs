use super::words::bucket;
use super::{Board, ConnectionState, Tag, Words};
use crate::serve::peer::Peer;

#[test]
fn a_tag_survives_its_word() {
    let tag = Tag { number: (1 << 40) - 1, state: ConnectionState::Serving, child: 65_535 };
    assert_eq!(Tag::of(tag.word()), tag);
}

#[test]
fn a_claim_after_the_master_gave_up_fails() {
    let board = Board::create(4, 4).unwrap();
    board.announce(2, 7, 0, &Peer::unix());
    assert!(!board.claim(2, 8, 1, 0, || 0), "another number");
    board.set_tag(2, Tag { number: 7, state: ConnectionState::Free, child: 0 });
    assert!(!board.claim(2, 7, 1, 0, || 0));
    board.announce(2, 9, 0, &Peer::unix());
    assert!(board.claim(2, 9, 1, 0, || 0));
    board.finish(2, 9, 1, false, || 0);
    assert_eq!(board.tag(2).state, ConnectionState::Done);
}

#[test]
fn lines_out_of_range_are_nobodys() {
    let board = Board::create(4, 4).unwrap();
    board.announce(4, 7, 0, &Peer::unix());
    assert_eq!(board.tag(4).state, ConnectionState::Free);
    assert!(!board.claim(usize::MAX, 1, 0, 0, || 0));
}

#[test]
fn no_two_share_a_line() {
    for (children, connections) in [(4, 4), (3, 9), (9, 3), (1, 1)] {
        let board = Board::create(children, connections).unwrap();
        let lines = (0..children).map(|slot| board.child_line(slot));
        let mut lines: Vec<_> = lines.chain((0..connections).map(|i| board.connection_line(i))).collect();
        lines.sort_unstable();
        let all: Vec<_> = (0..children + connections).map(|line| super::WORKERS + line).collect();
        assert_eq!(lines, all);
    }
}

#[test]
fn buckets_double() {
    assert_eq!([0, 999, 1000, 1999, 2000, u64::MAX].map(bucket), [0, 0, 1, 1, 2, 31]);
}
