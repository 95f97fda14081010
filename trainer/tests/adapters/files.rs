//! Adapters as files: what is written is what peft writes, and what is read is what was written, whatever it was stored as.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use rebel_trainer::files;
use rebel_trainer::models::convert::Conversion;
use rebel_trainer::models::peft::{self, LoraConfig, Modules};
use rebel_trainer::models::shards::Format;
use rebel_trainer::models::tensors::{self, Weights};
use rebel_trainer::models::{Trained, hf};

use crate::{all_linear, committed, error_at, families, folders, logits, modes, neox, values};

#[test]
fn an_adapter_survives_its_folder_and_merging_changes_no_logit_by_more_than_rounding() {
    for config in families() {
        for mode in modes() {
            let Trained::Adapter(lora) = mode else { continue };
            let (folder, store) = folders(&config, lora);
            let (read, loaded, lora) =
                peft::open(&folder.path().join("adapter"), None, DType::F32, &Device::Cpu).unwrap();
            assert_eq!(read, config);
            assert_eq!(logits(&config, &loaded), logits(&config, &store));
            let again = folder.path().join("again");
            peft::save(&again, &lora.unwrap(), &loaded).unwrap();
            for file in [peft::CONFIG, "adapter_model.safetensors"] {
                let bytes = |folder: &Path| std::fs::read(folder.join(file)).unwrap();
                assert_eq!(bytes(&again), bytes(&folder.path().join("adapter")), "{file}");
            }
            let merged = folder.path().join("merged");
            let how = Conversion { precision: None, shard: Format::SHARD, overwrite: false };
            peft::merge(&folder.path().join("adapter"), None, &merged, &how).unwrap();
            let (_, merged) = hf::load(&merged, DType::F32, &Device::Cpu).unwrap();
            let (a, b) = (logits(&config, &store), logits(&config, &merged));
            let worst = a.iter().zip(&b).fold(0.0f32, |m, (a, b)| m.max((a - b).abs()));
            assert!(worst < 5e-6, "{:?}: {worst}", config.family);
        }
    }
}

#[test]
fn a_saved_adapter_has_the_keys_names_and_shapes_of_pefts_files() {
    let case = committed("lora/neox_all_linear");
    let (_, store, lora) = peft::open(&case, Some(&committed("lm/neox_sequential")), DType::F32, &Device::Cpu).unwrap();
    let folder = tempfile::tempdir().unwrap();
    peft::save(folder.path(), &lora.unwrap(), &store).unwrap();
    let read = |folder: &Path| files::read_json(&folder.join(peft::CONFIG)).unwrap();
    assert_eq!(read(folder.path()), read(&case));
    let weights = |folder: &Path| Weights::open(&folder.join("adapter_model.safetensors")).unwrap();
    assert_eq!(weights(folder.path()).shapes(), weights(&case).shapes());
    for name in weights(&case).shapes().keys() {
        let of = |folder: &Path| values(&weights(folder).read(name).unwrap());
        assert_eq!(of(folder.path()), of(&case));
    }
}

/// peft writes the output head's own weight beside its adapter, and loads it with it.
#[test]
fn a_heads_weight_that_an_adapter_brings_along_takes_the_bases_place() {
    let config = neox();
    let head = LoraConfig { targets: Modules::Named(vec!["embed_out".into()]), ..LoraConfig::new(2, 4.0) };
    let (folder, store) = folders(&config, head);
    let file = folder.path().join("adapter/adapter_model.safetensors");
    let weights = Weights::open(&file).unwrap();
    let mut tensors: BTreeMap<String, Tensor> =
        weights.infos().into_keys().map(|name| (name.clone(), weights.read(&name).unwrap())).collect();
    let plain = store.to_tensors().remove("embed_out.weight").unwrap();
    let brought = |factor: f64| (&plain * factor).unwrap();
    for factor in [1.0, -2.0] {
        tensors.insert("base_model.model.embed_out.base_layer.weight".into(), brought(factor));
        tensors::save(&file, &tensors).unwrap();
        let (_, loaded, _) = peft::open(&folder.path().join("adapter"), None, DType::F32, &Device::Cpu).unwrap();
        store.set_some(&BTreeMap::from([("embed_out.weight".into(), brought(factor))])).unwrap();
        assert_eq!(logits(&config, &loaded), logits(&config, &store));
    }
}

#[test]
fn half_precision_factors_are_read_and_others_refused() {
    let (folder, store) = folders(&neox(), LoraConfig::new(2, 4.0));
    let file = folder.path().join("adapter/adapter_model.safetensors");
    let whole = tensors::load(&file).unwrap();
    for (dtype, tolerance) in [(DType::F16, 1e-3), (DType::BF16, 1e-2), (DType::F64, 0.0)] {
        tensors::save(&file, &whole.iter().map(|(n, t)| (n.clone(), t.to_dtype(dtype).unwrap())).collect()).unwrap();
        let (_, read, _) = peft::open(&folder.path().join("adapter"), None, DType::F32, &Device::Cpu).unwrap();
        for (name, var) in store.trainable() {
            let found = values(&read.to_tensors()[name]);
            let near = |(a, b): (&f32, &f32)| (a - b).abs() <= tolerance;
            assert!(values(var).iter().zip(&found).all(near), "{dtype:?} {name}");
        }
    }
    tensors::save(&file, &whole.iter().map(|(n, t)| (n.clone(), t.to_dtype(DType::I64).unwrap())).collect()).unwrap();
    let error = error_at(folder.path());
    assert!(error.contains("lora_A.weight: dtype I64 (expected a float)"), "{error}");
}

/// A zip archive of these members, stored as they are.
fn archive(members: &[(String, Vec<u8>)]) -> Vec<u8> {
    let u16s = |values: &[usize]| values.iter().flat_map(|&v| (v as u16).to_le_bytes()).collect::<Vec<u8>>();
    let u32s = |values: &[usize]| values.iter().flat_map(|&v| (v as u32).to_le_bytes()).collect::<Vec<u8>>();
    let (mut bytes, mut directory) = (vec![], vec![]);
    for (name, data) in members {
        let at = bytes.len();
        // version, flags, method, time, date; checksum (not looked at) and sizes; lengths of name and extra field
        let about = [u16s(&[0, 0, 0, 0]), u32s(&[0, data.len(), data.len()]), u16s(&[name.len(), 0])].concat();
        bytes.extend([b"PK\x03\x04\x14\x00".to_vec(), about.clone(), name.clone().into_bytes(), data.clone()].concat());
        let place = [u16s(&[0, 0, 0]), u32s(&[0, at])].concat();
        directory.extend([b"PK\x01\x02\x14\x00\x14\x00".to_vec(), about, place, name.clone().into_bytes()].concat());
    }
    let (at, size) = (bytes.len(), directory.len());
    let end = [u16s(&[0, 0, members.len(), members.len()]), u32s(&[size, at]), u16s(&[0])].concat();
    [bytes, directory, b"PK\x05\x06".to_vec(), end].concat()
}

/// Writes f32 tensors as `torch.save` writes a dictionary of them.
fn torch_save(path: &Path, tensors: &BTreeMap<String, Tensor>) {
    let text = |s: &str| [&b"X"[..], &(s.len() as u32).to_le_bytes(), s.as_bytes()].concat();
    let int = |n: usize| [&b"J"[..], &(n as u32).to_le_bytes()].concat();
    let tuple = |items: Vec<Vec<u8>>| [&b"("[..], &items.concat(), b"t"].concat();
    let dict = b"ccollections\nOrderedDict\n)R".to_vec();
    let mut pickle = [&b"\x80\x02"[..], &dict, b"("].concat();
    let mut members = vec![];
    for (i, (name, tensor)) in tensors.iter().enumerate() {
        let (key, [rows, columns]) = (i.to_string(), tensor.dims().try_into().unwrap());
        let storage =
            [text("storage"), b"ctorch\nFloatStorage\n".to_vec(), text(&key), text("cpu"), int(rows * columns)];
        let storage = [tuple(storage.to_vec()), b"Q".to_vec()].concat();
        let (shape, strides) = (tuple(vec![int(rows), int(columns)]), tuple(vec![int(columns), int(1)]));
        let made = tuple(vec![storage, int(0), shape, strides, b"\x89".to_vec(), dict.clone()]);
        pickle.extend([text(name), b"ctorch._utils\n_rebuild_tensor_v2\n".to_vec(), made, b"R".to_vec()].concat());
        let data: Vec<u8> = values(tensor).iter().flat_map(|x| x.to_le_bytes()).collect();
        members.push((format!("archive/data/{key}"), data));
    }
    pickle.extend(b"u.");
    members.push(("archive/data.pkl".into(), pickle));
    std::fs::write(path, archive(&members)).unwrap();
}

#[test]
fn an_adapter_in_torchs_own_format_is_the_same() {
    let (folder, store) = folders(&neox(), all_linear(3));
    let at = folder.path().join("adapter");
    let weights = at.join("adapter_model.safetensors");
    torch_save(&at.join("adapter_model.bin"), &tensors::load(&weights).unwrap());
    std::fs::remove_file(&weights).unwrap();
    let (_, read, _) = peft::open(&at, None, DType::F32, &Device::Cpu).unwrap();
    assert_eq!(logits(&neox(), &read), logits(&neox(), &store));
}
