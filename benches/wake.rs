//! How long after an append a waiting reader has the record: parked, and looking all the time.
#![expect(clippy::unwrap_used, reason = "a benchmark fails by panicking")]

#[expect(dead_code, reason = "every benchmark uses its own part of it")]
mod common;

use std::sync::mpsc;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use placemark::{Durability, StartAt};

use common::{one_segment, rows, shown, subject};

/// From before each append to the reader's having it, sorted. The pause lets the reader go to sleep.
fn latencies(count: usize, pause: Duration, wait: Duration) -> Vec<Duration> {
    let subject = subject(Durability::Os, one_segment());
    let mut reader = subject.log.read(StartAt::Latest).unwrap();
    let (sender, arrivals) = mpsc::channel();
    let reading = std::thread::spawn(move || {
        for _ in 0..count {
            while reader.recv_timeout(wait).unwrap().is_none() {
                std::hint::spin_loop();
            }
            sender.send(Instant::now()).unwrap();
        }
    });
    let mut all: Vec<Duration> = (0..count)
        .map(|_| {
            std::thread::sleep(pause);
            let begun = Instant::now();
            subject.log.append("news").unwrap();
            arrivals.recv_timeout(Duration::from_secs(60)).unwrap() - begun
        })
        .collect();
    reading.join().unwrap();
    all.sort_unstable();
    all
}

fn wake(criterion: &mut Criterion) {
    let (parked, spinning) = (Duration::from_secs(60), Duration::ZERO);
    for (name, wait, longest) in [("parked", parked, Some(15e-6)), ("spinning", spinning, None)] {
        if rows::wanted().is_none() {
            criterion.bench_function(&format!("append to a {name} reader"), |bencher| {
                bencher.iter_custom(|count| {
                    latencies(usize::try_from(count).unwrap(), Duration::from_micros(200), wait).iter().sum()
                });
            });
        }
        let all = latencies(3000, Duration::from_micros(200), wait);
        let at = |percent: usize| all.get(all.len() * percent / 100).unwrap().as_secs_f64();
        let measured = format!("p50 {}, p90 {}, p99 {}", shown(at(50)), shown(at(90)), shown(at(99)));
        let must = longest.map_or(String::new(), |longest| format!("p50 at most {}", shown(longest)));
        let met = longest.map(|longest| at(50) <= longest);
        rows::row(&format!("append to a {name} reader's having it"), &measured, &must, met);
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10).measurement_time(Duration::from_secs(1));
    targets = wake
}
criterion_main!(benches);
