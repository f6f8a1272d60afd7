//! The segments of a queue without a bound: how it goes on from one to the next, and which are over.
//!
//! A segment is a ring of its own. README.md beside this file has the steps ("Growing"), who does them, and what a death after each leaves.
//! Where segments lie, and who keeps them there, is for [`Segments`] to know.
//!
//! Killed here: each step leaves a chain that others go on with; a segment that nobody has linked is its dead maker's, whose
//! reaper lets go of it.

use super::ring::{Committed, Ring, Taken, Words};
use super::word::Spot;
use crate::primitive::{AtomicU32, AtomicU64, Ordering};
use crate::shm::Id;

/// The name of the segment that lies in the queue itself. 0 is none.
pub(crate) const ROOT: u64 = 1;

/// No queue grows to more segments, of 1024 messages most of them: whoever meets more is led astray.
pub(crate) const MOST: usize = 1 << 22;

/// Where the segments of a queue are. All by compare-and-exchange, by anybody; but `last` and `aside` are hints.
#[repr(C, align(64))]
#[derive(Debug, Default)]
pub(crate) struct Chain {
    /// The first segment that is not known to be over. 0: this queue has a bound, and no other segments.
    first: AtomicU64,
    /// A segment that is being let go of, or 0.
    passed: AtomicU64,
    /// Where a producer has been.
    last: AtomicU64,
    /// The segment behind the one that lies in the queue.
    pub(crate) next: AtomicU64,
    /// Not 0: there may be places in `Back`, in any segment.
    aside: AtomicU32,
    unused: [AtomicU32; 7],
}

/// A segment that this process keeps in place while it has this.
pub(crate) trait Segment: Clone {
    type Words: Words;
    fn ring(&self) -> &Ring<Self::Words>;
    fn name(&self) -> u64;
    /// The name of the one behind it, or 0: written once.
    fn next(&self) -> &AtomicU64;
    /// Notes that it has been linked behind that one, which is over: for whoever cleans up after its maker, and how many messages came before.
    fn note_linked(&self, before: &Self);
    /// True if that was noted.
    fn is_linked(&self) -> bool;
    /// Takes it out of the chain's hands: it is gone when nobody keeps it any more. May be done again.
    fn let_go(&self);
}

/// Finds and makes segments.
pub(crate) trait Segments {
    type Segment: Segment;
    type Error;
    fn chain(&self) -> &Chain;
    /// Keeps the segment of this name. `None`: it is gone.
    fn find(&self, name: u64) -> Option<Self::Segment>;
    /// Makes one to be linked behind that one, for so many messages. It is in the chain's hands.
    fn make(&self, before: &Self::Segment, count: u64) -> Result<Self::Segment, Self::Error>;
}

/// Somebody scribbled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Garbled;

impl Chain {
    /// Says that there may be more segments than one: in a queue that is being made.
    pub(crate) fn begin(&self) {
        self.first.store(ROOT, Ordering::Relaxed);
    }

    /// True if there may be more segments than one.
    pub(crate) fn is_used(&self) -> bool {
        self.first.load(Ordering::Relaxed) != 0
    }

    /// Notes that there are messages to take back, in any segment.
    pub(crate) fn set_aside(&self) {
        self.aside.store(1, Ordering::SeqCst);
    }

    /// True if there may be.
    #[inline]
    pub(crate) fn has_aside(&self) -> bool {
        self.aside.load(Ordering::SeqCst) != 0
    }

    /// Notes where a producer is.
    pub(crate) fn note_last(&self, name: u64) {
        self.last.store(name, Ordering::Relaxed);
    }

    /// The name of the first segment.
    pub(crate) fn first_name(&self) -> u64 {
        self.first.load(Ordering::SeqCst)
    }

    /// True if that is the first segment.
    pub(crate) fn is_first(&self, name: u64) -> bool {
        self.first.load(Ordering::SeqCst) == name
    }
}

/// The chain of a queue.
pub(crate) struct Walker<S>(pub(crate) S);

type Found<S> = Result<<S as Segments>::Segment, Garbled>;

impl<S: Segments> Walker<S> {
    fn chain(&self) -> &Chain {
        self.0.chain()
    }

    /// The first segment: where consumers begin.
    pub(crate) fn first(&self) -> Found<S> {
        loop {
            let name = self.chain().first.load(Ordering::SeqCst);
            match self.0.find(name) {
                Some(segment) => return Ok(segment),
                // The first one is let go of only when another one is the first.
                None if self.chain().is_first(name) => return Err(Garbled),
                None => {}
            }
        }
    }

    /// Where producers begin.
    pub(crate) fn last(&self) -> Found<S> {
        match self.0.find(self.chain().last.load(Ordering::Relaxed)) {
            Some(segment) => Ok(segment),
            None => self.first(),
        }
    }

    /// The segment behind one that is at its end; or, if it is gone already, the first.
    pub(crate) fn behind(&self, segment: &S::Segment) -> Found<S> {
        if let Some(next) = self.0.find(segment.next().load(Ordering::SeqCst)) {
            return Ok(next);
        }
        let first = self.first()?;
        if first.name() == segment.name() { Err(Garbled) } else { Ok(first) }
    }

    /// All segments from the first on.
    pub(crate) fn all(&self) -> Result<Vec<S::Segment>, Garbled> {
        let mut all = vec![self.first()?];
        while let Some(end) = all.last()
            && all.len() < MOST
        {
            let next = end.next().load(Ordering::SeqCst);
            if next == 0 {
                return Ok(all);
            }
            match self.0.find(next) {
                Some(next) => all.push(next),
                None => {
                    // The end is gone itself.
                    let first = self.first()?;
                    if first.name() == end.name() {
                        return Err(Garbled);
                    }
                    all = vec![first];
                }
            }
        }
        Err(Garbled)
    }

    /// Sees that there is a segment behind this one.
    fn link(&self, segment: &S::Segment, count: u64) -> Result<(), S::Error> {
        if segment.next().load(Ordering::SeqCst) != 0 {
            return Ok(());
        }
        let fresh = self.0.make(segment, count)?;
        let linked =
            segment.next().compare_exchange(0, fresh.name(), Ordering::SeqCst, Ordering::SeqCst).is_ok();
        if !linked {
            fresh.let_go();
        }
        Ok(())
    }

    /// Has the queue go on behind a segment that is full: in one for so many messages, if there is none yet.
    pub(crate) fn grow(&self, segment: &S::Segment, count: u64) -> Result<(), S::Error> {
        self.link(segment, count)?;
        // Whatever end it has got meanwhile, it has one.
        let _ = segment.ring().move_on();
        Ok(())
    }

    /// Has an empty queue go on in a segment of another size. False: it is not empty.
    pub(crate) fn shrink(&self, segment: &S::Segment, count: u64) -> Result<bool, S::Error> {
        if segment.ring().len() != 0 || segment.ring().state() != Committed::Done {
            return Ok(false);
        }
        self.link(segment, count)?;
        Ok(segment.ring().move_on_if_empty())
    }

    /// Takes the next message: `at` is where the caller has been, and where the message was then.
    pub(crate) fn take(&self, at: &mut S::Segment, me: Id) -> Taken {
        for _ in 0..MOST {
            match at.ring().take(me) {
                Taken::Moved => match self.behind(at) {
                    Ok(next) => *at = next,
                    Err(Garbled) => break,
                },
                taken => return taken,
            }
        }
        Taken::Garbled
    }

    /// Takes a message that somebody had taken who died, whatever segment it lies in.
    pub(crate) fn take_aside(&self, me: Id) -> Option<(S::Segment, Spot)> {
        if !self.chain().has_aside() {
            return None;
        }
        // Whoever brings one says so afterwards.
        self.chain().aside.store(0, Ordering::SeqCst);
        let found = self.all().ok()?.into_iter().find_map(|segment| {
            let spot = segment.ring().take_back(me)?;
            Some((segment, spot))
        });
        if found.is_some() {
            // There may be more of them.
            self.chain().set_aside();
        }
        found
    }

    /// Lets go of the segments that are over: nothing is put into them, and nothing comes back from there.
    pub(crate) fn retire(&self) {
        self.pass_all(|segment| segment.ring().state() == Committed::Moved && segment.ring().is_finished());
    }

    /// Repairs all segments with `repair`, which is true where messages go back.
    pub(crate) fn repair(&self, mut repair: impl FnMut(&S::Segment) -> bool) {
        let mut is_any_back = false;
        for segment in self.all().unwrap_or_default() {
            is_any_back |= repair(&segment);
        }
        if is_any_back {
            self.chain().set_aside();
        }
        self.retire();
    }

    /// Lets go of all segments: the queue is being freed.
    pub(crate) fn clear(&self) {
        self.pass_all(|_| true);
        if let Ok(last) = self.first() {
            last.let_go();
        }
    }

    fn pass_all(&self, is_over: impl Fn(&S::Segment) -> bool) {
        for _ in 0..MOST {
            self.finish_passing();
            let Ok(segment) = self.first() else { return };
            let next = segment.next().load(Ordering::SeqCst);
            if next == 0 || !is_over(&segment) {
                return;
            }
            match self.0.find(next) {
                // Before the one whose `next` tells of it is gone.
                Some(next) => next.note_linked(&segment),
                None if self.chain().is_first(segment.name()) => return,
                None => continue,
            }
            let passed = &self.chain().passed;
            let _ = passed.compare_exchange(0, segment.name(), Ordering::SeqCst, Ordering::SeqCst);
        }
    }

    /// Goes on with what somebody has begun: the segment is no longer the first, then let go of.
    fn finish_passing(&self) {
        let name = self.chain().passed.load(Ordering::SeqCst);
        if name == 0 {
            return;
        }
        // It is gone if somebody has let go of it.
        if let Some(segment) = self.0.find(name) {
            let next = segment.next().load(Ordering::SeqCst);
            let _ = self.chain().first.compare_exchange(name, next, Ordering::SeqCst, Ordering::SeqCst);
            segment.let_go();
        }
        let _ = self.chain().passed.compare_exchange(name, 0, Ordering::SeqCst, Ordering::SeqCst);
    }
}

/// Lets go of a segment that a dead participant has made, unless it was linked: behind the one that it was made for, which says so in `next`
/// if it is still there.
pub(crate) fn disown(segment: &impl Segment, next: Option<u64>) {
    // Who lets go of the one before has noted it before that.
    if next != Some(segment.name()) && !segment.is_linked() {
        segment.let_go();
    }
}
