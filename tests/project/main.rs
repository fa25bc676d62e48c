//! Tests of this repository: that its documents, packages and deployment files agree with the code.
//!
//! - `architecture`: `ARCHITECTURE.md` and `docs/decisions` name files that exist, and the stated invariants hold.
//! - `builds`: the builds of the Makefile share their compiled dependencies.
//! - `deploy`: the files in `deploy/` agree with the program and with each other, and run.
//! - `documents`: snippets, tables, commands and links in the documents are true.
//! - `near_variants`: the broken variants of the near tier can be made from its sources.
//! - `packages`: the packages for npm and pip are of the right platforms, and run where they are installed.
//! - `performance`: the tables and plots of `docs/performance.md` are drawn from the results beside it.
//! - `release`: packages are complete, versions agree, and the archive and the workflow are as described.
//! - `sdk`: the copy of the SDK in the program is that of the crate.
//!
//! `tests/behaviour` has the tests of what Larder does.

#![allow(missing_docs, reason = "tests have no users")]

mod architecture;
mod builds;
mod deploy;
mod documents;
mod near_variants;
mod packages;
mod performance;
mod release;
mod sdk;
