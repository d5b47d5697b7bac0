//! Append to a log, consume it in a group, and see where the group is: `cargo run --example quickstart`.

use std::time::Duration;

use placemark::Store;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    let store = Store::open(dir.path().join("data"))?;
    let orders = store.log("orders")?;

    // On return a record is on the disk: neither a crash nor a power cut takes it back.
    orders.append("3 apples")?;
    orders.append_batch(["1 pear", "12 plums"])?;

    // A group remembers how far it has read. This one moves its placemark after the work is done.
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
    Ok(())
}
