//! Whole segments are given up, oldest first.

use std::sync::Arc;

use crate::Result;
use crate::broken::broken;
use crate::error::At;
use crate::format::SealedSegment;
use crate::partition::{PartitionCore, lock};
use crate::segment::{FIRST_FRAME, index_path, segment_name};

impl PartitionCore {
    /// Gives up the records below `offset`, as far as whole segments have no others; all of them where it is the end or
    /// behind it. First every full segment is sealed.
    ///
    /// Only what was readable when it was asked goes: what is on its way to be acknowledged stays.
    pub(crate) fn trim_before(self: &Arc<Self>, offset: u64) -> Result<()> {
        self.check_usable()?;
        let end = self.end();
        let before = offset.min(end);
        let used = self.segments().last().is_some_and(|active| active.readable() > FIRST_FRAME);
        if before == end && used {
            self.roll_at(end)?;
        }
        self.drop_before(before)
    }

    /// Removes the sealed segments all of whose offsets are below `before`.
    ///
    /// A crash before the manifest is replaced leaves them; after it, files that it does not list, which the next
    /// opening removes. Whoever reads one of them finishes it.
    pub(crate) fn drop_before(&self, before: u64) -> Result<()> {
        let mut manifest = lock(&self.manifest);
        self.check_usable()?;
        self.seal_locked(&mut manifest)?;
        let count = manifest.sealed.iter().take_while(|segment| segment.end <= before).count();
        if count == 0 {
            return Ok(());
        }
        let snapshots = manifest.producers.snapshots.clone();
        let floor = manifest.sealed.iter().take(count).map(|segment| segment.end).max().unwrap_or(0);
        self.cover(&mut manifest, floor)?;
        let gone: Vec<SealedSegment> = manifest.sealed.drain(..count).collect();
        if broken("removed before the manifest") {
            return self.remove(&gone);
        }
        self.latch.guard(&self.dir, || self.write_manifest(&manifest))?;
        self.drop_snapshots(&snapshots, &manifest);
        self.replace_segments(|list| {
            for segment in list.drain(..count) {
                self.env.forget(&segment);
            }
        });
        self.remove(&gone)
    }

    /// Removes files that the manifest does not list any more.
    pub(super) fn remove(&self, gone: &[SealedSegment]) -> Result<()> {
        let storage = self.env.storage.as_ref();
        self.latch.guard(&self.dir, || {
            for entry in gone {
                let path = self.dir.join(segment_name(entry.base, entry.generation));
                storage.remove_file(&path).at(&path)?;
                let index = index_path(&path);
                if storage.kind(&index).at(&index)?.is_some() {
                    storage.remove_file(&index).at(&index)?;
                }
            }
            Ok(())
        })
    }
}
