//! Readers and writers, conditions, values and arrays.

use crate::stage::{A, B, C, Stage, Told};
use crate::sweep::Case;

const ANY: &[&str] = &["ok", "died"];

pub(crate) const CASES: &[Case] = &[
    Case::new("RwLock: write", "/ rwlock.add /", newcomers_write_and_read),
    Case::new("RwLock: read", "/ rwlock.look /", newcomers_write_and_read),
    Case {
        before: |stage| stage.expect(A, "rwlock.read", &["ok"]).map(drop),
        waiting: |stage| stage.block(B, "rwlock.add"),
        relieve: |stage| stage.expect(A, "rwlock.unlock", &["ok"]).map(drop),
        ..Case::new("RwLock: contended write", "/ rwlock.add /", |stage| {
            stage.expect_answer(B, ANY)?;
            newcomers_write_and_read(stage)
        })
    },
    Case {
        before: |stage| stage.expect(A, "rwlock.write", &["ok"]).map(drop),
        waiting: |stage| stage.block(B, "rwlock.add"),
        relieve: |stage| stage.expect(A, "rwlock.unlock", &["ok"]).map(drop),
        ..Case::new("RwLock: contended read", "/ rwlock.look /", |stage| {
            stage.expect_answer(B, ANY)?;
            newcomers_write_and_read(stage)
        })
    },
    Case {
        waiting: |stage| {
            stage.block(A, "rwlock.look")?;
            stage.block(B, "rwlock.add")
        },
        ..Case::new("RwLock: writer's unlock", "rwlock.write / rwlock.unlock /", |stage| {
            stage.expect_answer(A, ANY)?;
            stage.expect_answer(B, ANY)?;
            newcomers_write_and_read(stage)
        })
    },
    Case {
        waiting: |stage| {
            stage.block(A, "rwlock.add")?;
            stage.block(B, "rwlock.look")
        },
        ..Case::new("RwLock: reader's unlock", "rwlock.read / rwlock.unlock /", |stage| {
            stage.expect_answer(A, ANY)?;
            stage.expect_answer(B, ANY)?;
            newcomers_write_and_read(stage)
        })
    },
    Case {
        waiting: |stage| stage.block(A, "condition.wait"),
        relieve: add_and_notify,
        ..Case::new("Condition: wait", "/ condition.wait /", |stage| {
            // The victim may have died with the lock after the first notification.
            stage.expect_answer(A, ANY)?;
            newcomers_add(stage)
        })
    },
    Case {
        waiting: |stage| stage.block(A, "condition.wait"),
        relieve: add_and_notify,
        ..Case::new("Condition: notify one", "mutex.add / condition.one /", |stage| {
            stage.expect_answer(A, ANY)?;
            newcomers_add(stage)
        })
    },
    Case {
        waiting: |stage| {
            stage.block(A, "condition.wait")?;
            stage.block(B, "condition.wait")
        },
        relieve: add_and_notify,
        ..Case::new("Condition: add and notify all", "/ mutex.add condition.all /", |stage| {
            stage.expect_answer(A, ANY)?;
            stage.expect_answer(B, ANY)?;
            newcomers_add(stage)
        })
    },
    Case::new("Value: locked update", "/ value.add /", |stage| {
        stage.expect(B, "value.add", &["ok"])?;
        stage.expect(C, "value.add", &["ok"]).map(drop)
    }),
    Case {
        waiting: |stage| stage.block(A, "array.add"),
        before: |stage| stage.expect(B, "array.lock", &["ok"]).map(drop),
        relieve: |stage| stage.expect(B, "array.unlock", &["ok"]).map(drop),
        ..Case::new("Array: contended locked update", "/ array.add /", |stage| {
            stage.expect_answer(A, ANY)?;
            stage.expect(B, "array.add", ANY)?;
            stage.expect(C, "array.add", &["ok"]).map(drop)
        })
    },
];

fn newcomers_write_and_read(stage: &mut Stage) -> Told {
    stage.expect(C, "rwlock.add", ANY)?;
    stage.expect(B, "rwlock.look", &["ok"])?;
    stage.expect(C, "rwlock.read rwlock.unlock", &["ok ok"]).map(drop)
}

fn add_and_notify(stage: &mut Stage) -> Told {
    stage.expect(C, "mutex.add condition.all", &["ok ok", "died ok"]).map(drop)
}

fn newcomers_add(stage: &mut Stage) -> Told {
    stage.expect(C, "mutex.add", ANY)?;
    stage.expect(B, "mutex.add", &["ok"]).map(drop)
}
