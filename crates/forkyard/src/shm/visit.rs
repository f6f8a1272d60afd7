//! Who looks at blocks without holding them, to take one, to hold what lies there, or to clean up after the dead.
//!
//! Such a visitor may be stopped after it saw what a chunk is used for, and change a word of a block then. So a chunk of blocks is
//! used for something else only after a moment at which nobody visited: each participant counts its own visitors, in its page.
//!
//! Killed here: the count stays until the reaper gives the slot back; until then such chunks are used for their class only.

use super::arena::Arena;
use super::life::Id;
use super::participant::Page;
use crate::primitive::Ordering;

/// A visit of a thread of this process.
pub(super) struct Visit(Option<&'static Page>);

impl Drop for Visit {
    fn drop(&mut self) {
        if let Some(page) = self.0 {
            page.visits.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

impl Arena {
    /// Counts the caller as a visitor from now on.
    pub(super) fn visit(&'static self, me: Id) -> Visit {
        let page = self.page(me.slot());
        if let Some(page) = page {
            page.visits.fetch_add(1, Ordering::SeqCst);
        }
        Visit(page)
    }

    /// True if there was no visitor at the moments when this looked.
    pub(super) fn nobody_visits(&self) -> bool {
        let is_visiting = |page: &Page| page.visits.load(Ordering::SeqCst) != 0;
        !(0..self.pages()).filter_map(|slot| self.page(slot)).any(is_visiting)
    }
}
