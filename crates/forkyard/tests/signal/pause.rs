//! `pause`: no signal is missed.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use forkyard::signal::{self, Signal};

use crate::alone::{alone, me, told};

#[test]
fn a_signal_between_check_and_pause_is_not_missed() {
    alone("pause::a_signal_between_check_and_pause_is_not_missed", || {
        let done = Arc::new(AtomicBool::new(false));
        let set = Arc::clone(&done);
        let _registration = signal::handle(Signal::USR1, move |_| set.store(true, SeqCst)).unwrap();
        for _ in 0..500 {
            done.store(false, SeqCst);
            if !done.load(SeqCst) {
                // The worst moment, and long enough for the closure to have run where it may.
                signal::raise(Signal::USR1).unwrap();
                std::thread::yield_now();
                assert_eq!(signal::pause().unwrap().signal(), Signal::USR1);
            }
            assert!(done.load(SeqCst), "the closure has returned");
        }
        assert_eq!(signal::try_pause().unwrap(), None, "each signal is told once");
    });
}

#[test]
fn a_signal_at_any_moment_ends_the_pause() {
    alone("pause::a_signal_at_any_moment_ends_the_pause", || {
        let count = Arc::new(AtomicU32::new(0));
        let seen = Arc::clone(&count);
        let _registration = signal::handle(Signal::USR1, move |_| {
            let _ = seen.fetch_add(1, SeqCst);
        })
        .unwrap();
        let (next, wait_next) = mpsc::channel::<u32>();
        let sender = std::thread::spawn(move || {
            for round in wait_next {
                for _ in 0..round % 200 {
                    std::hint::spin_loop();
                }
                signal::send_to_pid(me(), Signal::USR1).unwrap();
            }
        });
        for round in 0..5000 {
            next.send(round).unwrap();
            while count.load(SeqCst) <= round {
                signal::pause().unwrap();
            }
        }
        drop(next);
        sender.join().unwrap();
    });
}

#[test]
fn every_thread_in_pause_is_told() {
    alone("pause::every_thread_in_pause_is_told", || {
        let _registration = signal::handle(Signal::USR1, |_| ()).unwrap();
        let threads: Vec<_> =
            (0..8).map(|_| std::thread::spawn(|| signal::pause().unwrap().signal())).collect();
        signal::raise(Signal::USR1).unwrap();
        for thread in threads {
            assert_eq!(thread.join().unwrap(), Signal::USR1);
        }
    });
}

#[test]
fn pause_gives_up_in_time_and_never_waits_inside_a_closure() {
    alone("pause::pause_gives_up_in_time_and_never_waits_inside_a_closure", || {
        let started = Instant::now();
        assert!(signal::pause_timeout(Duration::from_millis(30)).unwrap_err().is_timeout());
        assert!(signal::pause_deadline(started + Duration::from_millis(40)).unwrap_err().is_timeout());
        assert!(started.elapsed() >= Duration::from_millis(40));
        let (send, receive) = mpsc::channel();
        let _registration = signal::handle(Signal::USR1, move |_| {
            send.send(signal::pause().unwrap_err().is_join_self()).unwrap();
        })
        .unwrap();
        signal::raise(Signal::USR1).unwrap();
        assert!(told(&receive));
        assert_eq!(signal::pause_timeout(Duration::from_secs(60)).unwrap().signal(), Signal::USR1);
    });
}
