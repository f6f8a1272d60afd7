//! Locks that are released by their owner, or by anybody.

use crate::actor::ONCES;
use crate::stage::{A, B, C, Stage, Told};
use crate::sweep::Case;

pub(crate) const CASES: &[Case] = &[
    Case::new("Lock: acquire", "/ lock.acquire / lock.release", newcomers_lock),
    Case::new("Lock: try", "/ lock.try / lock.release", newcomers_lock),
    Case {
        before: |stage| stage.expect(A, "lock.acquire", &["ok"]).map(drop),
        waiting: |stage| stage.block(B, "lock.acquire lock.release"),
        relieve: |stage| stage.expect(A, "lock.release", &["ok"]).map(drop),
        ..Case::new("Lock: contended acquire", "/ lock.acquire / lock.release", |stage| {
            stage.expect_answer(B, &["ok ok", "died ok"])?;
            newcomers_lock(stage)
        })
    },
    Case {
        before: |stage| stage.expect(A, "lock.acquire", &["ok"]).map(drop),
        waiting: |stage| stage.block(B, "lock.acquire lock.release"),
        relieve: |stage| stage.expect(A, "lock.release", &["ok"]).map(drop),
        sleeps_for_a_time: true,
        ..Case::new("Lock: contended acquire, time-out", "/ lock.acquire_20ms /", |stage| {
            stage.expect_answer(B, &["ok ok"])?;
            newcomers_lock(stage)
        })
    },
    Case {
        waiting: |stage| {
            stage.block(A, "lock.acquire lock.release")?;
            stage.block(B, "lock.acquire lock.release")
        },
        ..Case::new("Lock: contended release", "lock.acquire / lock.release /", |stage| {
            stage.expect_answer(A, &["ok ok", "died ok"])?;
            stage.expect_answer(B, &["ok ok", "died ok"])?;
            newcomers_lock(stage)
        })
    },
    Case {
        before: |stage| stage.expect(A, "lock.acquire", &["ok"]).map(drop),
        waiting: |stage| {
            stage.block(B, "lock.acquire lock.release")?;
            stage.block(C, "lock.acquire lock.release")
        },
        // If the victim did not come so far. Otherwise this may release what somebody else has acquired since.
        relieve: |stage| stage.expect(A, "lock.release", &["ok", "not-locked"]).map(drop),
        ..Case::new("Lock: release for another process", "/ lock.release /", |stage| {
            stage.expect_answer(B, &["ok ok", "ok not-locked"])?;
            stage.expect_answer(C, &["ok ok", "ok not-locked"])?;
            newcomers_lock(stage)
        })
    },
    Case::new("Mutex: lock, change, unlock", "/ mutex.add /", newcomers_add),
    Case {
        before: |stage| stage.expect(A, "mutex.lock", &["ok"]).map(drop),
        waiting: |stage| stage.block(B, "mutex.add"),
        relieve: |stage| stage.expect(A, "mutex.unlock", &["ok"]).map(drop),
        ..Case::new("Mutex: contended lock, change, unlock", "/ mutex.add /", |stage| {
            stage.expect_answer(B, &["ok", "died"])?;
            newcomers_add(stage)
        })
    },
    Case {
        waiting: |stage| {
            stage.block(A, "mutex.add")?;
            stage.block(B, "mutex.add")
        },
        ..Case::new("Mutex: contended unlock", "mutex.lock / mutex.unlock /", |stage| {
            stage.expect_answer(A, &["ok", "died"])?;
            stage.expect_answer(B, &["ok", "died"])?;
            newcomers_add(stage)
        })
    },
    Case::new(
        "RLock: acquire twice, release once",
        "/ rlock.acquire rlock.acquire rlock.release /",
        |stage| {
            stage.expect(C, "rlock.acquire rlock.release", &["died ok", "ok ok"])?;
            stage
                .expect(B, "rlock.acquire rlock.acquire rlock.release rlock.release", &["ok ok ok ok"])
                .map(drop)
        },
    ),
    Case {
        waiting: |stage| {
            stage.block(A, "rlock.acquire rlock.release")?;
            stage.block(B, "rlock.acquire rlock.release")
        },
        ..Case::new(
            "RLock: contended release",
            "rlock.acquire rlock.acquire rlock.release / rlock.release /",
            |stage| {
                stage.expect_answer(A, &["ok ok", "died ok"])?;
                stage.expect_answer(B, &["ok ok", "died ok"])?;
                stage.expect(C, "rlock.acquire rlock.release", &["ok ok"]).map(drop)
            },
        )
    },
    Case {
        before: |stage| stage.expect(A, "rlock.acquire", &["ok"]).map(drop),
        waiting: |stage| stage.block(B, "rlock.acquire rlock.release"),
        relieve: |stage| stage.expect(A, "rlock.release", &["ok"]).map(drop),
        ..Case::new("RLock: contended acquire", "/ rlock.acquire / rlock.release", |stage| {
            stage.expect_answer(B, &["ok ok", "died ok"])?;
            stage.expect(C, "rlock.acquire rlock.release", &["ok ok", "died ok"]).map(drop)
        })
    },
    Case {
        uses_up: Some(ONCES - 10),
        ..Case::new("Once: call", "/ once.call /", |stage| {
            // Whether it is done or begun, the next one knows.
            stage.expect(B, "once.call", &["first", "again", "before"])?;
            stage.expect(C, "once.call", &["before"]).map(drop)
        })
    },
];

fn newcomers_lock(stage: &mut Stage) -> Told {
    stage.expect(C, "lock.acquire lock.release", &["ok ok", "died ok"])?;
    stage.expect(B, "lock.acquire lock.release", &["ok ok"]).map(drop)
}

fn newcomers_add(stage: &mut Stage) -> Told {
    stage.expect(C, "mutex.add", &["ok", "died"])?;
    stage.expect(B, "mutex.add", &["ok"]).map(drop)
}
