//! Any bytes as the header of a shard: no panic, and what is accepted the safetensors crate accepts too.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sparsecode_core::shard::header::parse;

fuzz_target!(|json: &[u8]| {
    if let Ok(header) = parse(json)
        && header.file_bytes < 1 << 20
    {
        let mut file = (json.len() as u64).to_le_bytes().to_vec();
        file.extend_from_slice(json);
        file.resize(header.file_bytes as usize, 0);
        let tensors = safetensors::SafeTensors::deserialize(&file).expect("accepted here, so there too");
        assert_eq!(tensors.tensor("activations").unwrap().shape(), [header.rows as usize, header.dim as usize]);
    }
});
