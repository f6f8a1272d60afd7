//! Two.
use forkyard::channel::ByteQueue;
use std::time::{Duration, Instant};
fn cpu() -> (f64, f64) { unsafe { let mut u: libc::rusage = std::mem::zeroed(); libc::getrusage(libc::RUSAGE_SELF, &mut u);
 (u.ru_utime.tv_sec as f64 * 1e9 + u.ru_utime.tv_usec as f64 * 1e3, u.ru_stime.tv_sec as f64 * 1e9 + u.ru_stime.tv_usec as f64 * 1e3) } }
fn pin(c: usize) { unsafe { let mut s: libc::cpu_set_t = std::mem::zeroed(); libc::CPU_SET(c, &mut s); libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &s); } }
fn main() {
    let size: usize = std::env::args().nth(1).unwrap().parse().unwrap();
    let inline: usize = std::env::args().nth(2).map_or(112, |s| s.parse().unwrap());
    let cap: usize = std::env::args().nth(3).map_or(1024, |s| s.parse().unwrap());
    let q = ByteQueue::with_inline(cap, inline).unwrap();
    let c = q.clone();
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        pin(1);
        let (mut n, mut sum) = (0u64, 0u64);
        c.get().unwrap();
        let t = Instant::now();
        let u = cpu();
        while let Ok(m) = c.get() { n += 1; sum += m.chunks(64).map(|l| l[0] as u64).sum::<u64>(); }
        let e = t.elapsed().as_nanos() as f64;
        let v = cpu();
        eprintln!("get: {:.2} M/s, wall {:.1} user {:.1} sys {:.1} ns/message ({sum})", n as f64 * 1e3 / e, e / n as f64, (v.0 - u.0) / n as f64, (v.1 - u.1) / n as f64);
        std::process::exit(0);
    }
    pin(0);
    let m = vec![1u8; size];
    let end = Instant::now() + Duration::from_millis(1000);
    let (mut n, u) = (0u64, cpu());
    while Instant::now() < end { for _ in 0..64 { q.put(&m).unwrap(); n += 1; } }
    let v = cpu();
    q.close();
    eprintln!("put: user {:.1} sys {:.1} ns/message", (v.0 - u.0) / n as f64, (v.1 - u.1) / n as f64);
    unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) };
}
