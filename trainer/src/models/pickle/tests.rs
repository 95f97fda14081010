//! Pickles made by hand: what a state dict needs is understood, everything else is an error in words.

use candle_core::DType;

use super::machine::{Item, Machine, Step};
use super::*;

fn interpret(bytes: &[u8]) -> Step<Vec<String>> {
    let mut machine = Machine::new(bytes);
    let top = machine.run()?;
    Ok(machine.state_dict(top)?.keys().map(ToString::to_string).collect())
}

/// A short text as an operation.
fn text(text: &str) -> Vec<u8> {
    [&[0x8c, text.len() as u8], text.as_bytes()].concat()
}

/// `torch._utils._rebuild_tensor_v2` of a float storage `key`.
fn tensor(key: &str, offset: u8, shape: &[u8], strides: &[u8]) -> Vec<u8> {
    let tuple =
        |numbers: &[u8]| [&b"("[..], &numbers.iter().flat_map(|&n| [b'K', n]).collect::<Vec<_>>(), b"t"].concat();
    [
        b"ctorch._utils\n_rebuild_tensor_v2\n((".to_vec(),
        text("storage"),
        b"ctorch\nFloatStorage\n".to_vec(),
        text(key),
        text("cpu"),
        vec![b'K', 6, b't', b'Q', b'K', offset],
        tuple(shape),
        tuple(strides),
        b"\x89ccollections\nOrderedDict\n)RtR".to_vec(),
    ]
    .concat()
}

/// `content` (keys and values) in a dictionary.
fn dict(content: &[Vec<u8>]) -> Vec<u8> {
    [&b"ccollections\nOrderedDict\n)R("[..], &content.concat(), b"u"].concat()
}

fn pickled(value: Vec<u8>) -> Vec<u8> {
    [&b"\x80\x02"[..], &value, b"."].concat()
}

/// The older layout of `value` with one storage of six floats, 0 to 5.
fn legacy(value: Vec<u8>, little: bool) -> Vec<u8> {
    let magic = vec![0x8a, 10, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];
    let system = [b"}(".to_vec(), text("little_endian"), vec![if little { 0x88 } else { 0x89 }, b'u']].concat();
    let keys = [b"](".to_vec(), text("a"), b"e".to_vec()].concat();
    let floats: Vec<u8> = (0..6).flat_map(|i| (i as f32).to_le_bytes()).collect();
    let parts = [magic, vec![b'M', 0xe9, 0x03], system, value, keys].map(pickled).concat();
    [parts, 6u64.to_le_bytes().to_vec(), floats].concat()
}

fn open(bytes: &[u8]) -> Result<Pickle> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pytorch_model.bin");
    std::fs::write(&path, bytes).unwrap();
    let pickle = Pickle::open(&path)?;
    for (name, info) in pickle.infos() {
        let bytes = pickle.bytes(name)?;
        assert_eq!(bytes.len(), info.dtype.size_in_bytes() * info.shape.iter().product::<usize>());
    }
    Ok(pickle)
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks::<4>().0.iter().map(|&b| f32::from_le_bytes(b)).collect()
}

#[test]
fn views_of_one_storage_in_the_older_layout_are_read_by_their_strides() {
    let value = dict(&[
        text("rows"),
        tensor("a", 0, &[2, 3], &[3, 1]),
        text("columns"),
        tensor("a", 0, &[3, 2], &[1, 3]),
        text("tail"),
        tensor("a", 4, &[2], &[1]),
        text("spread"),
        tensor("a", 1, &[2, 2], &[0, 2]),
        text("none"),
        tensor("a", 0, &[0, 7], &[7, 1]),
    ]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pytorch_model.bin");
    std::fs::write(&path, legacy(value, true)).unwrap();
    let pickle = Pickle::open(&path).unwrap();
    let read = |name: &str| floats(&pickle.bytes(name).unwrap());
    assert_eq!(read("rows"), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
    assert_eq!(read("columns"), [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
    assert_eq!(read("tail"), [4.0, 5.0]);
    assert_eq!(read("spread"), [1.0, 3.0, 1.0, 3.0]);
    assert!(read("none").is_empty());
    assert!(pickle.infos().all(|(_, info)| info.dtype == DType::F32));
}

#[test]
fn a_tensor_that_leaves_its_storage_and_a_big_endian_file_are_refused() {
    for (offset, shape, strides) in [(3, &[2, 2][..], &[2, 1][..]), (6, &[1], &[1]), (0, &[255, 255], &[0, 0])] {
        let value = dict(&[text("w"), tensor("a", offset, shape, strides)]);
        let error = open(&legacy(value, true)).unwrap_err().to_string();
        assert!(error.contains("pytorch_model.bin: w: shape") && error.contains("of 6 elements"), "{error}");
    }
    let value = dict(&[text("w"), tensor("b", 0, &[1], &[1])]);
    assert!(open(&legacy(value.clone(), true)).unwrap_err().to_string().contains("type is not known"));
    assert!(open(&legacy(value, false)).unwrap_err().to_string().contains("big-endian"));
}

#[test]
fn the_models_dictionary_is_found_inside_a_checkpoint() {
    let model = dict(&[text("w"), tensor("a", 0, &[6], &[1])]);
    let other = dict(&[text("m"), tensor("a", 0, &[6], &[1])]);
    let names = |content: &[Vec<u8>]| interpret(&pickled(dict(content)));
    let epoch = [text("epoch"), vec![b'K', 3]].concat();
    assert_eq!(names(&[text("net"), model.clone(), epoch.clone()]).unwrap(), ["w"]);
    assert_eq!(names(&[text("ema"), other.clone(), text("state_dict"), model.clone(), epoch]).unwrap(), ["w"]);
    let error = names(&[text("ema"), other, text("net"), model]).unwrap_err();
    assert!(error.contains("several dictionaries of tensors (ema, net)"), "{error}");
}

#[test]
fn a_pickle_that_calls_anything_else_is_refused_by_name() {
    let error = interpret(b"\x80\x02cos\nsystem\nX\x02\x00\x00\x00ls\x85R.").unwrap_err();
    assert!(error.contains("os.system"), "{error}");
}

#[test]
fn broken_pickles_are_errors_and_not_panics() {
    for bytes in
        [&b""[..], b"\x80", b"R.", b"(", b"X\xff\xff\xff\xff", b"h\x05.", b"\x87.", b"s", b".", b"]a.", b"\x8d"]
    {
        assert!(interpret(bytes).is_err(), "{bytes:?}");
    }
    assert!(interpret(b"}(K\x01u.").unwrap().is_empty());
}

#[test]
fn no_nesting_is_too_deep_for_the_machine() {
    let nested = |op: &[u8]| [vec![b')'], op.repeat(1_000_000), vec![b'.']].concat();
    assert!(interpret(&nested(b"\x85")).unwrap_err().contains("nested"));
    assert!(interpret(&nested(b"]")).unwrap_err().contains("at once"));
    assert!(interpret(&nested(b"(")).unwrap_err().contains("at once"));
    // Each dictionary holds the one before it: a chain no recursion could walk.
    let deep = [b"}q\x00".to_vec(), b"}X\x01\x00\x00\x00ah\x00sq\x00".repeat(60_000), b".".to_vec()].concat();
    assert!(interpret(&deep).is_ok_and(|names| names.is_empty()));
}

#[test]
fn integers_keep_their_sign_and_their_bytes() {
    let int = |bytes: &[u8]| match Machine::new(bytes).run() {
        Ok(Item::Int(n)) => n,
        other => panic!("{other:?}"),
    };
    assert_eq!(int(b"J\xff\xff\xff\xff."), -1);
    assert_eq!(int(b"M\xff\xff."), 65535);
    assert_eq!(int(b"\x8a\x02\x00\x80."), -32768);
    assert_eq!(int(b"\x8a\x00."), 0);
}
