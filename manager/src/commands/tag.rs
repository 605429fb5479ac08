//! `tag`: one more name for an image.

use anyhow::{Result, bail};

use crate::cli::Context;
use crate::reference::Reference;
use crate::store::Store;
use crate::store::names::Record;

/// Give an image another name
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// NAME, NAME:TAG, NAME@DIGEST, or an image id
    #[arg(value_name = "IMAGE")]
    image: String,
    /// NAME or NAME:TAG
    #[arg(value_name = "NAME")]
    name: String,
}

/// Tags.
pub(crate) fn run(args: Args, context: &Context) -> Result<u8> {
    let name = Reference::parse(&args.name)?;
    if name.digest().is_some() {
        bail!("refusing to create a tag with a digest: {}", args.name);
    }
    let store = Store::open(&context.root)?;
    // Between finding the image and naming it, it must not be swept.
    let _hold = store.hold()?;
    let Some((record, _)) = store.find_record(&args.image)? else { bail!("no such image: {}", args.image) };
    store.write_record(&Record {
        name: name.to_string(),
        tagged_at: jiff::Timestamp::now().to_string(),
        ..record
    })?;
    Ok(0)
}
