//! `alarm` and the interval timers.

use std::time::{Duration, Instant};

use forkyard::signal::{self, Signal, TimerKind};

use crate::alone::alone;

#[test]
fn a_second_alarm_replaces_the_first_and_returns_what_was_left() {
    alone("timer::a_second_alarm_replaces_the_first_and_returns_what_was_left", || {
        let _registration = signal::handle(Signal::ALRM, |_| ()).unwrap();
        let second = Duration::from_secs(1);
        assert_eq!(signal::alarm(None), None);
        assert_eq!(signal::alarm(second * 100), None);
        let left = signal::alarm(second * 50).unwrap();
        assert!(left <= second * 100 && left > second * 40, "{left:?}");
        let started = Instant::now();
        let left = signal::alarm(Duration::from_millis(20)).unwrap();
        assert!(left <= second * 50, "{left:?}");
        assert_eq!(signal::pause().unwrap().signal(), Signal::ALRM);
        assert!(started.elapsed() >= Duration::from_millis(20), "the last one counts");
        assert_eq!(signal::alarm(second * 100), None, "it has rung, and only once");
        assert!(signal::alarm(Duration::ZERO).is_some(), "zero cancels");
        assert_eq!(signal::alarm(None), None);
        assert_eq!(signal::alarm(Duration::from_nanos(1)), None, "the shortest time is not zero");
        assert_eq!(signal::pause().unwrap().signal(), Signal::ALRM);
        assert_eq!(signal::alarm(Duration::MAX), None, "the longest is no error");
        assert!(signal::alarm(None).is_some());
    });
}

#[test]
fn an_alarm_nobody_handles_ends_the_process() {
    use std::os::unix::process::ExitStatusExt;
    if std::env::var_os("FORKYARD_TEST_ALARM").is_some() {
        signal::alarm(Duration::from_millis(1));
        let _ = signal::pause();
        unreachable!("pause without a handler lets the default action be");
    }
    let status = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["timer::an_alarm_nobody_handles_ends_the_process", "--exact"])
        .env("FORKYARD_TEST_ALARM", "1")
        .stdout(std::process::Stdio::null())
        .status()
        .unwrap();
    assert_eq!(status.signal(), Some(libc::SIGALRM));
}

#[test]
fn each_interval_timer_sends_its_signal_again_and_again() {
    alone("timer::each_interval_timer_sends_its_signal_again_and_again", || {
        for kind in [TimerKind::Real, TimerKind::Virtual, TimerKind::Prof] {
            let _registration = signal::handle(kind.signal(), |_| ()).unwrap();
            let every = Duration::from_millis(2);
            assert_eq!(signal::set_timer(kind, every, every).left, Duration::ZERO);
            assert_eq!(signal::get_timer(kind).every, every);
            let mut rings = 0;
            while rings < 5 {
                // The CPU clocks go on only while this thread works.
                if let Some(info) = signal::try_pause().unwrap() {
                    assert_eq!(info.signal(), kind.signal());
                    rings += 1;
                }
            }
            assert_eq!(signal::set_timer(kind, Duration::ZERO, Duration::ZERO).every, every);
            assert_eq!(signal::get_timer(kind), signal::TimerState::default());
            while signal::pause_timeout(Duration::from_millis(10)).is_ok() {}
        }
    });
}
