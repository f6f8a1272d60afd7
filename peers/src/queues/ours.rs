//! Forkyard's queue of bytes.

use forkyard::channel::{ByteQueue, Loan, PutError};

use super::{Get, Put, Work, capacity, one_way, pause, there_and_back};

/// Copied into shared memory, read where it lies.
#[derive(Clone)]
struct Copied(ByteQueue);

impl Put for Copied {
    fn put(&mut self, message: &[u8]) {
        self.0.put(message).expect("put");
    }
}

impl Get for Copied {
    fn get(&mut self, look: &mut impl FnMut(&[u8])) -> bool {
        self.0.get().map(|message| look(&message)).is_ok()
    }
}

/// Written where it will be read: as if its user had made it there.
#[derive(Clone)]
struct Loaned(Copied);

impl Loaned {
    fn send(&mut self, len: usize, write: impl FnOnce(&mut [u8])) {
        let Copied(queue) = &self.0;
        let mut loan: Loan = queue.loan(len).expect("loan");
        write(&mut loan);
        queue.send(loan).expect("send");
    }
}

impl Put for Loaned {
    fn put(&mut self, message: &[u8]) {
        self.send(message.len(), |loan| loan.copy_from_slice(message));
    }

    fn make(&mut self, message: &mut [u8], byte: u8) {
        self.send(message.len(), |loan| loan.fill(byte));
    }
}

impl Get for Loaned {
    fn get(&mut self, look: &mut impl FnMut(&[u8])) -> bool {
        self.0.get(look)
    }
}

/// Neither side ever sleeps.
#[derive(Clone)]
struct Spinning(ByteQueue);

impl Put for Spinning {
    fn put(&mut self, message: &[u8]) {
        let mut spins = 0;
        while let Err(PutError::Full(_)) = self.0.try_put(message) {
            pause(&mut spins);
        }
    }
}

impl Get for Spinning {
    fn get(&mut self, look: &mut impl FnMut(&[u8])) -> bool {
        let mut spins = 0;
        loop {
            match self.0.try_get() {
                Ok(message) => {
                    look(&message);
                    return true;
                }
                Err(error) if error.is_empty() => pause(&mut spins),
                Err(_) => return false,
            }
        }
    }
}

pub(super) fn copied(size: usize, work: Work) -> Result<f64, String> {
    run(size, work, ByteQueue::bounded, Copied)
}

pub(super) fn inline(size: usize, work: Work) -> Result<f64, String> {
    if size > 64 << 10 {
        return Err("a queue does not hold so much itself".into());
    }
    run(size, work, |capacity| ByteQueue::with_inline(capacity, size), Copied)
}

pub(super) fn loaned(size: usize, work: Work) -> Result<f64, String> {
    run(size, work, ByteQueue::bounded, |queue| Loaned(Copied(queue)))
}

pub(super) fn spinning(size: usize, work: Work) -> Result<f64, String> {
    run(size, work, ByteQueue::bounded, Spinning)
}

fn run<E: Put + Get>(
    size: usize,
    work: Work,
    make: impl Fn(usize) -> forkyard::Result<ByteQueue>,
    end: fn(ByteQueue) -> E,
) -> Result<f64, String> {
    let queue = || make(capacity(size)).map_err(|error| error.to_string());
    let queue_one = queue()?;
    let made = || end(queue_one.clone());
    let Work::RoundTrip(length) = work else {
        return Ok(one_way(size, work, made, made, |_| _ = queue_one.close()));
    };
    let back = queue()?;
    let returned = || end(back.clone());
    Ok(there_and_back(size, length, |_| (made(), returned()), |_| (returned(), made()), true))
}
