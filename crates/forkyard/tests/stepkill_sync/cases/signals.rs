//! What belongs to nobody: permits as signals, events, barriers; and permits that come back.

use crate::stage::{A, B, C, Stage, Told, eventually};
use crate::sweep::Case;

pub(crate) const CASES: &[Case] = &[
    Case {
        before: |stage| stage.expect(C, "semaphore.release", &["ok"]).map(drop),
        ..Case::new("Semaphore: acquire", "/ semaphore.acquire /", at_most_one_permit)
    },
    Case {
        waiting: |stage| stage.block(A, "semaphore.acquire"),
        relieve: |stage| {
            stage.expect(C, "semaphore.release", &["ok"])?;
            stage.expect(C, "semaphore.release", &["ok"]).map(drop)
        },
        ..Case::new("Semaphore: contended acquire", "/ semaphore.acquire /", |stage| {
            stage.expect_answer(A, &["ok"])?;
            at_most_one_permit(stage)
        })
    },
    Case {
        waiting: |stage| stage.block(A, "semaphore.acquire"),
        relieve: |stage| {
            // A permit that lies there is taken by the one who waits, without anybody's help.
            eventually("the permit is taken", || stage.ask(C, "semaphore.value").as_deref() == Ok("0"))?;
            stage.expect(C, "semaphore.release", &["ok"]).map(drop)
        },
        ..Case::new("Semaphore: release", "/ semaphore.release /", |stage| {
            stage.expect_answer(A, &["ok"])?;
            at_most_one_permit(stage)
        })
    },
    Case::new("Semaphore with undo: acquire", "/ undo.acquire / undo.release", |stage| {
        stage.expect(B, "undo.acquire undo.release", &["ok ok"])?;
        stage.expect(C, "undo.acquire undo.release undo.value", &["ok ok 1"]).map(drop)
    }),
    Case {
        waiting: |stage| {
            stage.block(A, "undo.acquire undo.release")?;
            stage.block(B, "undo.acquire undo.release")
        },
        ..Case::new("Semaphore with undo: release", "undo.acquire / undo.release /", |stage| {
            stage.expect_answer(A, &["ok ok"])?;
            stage.expect_answer(B, &["ok ok"])?;
            stage.expect(C, "undo.acquire undo.release undo.value", &["ok ok 1"]).map(drop)
        })
    },
    Case::new("BoundedSemaphore: acquire", "/ bounded.acquire / bounded.release", newcomers_take),
    Case {
        before: |stage| stage.expect(A, "bounded.acquire", &["ok"]).map(drop),
        waiting: |stage| stage.block(B, "bounded.acquire bounded.release"),
        relieve: |stage| stage.expect(A, "bounded.release", &["ok"]).map(drop),
        ..Case::new("BoundedSemaphore: contended acquire", "/ bounded.acquire / bounded.release", |stage| {
            stage.expect_answer(B, &["ok ok"])?;
            newcomers_take(stage)
        })
    },
    Case {
        waiting: |stage| {
            stage.block(A, "bounded.acquire bounded.release")?;
            stage.block(B, "bounded.acquire bounded.release")
        },
        ..Case::new("BoundedSemaphore: contended release", "bounded.acquire / bounded.release /", |stage| {
            stage.expect_answer(A, &["ok ok"])?;
            stage.expect_answer(B, &["ok ok"])?;
            newcomers_take(stage)
        })
    },
    Case {
        before: |stage| stage.expect(A, "bounded.acquire", &["ok"]).map(drop),
        waiting: |stage| stage.block(B, "bounded.acquire bounded.release"),
        // If the victim did not come so far. Otherwise this may give back what somebody else has taken since.
        relieve: |stage| stage.expect(A, "bounded.release", &["ok", "invalid"]).map(drop),
        ..Case::new("BoundedSemaphore: release for another process", "/ bounded.release /", |stage| {
            stage.expect_answer(B, &["ok ok", "ok invalid"])?;
            newcomers_take(stage)
        })
    },
    Case {
        waiting: |stage| stage.block(A, "event.wait"),
        relieve: |stage| stage.expect(C, "event.set", &["ok"]).map(drop),
        ..Case::new("Event: wait", "/ event.wait /", |stage| {
            stage.expect_answer(A, &["ok"])?;
            stage.expect(C, "event.clear", &["ok"]).map(drop)
        })
    },
    Case {
        waiting: |stage| {
            stage.block(A, "event.wait")?;
            stage.block(B, "event.wait")
        },
        relieve: |stage| {
            // If it is set, those who wait need nobody's help.
            match stage.ask(C, "event.is_set")?.as_str() {
                "0" => stage.expect(C, "event.set", &["ok"]).map(drop),
                _ => Ok(()),
            }
        },
        ..Case::new("Event: set", "/ event.set /", |stage| {
            stage.expect_answer(A, &["ok"])?;
            stage.expect_answer(B, &["ok"])?;
            stage.expect(C, "event.clear", &["ok"]).map(drop)
        })
    },
    Case {
        before: |stage| stage.expect(C, "event.set", &["ok"]).map(drop),
        ..Case::new("Event: clear", "/ event.clear /", |stage| {
            stage.expect(C, "event.clear", &["ok"])?;
            stage.block(A, "event.wait")?;
            stage.expect(C, "event.set event.clear", &["ok ok"])?;
            stage.expect_answer(A, &["ok"]).map(drop)
        })
    },
    Case {
        waiting: |stage| stage.block(A, "two.wait"),
        ..Case::new("Barrier: the last one arrives", "/ two.wait /", |stage| {
            stage.settle()?;
            break_if_waiting(stage, "two", "1")?;
            stage.expect_answer(A, &["ok", "broken"])?;
            stage.expect(C, "two.reset", &["ok"]).map(drop)
        })
    },
    Case {
        waiting: |stage| stage.block(A, "three.wait"),
        relieve: |stage| stage.send(B, "three.wait"),
        ..Case::new("Barrier: one of three arrives", "/ three.wait /", |stage| {
            stage.settle()?;
            break_if_waiting(stage, "three", "2")?;
            let (one, other) = (stage.answer(A)?, stage.answer(B)?);
            if one != other || !["ok", "broken"].contains(&one.as_str()) {
                return Err(format!("one was told {one:?}, the other {other:?}"));
            }
            stage.expect(C, "three.reset", &["ok"]).map(drop)
        })
    },
    Case {
        waiting: |stage| stage.block(A, "two.wait"),
        ..Case::new("Barrier: abort", "/ two.abort /", |stage| {
            stage.settle()?;
            break_if_waiting(stage, "two", "1")?;
            stage.expect_answer(A, &["broken"])?;
            stage.expect(C, "two.reset", &["ok"]).map(drop)
        })
    },
    Case {
        waiting: |stage| stage.block(A, "two.wait"),
        ..Case::new("Barrier: reset", "/ two.reset /", |stage| {
            stage.settle()?;
            break_if_waiting(stage, "two", "1")?;
            stage.expect_answer(A, &["broken"])?;
            stage.expect(C, "two.reset", &["ok"])?;
            stage.tell(A, "two.wait");
            stage.expect(B, "two.wait", &["ok"])?;
            stage.expect_answer(A, &["ok"]).map(drop)
        })
    },
];

/// The victim's permit may be lost, and no other.
fn at_most_one_permit(stage: &mut Stage) -> Told {
    stage.expect(B, "semaphore.drain", &["0", "1"]).map(drop)
}

fn newcomers_take(stage: &mut Stage) -> Told {
    stage.expect(C, "bounded.acquire bounded.release", &["ok ok"])?;
    stage.expect(B, "bounded.acquire bounded.release bounded.value", &["ok ok 1"]).map(drop)
}

/// Those who wait for one who never arrived have to be helped; all others not.
fn break_if_waiting(stage: &mut Stage, barrier: &str, waiting: &str) -> Told {
    if stage.ask(C, &format!("{barrier}.waiting"))? == waiting {
        stage.expect(C, &format!("{barrier}.abort"), &["ok"])?;
    }
    Ok(())
}
