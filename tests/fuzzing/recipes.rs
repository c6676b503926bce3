//! Recipes.

use crate::harness::{folder, fuzz};

#[test]
fn recipes() {
    let space = folder();
    let place = space.path().join("recipe.toml");
    let precompute = "task = \"search\"\nmodel = \"models/m\"\ntrain = \"a.jsonl\"\nfreeze = 4\nmax_code_length = 256\nshard_size = \"128MiB\"\nprecision = \"fp16\"\nthreads = 2\n";
    let train = "cache = \"cache/mine\"\nepochs = 3\nbatch-size = 32\nlr = 5e-5\nseed = 1\nmemory_budget = \"2GiB\"\nfreeze = \"none\"\n";
    let valid = vec![precompute.into(), train.into()];
    // What clap takes for the flags themselves, whatever the recipe holds.
    let flags = 4 << 10;
    fuzz(&place, valid, flags, 1, |_| {
        let read = |command| telly::cli::check_recipe(command, &place).is_ok();
        [read("precompute"), read("train")].contains(&true)
    });
}
