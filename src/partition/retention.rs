//! Whole segments are given up, oldest first.

use crate::Result;
use crate::error::At;
use crate::format::SealedSegment;
use crate::partition::{PartitionCore, lock};
use crate::segment::{index_path, segment_name};

impl PartitionCore {
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
        let gone: Vec<SealedSegment> = manifest.sealed.drain(..count).collect();
        self.latch.guard(&self.dir, || self.write_manifest(&manifest))?;
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
