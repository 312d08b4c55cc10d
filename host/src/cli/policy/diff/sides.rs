//! The two sets that are compared: from a path, or from a running hub.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use nowconnect_policy::{BundleArchive, PolicyBundle};

use super::super::bundle::material_of;
use super::super::material::Material;
use super::super::{Refusal, print_all};
use crate::admin::AdminClient;
use crate::bundle::view::BundleStatus;

/// Which sets, before and after.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct Sides {
    /// The set before and the set after: folders or bundles; one less for each of `--active` and
    /// `--staged`
    #[arg(value_name = "SET", num_args = 0..=2)]
    pub(super) sets: Vec<PathBuf>,
    /// The set before is the bundle in force at the hub
    #[arg(long)]
    pub(super) active: bool,
    /// The set after is the bundle that is staged there
    #[arg(long)]
    pub(super) staged: bool,
    /// The hub's admin socket, for `--active` and `--staged`
    #[arg(long, value_name = "PATH")]
    pub(super) socket: Option<PathBuf>,
}

/// One of the two.
pub(super) struct Side {
    pub(super) material: Material,
    pub(super) bundle: PolicyBundle,
}

/// Where a side comes from.
#[derive(Clone, Copy)]
enum Which<'a> {
    Path(&'a Path),
    Active,
    Staged,
}

impl Sides {
    /// Both, or `None` where the reason has been written.
    pub(super) fn open(&self, problems: &mut dyn Write) -> io::Result<Option<(Side, Side)>> {
        let mut paths = self.sets.iter().map(|path| Which::Path(path));
        let before = if self.active {
            Some(Which::Active)
        } else {
            paths.next()
        };
        let after = if self.staged {
            Some(Which::Staged)
        } else {
            paths.next()
        };
        let (Some(before), Some(after), None) = (before, after, paths.next()) else {
            writeln!(
                problems,
                "two sets are compared: name both, or one less for each of `--active` and \
                 `--staged`"
            )?;
            return Ok(None);
        };
        let Some(before) = self.side(before, problems)? else {
            return Ok(None);
        };
        let after = self.side(after, problems)?;
        Ok(after.map(|after| (before, after)))
    }

    fn side(&self, from: Which<'_>, problems: &mut dyn Write) -> io::Result<Option<Side>> {
        let material = match from {
            Which::Path(path) => match Material::open(path) {
                Ok(material) => material,
                Err(unusable) => {
                    Refusal::from(unusable).print(problems)?;
                    return Ok(None);
                }
            },
            Which::Active | Which::Staged => match self.of_hub(from) {
                Ok(material) => material,
                Err(problem) => {
                    writeln!(problems, "{problem}")?;
                    return Ok(None);
                }
            },
        };
        match PolicyBundle::compile(&material.folder.sources, 0) {
            Ok(bundle) => Ok(Some(Side { material, bundle })),
            Err(found) => {
                print_all(&found, problems)?;
                Ok(None)
            }
        }
    }

    /// What a hub has in force, or staged. Nobody vouches for it here; the hub did when it came.
    fn of_hub(&self, which: Which<'_>) -> Result<Material, String> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| format!("cannot start: {error}"))?;
        let hub = AdminClient::find(self.socket.as_deref());
        let bytes = runtime.block_on(async {
            let status = hub.bundles().await.map_err(|error| error.to_string())?;
            let revision = revision_of(&status, which)?;
            let bytes = hub.bundle_bytes(revision).await;
            bytes.map_err(|error| error.to_string())
        })?;
        BundleArchive::from_tar(&bytes)
            .and_then(|archive| material_of(&archive))
            .map_err(|refusal| refusal.to_string())
    }
}

fn revision_of(status: &BundleStatus, which: Which<'_>) -> Result<u64, String> {
    if !status.enabled {
        return Err(
            "the hub takes no bundles (`policy.bundle.trusted_keys` is empty); name the folder \
             that it reads"
                .to_owned(),
        );
    }
    let (entry, missing) = match which {
        Which::Staged => (
            &status.staged,
            "no bundle is staged at the hub; `nowconnect policy stage BUNDLE` brings one",
        ),
        Which::Active | Which::Path(_) => (&status.active, "no bundle is in force at the hub yet"),
    };
    entry
        .as_ref()
        .map(|entry| entry.revision)
        .ok_or_else(|| missing.to_owned())
}
