//! Masks, and waiting for what they hold back.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use forkyard::signal::{self, Origin, Signal, SignalSet, TimerKind};

use crate::alone::{alone_blocking, me, realtime};

#[test]
fn guards_restore_the_mask() {
    let before = signal::mask();
    {
        let _outer = signal::block([Signal::USR1, Signal::USR2]);
        assert_eq!(signal::mask(), before.with(Signal::USR1).with(Signal::USR2));
        {
            let inner = signal::unblock(Signal::USR1);
            assert_eq!(signal::mask(), before.with(Signal::USR2));
            assert!(inner.before().contains(Signal::USR1));
        }
        assert!(signal::mask().contains(Signal::USR1));
        {
            let _all = signal::set_mask(SignalSet::FULL);
            assert!(signal::mask().contains(Signal::TERM) && !signal::mask().contains(Signal::KILL));
        }
        assert_eq!(signal::mask(), before.with(Signal::USR1).with(Signal::USR2));
    }
    assert_eq!(signal::mask(), before);
    std::thread::spawn(|| {
        signal::block(Signal::USR1).keep();
        assert!(signal::mask().contains(Signal::USR1));
    })
    .join()
    .unwrap();
    assert_eq!(signal::mask(), before, "masks belong to threads");
}

#[test]
fn a_blocked_signal_is_pending_until_it_is_taken() {
    let _mask = signal::block([Signal::USR1, realtime(5)]);
    assert_eq!(signal::try_wait(Signal::USR1).unwrap(), None);
    signal::raise(Signal::USR1).unwrap();
    signal::raise(Signal::USR1).unwrap();
    assert!(signal::pending().contains(Signal::USR1));
    let info = signal::wait([Signal::USR1, realtime(5)]).unwrap();
    assert_eq!((info.signal(), info.origin(), info.pid()), (Signal::USR1, Origin::Thread, Some(me())));
    assert!(signal::pending().is_empty(), "a standard signal is pending once");
    for _ in 0..3 {
        signal::raise(realtime(5)).unwrap();
    }
    for _ in 0..3 {
        assert_eq!(signal::try_wait(realtime(5)).unwrap().unwrap().signal(), realtime(5));
    }
    assert_eq!(signal::try_wait(realtime(5)).unwrap(), None);
}

#[test]
fn waiting_for_an_open_signal_is_refused() {
    let _mask = signal::block(Signal::USR1);
    let error = signal::try_wait([Signal::USR1, Signal::USR2]).unwrap_err();
    assert!(error.is_invalid() && error.to_string().contains("SIGUSR2"), "{error}");
}

static STORM: AtomicUsize = AtomicUsize::new(0);

extern "C" fn count(_: i32) {
    STORM.fetch_add(1, SeqCst);
}

/// Interrupts this process every millisecond, without SA_RESTART.
fn storm() {
    // SAFETY: a zeroed sigaction with a handler that counts.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = count as extern "C" fn(i32) as usize;
        assert_eq!(libc::sigaction(libc::SIGALRM, &raw const action, std::ptr::null_mut()), 0);
    }
    let millisecond = Duration::from_millis(1);
    signal::set_timer(TimerKind::Real, millisecond, millisecond);
}

/// Blocks the storm in all threads but this one, so that it does interrupt.
#[test]
fn a_storm_of_other_signals_neither_ends_nor_prolongs_a_wait() {
    let others = SignalSet::from(Signal::ALRM);
    alone_blocking("wait::a_storm_of_other_signals_neither_ends_nor_prolongs_a_wait", others, || {
        let _open = signal::unblock(Signal::ALRM);
        let _mask = signal::block(Signal::USR1);
        storm();
        let time = Duration::from_millis(100);
        let waits: [fn(Duration) -> forkyard::Result<signal::SignalInfo>; 4] = [
            |time| signal::wait_timeout(Signal::USR1, time),
            |time| signal::wait_deadline(Signal::USR1, Instant::now() + time),
            signal::pause_timeout,
            |time| signal::pause_deadline(Instant::now() + time),
        ];
        for wait in waits {
            let started = Instant::now();
            let interrupted = STORM.load(SeqCst);
            assert!(wait(time).unwrap_err().is_timeout());
            assert!(started.elapsed() >= time);
            assert!(STORM.load(SeqCst) > interrupted, "there was a storm");
        }
        // For ever, until it comes.
        let (send, receive) = mpsc::channel();
        let waiter = std::thread::spawn(move || {
            let _open = signal::unblock(Signal::ALRM);
            // SAFETY: names the calling thread.
            send.send(unsafe { libc::pthread_self() }).unwrap();
            signal::wait(Signal::USR1).unwrap().signal()
        });
        let thread = receive.recv().unwrap();
        let interrupted = STORM.load(SeqCst);
        while STORM.load(SeqCst) < interrupted + 20 {
            std::thread::yield_now();
        }
        // SAFETY: the thread is not joined yet.
        assert_eq!(unsafe { libc::pthread_kill(thread, libc::SIGUSR1) }, 0);
        assert_eq!(waiter.join().unwrap(), Signal::USR1);
    });
}
