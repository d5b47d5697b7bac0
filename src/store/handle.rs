//! Who keeps a store open.

use std::sync::Arc;

use crate::Result;
use crate::store::StoreCore;

/// One of the handles that keep a store open: the public `Store`, `Log` and `Partition`, readers, consumers, producers,
/// workers and transactions each hold one. The store is closed when the last of them is dropped.
#[derive(Debug, Clone)]
pub(crate) struct Handle(Arc<Counted>);

/// The count is that of the `Arc` around it.
#[derive(Debug)]
struct Counted {
    core: Arc<StoreCore>,
}

impl Drop for Counted {
    fn drop(&mut self) {
        // Whoever wants to know calls `Store::close`.
        let _ = self.core.close();
    }
}

impl Handle {
    pub(crate) fn new(core: Arc<StoreCore>) -> Self {
        Self(Arc::new(Counted { core }))
    }

    /// The store; `Closed` when it has been closed.
    pub(crate) fn core(&self) -> Result<&Arc<StoreCore>> {
        self.0.core.check_open()?;
        Ok(&self.0.core)
    }

    /// The store, whether it is open or not.
    pub(crate) fn store(&self) -> &Arc<StoreCore> {
        &self.0.core
    }

    #[inline]
    pub(crate) fn is_closed(&self) -> bool {
        self.0.core.is_closed()
    }

    pub(crate) fn is_same_store(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0.core, &other.0.core)
    }
}
