//! Queues: no message is lost that was put, none comes twice, and nobody waits for the dead.

use crate::stage::{A, B, C, Stage, Told, eventually};
use crate::sweep::Case;

pub(crate) const CASES: &[Case] = &[
    Case::new("Queue: put", "/ queue.put /", |stage| rest(stage, &["0", "1"])),
    Case {
        waiting: |stage| stage.block(A, "queue.get"),
        relieve: |stage| {
            // A message that was put is got by the one who waits, without anybody's help.
            taken(stage, "0")?;
            stage.expect(C, "queue.put", &["ok"]).map(drop)
        },
        ..Case::new("Queue: put for one who waits", "/ queue.put /", |stage| {
            stage.expect_answer(A, &["short"])?;
            rest(stage, &["0", "1"])
        })
    },
    Case {
        before: |stage| stage.expect(C, "queue.put queue.put", &["ok ok"]).map(drop),
        relieve: |stage| stage.expect(C, "queue.get", &["short"]).map(drop),
        ..Case::new("Queue: put into a full one", "/ queue.put /", |stage| rest(stage, &["1", "2"]))
    },
    Case {
        before: |stage| stage.expect(C, "queue.put queue.put", &["ok ok"]).map(drop),
        ..Case::new("Queue: get", "/ queue.get /", |stage| rest(stage, &["1", "2"]))
    },
    Case {
        waiting: |stage| stage.block(A, "queue.get"),
        relieve: |stage| stage.expect(C, "queue.put queue.put", &["ok ok"]).map(drop),
        ..Case::new("Queue: get beside one who waits", "/ queue.get /", |stage| {
            stage.expect_answer(A, &["short"])?;
            rest(stage, &["0", "1"])
        })
    },
    Case {
        before: |stage| stage.expect(C, "queue.put queue.put", &["ok ok"]).map(drop),
        waiting: |stage| stage.block(A, "queue.put"),
        relieve: |stage| {
            // Room that was made is taken by the one who waits, without anybody's help.
            taken(stage, "2")?;
            stage.expect(C, "queue.get", &["short"]).map(drop)
        },
        ..Case::new("Queue: get for one who waits", "/ queue.get /", |stage| {
            stage.expect_answer(A, &["ok"])?;
            rest(stage, &["1", "2"])
        })
    },
    Case::new("Queue: large put", "/ queue.put_large /", large_rest),
    Case::new("Queue: loan and send", "/ queue.send /", large_rest),
    Case {
        before: |stage| stage.expect(C, "queue.put_large", &["ok"]).map(drop),
        ..Case::new("Queue: large get, and drop of the sample", "/ queue.get /", large_rest)
    },
    Case::new("ByteQueue: put many", "/ queue.put_two /", |stage| {
        stage.settle()?;
        stage.expect(C, "queue.drain", &["0", "1", "2"])?;
        stage.expect(C, "queue.put_two queue.get_two", &["ok ok"]).map(drop)
    }),
    Case {
        before: |stage| stage.expect(C, "queue.put_two", &["ok"]).map(drop),
        ..Case::new("ByteQueue: get many, and drop of the samples", "/ queue.get_two /", |stage| {
            stage.settle()?;
            stage.expect(C, "queue.drain", &["0", "1", "2"])?;
            stage.expect(C, "queue.put_two queue.get_two", &["ok ok"]).map(drop)
        })
    },
    Case {
        waiting: |stage| stage.block(A, "closing.get"),
        relieve: |stage| stage.expect(C, "closing.close", &["ok", "closed"]).map(drop),
        uses_up: Some(crate::actor::CLOSINGS - 10),
        ..Case::new("Queue: close", "/ closing.close /", |stage| {
            stage.expect_answer(A, &["closed"])?;
            stage.expect(C, "closing.put", &["closed"]).map(drop)
        })
    },
    Case {
        before: |stage| stage.expect(C, "work.put", &["ok"]).map(drop),
        waiting: |stage| stage.block(A, "work.join"),
        ..Case::new("JoinableQueue: get", "/ work.get /", all_is_finished)
    },
    Case {
        before: |stage| stage.expect(C, "work.put", &["ok"]).map(drop),
        waiting: |stage| stage.block(A, "work.join"),
        ..Case::new("JoinableQueue: finish", "work.get / work.finish /", all_is_finished)
    },
    Case {
        before: |stage| stage.expect(C, "work.put", &["ok"]).map(drop),
        waiting: |stage| stage.block(A, "work.join"),
        ..Case::new("JoinableQueue: give back", "work.get / work.return /", all_is_finished)
    },
    Case::new("JoinableQueue: put many", "/ work.put_many /", |stage| {
        stage.settle()?;
        stage.expect(C, "work.drain", &["0", "1", "2"])?;
        stage.expect(B, "work.join work.put_many work.drain", &["ok ok 2"]).map(drop)
    }),
    Case {
        before: |stage| stage.expect(C, "work.put_many", &["ok"]).map(drop),
        waiting: |stage| stage.block(A, "work.join"),
        ..Case::new("JoinableQueue: get many", "/ work.get_many /", all_are_finished)
    },
    Case {
        before: |stage| stage.expect(C, "work.put_many", &["ok"]).map(drop),
        waiting: |stage| stage.block(A, "work.join"),
        ..Case::new("JoinableQueue: finish many", "work.get_many / work.finish_many /", all_are_finished)
    },
    Case {
        before: |stage| stage.expect(C, "work.put", &["ok"]).map(drop),
        relieve: |stage| stage.expect(C, "work.drain", &["1"]).map(drop),
        ..Case::new("JoinableQueue: join", "/ work.join /", |stage| {
            stage.expect(B, "work.join", &["ok"])?;
            stage.expect(C, "work.put work.drain", &["ok 1"]).map(drop)
        })
    },
    Case::new("Queue: put many", "/ many.put /", |stage| {
        stage.settle()?;
        stage.expect(C, "many.first", &["0", "1", "2", "3"])?;
        stage.expect(C, "many.put many.get", &["ok ok"]).map(drop)
    }),
    Case {
        before: |stage| stage.expect(C, "many.put", &["ok"]).map(drop),
        ..Case::new("Queue: get many", "/ many.get /", |stage| {
            stage.settle()?;
            stage.expect(C, "many.last", &["0", "1", "2", "3"])?;
            stage.expect(C, "many.put many.get", &["ok ok"]).map(drop)
        })
    },
    Case {
        before: |stage| stage.expect(C, "growing.fill", &["ok"]).map(drop),
        ..Case::new("Queue: grow", "/ growing.put /", |stage| {
            stage.settle()?;
            stage.expect(B, "growing.drain", &["0", "1"])?;
            grown_rest(stage)
        })
    },
    Case {
        before: |stage| {
            let fill = "growing.fill growing.put growing.get_segment";
            stage.expect(C, fill, &["ok ok ok"]).map(drop)
        },
        ..Case::new("Queue: get behind a segment that is over", "/ growing.get /", |stage| {
            stage.settle()?;
            stage.expect(B, "growing.drain", &["nothing", "one"])?;
            grown_rest(stage)
        })
    },
    Case {
        before: |stage| {
            let fill = "growing.fill growing.put growing.get_segment growing.get";
            stage.expect(C, fill, &["ok ok ok ok"]).map(drop)
        },
        most: Some(24),
        ..Case::new("Queue: shrink", "/ growing.try /", |stage| {
            stage.settle()?;
            stage.expect(B, "growing.drain", &["nothing"])?;
            grown_rest(stage)
        })
    },
    Case {
        before: |stage| stage.expect(C, "endless.fill endless.put", &["ok ok"]).map(drop),
        waiting: |stage| stage.block(A, "endless.join"),
        ..Case::new(
            "JoinableQueue without a bound: get and give back",
            "/ endless.get work.return /",
            |stage| {
                stage.settle()?;
                stage.expect(C, "endless.drain", &["1"])?;
                stage.expect_answer(A, &["ok"])?;
                // Segments that were left are over when somebody gets beside them.
                stage.expect(B, "endless.join", &["ok"]).map(drop)
            },
        )
    },
    Case {
        stopped: Some(|stage| stage.expect(C, "queue.put queue.get queue.put", &["ok short ok"]).map(drop)),
        ..Case::new("Queue: stopped in a put", "/ queue.put /", |stage| rest(stage, &["2"]))
    },
    Case {
        before: |stage| stage.expect(C, "queue.put", &["ok"]).map(drop),
        stopped: Some(|stage| stage.expect(C, "queue.get", &["short", "large"]).map(drop)),
        ..Case::new("Queue: stopped in a large put", "/ queue.put_large /", |stage| {
            rest(stage, &["1"])?;
            large_rest(stage)
        })
    },
    Case {
        before: |stage| stage.expect(C, "growing.fill", &["ok"]).map(drop),
        stopped: Some(|stage| stage.expect(C, "growing.put growing.get_segment", &["ok ok"]).map(drop)),
        ..Case::new("Queue: stopped while it grows", "/ growing.put /", |stage| {
            stage.settle()?;
            stage.expect(B, "growing.drain", &["two"])?;
            grown_rest(stage)
        })
    },
    Case {
        before: |stage| stage.expect(C, "queue.put queue.put", &["ok ok"]).map(drop),
        stopped: Some(|stage| stage.expect(C, "queue.get queue.put", &["short ok"]).map(drop)),
        ..Case::new("Queue: stopped in a get", "/ queue.get /", |stage| rest(stage, &["1"]))
    },
    Case::new("Queue: make one, fill and drop it", "/ make.queue drop /", |stage| rest(stage, &["0"])),
    Case::new("Queue: put a handle that nobody else has", "make.shared / handles.put /", |stage| {
        handles_rest(stage, &["0", "1"])
    }),
    Case {
        before: |stage| stage.expect(C, "make.shared handles.put", &["ok ok"]).map(drop),
        ..Case::new("Queue: get a handle that nobody else has", "/ handles.get /", |stage| {
            handles_rest(stage, &["0", "1"])
        })
    },
    Case {
        before: |stage| stage.expect(C, "make.shared handles.put", &["ok ok"]).map(drop),
        ..Case::new("object dropped that came as a message", "handles.get / drop /", |stage| {
            handles_rest(stage, &["0"])
        })
    },
    Case {
        before: |stage| stage.expect(C, "make.shared handles.put", &["ok ok"]).map(drop),
        ..Case::new(
            "handle passed on, and got by another one",
            "handles.get / handles.put handles.get /",
            |stage| handles_rest(stage, &["0", "1"]),
        )
    },
    Case {
        before: |stage| stage.expect(C, "make.shared handles.put", &["ok ok"]).map(drop),
        stopped: Some(|stage| {
            stage
                .expect(
                    C,
                    "handles.get make.shared handles.put handles.get drop drop",
                    &["ok ok ok ok ok ok"],
                )
                .map(drop)
        }),
        ..Case::new("Queue: stopped in a put of a handle", "make.shared / handles.put /", |stage| {
            handles_rest(stage, &["0", "1"])
        })
    },
    Case::new("Queue: make one, fill it with handles and drop it", "/ make.handles drop /", |stage| {
        handles_rest(stage, &["0"])
    }),
];

/// What the victim had not finished comes back when it is cleaned up, and is finished here; then nobody waits any more.
fn all_is_finished(stage: &mut Stage) -> Told {
    comes_back(stage, &["0", "1"])
}

fn all_are_finished(stage: &mut Stage) -> Told {
    comes_back(stage, &["0", "1", "2"])
}

fn comes_back(stage: &mut Stage, left: &[&str]) -> Told {
    stage.settle()?;
    stage.expect(C, "work.drain", left)?;
    stage.expect_answer(A, &["ok"])?;
    stage.expect(C, "work.join work.put work.put work.drain", &["ok ok ok 2"])?;
    stage.expect(B, "work.join", &["ok"]).map(drop)
}

/// A queue without a bound goes on, and in a small segment when it is empty again, for all who use it.
fn grown_rest(stage: &mut Stage) -> Told {
    stage.expect(C, "growing.fill growing.put", &["ok ok"])?;
    stage.expect(B, "growing.drain growing.put", &["1 ok"])?;
    stage.expect(C, "growing.drain", &["one"]).map(drop)
}

/// So many messages are there, all whole; and there is room for as many as ever.
fn rest(stage: &mut Stage, expected: &[&str]) -> Told {
    stage.settle()?;
    stage.expect(C, "queue.drain", expected)?;
    stage.expect(C, "queue.put queue.put queue.drain", &["ok ok 2"]).map(drop)
}

/// The same of handles; what they are of can be used, and is gone afterwards.
fn handles_rest(stage: &mut Stage, expected: &[&str]) -> Told {
    stage.settle()?;
    stage.expect(C, "handles.drain", expected)?;
    stage.expect(C, "make.shared handles.put handles.drain", &["ok ok 1"]).map(drop)
}

/// The same, when the queue keeps the memory of one large message.
fn large_rest(stage: &mut Stage) -> Told {
    rest(stage, &["0", "1"])?;
    stage.expect(C, "queue.put_large queue.get", &["ok large"]).map(drop)
}

fn taken(stage: &mut Stage, len: &str) -> Told {
    eventually("it is taken", || stage.ask(C, "queue.len").as_deref() == Ok(len))
}
