//! Pickles made by hand, in the older form's frame.

use super::*;

/// A file of the older form whose state dict is `state`, with one storage `0` of four f32.
fn file(state: &[u8]) -> Vec<u8> {
    let mut file = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.\x80\x02}.".to_vec();
    file.extend(state);
    file.extend(b"\x80\x02]X\x01\0\0\x000a.");
    file.extend(4u64.to_le_bytes());
    for number in [1.0f32, 2.0, 3.0, 4.0] {
        file.extend(number.to_le_bytes());
    }
    file
}

/// The state dict of one tensor `w` with storage 0 of four f32, and this first element, shape and
/// strides, as instructions.
fn tensor(first: &[u8], shape: &[u8], strides: &[u8]) -> Vec<u8> {
    let storage = b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x04NtQ";
    let start: &[u8] = b"\x80\x02}X\x01\0\0\0wctorch._utils\n_rebuild_tensor_v2\n(";
    [start, storage, first, shape, strides, b"\x89}tRs."].concat()
}

fn problem(state: &[u8]) -> String {
    read(&file(state)).expect_err("an error").to_string()
}

fn is_read(state: &[u8]) -> bool {
    let pickle = Pickle::read(state).expect("a pickle");
    let tensors = tensors(&pickle, &Storages::new()).expect("a dictionary");
    tensors.is_empty()
}

#[test]
fn a_tensor_by_hand() {
    let whole = file(&tensor(b"K\x00", b"K\x02K\x02\x86", b"K\x01K\x02\x86"));
    let tensors = read(&whole).expect("tensors");
    let numbers = tensors["w"].floats(&whole).expect("f32");
    assert_eq!(numbers, [1.0, 3.0, 2.0, 4.0]);
}

#[test]
fn tensors_lie_within_their_storage() {
    // 2^62 by 4, whose product is more than a word holds.
    let huge: &[u8] = b"\x8a\x08\0\0\0\0\0\0\0\x40K\x04\x86";
    let zero: &[u8] = b"K\x00K\x00\x86";
    for (first, shape, strides, expected) in [
        (
            &b"K\x01"[..],
            &b"K\x04\x85"[..],
            &b"K\x01\x85"[..],
            "ends behind",
        ),
        (b"K\x00", b"K\x02\x85", b"K\x04\x85", "ends behind"),
        (b"K\x00", b"K\x05\x85", b"K\x00\x85", "asks for more"),
        (b"K\x00", huge, zero, "asks for more"),
        (
            b"\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f",
            b"K\x04\x85",
            b"K\x01\x85",
            "ends behind",
        ),
        (
            b"K\x00",
            b"K\x02\x85",
            b"\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f\x85",
            "ends behind",
        ),
        (
            b"K\x00",
            b"J\xff\xff\xff\xff\x85",
            b"K\x01\x85",
            "a size that is none",
        ),
        (
            b"K\x00",
            b"K\x02K\x02\x86",
            b"K\x01\x85",
            "more sizes than strides",
        ),
    ] {
        let found = problem(&tensor(first, shape, strides));
        assert!(found.contains(expected), "{found}");
    }
}

/// A value may hold itself, values may be nested as deep as the file is long, and what is made
/// again and again is one value.
#[test]
fn cycles_depth_and_repetition() {
    assert!(is_read(b"\x80\x02}q\x00X\x01\0\0\0ah\x00s."));
    assert!(is_read(b"\x80\x02}X\x01\0\0\0a]q\x00h\x00as."));
    let mut deep = b"\x80\x02}X\x01\0\0\0a]".to_vec();
    deep.extend(b"\x85".repeat(500_000));
    deep.extend(b"s.");
    assert!(is_read(&deep));
    // Each line doubles: a list of two of what was before.
    let mut doubling = b"\x80\x02}X\x01\0\0\0a]".to_vec();
    doubling.extend(b"2\x86".repeat(64));
    doubling.extend(b"s.");
    assert!(is_read(&doubling));

    let many = [b"\x80\x02}X\x01\0\0\0a".to_vec(), b"]".repeat(2_000_000)].concat();
    assert!(problem(&many).contains("more values than any"));
    // A dictionary of the same long list, made many times.
    let list = [&b"\x80\x02]("[..], &b"]\x85]\x86".repeat(1000), b"eq\x00"].concat();
    let calls = b"ccollections\nOrderedDict\nh\x00\x85R".repeat(2000);
    assert!(problem(&[list, calls].concat()).contains("more values than any"));
}

#[test]
fn broken_instructions() {
    for (state, expected) in [
        (&b"\x80\x02X\xff\xff\xff\xffabc."[..], "breaks off"),
        (
            b"\x80\x02\x8d\xff\xff\xff\xff\xff\xff\xff\xff.",
            "breaks off",
        ),
        (b"\x80\x02\x8b\xff\xff\xff\xff.", "breaks off"),
        (b"\x80\x02cos", "breaks off"),
        (b"\x80\x02.", "nothing on the stack"),
        (b"\x80\x02(0.", "nothing on the stack"),
        (b"\x80\x02t.", "no mark"),
        (b"\x80\x02h\x05.", "not made before"),
        (b"\x80\x02}(K\x01u.", "a key without a value"),
        (b"\x80\x02K\x01K\x02a.", "holds none"),
        (b"\x80\x02K\x01)R.", "no function"),
        (b"\x80\x02ctorch\nFloatStorage\n)R.", "no function"),
        (b"\x80\x02K\x01Q.", "a storage that is no tuple"),
        (
            b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n)R.",
            "lacks arguments",
        ),
        (
            b"\x80\x02ctorch._utils\n_rebuild_parameter\n)R.",
            "no tensor",
        ),
        (b"\x80\x02K\x01}b.", "has none"),
        (b"\x80\x02\xff.", "instruction 0xff"),
        (b"\x80\x02Pabc\n.", "instruction 0x50"),
        (b"\x80\x02}.", "named by no tensor"),
    ] {
        let found = problem(state);
        assert!(found.contains(expected), "{found}, expected {expected}");
    }
}
