//! How many threads run the frozen half decides how long it takes, not what comes out.

use crate::support::{
    Classification, content, goldens, precompute, telly_json, write_long_classification,
};

#[test]
fn one_thread_and_several_make_the_same_cache() {
    let work = Classification::new();
    let data = work.path("long.jsonl");
    // Some thirty batches.
    write_long_classification(&data, 200);
    for precision in ["fp32", "int8"] {
        let cache = |threads: &str| {
            let cache = work.path(&format!("{precision}-{threads}"));
            let model = goldens().join("roberta-tiny");
            let mut command = precompute("classify", &model, &data, "2", &cache);
            command.extend(["--frozen-precision", precision].map(String::from));
            command.extend(["--threads", threads].map(String::from));
            telly_json(&command);
            content(&cache)
        };
        let alone = cache("1");
        for threads in ["2", "5"] {
            assert!(cache(threads) == alone, "{precision}, {threads} threads");
        }
    }
}
