//! One deterministic run: a thread of its own, on which time and randomness come from a seed.
//!
//! The thread runs a single-threaded tokio runtime with a paused clock. What the system asks the operating system for
//! is answered from the simulation: `clock_gettime` by tokio's clock, `getrandom` by a generator with the seed. This
//! covers what no parameter of ours could reach: the order of every `HashMap`, tokio's choice between branches that
//! are ready, object uids and name suffixes, jitter, and the wall clock in every timestamp. Other threads get the real
//! answers. Invariant: two runs with one seed of one build do the same, step by step.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::time::{Duration, Instant};

/// Where simulated time starts: 2026-12-01T00:00:00Z.
pub const EPOCH_SECONDS: i64 = 1_796_083_200;
/// The monotonic clock's start: far ahead of the real one, so that a wait for another thread never times out.
const MONOTONIC_SECONDS: i64 = 1_000_000_000;
/// Futures of an unoptimized build are large.
const STACK_BYTES: usize = 64 << 20;

#[derive(Clone, Copy)]
struct State {
    /// State of the random generator (splitmix64).
    random: u64,
    /// Tokio's clock at the start, once the runtime is there.
    started: Option<Instant>,
    /// The wall clock's reads so far: each is a nanosecond later than the one before.
    reads: i64,
    /// Within our own read of tokio's clock.
    asking: bool,
    /// By how much somebody has set the wall clock.
    set_seconds: i64,
}

thread_local! {
    static STATE: Cell<Option<State>> = const { Cell::new(None) };
    static PANICS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// Runs `work` as a simulation. A panic anywhere in it, also in a task, is an error.
pub fn run<F: Future<Output = Result<(), String>>>(seed: u64, work: impl FnOnce() -> F + Send) -> Result<(), String> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name(format!("seed-{seed}")).stack_size(STACK_BYTES);
        let simulated = move || {
            STATE.set(Some(State { random: seed, started: None, reads: 0, asking: false, set_seconds: 0 }));
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
            let result = runtime.expect("the runtime starts").block_on(async {
                let mut state = STATE.get().expect("this thread is simulated");
                state.started = Some(tokio::time::Instant::now().into_std());
                STATE.set(Some(state));
                work().await
            });
            STATE.set(None);
            let panics = PANICS.with_borrow_mut(std::mem::take);
            match panics.is_empty() {
                true => result,
                false => Err(format!("{}\npanics: {}", result.err().unwrap_or_default(), panics.join("\n"))),
            }
        };
        let joined = thread.spawn_scoped(scope, simulated).expect("a thread starts").join();
        joined.unwrap_or_else(|_| Err("the run panicked; see above".to_owned()))
    })
}

/// Notes panics of simulated tasks, which tokio would keep to itself.
pub fn note_panics() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if STATE.get().is_some() {
            PANICS.with_borrow_mut(|panics| panics.push(info.to_string()));
        }
        before(info);
    }));
}

/// Simulated time since the start.
pub fn elapsed() -> Duration {
    let Some(mut state) = STATE.get() else { return Duration::ZERO };
    let Some(started) = state.started.filter(|_| !state.asking) else { return Duration::ZERO };
    state.asking = true;
    STATE.set(Some(state));
    let now = tokio::time::Instant::now().into_std();
    state.asking = false;
    STATE.set(Some(state));
    now.duration_since(started)
}

/// Sets the wall clock, as an operator or a time server does; the monotonic clock goes on as it was.
pub fn set_clock(by_seconds: i64) {
    if let Some(mut state) = STATE.get() {
        state.set_seconds += by_seconds;
        STATE.set(Some(state));
    }
}

fn random() -> Option<u64> {
    let mut state = STATE.get()?;
    state.random = state.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
    STATE.set(Some(state));
    let mut z = state.random;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    Some(z ^ (z >> 31))
}

/// Stands before libc's function of this name, for everything in this executable.
///
/// # Safety
/// As `getrandom(2)`: `buffer` must be writable for `length` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getrandom(buffer: *mut u8, length: usize, flags: u32) -> isize {
    if STATE.get().is_none() {
        // SAFETY: the caller's promise is the system call's.
        return unsafe { libc::syscall(libc::SYS_getrandom, buffer, length, flags) as isize };
    }
    for start in (0..length).step_by(8) {
        let bytes = random().unwrap_or_default().to_le_bytes();
        let count = (length - start).min(bytes.len());
        // SAFETY: `start + count <= length`, and the caller promised that many bytes.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), buffer.add(start), count) };
    }
    isize::try_from(length).unwrap_or(isize::MAX)
}

/// Stands before libc's function of this name, for everything in this executable.
///
/// # Safety
/// As `clock_gettime(2)`: `time` must be writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(clock: libc::clockid_t, time: *mut libc::timespec) -> libc::c_int {
    let Some(mut state) = STATE.get() else {
        // SAFETY: the caller's promise is the system call's.
        return unsafe { libc::syscall(libc::SYS_clock_gettime, clock, time) as libc::c_int };
    };
    let elapsed = elapsed();
    let (mut seconds, mut nanoseconds) = (elapsed.as_secs() as i64, i64::from(elapsed.subsec_nanos()));
    if clock == libc::CLOCK_REALTIME {
        state.reads += 1;
        STATE.set(Some(state));
        nanoseconds += state.reads;
        seconds += EPOCH_SECONDS + state.set_seconds + nanoseconds / 1_000_000_000;
        nanoseconds %= 1_000_000_000;
    } else {
        seconds += MONOTONIC_SECONDS;
    }
    // SAFETY: the caller promised that `time` is writable.
    unsafe { time.write(libc::timespec { tv_sec: seconds, tv_nsec: nanoseconds }) };
    0
}
