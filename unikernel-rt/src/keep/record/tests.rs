use super::*;
use crate::keep::Keep;
use proptest::prelude::*;

const MAGIC: u32 = u32::from_le_bytes(*b"TEST");

fn open(area: &SharedMemory) -> (Record, Found) {
    Record::open(area.clone(), "a test", MAGIC, 1).unwrap()
}

fn area(capacity: usize) -> SharedMemory {
    Keep::fake(1).area(Record::length(capacity)).unwrap()
}

fn contents(area: &SharedMemory) -> Vec<u8> {
    let mut bytes = vec![0; area.len()];
    area.copy_out(0, &mut bytes).unwrap();
    bytes
}

#[test]
fn what_is_stored_is_found() {
    let area = area(100);
    let (mut record, found) = open(&area);
    assert_eq!((found, record.capacity()), (Found::Nothing, 104));
    for text in [&b"one"[..], b"two", b"", b"a longer one"] {
        record.store(text).unwrap();
        assert_eq!(open(&area).1, Found::Bytes(text.to_vec()));
        // The next life goes on where this one was.
        record = open(&area).0;
    }
    assert_eq!(
        record.store(&[0; 105]),
        Err(KeepError::TooLong {
            length: 105,
            capacity: 104
        })
    );
    assert_eq!(open(&area).1, Found::Bytes(b"a longer one".to_vec()));
    record.clear().unwrap();
    assert_eq!(open(&area).1, Found::Nothing);
    record.store(b"again").unwrap();
    assert_eq!(open(&area).1, Found::Bytes(b"again".to_vec()));
}

#[test]
fn another_version_and_another_purpose_are_told_apart() {
    let area = area(16);
    open(&area).0.store(b"old").unwrap();
    let (_, found) = Record::open(area.clone(), "a test", MAGIC, 2).unwrap();
    assert_eq!(found, Found::OtherVersion(1, b"old".to_vec()));
    let (mut record, found) = Record::open(area.clone(), "a test", MAGIC + 1, 1).unwrap();
    assert_eq!(found, Found::Corrupt);
    record.store(b"new").unwrap();
    let (_, found) = Record::open(area, "a test", MAGIC + 1, 1).unwrap();
    assert_eq!(found, Found::Bytes(b"new".to_vec()));
}

/// Memory is written in pieces of at most 8 bytes, in the order of the program: every prefix of a store is what a death can leave.
#[test]
fn a_store_that_was_cut_short_leaves_what_was_there() {
    let whole = area(48);
    let (mut record, _) = open(&whole);
    record.store(b"the first one, somewhat long").unwrap();
    record.store(b"the second").unwrap();
    let before = contents(&whole);
    record.store(b"the third, which is never finished").unwrap();
    let after = contents(&whole);
    // The order in which a store writes: mark, bytes, head, magic.
    let offset = 0;
    let mut order: Vec<usize> = (offset..offset + 4).collect();
    order.extend(offset + HEAD..offset + HEAD + 34);
    order.extend(offset + 4..offset + HEAD);
    let mut torn = before.clone();
    torn[..4].copy_from_slice(&WRITING.to_le_bytes());
    for &place in &order[4..] {
        torn[place] = after[place];
        let area = area(48);
        area.copy_in(0, &torn).unwrap();
        assert_eq!(
            open(&area).1,
            Found::Bytes(b"the second".to_vec()),
            "cut at {place}"
        );
    }
    torn[..4].copy_from_slice(&after[..4]);
    assert_eq!(torn, after);
}

#[test]
fn a_byte_that_changed_by_itself_is_noticed() {
    let whole = area(16);
    let (mut record, _) = open(&whole);
    record.store(b"older").unwrap();
    record.store(b"newer").unwrap();
    let good = contents(&whole);
    let copy = HEAD + 16;
    for place in (0..HEAD + 5).chain(copy..copy + HEAD + 5) {
        let area = area(16);
        let mut bytes = good.clone();
        bytes[place] ^= 0x10;
        area.copy_in(0, &bytes).unwrap();
        assert_eq!(open(&area).1, Found::Corrupt, "byte {place}");
        // And what was there is not found later, either.
        let mut record = open(&area).0;
        record.store(b"x").unwrap();
        assert_eq!(open(&area).1, Found::Bytes(b"x".to_vec()));
    }
}

#[test]
fn values_are_kept() {
    let keep = Keep::fake(1);
    let area = keep.area(Stored::<[u64; 3]>::LENGTH).unwrap();
    let open = || Stored::<[u64; 3]>::open(area.clone(), "a test", MAGIC, 1).unwrap();
    let (mut stored, found) = open();
    assert_eq!(found, None);
    stored.store(&[1, 2, 3]).unwrap();
    assert_eq!(open().1, Some([1, 2, 3]));
    // A record of another length is no such value.
    let other = Stored::<u64>::open(area.clone(), "a test", MAGIC, 1).unwrap().1;
    assert_eq!(other, None);
}

#[test]
fn the_highest_number_is_not_the_last() {
    let area = area(16);
    let mut head = Head {
        magic: MAGIC,
        version: 1,
        sequence: u64::MAX,
        ..Head::default()
    };
    head.checksum = head.checksum_with(&[]);
    area.copy_in(0, head.as_bytes()).unwrap();
    let (mut record, found) = open(&area);
    assert_eq!(found, Found::Bytes(Vec::new()));
    record.store(b"next").unwrap();
    assert_eq!(open(&area).1, Found::Bytes(b"next".to_vec()));
}

proptest! {
    #[test]
    fn any_bytes_are_survived(
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        heads in prop::array::uniform2(any::<Option<(u16, u64, u32)>>()),
        text in prop::collection::vec(any::<u8>(), 0..60),
    ) {
        let area = area(120);
        area.copy_in(0, &bytes[..bytes.len().min(area.len())]).unwrap();
        // Heads that are plausible reach further than noise.
        for (index, head) in heads.into_iter().enumerate() {
            if let Some((version, sequence, length)) = head {
                let mut head = Head { magic: MAGIC, version, sequence, length, ..Head::default() };
                head.checksum = head.checksum_with(&[]);
                area.copy_in(index * (HEAD + 120), head.as_bytes()).unwrap();
            }
        }
        let (mut record, _) = open(&area);
        record.store(&text).unwrap();
        prop_assert_eq!(open(&area).1, Found::Bytes(text));
    }

    #[test]
    fn every_area_is_survived(length in 0usize..200, text in prop::collection::vec(any::<u8>(), 0..60)) {
        let area = Keep::fake(1).area(length).unwrap();
        if let Ok((mut record, _)) = Record::open(area.clone(), "a test", MAGIC, 1)
            && record.store(&text).is_ok()
        {
            prop_assert_eq!(open(&area).1, Found::Bytes(text));
        }
    }
}
