//! The requester is killed above a daemonic child that has started another program: that ends too, whichever zygote the
//! child came from, because the one that lives stands guard.

use std::time::Instant;

use crate::common;
use crate::report::Operation;
use crate::requester::{DEADLINE, Requester, Role, nobody_is_left};
use crate::trace;

pub(crate) fn programs_of_daemons() -> bool {
    let mut operation = Operation::new("Requester killed above a daemonic child above a program");
    for what in ["with-program", "by-exec-with-program"] {
        for zygote_first in [false, true] {
            let zygote = if zygote_first { ", its zygote before" } else { "" };
            operation.point(&format!("{what}{zygote}"), || {
                let mut requester = Requester::begin(Role::Requester);
                let result = kill_above_a_program(&mut requester, what, zygote_first);
                if result.is_err() {
                    requester.clear_away();
                }
                result
            });
        }
    }
    operation.finish("started by the zygote and by exec, and with another zygote since") == 0
}

fn kill_above_a_program(requester: &mut Requester, what: &str, zygote_first: bool) -> Result<(), String> {
    requester.undisturbed()?;
    let number = requester.next_number();
    let pid: i32 = requester.ask(&format!("park {what} daemon {number}"))?.parse().map_err(|_| "no pid")?;
    let end = Instant::now() + DEADLINE;
    while !requester.has_news_of_runs() {
        if Instant::now() > end {
            return Err("the child never ran".to_owned());
        }
        std::thread::yield_now();
    }
    if common::children_of(pid).is_empty() {
        return Err("the child has no program".to_owned());
    }
    if zygote_first {
        trace::kill(requester.only_server(&[pid])?);
        requester.only_server(&[pid])?;
        // It is there, but has to come to the point where it knows whom it guards: it does before it answers.
        let _the_child = requester.runs();
        requester.undisturbed()?;
    }
    trace::kill(requester.pid);
    nobody_is_left()
}
