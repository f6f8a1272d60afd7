//! One.
use forkyard::channel::{ByteQueue, Queue};
use std::time::Instant;
fn main() {
    let q = ByteQueue::bounded(1024).unwrap();
    for size in [16usize, 100, 1000, 4000, 40000, 65536, 1 << 20] {
        let m = vec![1u8; size];
        let n = if size < 113 { 3_000_000 } else if size < 5000 { 300_000 } else {3000};
        for _ in 0..3 {
            let t = Instant::now();
            for _ in 0..n { q.put(&m).unwrap(); std::hint::black_box(&*q.get().unwrap()); }
            print!("{size}: {:.1} ns  ", t.elapsed().as_nanos() as f64 / n as f64);
        }
        let t = Instant::now();
        let mut puts = 0.0;
        let rounds = n / 8;
        for _ in 0..rounds { let a = Instant::now(); for _ in 0..8 { q.put(&m).unwrap(); } puts += a.elapsed().as_nanos() as f64; for _ in 0..8 { std::hint::black_box(&*q.get().unwrap()); } }
        println!("batch 8: {:.1} ns, put {:.1}", t.elapsed().as_nanos() as f64 / (rounds*8) as f64, puts / (rounds*8) as f64);
    }
    let q: Queue<u64> = Queue::bounded(1024).unwrap();
    let t = Instant::now();
    for i in 0..3_000_000 { q.put(i).unwrap(); assert_eq!(q.get().unwrap(), i); }
    println!("u64: {:.1} ns", t.elapsed().as_nanos() as f64 / 3e6);
}
