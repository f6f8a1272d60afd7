//! 3. Signals and the alarm.
//!
//! A signal is a number that a process is sent: by another process, by itself or by the kernel. What happens then is
//! up to the receiver: it may handle it, ignore it, hold it back, or let the default happen, which is often the end.
//!
//! ```text
//! cargo run --example 03_signals
//! ```

use std::error::Error;
use std::time::Duration;

use forkyard::process;
use forkyard::signal::{self, Signal};

/// What the child does: it sends a signal to its parent.
#[forkyard::task]
fn knock() -> Result<(), String> {
    let parent = process::parent().ok_or("nobody started this process")?;
    signal::send(parent, Signal::USR1).map_err(|error| error.to_string())
}

fn main() -> Result<(), Box<dyn Error>> {
    // Handle one: the closure is called for each SIGUSR1. It runs in a thread, not in the middle of other code as
    // a classic signal handler does, so it may print, allocate and lock. Dropping what `handle` returns ends it.
    let _usr1 = signal::handle(Signal::USR1, |info| println!("handled {}", info.signal()))?;

    // Send it to ourselves, and wait until some signal has been handled.
    signal::raise(Signal::USR1)?;
    signal::pause()?;

    // Let a child send it.
    let child = process::spawn(knock, ())?;
    signal::pause()?;
    child.join()??;

    // The kernel sends SIGALRM when an alarm rings. There is one alarm: a second one replaces the first, and
    // says what was left of it.
    let _alarm = signal::handle(Signal::ALRM, |_| println!("the alarm rings"))?;
    signal::alarm(Duration::from_secs(3600));
    let left = signal::alarm(Duration::from_millis(50));
    println!("replaced an alarm that was due in {:.0?}", left.unwrap_or_default());
    signal::pause()?;

    // Hold one back: as long as the guard lives, SIGUSR2 waits. `wait` takes it, and no handler is called.
    let guard = signal::block(Signal::USR2);
    signal::raise(Signal::USR2)?;
    println!("pending: {:?}", signal::pending());
    println!("took {}", signal::wait(Signal::USR2)?.signal());
    drop(guard);

    // Ignore one: this would end the process otherwise.
    signal::ignore(Signal::HUP)?;
    signal::raise(Signal::HUP)?;
    println!("still here");
    Ok(())
}
