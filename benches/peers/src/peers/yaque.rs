//! A queue in files, with one sender and one receiver.

use std::path::Path;

use anyhow::{Result, bail};
use yaque::{Receiver, ReceiverBuilder, Sender, TryRecvError, recovery};

use crate::peer::{About, Peer, unable};
use crate::trials::Measure;
use crate::values::Seen;
use crate::works::Work;

/// Records of one read.
const READ: usize = 1000;

pub(crate) struct Yaque {
    sender: Option<Sender>,
    receiver: Option<Receiver>,
}

impl Yaque {
    fn sender(&mut self) -> Result<&mut Sender> {
        match &mut self.sender {
            Some(sender) => Ok(sender),
            None => bail!("opened to be read"),
        }
    }

    fn receiver(&mut self) -> Result<&mut Receiver> {
        match &mut self.receiver {
            Some(receiver) => Ok(receiver),
            None => bail!("opened to be written"),
        }
    }
}

impl Peer for Yaque {
    const ABOUT: About = About {
        name: "yaque",
        package: "yaque",
        power: "not said: it never syncs",
        durable: "none: it never syncs",
        checks: "parity of lengths",
        settings: "segments of 4 MiB; reading takes the records away: a scan commits by 1000, and consuming saves its \
                   position at every record",
        remarks: &[
            (
                Measure::Consume,
                "its position is a file that is cut and written anew, which ext4 writes to the disk at once",
            ),
            (Measure::ScanSingles, "what was read is deleted"),
            (Measure::ScanBatches, "what was read is deleted"),
        ],
        reads_once: true,
    };

    fn open(dir: &Path, work: Work) -> Result<Self> {
        if work.waits_for_disk() {
            return Err(unable("it never syncs"));
        }
        if work == Work::Kept {
            recovery::unlock_queue(dir)?;
        }
        if work.reads() {
            let every = if work.consumes() { 1 } else { READ };
            let receiver = ReceiverBuilder::new().save_every_nth(Some(every)).save_every(None).open(dir)?;
            return Ok(Self { sender: None, receiver: Some(receiver) });
        }
        Ok(Self { sender: Some(Sender::open(dir)?), receiver: None })
    }

    fn append(&mut self, value: &[u8]) -> Result<()> {
        self.sender()?.try_send(value).map_err(|error| anyhow::anyhow!("{error:?}"))
    }

    fn append_batch(&mut self, values: &[&[u8]]) -> Result<()> {
        self.sender()?.try_send_batch(values).map_err(|_| anyhow::anyhow!("a batch was not sent"))
    }

    fn scan(&mut self, seen: &mut Seen) -> Result<()> {
        loop {
            match self.receiver()?.try_recv_batch_up_to(READ) {
                Ok(batch) => {
                    let more = batch.iter().all(|value| seen.see(value));
                    // Only the first record is wanted: it is put back.
                    if !more {
                        return Ok(());
                    }
                    batch.commit()?;
                }
                Err(TryRecvError::QueueEmpty) => return Ok(()),
                Err(error) => bail!("{error:?}"),
            }
        }
    }

    fn consume(&mut self, seen: &mut Seen) -> Result<()> {
        loop {
            match self.receiver()?.try_recv() {
                Ok(value) => {
                    let more = seen.see(&value);
                    value.commit()?;
                    if !more {
                        return Ok(());
                    }
                }
                Err(TryRecvError::QueueEmpty) => return Ok(()),
                Err(error) => bail!("{error:?}"),
            }
        }
    }

    fn close(self) -> Result<()> {
        Ok(())
    }
}
