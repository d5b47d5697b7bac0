//! The README's first program: `cargo run --example quickstart`. It makes a directory `data` where it is run.

use std::time::Duration;

use placemark::Store;

fn main() -> placemark::Result<()> {
    let store = Store::open("data")?;
    let orders = store.log("orders")?;

    // When append returns, the record is on the disk: neither a crash nor a power cut takes it back.
    orders.append("3 apples")?;
    orders.append_batch(["1 pear", "12 plums"])?;

    // A group remembers how far it has read. This one's placemark moves when the work is done.
    let mut billing = orders.consumer("billing").at_least_once()?;
    while let Some(batch) = billing.poll(Duration::ZERO)? {
        for order in &batch {
            println!("bill {}: {}", order.offset(), String::from_utf8_lossy(order.value()));
        }
        batch.commit()?;
    }

    for at in store.group("billing").placemarks()? {
        println!("billing is at {} of {} in {}, {} to go", at.offset, at.end, at.log, at.lag);
    }
    store.close()
}
