//! A lock and a queue that do not survive: the test must find that.

use crate::stage::{A, B};
use crate::sweep::Case;

pub(crate) const CASES: &[Case] = &[LOCK, QUEUE];

const QUEUE: Case = Case {
    waiting: |stage| {
        stage.deadline = std::time::Duration::from_millis(500);
        Ok(())
    },
    control: true,
    ..Case::new("control: a naive queue, put", "/ naive.put /", |stage| {
        stage.expect(B, "naive.put_last", &["ok"])?;
        stage.expect(A, "naive.drain", &["ok"]).map(|_| ())
    })
};

const LOCK: Case = Case {
    waiting: |stage| {
        stage.deadline = std::time::Duration::from_millis(500);
        stage.block(A, "naive.acquire naive.release")
    },
    control: true,
    ..Case::new("control: a naive lock, release", "naive.acquire / naive.release /", |stage| {
        stage.expect_answer(A, &["ok ok"])?;
        stage.expect(B, "naive.acquire naive.release", &["ok ok"]).map(|_| ())
    })
};
