//! Who takes part.

use anyhow::Result;
use clap::ValueEnum;

use crate::child::Report;
use crate::limits::{Mapping, Pwrite};
use crate::peer::{About, Peer};
use crate::peers::commitlog::Commitlog;
use crate::peers::fjall::Fjall;
use crate::peers::okaywal::Okaywal;
use crate::peers::placemark::Placemark;
use crate::peers::raft_engine::RaftEngine;
use crate::peers::redb::Redb;
use crate::peers::seglog::Seglog;
use crate::peers::sqlite::Sqlite;
use crate::peers::walrus::Walrus;
use crate::peers::yaque::Yaque;
use crate::works::{self, Task};

/// In the order of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Contestant {
    Placemark,
    Commitlog,
    Seglog,
    Walrus,
    RaftEngine,
    Okaywal,
    Yaque,
    Fjall,
    Redb,
    Sqlite,
    Mapping,
    Pwrite,
}

/// Does `$then` for the type that stands for a contestant.
macro_rules! for_type {
    ($contestant:expr, $peer:ident => $then:expr) => {
        match $contestant {
            Contestant::Placemark => {
                type $peer = Placemark;
                $then
            }
            Contestant::Commitlog => {
                type $peer = Commitlog;
                $then
            }
            Contestant::Seglog => {
                type $peer = Seglog;
                $then
            }
            Contestant::Walrus => {
                type $peer = Walrus;
                $then
            }
            Contestant::RaftEngine => {
                type $peer = RaftEngine;
                $then
            }
            Contestant::Okaywal => {
                type $peer = Okaywal;
                $then
            }
            Contestant::Yaque => {
                type $peer = Yaque;
                $then
            }
            Contestant::Fjall => {
                type $peer = Fjall;
                $then
            }
            Contestant::Redb => {
                type $peer = Redb;
                $then
            }
            Contestant::Sqlite => {
                type $peer = Sqlite;
                $then
            }
            Contestant::Mapping => {
                type $peer = Mapping;
                $then
            }
            Contestant::Pwrite => {
                type $peer = Pwrite;
                $then
            }
        }
    };
}

impl Contestant {
    pub(crate) fn about(self) -> &'static About {
        for_type!(self, P => &P::ABOUT)
    }

    /// How it is named on the command line.
    pub(crate) fn argument(self) -> &'static str {
        match self {
            Self::Placemark => "placemark",
            Self::Commitlog => "commitlog",
            Self::Seglog => "seglog",
            Self::Walrus => "walrus",
            Self::RaftEngine => "raft-engine",
            Self::Okaywal => "okaywal",
            Self::Yaque => "yaque",
            Self::Fjall => "fjall",
            Self::Redb => "redb",
            Self::Sqlite => "sqlite",
            Self::Mapping => "mapping",
            Self::Pwrite => "pwrite",
        }
    }

    /// Whether it is no crate but what the machine can do.
    pub(crate) fn is_limit(self) -> bool {
        self.about().package.is_empty()
    }

    pub(crate) fn run(self, task: &Task, report: &mut Report) -> Result<()> {
        for_type!(self, P => works::run::<P>(task, report))
    }
}
